"""The states that enter the last blocks of a cache's text encoder: encoded once, for heads that tune these blocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any, cast

import numpy as np

from mmsent.config import tuned_count
from mmsent.data.dataset import Dataset, Split
from mmsent.encoders.base import Encoders
from mmsent.features.cache import Cache
from mmsent.features.cache.states import DTYPE, known_states, open_states
from mmsent.features.engine import text_entries
from mmsent.system.progress import bar


def extract_states(
    dataset: Dataset, splits: Sequence[Split], cache: Cache, encoders: Encoders, tune: str, *, show: bool = True
) -> dict[str, int]:
    """Store the states of every good text of a cache that are not stored yet, and how many texts that were, by split.

    tune: as in `text:2`. Raises CacheError where they cannot be written, UsageError and EncoderError where the encoder
    cannot be taken apart.
    """
    from mmsent.encoders.blocks import text_blocks

    text_blocks(encoders.text, tuned_count(tune), normalize=cache.settings.normalize)  # can it be taken apart?
    reader = cast(Any, _Reader(encoders.text, tuned_count(tune)))
    width = reader.encode(["a"])[0].shape[1]
    settings = cache.settings.model_copy(update={"normalize": False, "storage": DTYPE})
    done = {}
    store = open_states(cache, tune, width)
    try:
        for split in splits:
            index, posts = cache.index(split), dataset.of(split)
            known = known_states(store, split)
            rows = zip(index.ids, index.text_hashes, index.text_reasons, strict=True)
            missing = {row_id for row_id, digest, why in rows if not why and known.get(row_id) != digest}
            needed = np.array([post.id in missing for post in posts])
            done[str(split)] = int(needed.sum())
            found = text_entries(dataset, posts, needed, Encoders(encoders.image, reader), settings)
            with closing(found), bar(len(posts), f"{split} tokens", "text", show=show) as progress:
                for entries, passed in found:
                    store.put(split, "text", entries)
                    progress.update(passed)
            store.commit()
    finally:
        store.close()
    return done


class _Reader:
    """A text encoder that gives states (L, D_token) in the place of embeddings."""

    def __init__(self, encoder: Any, count: int) -> None:
        from mmsent.encoders.blocks import states_of

        self.card, self.lengths, self.encode = encoder.card, encoder.lengths, partial(states_of, encoder, count)
