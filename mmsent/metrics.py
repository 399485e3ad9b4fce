"""Classification metrics from label indices. NumPy only; definitions as in scikit-learn, tested against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def confusion(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """(C, C) counts; rows are the truth, columns the prediction."""
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def scores(truth: Labels, predicted: Labels, classes: int) -> dict[str, Any]:
    """Accuracy; precision, recall and F1 weighted, macro and per class; the confusion matrix.

    truth, predicted: (N,) label indices in 0..C-1, N > 0. A class that is never predicted has precision 0, one that
    never occurs recall 0, as scikit-learn's zero_division=0. Weighted recall equals accuracy. Plain Python numbers.
    """
    matrix = confusion(truth, predicted, classes)
    hits = np.diag(matrix).astype(np.float64)
    support, guessed = matrix.sum(axis=1), matrix.sum(axis=0)
    precision = np.divide(hits, guessed, out=np.zeros(classes), where=guessed > 0)
    recall = np.divide(hits, support, out=np.zeros(classes), where=support > 0)
    f1 = np.divide(2 * hits, support + guessed, out=np.zeros(classes), where=support + guessed > 0)
    share = support / support.sum()
    # As in scikit-learn, a class that neither occurs nor is predicted is left out of the macro average.
    seen = (support + guessed) > 0
    out: dict[str, Any] = {"n": int(support.sum()), "accuracy": float(hits.sum() / support.sum())}
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        out[f"{name}_weighted"] = float((values * share).sum())
        out[f"{name}_macro"] = float(values[seen].mean())
        out[f"{name}_per_class"] = values.tolist()
    out["support"] = support.tolist()
    out["confusion"] = matrix.tolist()
    return out


def negative_log_likelihood(truth: Labels, probabilities: Probabilities) -> float:
    """Mean -log p(truth) in nats; probabilities (N, C), floored at 1e-12."""
    picked = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    return float(-np.log(np.maximum(picked, 1e-12)).mean())
