"""Temperature scaling: a planted temperature comes back, labels stay, and degenerate rows do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from mmsent.errors import DataError
from mmsent.metrics import Labels, brier_score, expected_calibration_error, negative_log_likelihood
from mmsent.training.calibration import HIGHEST, LOWEST, apply_temperature, cross_fitted, fit_temperature

pytestmark = pytest.mark.filterwarnings("error")


def planted(n: int, classes: int = 3, temperature: float = 2.5, seed: int = 0) -> tuple[NDArray[np.float32], Labels]:
    """Logits (N, C) that are too large by a factor, and labels drawn from the probabilities without it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((n, 1)) > exact.cumsum(axis=1)).sum(axis=1)
    return (logits * temperature).astype(np.float32), truth


# --- applying


def test_apply_by_hand() -> None:
    logits = np.array([[0.0, np.log(4), 0.0], [1000.0, 1000.0, -1000.0]], np.float32)
    assert apply_temperature(logits, 1.0) == pytest.approx(np.array([[1 / 6, 4 / 6, 1 / 6], [0.5, 0.5, 0]]))
    assert apply_temperature(logits, 2.0)[0] == pytest.approx([1 / 4, 2 / 4, 1 / 4])
    assert apply_temperature(logits, 0.5)[0] == pytest.approx([1 / 18, 16 / 18, 1 / 18])
    assert apply_temperature(np.tile(logits[:1], (2, 1)), np.array([[1.0], [2.0]])) == pytest.approx(
        np.array([[1 / 6, 4 / 6, 1 / 6], [1 / 4, 2 / 4, 1 / 4]])
    )


@pytest.mark.parametrize("temperature", [LOWEST, 0.7, 3.0, HIGHEST])
def test_the_likeliest_label_stays(temperature: float) -> None:
    logits, _ = planted(2000)
    found = apply_temperature(logits, temperature)
    assert found.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()
    assert found.sum(axis=1) == pytest.approx(np.ones(2000))


# --- fitting


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_comes_back(classes: int, temperature: float) -> None:
    logits, truth = planted(8000, classes, temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_other_temperature_fits_better(classes: int) -> None:
    """The least negative log likelihood by our own metric."""
    logits, truth = planted(300, classes)
    found = fit_temperature(logits, truth)

    def loss(temperature: float) -> float:
        return negative_log_likelihood(truth, apply_temperature(logits, temperature))

    assert loss(found) < min(loss(found * 0.99), loss(found * 1.01))
    assert loss(found) <= min(loss(t) for t in np.geomspace(LOWEST, HIGHEST, 200))


class Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted scikit-learn classifier that takes logits for its features."""

    classes_ = np.arange(3)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: NDArray[np.float64], y: Labels) -> Logits:
        return self

    def decision_function(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return X

    def predict(self, X: NDArray[np.float64]) -> Labels:
        best: Labels = X.argmax(axis=1)
        return best


@pytest.mark.parametrize("n", [50, 500, 2000])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_scikit_learn_finds_the_same_temperature(n: int, temperature: float) -> None:
    logits, truth = planted(n, temperature=temperature)
    shifted = logits.astype(np.float64) - 40  # rows from 0 to 1 it would take for probabilities
    every = np.arange(n)
    model = CalibratedClassifierCV(FrozenEstimator(Logits()), method="temperature", cv=[(every, every)])
    theirs = model.fit(shifted, truth).predict_proba(shifted)
    found = fit_temperature(logits, truth)
    row = np.ptp(shifted, axis=1).argmax()
    assert np.ptp(shifted[row]) / np.ptp(np.log(theirs[row])) == pytest.approx(found, rel=1e-6)


def test_overconfident_logits_get_better() -> None:
    logits, truth = planted(2000)
    other, other_truth = planted(4000, seed=1)
    before, after = apply_temperature(other, 1.0), apply_temperature(other, fit_temperature(logits, truth))
    for score in (negative_log_likelihood, brier_score, expected_calibration_error):
        assert score(other_truth, after) < score(other_truth, before)
    assert expected_calibration_error(other_truth, after) < 0.03 < expected_calibration_error(other_truth, before)


def test_scale_shift_and_classes_never_seen() -> None:
    logits, truth = planted(400)
    found = fit_temperature(logits, truth)
    assert fit_temperature(logits * 3.0, truth) == pytest.approx(3 * found, rel=1e-5)
    assert fit_temperature(logits + 7.0, truth) == pytest.approx(found, rel=1e-5)
    # rows that could be taken for probabilities
    shares = apply_temperature(logits, 1.0)
    assert fit_temperature(shares, truth) == pytest.approx(fit_temperature(shares + 1, truth), rel=1e-5)
    # a label that no row has: its column still takes part
    kept = truth != 1
    rare = fit_temperature(logits[kept], truth[kept])
    best = min(
        np.geomspace(LOWEST, HIGHEST, 2000),
        key=lambda t: negative_log_likelihood(truth[kept], apply_temperature(logits[kept], t)),
    )
    assert rare == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("classes", [2, 3])
def test_degenerate_rows(classes: int) -> None:
    logits, _ = planted(60, classes)
    best = logits.argmax(axis=1)
    assert fit_temperature(logits, best) == LOWEST  # separable
    assert fit_temperature(logits * 1e-9, best) == LOWEST
    assert LOWEST <= fit_temperature(logits * 1e4, best) < 1
    assert fit_temperature(logits, logits.argmin(axis=1)) == HIGHEST  # always wrong
    assert LOWEST <= fit_temperature(logits, np.zeros(60, np.int64)) <= HIGHEST  # one class alone
    for value in (0.0, 1 / classes, -5.0):  # no preference: every temperature is as good
        assert fit_temperature(np.full((60, classes), value), best) == 1.0
    assert LOWEST <= fit_temperature(logits[:1], best[:1]) <= HIGHEST
    assert fit_temperature(logits[:0], best[:0]) == 1.0


def test_what_cannot_be_fitted() -> None:
    logits, truth = planted(10)
    with pytest.raises(DataError, match=r"got shapes \(10, 3\) and \(9,\)"):
        fit_temperature(logits, truth[:9])
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="needs finite logits; the head diverged"):
        fit_temperature(logits, truth)


# --- cross-fitting


def test_a_rows_own_label_has_no_part_in_its_probabilities() -> None:
    logits, truth = planted(40)
    found = cross_fitted(logits, truth)
    for i in range(40):
        other = truth.copy()
        other[i] = (other[i] + 1) % 3
        changed = cross_fitted(logits, other)
        assert changed[i].tolist() == found[i].tolist()
        assert not np.array_equal(changed, found)  # but in those of other rows


def test_each_fold_has_the_temperature_of_the_others() -> None:
    logits, truth = planted(53)
    found = cross_fitted(logits, truth, folds=4, seed=3)
    logs, gaps = np.log(found), np.ptp(logits, axis=1)
    temperatures = gaps / np.ptp(logs, axis=1)  # a row's largest log ratio is its largest logit difference over T
    folds = np.unique(temperatures.round(5))
    sizes = []
    for one in folds:
        inside = np.isclose(temperatures, one, atol=2e-5)
        assert fit_temperature(logits[~inside], truth[~inside]) == pytest.approx(one, abs=2e-5)
        sizes.append(int(inside.sum()))
    assert sorted(sizes) == [13, 13, 13, 14]
    assert found.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


def test_cross_fitting_repeats_and_scores_worse_than_its_own_rows() -> None:
    logits, truth = planted(60)
    found = cross_fitted(logits, truth)
    assert np.array_equal(found, cross_fitted(logits, truth))
    assert not np.array_equal(found, cross_fitted(logits, truth, seed=1))
    own = apply_temperature(logits, fit_temperature(logits, truth))
    assert negative_log_likelihood(truth, found) > negative_log_likelihood(truth, own)


def test_few_rows() -> None:
    logits, truth = planted(3)
    assert cross_fitted(logits[:1], truth[:1]) == pytest.approx(apply_temperature(logits[:1], 1.0))
    for n in (2, 3):
        found = cross_fitted(logits[:n], truth[:n])
        assert np.isfinite(found).all()
        assert found.sum(axis=1) == pytest.approx(np.ones(n))
    assert cross_fitted(logits[:0], truth[:0]).shape == (0, 3)
