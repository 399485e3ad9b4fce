"""How far new posts lie from the training posts, so that drift can be seen.

Shapes: N training rows, M posts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmsent.data.vectors import unit_length
from mmsent.errors import CacheError
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.training.halves import Missing, missing_halves

MOST = 2048  # training rows that posts are compared with; of more, so many are drawn
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Labelled training rows: image (N, D_image) on the clean view and text (N, D_text), as the encoders gave them,
    scaled to length 1, zeros for a missing half; missing (N, 2)."""

    image: Floats
    text: Floats
    missing: Missing

    @classmethod
    def of(cls, cache: Cache, seed: int = 0) -> Self:
        """At most MOST of a cache's labelled training rows. Raises CacheError where it has fewer than two."""
        columns = cache.columns("train")
        missing = missing_halves(columns.outcome)
        rows = np.flatnonzero((columns.labels != NO_LABEL) & ~missing.all(axis=1))
        if len(rows) < 2:
            raise CacheError(f"{cache.path} holds no labelled training posts to compare with")
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])
        image, text = cache.embeddings("train", rows.tolist())
        return cls(_scaled(image[:, 0], missing[rows, 0]), _scaled(text, missing[rows, 1]), missing[rows])

    def distances(self, image: Floats, text: Floats, missing: Missing) -> NDArray[np.float64]:
        """(M,) the cosine distance, 0..2, of each post's encoded features (M, D_image), (M, D_text) to the nearest
        training row: 1 less the mean cosine of the halves that the post has. NaN for a post without any."""
        return self._nearest(_scaled(image, missing[:, 0]), _scaled(text, missing[:, 1]), missing)

    def own(self) -> NDArray[np.float64]:
        """(N,) the distance of each of these rows to the nearest other one: what posts like them would have."""
        return self._nearest(self.image, self.text, self.missing, itself=True)

    def _nearest(self, image: Floats, text: Floats, missing: Missing, *, itself: bool = False) -> NDArray[np.float64]:
        """As `distances`, of scaled features. itself: the posts are these rows, none its own neighbour."""
        cosines = image @ self.image.T + text @ self.text.T
        if itself:
            np.fill_diagonal(cosines, -np.inf)
        halves = np.logical_not(missing).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = np.maximum(0.0, 1 - cosines.max(axis=1).astype(np.float64) / halves)
        return found


def _scaled(half: NDArray[np.floating], missing: NDArray[np.bool_]) -> Floats:
    return unit_length(np.where(missing[:, None], np.float32(0), half.astype(np.float32)))
