"""Intervals of what captions claim, against published and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.report.certainty import beyond_chance, gap_of_shares, mean_interval, median_interval, share


def test_newcombe() -> None:
    """The example of Newcombe (1998), 56 of 70 against 48 of 80."""
    assert gap_of_shares(56, 70, 48, 80) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert gap_of_shares(9, 10, 3, 10) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)


def test_means_and_medians() -> None:
    assert mean_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert mean_interval(np.array([1.0]))[1:] == (-np.inf, np.inf)
    # Of 10 ordered values the 2nd and the 9th hold the median with a probability of 97.9%.
    assert median_interval(np.arange(1.0, 11.0)) == (5.5, 2, 9)
    assert median_interval(np.array([4.0])) == (4, 4, 4)


def test_words() -> None:
    assert share(38, 100) == "38% (29% to 48%)"
    assert beyond_chance((1, 0.1, 2))
    assert beyond_chance((-1, -2, -0.1))
    assert not beyond_chance((1, -0.1, 2))
