"""Edges of the scores that a mutation run found untested (see docs/testing.md)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from mmsent.metrics import (
    bootstrap_intervals,
    confusion,
    expected_calibration_error,
    reliability,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 12), (12, 12), (1, 12), (3, 10), (399, 400), (1, 400)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(hits: int, n: int, level: float) -> None:
    wanted = binomtest(hits, n).proportion_ci(level, method="wilson")
    assert wilson(hits, n, level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_ends_are_exact() -> None:
    for n in (1, 7, 1000):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0


def test_counts_are_whole_numbers() -> None:
    assert confusion(np.array([0, 1]), np.array([1, 1]), 2).dtype == np.int64
    assert reliability(np.array([0, 1]), np.array([[0.6, 0.4], [0.2, 0.8]])).count.dtype == np.int64


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_of_a_faultless_head_follow_the_level(level: float) -> None:
    truth = np.array([0] * 6 + [1] * 3)
    found = bootstrap_intervals(truth, truth, 3, level=level)
    assert found["accuracy"] == found["f1_weighted"] == found["f1_macro"] == wilson(9, 9, level)
    assert found["f1_per_class"] == [wilson(6, 6, level), wilson(3, 3, level), (0.0, 0.0)]


def test_the_lowest_bin_is_used() -> None:
    probabilities = np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]])
    found = reliability(np.array([0, 2]), probabilities, bins=2)
    assert found.count.tolist() == [1, 1]
    assert found.confidence.tolist() == [0.4, 0.7]


def test_probabilities_a_hair_above_one_stay_in_the_last_bin() -> None:
    probabilities = np.array([[1 + 1e-12, 0.0], [0.9, 0.1]])
    found = reliability(np.array([0, 0]), probabilities, bins=5)
    assert found.count.tolist() == [0, 0, 0, 0, 2]
    assert len(found.confidence) == 5
    assert expected_calibration_error(np.array([0, 0]), probabilities, bins=5) == pytest.approx(0.05)


def test_empty_bins_raise_no_warning() -> None:
    with np.errstate(all="raise"):
        found = reliability(np.array([0]), np.array([[0.9, 0.1]]))
    assert np.isnan(found.accuracy).sum() == len(found.count) - 1
