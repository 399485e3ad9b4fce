"""Which posts are most useful to label next."""

from __future__ import annotations

import numpy as np

from mmsent.inference.useful import AMONG, useful_order


def test_unsure_rows_go_first_and_copies_of_a_taken_row_go_last() -> None:
    probabilities = np.array([[0.5, 0.5], [0.52, 0.48], [0.99, 0.01], [0.55, 0.45]])
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    # row 0 has the smallest margin; row 3 is far from it and unsure; row 2 is far but sure; row 1 is a copy of row 0
    assert useful_order(probabilities, features, 4).tolist() == [0, 3, 2, 1]
    assert useful_order(probabilities, features, 2).tolist() == [0, 3]


def test_every_row_at_most_once_and_never_more_than_there_are() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 50)
    features = np.repeat(rng.normal(size=(5, 4)), 10, axis=0)  # many rows alike
    assert sorted(useful_order(probabilities, features, 99).tolist()) == list(range(50))
    assert useful_order(probabilities, features, 0).tolist() == []
    assert useful_order(np.zeros((0, 3)), np.zeros((0, 4)), 5).tolist() == []


def test_surest_rows_are_not_taken_however_far_away_they_are() -> None:
    margins = np.linspace(0, 0.9, 10 * AMONG)
    probabilities = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    features = np.arange(10 * AMONG, dtype=float)[:, None]
    assert useful_order(probabilities, features, 3).max() < 3 * AMONG


def test_one_label_alone_leaves_no_margin() -> None:
    assert sorted(useful_order(np.ones((3, 1)), np.eye(3), 3).tolist()) == [0, 1, 2]
