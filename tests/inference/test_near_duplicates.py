"""Near-duplicates of training posts lend their labels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.inference import near_duplicates as twins
from mmsent.inference.near_duplicates import LabelledRows, posterior, twin_shares, twin_table

EYE = np.eye(6, dtype=np.float32)


def known(labels: list[int], image: list[int], text: list[int]) -> LabelledRows:
    """Rows whose picture and text are unit vectors: the same number, the same content."""
    return LabelledRows(EYE[image], EYE[text], np.array(labels), 0.9, 0.9)


def test_shares_count_twins_by_picture_or_text_once() -> None:
    rows = known([0, 0, 2], image=[0, 1, 2], text=[0, 0, 3])
    # The first post is like row 0 by picture and text, and like row 1 by text; the second like row 2; the third none.
    shares = twin_shares(rows, EYE[[0, 2, 5]], EYE[[0, 4, 5]], 3)
    np.testing.assert_array_equal(shares, [[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    mixed = twin_shares(known([0, 2], image=[0, 1], text=[0, 0]), EYE[[3]], EYE[[0]], 3)
    np.testing.assert_array_equal(mixed, [[0.5, 0, 0.5]])


def test_a_near_twin_is_one_and_a_missing_half_is_none() -> None:
    rows = known([1], image=[0], text=[0])
    near = (EYE[[0]] + 0.3 * EYE[[1]]) * 7  # cosine 0.958, whatever the length
    far = EYE[[0]] + EYE[[1]]  # 0.707
    nothing = np.zeros((1, 6), np.float32)
    assert twin_shares(rows, near, nothing, 2).tolist() == [[0, 1]]
    assert not twin_shares(rows, far, nothing, 2).any()


def test_the_table_counts_every_post_once_and_not_itself() -> None:
    # Rows 0, 1 and 2 share a picture, with labels 0, 0 and 1; row 3 is alone.
    table = twin_table(known([0, 0, 1, 1], image=[0, 0, 0, 1], text=[2, 3, 4, 5]), 2)
    # Twins of row 0: half of each label, of row 1 too; of row 2: both 0. And one in every cell.
    np.testing.assert_allclose(table, [[2 / 4, 2 / 4], [2 / 3, 1 / 3]])


def test_leaning_is_bayes_rule() -> None:
    table = np.array([[0.8, 0.2], [0.3, 0.7]])
    p = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])
    found = posterior(p, np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]), table)
    np.testing.assert_allclose(found[0], [0.8 / 1.1, 0.3 / 1.1])
    half = np.sqrt([0.8 * 0.2, 0.3 * 0.7])
    np.testing.assert_allclose(found[1], half / half.sum())
    np.testing.assert_array_equal(found[2], p[2])  # without twins nothing moves


def test_tiles_are_small_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held at a time does not grow with the number of training posts."""
    monkeypatch.setattr(twins, "_TILE", 3)
    rows = known([0] * 20, image=[0] * 20, text=[1] * 20)
    assert max(tile[-1].size for tile in twins._likeness(rows, EYE, EYE)) == 9


def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 6, (2, 20))
    rows = known(rng.integers(0, 3, 20).tolist(), picks[0].tolist(), picks[1].tolist())
    whole = twin_table(rows, 3), twin_shares(rows, EYE, EYE[::-1], 3)
    monkeypatch.setattr("mmsent.inference.near_duplicates._TILE", 3)
    parts = twin_table(rows, 3), twin_shares(rows, EYE, EYE[::-1], 3)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other)
