"""Intervals for what captions claim. A difference counts as beyond chance where its interval leaves zero out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsent.metrics import LEVEL, wilson
from mmsent.report.language import say

Interval = tuple[float, float, float]  # the value, its lower and its upper end


def mean_interval(values: NDArray[np.floating]) -> Interval:
    """The mean of (n,) values and Student's interval; without ends where n is 1."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return mean, mean - half, mean + half


def median_interval(values: NDArray[np.floating]) -> Interval:
    """The median of (n,) values and its interval by order statistics."""
    from scipy.stats import binom

    n, ordered = len(values), np.sort(values)
    at = int(binom.ppf((1 - LEVEL) / 2, n, 0.5))
    return float(np.median(ordered)), float(ordered[max(0, at - 1)]), float(ordered[min(n - 1, n - at)])


def gap_of_shares(hits: int, n: int, other_hits: int, other_n: int) -> Interval:
    """A share less another of other rows, and Newcombe's interval (1998, method 10)."""
    p, q = hits / n, other_hits / other_n
    (low, high), (other_low, other_high) = wilson(hits, n), wilson(other_hits, other_n)
    down, up = np.hypot(p - low, other_high - q), np.hypot(high - p, q - other_low)
    return p - q, float(p - q - down), float(p - q + up)


def beyond_chance(found: Interval) -> bool:
    """Whether an interval leaves zero out."""
    return found[1] > 0 or found[2] < 0


def share(hits: int, n: int) -> str:
    """A share with its interval, in words."""
    low, high = wilson(hits, n)
    return say("{share:.0%} ({low:.0%} to {high:.0%})", share=hits / n, low=low, high=high)


def shown(found: Interval, form: str = "+.3f") -> str:
    """A value with its interval, in words."""
    value, low, high = (format(v, form) for v in found)
    return say("{value} ({low} to {high})", value=value, low=low, high=high)
