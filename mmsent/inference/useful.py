"""Which unlabelled posts are most useful to label next: those that heads are unsure of, spread over the data.

Shapes: N rows, C classes, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.metrics import Probabilities

AMONG = 10  # of so many unsure rows for each that is wanted, one is taken


def useful_order(probabilities: Probabilities, features: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of the `count` rows to label next, the most useful first (fewer where there are fewer rows).

    probabilities (N, C): what heads say of the rows; features (N, D): of the rows, such as image beside text, each
    scaled to length 1. Of the AMONG x count rows with the smallest margins between their two likeliest labels, always
    the one next that is furthest from those taken, a sure row counting less (greedy k-centre, weighted by 1 - margin).
    """
    n = len(probabilities)
    count = max(0, min(count, n))
    two = np.sort(probabilities, axis=1)[:, -2:] if probabilities.shape[1] > 1 else np.ones((n, 2))
    unsure = 1 - (two[:, 1] - two[:, 0])
    pool = np.argsort(-unsure, kind="stable")[: AMONG * count]
    points, weight = np.asarray(features, np.float32)[pool], unsure[pool]
    squares = (points**2).sum(axis=1)
    far = np.full(len(pool), np.inf)
    taken = np.zeros(count, np.int64)
    best = 0
    for k in range(count):
        taken[k] = best
        far = np.minimum(far, np.maximum(squares + squares[best] - 2 * points @ points[best], 0))
        far[best] = -1  # never again
        best = int(np.argmax(np.where(far < 0, -1.0, weight * np.sqrt(np.maximum(far, 0)))))
    return pool[taken].astype(np.int64)
