"""Classification metrics from label indices and probabilities, their bootstrap intervals, and McNemar's test.

NumPy; definitions as in scikit-learn, tested against it. Probabilities are (N, C) rows that sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
RESAMPLES = 2000
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
LEVEL = 0.95


def confusion(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """(C, C) counts; rows are the truth, columns the prediction."""
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True)
class _Counts:
    """What every score is made of, for any number of (..., C, C) confusion matrices at once: (..., C) float64 each."""

    hits: NDArray[np.float64]
    support: NDArray[np.float64]
    guessed: NDArray[np.float64]

    @staticmethod
    def of(matrices: NDArray[np.int64]) -> _Counts:
        """Diagonal, row sums and column sums."""
        hits = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)
        return _Counts(hits, matrices.sum(axis=-1).astype(np.float64), matrices.sum(axis=-2).astype(np.float64))

    def accuracy(self) -> NDArray[np.float64]:
        """(...,)"""
        share: NDArray[np.float64] = self.hits.sum(axis=-1) / self.support.sum(axis=-1)
        return share

    def precision(self) -> NDArray[np.float64]:
        """(..., C); 0 for a class that is never predicted."""
        return _ratio(self.hits, self.guessed)

    def recall(self) -> NDArray[np.float64]:
        """(..., C); 0 for a class that never occurs."""
        return _ratio(self.hits, self.support)

    def f1(self) -> NDArray[np.float64]:
        """(..., C); 0 for a class that neither occurs nor is predicted."""
        return _ratio(2 * self.hits, self.support + self.guessed)

    def weighted(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the classes, weighted by support: (..., C) to (...,)."""
        mean: NDArray[np.float64] = (values * (self.support / self.support.sum(axis=-1, keepdims=True))).sum(axis=-1)
        return mean

    def macro(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the classes: (..., C) to (...,). As in scikit-learn, a class that neither occurs nor is predicted
        is left out."""
        seen = (self.support + self.guessed) > 0
        mean: NDArray[np.float64] = np.where(seen, values, 0).sum(axis=-1) / seen.sum(axis=-1)
        return mean


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return out


def scores(truth: Labels, predicted: Labels, classes: int) -> dict[str, Any]:
    """Accuracy; precision, recall and F1 weighted, macro and per class; the confusion matrix.

    truth, predicted: (N,) label indices in 0..C-1, N > 0. A class that is never predicted has precision 0, one that
    never occurs recall 0, as scikit-learn's zero_division=0. Weighted recall equals accuracy. Plain Python numbers.
    """
    matrix = confusion(truth, predicted, classes)
    counts = _Counts.of(matrix)
    out: dict[str, Any] = {"n": int(matrix.sum()), "accuracy": float(counts.accuracy())}
    for name, values in (("precision", counts.precision()), ("recall", counts.recall()), ("f1", counts.f1())):
        out[f"{name}_weighted"] = float(counts.weighted(values))
        out[f"{name}_macro"] = float(counts.macro(values))
        out[f"{name}_per_class"] = values.tolist()
    out["support"] = matrix.sum(axis=1).tolist()
    out["confusion"] = matrix.tolist()
    return out


def matrix_scores(matrices: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Scores of any number of (..., C, C) confusion matrices at once: accuracy and f1_weighted (...,), precision,
    recall and f1 (..., C)."""
    counts = _Counts.of(matrices)
    f1 = counts.f1()
    each = {"precision": counts.precision(), "recall": counts.recall(), "f1": f1}
    return {"accuracy": counts.accuracy(), "f1_weighted": counts.weighted(f1), **each}


def wilson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share (1927); n > 0."""
    p, z = hits / n, NormalDist().inv_cdf((1 + level) / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


def bootstrap_intervals(
    truth: Labels,
    predicted: Labels,
    classes: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Any]:
    """Percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) over the rows.

    truth, predicted: (N,), N > 0. Returns (low, high) under `accuracy`, `f1_weighted` and `f1_macro`, and a list of C
    such pairs under `f1_per_class`. They say how much the scores of one trained head vary with the rows it is scored
    on; what another training seed would change is not in them. The same seed gives the same intervals.

    Where no row is wrong, all resamples are alike; then the accuracy has Wilson's interval, and the F1 scores its lower
    end up to 1 (per class: of the class's own rows; a class without rows stays at 0).
    """
    matrix = confusion(truth, predicted, classes)
    n = int(matrix.sum())
    if int(np.trace(matrix)) == n:
        whole = wilson(n, n, level)
        each = [wilson(c, c, level) if c else (0.0, 0.0) for c in matrix.sum(axis=1).tolist()]
        return {"accuracy": whole, "f1_weighted": whole, "f1_macro": whole, "f1_per_class": each}
    # N rows drawn with replacement fall into the C * C cells as a multinomial: no row need be touched.
    drawn = np.random.default_rng(seed).multinomial(n, matrix.ravel() / n, size=resamples)
    counts = _Counts.of(drawn.reshape(resamples, classes, classes))
    f1 = counts.f1()
    ends = [(1 - level) / 2, (1 + level) / 2]

    def interval(values: NDArray[np.float64]) -> tuple[float, float]:
        low, high = np.quantile(values, ends)
        return float(low), float(high)

    return {
        "accuracy": interval(counts.accuracy()),
        "f1_weighted": interval(counts.weighted(f1)),
        "f1_macro": interval(counts.macro(f1)),
        "f1_per_class": [interval(f1[:, c]) for c in range(classes)],
    }


def bootstrap_differences(
    truth: Labels,
    a: Labels,
    b: Labels,
    classes: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of how far the scores of b lie above those of a on the same rows (N,), N > 0, that
    are drawn in pairs: (low, high) under `accuracy`, `f1_weighted` and `f1_macro`."""
    shape = (classes, classes, classes)
    cells = np.bincount(np.ravel_multi_index((truth, a, b), shape), minlength=classes**3)
    drawn = np.random.default_rng(seed).multinomial(len(truth), cells / cells.sum(), size=resamples)
    joint = drawn.reshape(resamples, *shape)
    of_a, of_b = _Counts.of(joint.sum(axis=3)), _Counts.of(joint.sum(axis=2))
    gaps = {
        "accuracy": of_b.accuracy() - of_a.accuracy(),
        "f1_weighted": of_b.weighted(of_b.f1()) - of_a.weighted(of_a.f1()),
        "f1_macro": of_b.macro(of_b.f1()) - of_a.macro(of_a.f1()),
    }
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {name: (float(low), float(high)) for name, gap in gaps.items() for low, high in [np.quantile(gap, ends)]}


def accuracy_by_coverage(right: NDArray[np.bool_], confidence: NDArray[np.float64]) -> list[dict[str, float]]:
    """How accurate the surest rows are (El-Yaniv and Wiener 2010): for each share in COVERAGES the accuracy of that
    part of the rows (N,), the surest first, N > 0, and the confidence of the last of them under `least`."""
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    out = []
    for share in COVERAGES:
        k = max(1, round(share * len(order)))
        accuracy, least = float(hits[k - 1] / k), float(confidence[order[k - 1]])
        out.append({"coverage": share, "accuracy": accuracy, "least": least})
    return out


def negative_log_likelihood(truth: Labels, probabilities: Probabilities) -> float:
    """Mean -log p(truth) in nats; probabilities (N, C), floored at 1e-12."""
    picked = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    return float(-np.log(np.maximum(picked, 1e-12)).mean())


def brier_score(truth: Labels, probabilities: Probabilities) -> float:
    """Mean over rows of the sum over classes of squared differences to the truth (Brier 1950): 0 best, 2 worst."""
    wanted = np.eye(probabilities.shape[1])[truth]
    return float(((probabilities - wanted) ** 2).sum(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Reliability:
    """Rows binned by the probability p of their likeliest label: bin b holds edges[b] < p <= edges[b + 1].

    count (B,) int64; confidence and accuracy (B,): the bin's means, NaN where it is empty; edges (B + 1,).
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    edges: NDArray[np.float64]


def reliability(truth: Labels, probabilities: Probabilities, bins: int = ECE_BINS) -> Reliability:
    """The reliability diagram's numbers: `bins` bins of equal width over 0..1 (Guo et al. 2017, section 2)."""
    confidence = probabilities.max(axis=1)
    hit = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins).astype(np.int64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed = np.bincount(where, weights=values, minlength=bins)
        out: NDArray[np.float64] = np.divide(summed, count, out=np.full(bins, np.nan), where=count > 0)
        return out

    return Reliability(count, mean(confidence), mean(hit), edges)


def expected_calibration_error(truth: Labels, probabilities: Probabilities, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, weighted by rows: 0..1.

    Guo et al. 2017, equation 3. It looks at the likeliest label alone, and noise in the bins adds up: some hundred rows
    give a few percent even where the probabilities are exact.
    """
    found = reliability(truth, probabilities, bins)
    filled = found.count > 0
    gaps = np.abs(found.accuracy - found.confidence)[filled]
    return float((found.count[filled] / found.count.sum() * gaps).sum())


@dataclass(frozen=True)
class McNemar:
    """Two predictions of the same rows: rows that only a, or only b, has right, and the two-sided p-value."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(truth: Labels, a: Labels, b: Labels) -> McNemar:
    """McNemar's exact test of equal accuracy (McNemar 1947): were both equally good, each row that one alone has right
    would fall to either side like a coin. truth, a, b: (N,) label indices of the same rows; p is 1 without such rows.
    """
    only_a = int(((a == truth) & (b != truth)).sum())
    only_b = int(((a != truth) & (b == truth)).sum())
    n, total = only_a + only_b, lgamma(only_a + only_b + 1) - (only_a + only_b) * log(2)
    tail = sum(exp(total - lgamma(k + 1) - lgamma(n - k + 1)) for k in range(min(only_a, only_b) + 1))
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
