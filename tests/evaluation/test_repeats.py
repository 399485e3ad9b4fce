"""Gaps of heads over rows and seeds: paired, honest about seeds, and never beyond chance for heads that are alike."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.evaluation.evaluate import Evaluation
from mmsent.evaluation.repeats import resampled
from mmsent.metrics import bootstrap_intervals, scores

RNG = np.random.default_rng(1)
N = 400
TRUTH = RNG.integers(0, 3, N)


def guess(accuracy: float) -> Evaluation:
    """A head that is right at this rate, at random."""
    right = RNG.random(N) < accuracy
    said = np.where(right, TRUTH, (TRUTH + RNG.integers(1, 3, N)) % 3)
    return evaluation(said)


def evaluation(said: np.ndarray) -> Evaluation:
    return Evaluation(
        "x",
        "concat",
        scores(TRUTH, said, 3),
        bootstrap_intervals(TRUTH, said, 3),
        np.eye(3)[said],
        said,
        TRUTH,
        np.arange(N),
    )


def test_one_seed_has_the_interval_of_the_rows() -> None:
    one = guess(0.7)
    (found,) = resampled([[one]])
    assert found.f1 == pytest.approx(one.scores["f1_weighted"])
    assert found.means["recall"] == pytest.approx(one.scores["recall_per_class"])
    rows = bootstrap_intervals(TRUTH, one.predicted, 3)
    assert (found.interval, found.interval_of(1)) == (rows["f1_weighted"], rows["f1_per_class"][1])
    twice = resampled([[one, one]])[0]  # the seeds say nothing, so both ways draw the same rows
    assert twice.interval == pytest.approx(rows["f1_weighted"], abs=0.01)
    assert twice.interval_of(1) == pytest.approx(rows["f1_per_class"][1], abs=0.02)


def test_gaps_are_paired_and_means_are_over_seeds() -> None:
    one, two = guess(0.7), guess(0.75)
    a, again, b = resampled([[one, two], [one, two], [one]])
    assert a.f1 == pytest.approx((one.scores["f1_weighted"] + two.scores["f1_weighted"]) / 2)
    assert a.gap(b)[0] == pytest.approx(a.f1 - b.f1)
    same = resampled([[one], [one]])
    assert same[0].gap(same[1]) == (0, 0, 0)
    assert again.f1 == a.f1


def test_seeds_widen_the_interval() -> None:
    low, high = guess(0.55), guess(0.85)
    spread, alike = resampled([[low, high, low, high], [low]])
    assert np.ptp(spread.interval) > 1.5 * np.ptp(alike.interval)


def test_gaps_of_equal_heads_hold_zero_about_as_often_as_promised() -> None:
    missed = 0
    for _ in range(60):
        a, b = resampled([[guess(0.7)], [guess(0.7)]], draws=400)
        _, low, high = a.gap(b)
        missed += not low <= 0 <= high
    assert missed <= 8  # of 60 at 5%; more than this happens once in a thousand


def test_other_rows_are_refused() -> None:
    one = guess(0.7)
    other = Evaluation("y", "text", one.scores, {}, one.probabilities, one.predicted, TRUTH, np.arange(N) + 1)
    with pytest.raises(ValueError, match="different rows"):
        resampled([[one], [other]])
