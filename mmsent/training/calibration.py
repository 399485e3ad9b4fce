"""Temperature scaling: one number per head that makes its probabilities mean what they say (Guo et al. 2017).

Logits are divided by a temperature T fitted on labelled rows that the head was not trained on. T > 1 flattens the
probabilities, T < 1 sharpens them; the likeliest label stays what it was. Shapes: N rows, C classes.
"""

from __future__ import annotations

from functools import cache
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


@cache
def _identity() -> type[Any]:
    """A scikit-learn classifier that takes logits (N, C) for its features. Made on first use: the import is slow."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Identity(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, classes: int = 2) -> None:
            self.classes = classes

        def __sklearn_is_fitted__(self) -> bool:
            return True

        @property
        def classes_(self) -> NDArray[np.int64]:
            return np.arange(self.classes)

        def fit(self, X: NDArray[np.float64], y: Labels) -> Identity:
            return self

        def decision_function(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
            # Of two classes scikit-learn wants one value d a row, and takes -d and d for the logits.
            return (X[:, 1] - X[:, 0]) / 2 if self.classes == 2 else X

        def predict(self, X: NDArray[np.float64]) -> Labels:
            best: Labels = X.argmax(axis=1)
            return best

    return Identity


def fit_temperature(logits: NDArray[Any], truth: Labels) -> float:
    """The temperature with the least negative log likelihood on these rows, by scikit-learn's CalibratedClassifierCV.

    logits (N, C), truth (N,) label indices. Within LOWEST..HIGHEST; 1 where every temperature is as good as another,
    for there are no rows or no row prefers a label. Raises DataError on logits that are not finite or do not match.
    """
    if logits.ndim != 2 or truth.shape != logits.shape[:1]:
        raise DataError(f"a temperature needs logits (N, C) and N labels; got shapes {logits.shape} and {truth.shape}")
    if not np.isfinite(logits).all():
        raise DataError("a temperature needs finite logits; the head diverged: fit it with a lower --lr")
    n, classes = logits.shape
    # The largest at 0: scikit-learn takes non-negative rows that sum to 1 for probabilities, not for logits.
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True) if n else np.zeros((0, classes))
    if not shifted.any():
        return 1.0
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    # scikit-learn infers the classes from the labels it sees. A row of equal logits for each class names them all and
    # costs log C at every temperature, so the minimum stays where it is.
    given = np.concatenate([shifted, np.zeros((classes, classes))])
    labels = np.concatenate([truth, np.arange(classes)])
    everything = np.arange(len(labels))
    model = CalibratedClassifierCV(
        FrozenEstimator(_identity()(classes)), method="temperature", cv=[(everything, everything)]
    )
    model.fit(given, labels)
    # Two logits a known step apart give the inverse temperature back; the step is small so that neither underflows.
    step = 0.01
    probe = np.zeros((1, classes))
    probe[0, 1:] = -step
    logs = np.log(model.predict_proba(probe)[0])
    return float(np.clip(step / (logs[0] - logs[1]), LOWEST, HIGHEST))


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
