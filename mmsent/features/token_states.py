"""The states that enter the last blocks of an encoder of a cache: encoded once, for heads that tune these blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, cast

import numpy as np

from mmsent.config import ViewSettings, settings, tuned_blocks
from mmsent.data.dataset import Dataset, Split
from mmsent.encoders.base import Encoders
from mmsent.features.cache import Cache
from mmsent.features.cache.states import DTYPE, behind, half_of, open_states
from mmsent.features.engine import image_entries, text_entries
from mmsent.system.process import cores
from mmsent.system.progress import bar


def extract_states(
    dataset: Dataset,
    splits: Sequence[Split],
    cache: Cache,
    encoders: Encoders,
    tune: str,
    *,
    show: bool = True,
    on_size: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Store the states of every good text or image of a cache that are not stored yet, and how many that were, by
    split. Of images those of the clean view.

    tune: as in `text:2`. on_size: called before the first is encoded, with their number and about how many bytes their
    states take. Raises CacheError where they cannot be written, UsageError and EncoderError where the encoder cannot be
    taken apart.
    """
    from mmsent.encoders.blocks import last_blocks, require_blocks

    half, (_, count) = half_of(tune), tuned_blocks(tune)
    encoder: Any = getattr(encoders, half)
    last_blocks(encoder, count, normalize=cache.settings.normalize)
    tokens, width = require_blocks(encoder, count)
    pair = Encoders(encoders.image, cast(Any, _Reader(encoder, count)))
    if half == "image":
        pair = Encoders(cast(Any, _Reader(encoder, count)), encoders.text)
    plain = {"normalize": False, "storage": DTYPE, "views": settings(ViewSettings, count=0)}
    how = cache.settings.model_copy(update=plain)
    done = {}
    with closing(open_states(cache, tune, width)) as store:
        indices = {split: cache.index(split) for split in splits}
        absent = {split: set(behind(index, split, store, half)[1]) for split, index in indices.items()}
        if on_size and (n := sum(map(len, absent.values()))):
            if half == "text":
                lengths = np.concatenate([index.tokens for index in indices.values()])
                lengths = lengths.clip(max=encoder.card.max_tokens)
                tokens = round(float(lengths.mean()))
            on_size(n, n * tokens * width * np.dtype(DTYPE).itemsize)
        for split in splits:
            posts = dataset.of(split)
            needed = np.array([post.id in absent[split] for post in posts])
            done[str(split)] = int(needed.sum())
            if half == "text":
                found = text_entries(dataset, posts, needed, pair, how)
            else:
                found = image_entries(posts, needed, pair, how, encoder.batch_size, min(8, cores()))
            with closing(found), bar(len(posts), f"{split} tokens", half, show=show) as progress:
                for entries, passed in found:
                    store.put(split, half, entries)
                    progress.update(passed)
            store.commit()
    return done


class _Reader:
    """An encoder that gives states (L, D_token) in the place of embeddings."""

    def __init__(self, encoder: Any, count: int) -> None:
        self.card, self._encoder, self._count = encoder.card, encoder, count
        self.lengths = getattr(encoder, "lengths", None)

    def encode(self, given: Any) -> Any:
        from mmsent.encoders.blocks import states_of

        found = states_of(self._encoder, self._count, given)
        return found if self.lengths else np.stack(found)
