"""Metrics: by hand on small tables, and against scikit-learn on random ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from mmsent.metrics import (
    McNemar,
    accuracy_by_coverage,
    bootstrap_intervals,
    brier_score,
    confusion,
    expected_calibration_error,
    mcnemar,
    negative_log_likelihood,
    reliability,
    scores,
    wilson,
)

# truth 0: 3 rows, 2 found; truth 1: 1 row, found; truth 2: 1 row, called 0
TRUTH = np.array([0, 0, 0, 1, 2])
GUESS = np.array([0, 0, 1, 1, 0])


def test_confusion_rows_are_the_truth() -> None:
    assert confusion(TRUTH, GUESS, 3).tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion(TRUTH, GUESS, 4).shape == (4, 4)


def test_scores_by_hand() -> None:
    found = scores(TRUTH, GUESS, 3)
    assert found["n"] == 5
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision_per_class"] == pytest.approx([2 / 3, 1 / 2, 0])
    assert found["recall_per_class"] == pytest.approx([2 / 3, 1, 0])
    assert found["f1_per_class"] == pytest.approx([2 / 3, 2 / 3, 0])
    assert found["precision_weighted"] == pytest.approx((3 * 2 / 3 + 1 / 2) / 5)
    assert found["recall_weighted"] == pytest.approx(3 / 5)
    assert found["f1_weighted"] == pytest.approx((3 * 2 / 3 + 2 / 3) / 5)
    assert found["precision_macro"] == pytest.approx(7 / 18)
    assert found["recall_macro"] == pytest.approx(5 / 9)
    assert found["f1_macro"] == pytest.approx(4 / 9)
    assert found["support"] == [3, 1, 1]
    assert found["confusion"] == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_scores_are_plain_numbers() -> None:
    assert json.loads(json.dumps(scores(TRUTH, GUESS, 3))) == scores(TRUTH, GUESS, 3)


@pytest.mark.parametrize(("never_true", "never_guessed"), [(None, None), (None, 2), (2, None), (2, 2), (0, 3)], ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("error")
def test_scores_agree_with_scikit_learn(never_true: int | None, never_guessed: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice([c for c in range(4) if c != never_true], 50)
    guess = rng.choice([c for c in range(4) if c != never_guessed], 50)
    guess = np.where((rng.random(50) < 0.5) & (truth != never_guessed), truth, guess)
    found = scores(truth, guess, 4)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert found["confusion"] == confusion_matrix(truth, guess, labels=range(4)).tolist()
    names = ("precision", "recall", "f1")
    for average in ("weighted", "macro"):
        theirs = precision_recall_fscore_support(truth, guess, average=average, zero_division=0)
        assert [found[f"{n}_{average}"] for n in names] == pytest.approx(list(theirs[:3]), abs=1e-12)
    each = precision_recall_fscore_support(truth, guess, labels=range(4), zero_division=0)
    for name, values in zip(names, each, strict=False):
        assert found[f"{name}_per_class"] == pytest.approx(values.tolist(), abs=1e-12)
    assert found["support"] == each[3].tolist()
    if never_true is not None:
        assert found["support"][never_true] == 0
    if never_guessed is not None:
        assert found["precision_per_class"][never_guessed] == 0


def test_a_class_in_neither_is_left_out_of_the_macro_average() -> None:
    found = scores(np.array([0, 1]), np.array([0, 0]), 3)
    assert found["f1_per_class"] == pytest.approx([2 / 3, 0, 0])
    assert found["f1_macro"] == pytest.approx(1 / 3)


def test_negative_log_likelihood_by_hand() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    wanted = (math.log(2) + math.log(10)) / 2
    assert negative_log_likelihood(np.array([0, 2]), probabilities) == pytest.approx(wanted, abs=1e-12)
    assert negative_log_likelihood(np.array([1, 1]), np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(
        -math.log(1e-12) / 2
    )


# --- probabilities


FOUR = np.array([[0.9, 0.05, 0.05], [0.85, 0.1, 0.05], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
FOUR_TRUTH = np.array([0, 1, 1, 0])


def random_probabilities(rng: np.random.Generator, n: int, classes: int) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = rng.dirichlet(np.full(classes, 0.7), n)
    return drawn


def test_brier_by_hand() -> None:
    rows = [0.01 + 2 * 0.0025, 0.7225 + 0.81 + 0.0025, 0.04 + 0.25 + 0.09, 0.49 + 0.09 + 0.16]
    assert brier_score(FOUR_TRUTH, FOUR) == pytest.approx(sum(rows) / 4, abs=1e-12)
    assert brier_score(np.array([0, 1]), np.eye(2)) == 0
    assert brier_score(np.array([1, 0]), np.eye(2)) == 2


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_brier_and_nll_agree_with_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities = random_probabilities(rng, 80, classes)
    truth = rng.integers(0, classes, 80)
    labels = list(range(classes))
    theirs = brier_score_loss(truth, probabilities, labels=labels, scale_by_half=False)
    assert brier_score(truth, probabilities) == pytest.approx(theirs, abs=1e-12)
    theirs = log_loss(truth, probabilities, labels=labels)
    assert negative_log_likelihood(truth, probabilities) == pytest.approx(theirs, abs=1e-12)


def test_reliability_and_ece_by_hand() -> None:
    # Five bins: 0.4 ends the second (0.2, 0.4], 0.5 lies in the third, 0.85 and 0.9 in the last.
    found = reliability(FOUR_TRUTH, FOUR, bins=5)
    assert found.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert found.count.tolist() == [0, 1, 1, 0, 2]
    assert found.confidence == pytest.approx([np.nan, 0.4, 0.5, np.nan, 0.875], nan_ok=True)
    assert found.accuracy == pytest.approx([np.nan, 0.0, 1.0, np.nan, 0.5], nan_ok=True)
    wanted = (0.4 + 0.5 + 2 * 0.375) / 4
    assert expected_calibration_error(FOUR_TRUTH, FOUR, bins=5) == pytest.approx(wanted, abs=1e-12)
    # One bin: the mean confidence against the accuracy.
    assert expected_calibration_error(FOUR_TRUTH, FOUR, bins=1) == pytest.approx((0.9 + 0.85 + 0.5 + 0.4) / 4 - 0.5)
    assert len(reliability(FOUR_TRUTH, FOUR).count) == 15


def test_ece_of_extremes() -> None:
    sure = np.eye(3)[[0, 1, 2]]
    assert expected_calibration_error(np.array([0, 1, 2]), sure) == 0
    assert expected_calibration_error(np.array([1, 2, 0]), sure) == 1


def test_exact_probabilities_have_a_small_ece() -> None:
    rng = np.random.default_rng(0)
    probabilities = random_probabilities(rng, 50_000, 3)
    truth = (rng.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert expected_calibration_error(truth, probabilities) < 0.01
    sharper = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    assert expected_calibration_error(truth, sharper) > 0.05


# --- intervals


# A joint distribution of truth (rows) and prediction (columns), unbalanced as real ones are.
POPULATION = np.array([[0.20, 0.05, 0.05], [0.04, 0.06, 0.05], [0.04, 0.06, 0.45]])


def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cells = rng.choice(9, n, p=POPULATION.ravel())
    return cells // 3, cells % 3


def test_intervals_agree_with_resampling_rows() -> None:
    rng = np.random.default_rng(5)
    truth, guess = draw(rng, 300)
    found = bootstrap_intervals(truth, guess, 3, resamples=4000)
    naive = []
    for _ in range(4000):
        rows = rng.integers(0, 300, 300)
        naive.append(scores(truth[rows], guess[rows], 3))
    # The ends are quantiles of 4,000 draws: off by about 0.001.
    for name in ("accuracy", "f1_weighted", "f1_macro"):
        wanted = np.quantile([one[name] for one in naive], [0.025, 0.975])
        assert found[name] == pytest.approx(wanted, abs=0.006)
    for c in range(3):
        wanted = np.quantile([one["f1_per_class"][c] for one in naive], [0.025, 0.975])
        assert found["f1_per_class"][c] == pytest.approx(wanted, abs=0.012)


def test_intervals_hold_the_score_narrow_with_rows_and_repeat() -> None:
    truth, guess = draw(np.random.default_rng(1), 400)
    found = bootstrap_intervals(truth, guess, 3)
    assert found == bootstrap_intervals(truth, guess, 3, seed=0)
    assert found != bootstrap_intervals(truth, guess, 3, seed=1)
    assert json.loads(json.dumps(found))["accuracy"] == list(found["accuracy"])
    score = scores(truth, guess, 3)
    for name in ("accuracy", "f1_weighted", "f1_macro"):
        assert found[name][0] < score[name] < found[name][1]
    four = bootstrap_intervals(np.tile(truth, 4), np.tile(guess, 4), 3)
    ratio = np.ptp(found["accuracy"]) / np.ptp(four["accuracy"])
    assert ratio == pytest.approx(2, rel=0.1)
    inner = bootstrap_intervals(truth, guess, 3, level=0.5)
    assert found["accuracy"][0] < inner["accuracy"][0] < inner["accuracy"][1] < found["accuracy"][1]


@pytest.mark.filterwarnings("error")
def test_intervals_of_extremes() -> None:
    right = np.array([0, 0, 1])
    perfect = bootstrap_intervals(right, right, 3)
    # Wilson's lower end at p = 1 is n / (n + z^2)
    assert (
        perfect["accuracy"] == perfect["f1_weighted"] == perfect["f1_macro"] == (pytest.approx(3 / 6.8415, abs=1e-4), 1)
    )
    assert perfect["f1_per_class"] == [(pytest.approx(n / (n + 3.8415), abs=1e-4), 1) for n in (2, 1)] + [(0, 0)]
    assert bootstrap_intervals(np.array([0]), np.array([1]), 2)["f1_macro"] == (0, 0)


@pytest.mark.slow
def test_intervals_cover_the_true_values_at_their_rate() -> None:
    """400 data sets of 500 rows: about 95 in 100 intervals hold the population's value (standard error 0.011)."""
    hits, support, guessed = np.diag(POPULATION), POPULATION.sum(axis=1), POPULATION.sum(axis=0)
    true = {"accuracy": hits.sum(), "f1_weighted": (support * 2 * hits / (support + guessed)).sum()}
    rng = np.random.default_rng(2026)
    covered = dict.fromkeys(true, 0)
    for _ in range(400):
        found = bootstrap_intervals(*draw(rng, 500), 3, seed=int(rng.integers(2**31)))
        for name, value in true.items():
            covered[name] += found[name][0] <= value <= found[name][1]
    for name, count in covered.items():
        assert 0.92 <= count / 400 <= 0.975, name


# --- paired


def made_pair(only_a: int, only_b: int, both: int = 7, neither: int = 3) -> McNemar:
    a = np.repeat([0, 1, 0, 1], [only_a, only_b, both, neither])
    b = np.repeat([1, 0, 0, 2], [only_a, only_b, both, neither])
    return mcnemar(np.zeros(len(a), np.int64), a, b)


def test_mcnemar_by_hand() -> None:
    # 6 rows, 5 to 1: twice (1 + 6) / 2^6
    assert made_pair(5, 1) == McNemar(5, 1, pytest.approx(14 / 64, abs=1e-12))
    assert made_pair(1, 5).p_value == made_pair(5, 1).p_value
    assert made_pair(10, 0).p_value == pytest.approx(2 / 1024, abs=1e-12)
    assert made_pair(3, 3).p_value == 1
    assert made_pair(0, 0) == McNemar(0, 0, 1.0)
    # rows that both have right or wrong, however differently wrong, do not count
    assert made_pair(5, 1, both=900, neither=500).p_value == made_pair(5, 1).p_value


@pytest.mark.parametrize(("only_a", "only_b"), [(25, 8), (59, 6), (4, 16)])
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert made_pair(only_a, only_b).p_value == pytest.approx(min(1, 2 * tail), rel=1e-9)


def test_mcnemar_of_equals_is_rarely_small() -> None:
    """Two predictions of equal accuracy: p < 0.05 in at most 5 of 100 (the exact test is on the safe side)."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(400):
        truth = np.zeros(200, np.int64)
        a, b = ((rng.random(200) > 0.7).astype(np.int64) for _ in range(2))
        small += mcnemar(truth, a, b).p_value < 0.05
    assert 0 < small <= 0.07 * 400


# --- edges


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


def test_the_surest_rows_by_hand() -> None:
    right = np.array([True, False, True, True, False, True, True, True, True, True])
    confidence = np.array([0.5, 0.4, 0.6, 0.9, 0.3, 0.7, 0.8, 0.55, 0.65, 0.75])
    found = {part["coverage"]: (part["accuracy"], part["least"]) for part in accuracy_by_coverage(right, confidence)}
    assert found[1.0] == (0.8, 0.3)
    assert found[0.9] == (8 / 9, 0.4)
    assert found[0.8] == (1.0, 0.5)
    assert found[0.1] == (1.0, 0.9)
