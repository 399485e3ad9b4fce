"""Temperature scaling: one number per head that makes its probabilities mean what they say (Guo et al. 2017).

Logits are divided by a temperature T fitted on labelled rows that the head was not trained on. T > 1 flattens the
probabilities, T < 1 sharpens them; the likeliest label stays what it was. Shapes: N rows, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import DataError
from mmsent.metrics import Labels, Probabilities

LOWEST, HIGHEST = 0.05, 20.0  # separable rows would send T to 0, rows that are mostly wrong to infinity
FOLDS = 5


def apply_temperature(logits: NDArray[Any], temperature: float | NDArray[np.float64]) -> Probabilities:
    """Softmax of logits / T in float64, (N, C) to (N, C). temperature: one, or (N, 1), one a row; 1 changes nothing."""
    shifted = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperature
    exp = np.exp(shifted)
    out: Probabilities = exp / exp.sum(axis=1, keepdims=True)
    return out


def fit_temperature(logits: NDArray[Any], truth: Labels) -> float:
    """The temperature with the least negative log likelihood on these rows.

    logits (N, C), truth (N,) label indices. Within LOWEST..HIGHEST; 1 where every temperature is as good as another,
    for there are no rows or no row prefers a label. Raises DataError on logits that are not finite or do not match.
    """
    if logits.ndim != 2 or truth.shape != logits.shape[:1]:
        raise DataError(f"a temperature needs logits (N, C) and N labels; got shapes {logits.shape} and {truth.shape}")
    if not np.isfinite(logits).all():
        raise DataError("a temperature needs finite logits; the head diverged: fit it with a lower --lr")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True) if len(logits) else logits
    if not shifted.any():
        return 1.0
    right = shifted[np.arange(len(truth)), truth].mean()

    def too_high(temperature: float) -> bool:
        """Whether a lower one is as good or better: by the slope of the loss, whose sign changes at most once."""
        return bool((apply_temperature(shifted, temperature) * shifted).sum(axis=1).mean() <= right)

    if too_high(LOWEST):  # of separable rows
        return LOWEST
    if not too_high(HIGHEST):
        return HIGHEST
    low, high = LOWEST, HIGHEST
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if too_high(middle) else (middle, high)
    return high


def cross_fitted(logits: NDArray[Any], truth: Labels, folds: int = FOLDS, seed: int = 0) -> Probabilities:
    """Probabilities (N, C) where each row's temperature is fitted on the other folds, so that calibration scores of the
    very rows that the temperature comes from are honest.

    The folds are drawn by `seed` without looking at the labels: no row's own label has a part in its probabilities.
    With fewer rows than folds, each row is a fold; a row alone keeps temperature 1.
    """
    n = len(logits)
    fold = np.random.default_rng(seed).permutation(n) % max(1, min(folds, n))
    temperatures = np.ones((n, 1))
    for one in np.unique(fold):
        inside = fold == one
        temperatures[inside] = fit_temperature(logits[~inside], truth[~inside])
    return apply_temperature(logits, temperatures)


def softmax(logits: NDArray[Any]) -> Probabilities:
    """Row-wise softmax in float64: (N, C) logits to probabilities."""
    return apply_temperature(logits, 1.0)
