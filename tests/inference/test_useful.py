"""Which posts are most useful to label next."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.inference.useful import useful_order


def test_the_least_sure_row_goes_first_and_copies_of_a_taken_row_go_last() -> None:
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.99, 0.01], [0.55, 0.45]])
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    for seed in range(20):
        order = useful_order(probabilities, features, 4, seed).tolist()
        assert order[0] == 0  # gradients are 0.71, 0.71, 0.014 and 0.64 long
        assert order[-1] == 1  # a copy of row 0
    second = [useful_order(probabilities, features, 2, seed)[1] for seed in range(200)]
    # squared distances to row 0: 0, 0.5 and, for row 3, |(0.5, -0.5) + (0.45, -0.45)|^2 x 1 = 1.805
    assert second.count(1) == 0
    assert second.count(3) / 200 == pytest.approx(1.805 / (1.805 + 0.5002), abs=0.09)


def test_every_row_at_most_once_and_never_more_than_there_are() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 50)
    features = np.repeat(rng.normal(size=(5, 4)), 10, axis=0)  # many rows alike
    assert sorted(useful_order(probabilities, features, 99).tolist()) == list(range(50))
    assert useful_order(probabilities, features, 0).tolist() == []
    assert useful_order(np.zeros((0, 3)), np.zeros((0, 4)), 5).tolist() == []


def test_of_many_rows_the_unsure_ones_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsent.inference.useful.MOST", 5)
    margins = np.linspace(0.9, 0, 50)
    probabilities = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    assert sorted(useful_order(probabilities, np.eye(50), 9).tolist()) == [45, 46, 47, 48, 49]


def test_one_label_alone_leaves_no_margin() -> None:
    assert sorted(useful_order(np.ones((3, 1)), np.eye(3), 3).tolist()) == [0, 1, 2]
