"""A cache for programs: its rows as NumPy arrays, as a torch Dataset or as a pandas table, and new posts encoded alike.

Shapes: N rows, V = K + 1 views, D_image and D_text widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsent.cache import NO_LABEL, Cache
from mmsent.config import EncoderSettings, SplitSettings, settings
from mmsent.dataset import Split
from mmsent.encoders import Encoders, open_encoders
from mmsent.errors import CacheError, UsageError
from mmsent.given import posts_of
from mmsent.predict import BATCH, encode_prepared, prepare_post

if TYPE_CHECKING:
    import pandas
    from torch import Tensor
    from torch.utils.data import Dataset

    from mmsent.given import Picture


@dataclass(frozen=True, eq=False)
class Arrays:
    """Rows of a cache, or new posts, as NumPy arrays.

    ids (N,) str; image (N, D_image), or (N, V, D_image) with views; text (N, D_text), both float32; target (N,) int64,
    indices into `labels`, -1 where there is no label; good (N,) bool: both halves are there (a half that is not is
    zeros); problems: N reasons, empty for good rows; contract: which features these are.
    """

    ids: NDArray[np.str_]
    image: NDArray[np.float32]
    text: NDArray[np.float32]
    target: NDArray[np.int64]
    good: NDArray[np.bool_]
    problems: list[str]
    labels: tuple[str, ...]
    contract: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def X(self) -> NDArray[np.float32]:
        """(N, D_image + D_text): the clean picture's features beside the text's, as FusionClassifier takes them."""
        image = self.image if self.image.ndim == 2 else self.image[:, 0]
        return np.concatenate([image, self.text], axis=1)

    @property
    def y(self) -> NDArray[np.str_]:
        """(N,) the labels' names. Raises UsageError where a row has none."""
        if (self.target == NO_LABEL).any():
            raise UsageError(f"{int((self.target == NO_LABEL).sum())} of {len(self)} rows have no label")
        return np.array(self.labels)[self.target]


class FeatureCache:
    """An open cache. Rows are read on demand and their checksums verified; all that is read is held in memory.

    path; labels: the label set; encoder: the pair's name; contract and fingerprint: digests of what the features are;
    image_width, text_width: D_image, D_text; splits: rows of each split; cache: the mmsent.cache.Cache behind it.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.path, self.labels, self.encoder = cache.path, cache.labels, cache.encoder
        self.contract, self.fingerprint = cache.settings.contract, cache.fingerprint
        self.image_width, self.text_width = cache.settings.image.width, cache.settings.text.width
        self.splits = dict(cache.rows)
        self._opened: dict[str, Encoders] = {}  # by device

    def __repr__(self) -> str:
        rows = ", ".join(f"{n} {split}" for split, n in self.splits.items())
        return f"<FeatureCache {self.path.name}: {rows}, {self.image_width} + {self.text_width} wide>"

    def arrays(self, split: Split = "train", *, views: bool = False, all_rows: bool = False) -> Arrays:
        """A split as arrays. views: all V views of each picture, the clean one first. all_rows: also rows that lack a
        half or, of the training split, a label. Raises CacheError where the cache has no such split or is damaged."""
        features = self.cache.load(split)
        index = features.index
        keep = np.arange(len(index)) if all_rows else self._usable(split)
        return Arrays(
            np.array([index.ids[i] for i in keep], np.str_),
            features.image[keep] if views else features.image[keep, 0],
            features.text[keep],
            index.labels[keep],
            index.good[keep],
            [index.reason(int(i)) for i in keep],
            self.labels,
            self.contract,
        )

    def groups(self, split: Split = "train", *, near: bool = False) -> NDArray[np.int64]:
        """(N,) group numbers of the rows that `arrays` gives: duplicates of a picture or a text have one number, near
        ones too if asked. For scikit-learn's group splitters, so that no row is validated on its own copy."""
        from mmsent.grouping import row_groups, with_thresholds

        chosen = with_thresholds(settings(SplitSettings, group="near" if near else "exact"), self.encoder)
        features = self.cache.load(split) if near else None
        found = row_groups(self.cache.index(split), self._usable(split), chosen, features)
        assert found is not None
        return found

    def dataset(self, split: Split = "train", *, views: bool = True) -> Dataset[tuple[Tensor, ...]]:
        """A split as a torch Dataset in memory: items (image, text, target). image (V, D_image), or (D_image,) without
        views; text (D_text,); target (): a label index, -1 in a split without labels."""
        import torch
        from torch.utils.data import TensorDataset

        rows = self.arrays(split, views=views)
        return TensorDataset(*(torch.from_numpy(part) for part in (rows.image, rows.text, rows.target)))

    def table(self, split: Split = "train", *, embeddings: bool = False) -> pandas.DataFrame:
        """A split as a pandas table, one row a post, by id: label (None where there is none), good, problem, tokens.

        embeddings: instead the columns image_0... and text_0... of the rows that `arrays` gives, which FusionClassifier
        takes as they are. Raises UsageError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("a table needs pandas: pip install pandas") from error
        if embeddings:
            rows = self.arrays(split)
            names = [f"image_{i}" for i in range(self.image_width)] + [f"text_{i}" for i in range(self.text_width)]
            return pandas.DataFrame(rows.X, index=pandas.Index(rows.ids, name="id"), columns=names)
        index = self.cache.index(split)
        columns = {
            "label": [self.labels[k] if k != NO_LABEL else None for k in index.labels],
            "good": index.good,
            "problem": [index.reason(i) for i in range(len(index))],
            "tokens": index.tokens,
        }
        return pandas.DataFrame(columns, index=pandas.Index(index.ids, name="id"))

    def encode(
        self, texts: str | Sequence[str | None], images: Picture | Sequence[Picture] = None, device: str = "auto"
    ) -> Arrays:
        """Features of new posts, encoded as this cache was: for estimators that were fitted on it. Arguments as for
        Model.predict. Raises CacheError where the encoders here are others than the cache's."""
        encoders = self._encoders(device)
        known = self.cache.settings
        here = known.model_copy(update={"image": encoders.image.card, "text": encoders.text.card})
        if here.contract != known.contract:
            raise CacheError(
                f"{self.path} was encoded by {known.image.name} and {known.text.name} (contract {self.contract[:8]}); "
                f"here are {here.image.name} and {here.text.name} (contract {here.contract[:8]})"
            )
        posts = posts_of(texts, images, None)
        how, parts = encoders.image.card.preprocess, []
        for start in range(0, len(posts), BATCH):
            prepared = [prepare_post(post, how, known.clean) for post in posts[start : start + BATCH]]
            parts.append(encode_prepared(prepared, encoders, known.normalize))
        image, text, missing = (np.concatenate([part[k] for part in parts]) for k in range(3))
        return Arrays(
            np.array([post.id for post in posts], np.str_),
            image,
            text,
            np.full(len(posts), NO_LABEL, np.int64),
            np.logical_not(missing.any(axis=1)),
            [problem for part in parts for problem in part[3]],
            self.labels,
            self.contract,
        )

    def _usable(self, split: Split) -> NDArray[np.int64]:
        index = self.cache.index(split)
        usable = index.good & (index.labels != NO_LABEL) if split == "train" else index.good
        return np.flatnonzero(usable).astype(np.int64)

    def _encoders(self, device: str) -> Encoders:
        if device not in self._opened:
            stored = EncoderSettings.model_validate(self.cache.provenance["encoder_settings"])
            self._opened[device] = open_encoders(stored.model_copy(update={"device": device}))
        return self._opened[device]
