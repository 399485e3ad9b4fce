"""Metrics: by hand on small tables, and against scikit-learn on random ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from mmsent.metrics import confusion, negative_log_likelihood, scores

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
