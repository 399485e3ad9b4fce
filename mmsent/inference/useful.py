"""Which unlabelled posts are most useful to label next: those that would change heads most, spread over the data.

Shapes: N rows, C classes, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.metrics import Probabilities

MOST = 20_000  # rows that are looked at; of more, those with the smallest margins


def useful_order(probabilities: Probabilities, features: NDArray[Any], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Positions of the `count` rows to label next, the most useful first (fewer where there are fewer rows).

    probabilities (N, C): what heads say of the rows; features (N, D): of the rows, such as image beside text, each
    scaled to length 1. BADGE (Ash et al. 2020): each row stands for the gradient that its likeliest label would give
    the last layer, long where heads are unsure; the first is the longest, and each next one is drawn by its squared
    distance to those taken (k-means++). The same seed gives the same order.
    """
    two = np.sort(probabilities, axis=1)[:, -2:] if probabilities.shape[1] > 1 else np.ones((len(probabilities), 2))
    pool = np.sort(np.argsort(two[:, 1] - two[:, 0], kind="stable")[:MOST])
    count = max(0, min(count, len(pool)))
    gradient = np.array(probabilities[pool], np.float32)
    gradient[np.arange(len(pool)), gradient.argmax(axis=1)] -= 1
    points = np.asarray(features, np.float32)[pool]
    squares = (gradient**2).sum(axis=1) * (points**2).sum(axis=1)  # of (C, D) products, never written out
    drawn = np.random.default_rng(seed).random(count)
    far, free = np.full(len(pool), np.inf), np.ones(len(pool), np.bool_)
    taken = np.zeros(count, np.int64)
    for k in range(count):
        if k == 0:
            best = int(squares.argmax())
        else:
            chances = np.cumsum(np.where(free, far, 0.0))
            best = int(np.searchsorted(chances, drawn[k] * chances[-1], side="right")) if chances[-1] > 0 else -1
            if not (0 <= best < len(pool) and free[best]):  # all that are left equal those taken
                best = int(np.where(free, squares, -1.0).argmax())
        taken[k], free[best] = best, False
        apart = squares + squares[best] - 2 * (gradient @ gradient[best]) * (points @ points[best])
        far = np.minimum(far, np.maximum(apart, 0))
    return pool[taken].astype(np.int64)
