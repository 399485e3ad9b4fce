"""The validation split: exact, stratified, whole groups, and the same for any order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsent.config import SplitSettings, settings
from mmsent.data.dataset import load_dataset
from mmsent.data.duplicates import duplicate_groups
from mmsent.errors import DataError
from mmsent.training.splits import hashed_order, validation_split


def classes(*counts: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


def names(n: int) -> list[str]:
    return [f"r{i}" for i in range(n)]


def split(
    labels: NDArray[np.int64], size: float, groups: Sequence[int] | None = None, seed: int = 0
) -> NDArray[np.bool_]:
    numbers = None if groups is None else np.array(groups, dtype=np.int64)
    return validation_split(names(len(labels)), labels, numbers, settings(SplitSettings, val_size=size, seed=seed))


# --- groups


def test_groups_link_by_picture_or_text_and_through_others() -> None:
    images = [b"A", b"A", b"B", b"C", b"D", b"E"]
    texts = [b"1", b"2", b"2", b"3", b"4", b"4"]
    assert duplicate_groups(images, texts).tolist() == [0, 0, 0, 1, 2, 2]  # 0 and 2 meet through 1


def test_absent_hashes_link_nothing() -> None:
    images = [b"", b"", bytes(32), bytes(32), b"A", b"A"]
    texts = [b"1", b"2", b"3", bytes(16), b"", b""]
    assert duplicate_groups(images, texts).tolist() == [0, 1, 2, 3, 4, 4]


def test_a_picture_and_a_text_with_one_hash_do_not_link() -> None:
    assert duplicate_groups([b"A", b"B"], [b"B", b"A"]).tolist() == [0, 1]
    assert duplicate_groups([], []).shape == (0,)
    with pytest.raises(ValueError, match="equally many"):
        duplicate_groups([b"A"], [])


# --- sizes and quotas


@pytest.mark.parametrize(
    ("counts", "size", "quotas"),
    [
        ((1193, 419, 2388), 500, [149, 52, 299]),  # 149.125, 52.375, 298.5: the odd row goes to the largest remainder
        ((1193, 419, 2388), 0.125, [149, 52, 299]),
        ((5, 5), 0.3, [2, 1]),  # 1.5 each: a tie goes to the first class
        ((10, 10), 0.5, [5, 5]),
        ((9, 1), 6, [6, 0]),  # 5.4 and 0.6, but the only row of a class must train
        ((1, 1, 8), 7, [0, 0, 7]),
        ((3, 0, 3), 2, [1, 0, 1]),
    ],
)
def test_quotas_by_largest_remainder(counts: tuple[int, ...], size: float, quotas: list[int]) -> None:
    labels = classes(*counts)
    assert np.bincount(labels[split(labels, size)], minlength=len(counts)).tolist() == quotas


def test_a_share_is_rounded_half_up() -> None:
    assert split(classes(5, 5), 0.25).sum() == 3


@pytest.mark.parametrize(
    ("counts", "size", "message"),
    [
        ((1,), 0.5, "from 1 labelled rows; at least 2 are needed"),
        ((5, 5), 10, "a validation split of 10 rows leaves none of 10 to train on; lower it"),
        ((5, 5), 0.99, "leaves none of 10"),
        ((5, 5), 0.04, "a validation share of 0.04 of 10 rows is less than one row; raise it"),
        ((5, 5), 9, "leaves a class without a training row; use at most 8 rows"),
        ((1, 1), 1, "use at most 0 rows"),
    ],
)
def test_impossible_sizes(counts: tuple[int, ...], size: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(classes(*counts), size)


def test_bad_rows() -> None:
    with pytest.raises(DataError, match="some ids stand twice"):
        validation_split(["a", "a", "b"], classes(3), None, settings(SplitSettings))
    with pytest.raises(DataError, match="1 rows have no label"):
        validation_split(["a", "b", "c"], np.array([0, -1, 0]), None, settings(SplitSettings))


# --- selection


def test_order_is_that_of_the_hashes() -> None:
    ids = names(10)
    expected = sorted(ids, key=lambda i: hashlib.sha256(f"7\0{i}".encode()).digest())[:4]
    chosen = validation_split(ids, classes(10), None, settings(SplitSettings, val_size=4, seed=7))
    assert sorted(expected) == sorted(i for i, c in zip(ids, chosen, strict=True) if c)


def test_seeds_differ() -> None:
    labels = classes(60, 40)
    assert (split(labels, 20) == split(labels, 20)).all()
    assert (split(labels, 20) != split(labels, 20, seed=1)).any()


def test_row_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    ids, labels, groups = names(200), classes(60, 40, 100), rng.integers(0, 120, 200)
    chosen = validation_split(ids, labels, groups, settings(SplitSettings, val_size=50))
    order = rng.permutation(200)
    relabelled = 500 - groups[order]  # neither do the numbers of the groups
    again = validation_split([ids[i] for i in order], labels[order], relabelled, settings(SplitSettings, val_size=50))
    np.testing.assert_array_equal(again, chosen[order])


def test_groups_are_whole_and_the_size_exact() -> None:
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 3, 400), rng.integers(0, 300, 400)
    for seed in range(10):
        chosen = split(labels, 100, groups.tolist(), seed)
        assert chosen.sum() == 100
        assert not set(groups[chosen]) & set(groups[~chosen])
        assert np.abs(np.bincount(labels[chosen]) - np.bincount(labels) / 4).max() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_swaps_reach_what_greedy_misses(seed: int) -> None:
    groups = [0, 0, 1, 1, 2, 2, 3, 3, 3]  # three pairs and a triple: 5 rows are a pair and the triple alone
    assert split(classes(9), 5, groups, seed).sum() == 5


def test_mixed_groups_come_as_near_as_they_can() -> None:
    labels = np.array([0, 1] * 5)  # five groups of one row of each class
    chosen = split(labels, 4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert np.bincount(labels[chosen]).tolist() == [2, 2]
    odd = split(labels, 5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert odd.sum() in (4, 6)


def test_a_class_in_one_group_trains() -> None:
    labels = classes(20, 4)
    groups = [*range(20), 20, 20, 20, 20]
    for seed in range(5):
        chosen = split(labels, 6, groups, seed)
        assert chosen.sum() == 6
        assert not chosen[20:].any()


def test_one_single_group() -> None:
    with pytest.raises(DataError, match=r"duplicates tie the 6 rows into 1 groups.*split without grouping"):
        split(classes(3, 3), 2, [0] * 6)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=4, max_size=60),
    st.floats(0.1, 0.6),
    st.integers(0, 5),
)
def test_invariants(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.array([group for _, group in rows])
    try:
        chosen = split(labels, share, groups.tolist(), seed)
    except DataError:
        return
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert set(labels) == set(labels[~chosen])
    assert 0 < chosen.sum() < len(rows)
    assert (split(labels, share, None, seed)).sum() == int(share * len(rows) + 0.5)


@pytest.mark.mvsa
def test_mvsa_split(mvsa: Path) -> None:
    data = load_dataset(mvsa)
    train = data.of("train")
    labels = np.array([data.settings.labels.index(post.label or "") for post in train])
    images = [hashlib.sha256(post.image.read_bytes()).digest() for post in train if post.image]
    texts = [hashlib.sha256(data.text_of(post).encode()).digest() for post in train]
    groups = duplicate_groups(images, texts)
    assert groups.max() + 1 == 3840
    for seed in range(3):
        chosen = validation_split(
            [post.id for post in train], labels, groups, settings(SplitSettings, val_size=500, seed=seed)
        )
        assert chosen.sum() == 500
        assert np.bincount(labels[chosen]).tolist() == [149, 52, 299]
        assert not set(groups[chosen]) & set(groups[~chosen])
        for hashes in (images, texts):
            inside = {h for h, c in zip(hashes, chosen, strict=True) if c}
            assert not inside & {h for h, c in zip(hashes, chosen, strict=True) if not c}


def test_hashes_that_begin_alike_are_ordered_by_their_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Digest:
        """Begins with the same eight bytes for all but "b"."""

        def __init__(self, text: bytes = b"") -> None:
            self.text = text

        def copy(self) -> Digest:
            return Digest()

        def update(self, text: bytes) -> None:
            self.text += text

        def digest(self) -> bytes:
            return (b"\0" * 8 if self.text == b"b" else b"\1" * 8) + self.text.ljust(24, b"\0")

    monkeypatch.setattr("mmsent.training.splits.hashlib.sha256", Digest)
    order = hashed_order(["d", "b", "c", "a"], np.arange(4), seed=0)
    assert order.tolist() == [1, 3, 2, 0]
