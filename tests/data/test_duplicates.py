"""Near-duplicates: hashes and cosines, pairs that do not depend on order or tiles, groups that do not chain up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsent.data import duplicates
from mmsent.data.duplicates import (
    HASH_BITS,
    HASH_LIMIT,
    Pairs,
    joined,
    like_hashes,
    like_vectors,
    perceptual_hash,
    tiles,
)
from mmsent.errors import DataError


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth picture of a few blobs; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.unpackbits(a ^ b).sum())


def test_the_hash_stands_resizing_and_recompression(tmp_path: Any) -> None:
    for seed in range(5):
        image = photo(seed)
        image.save(tmp_path / "a.jpg", quality=40)
        with Image.open(tmp_path / "a.jpg") as again:
            assert differing(perceptual_hash(image), perceptual_hash(again.convert("RGB"))) <= HASH_LIMIT
        assert differing(perceptual_hash(image), perceptual_hash(image.resize((400, 300)))) <= HASH_LIMIT


def test_other_pictures_have_other_hashes() -> None:
    hashes = np.stack([perceptual_hash(photo(seed)) for seed in range(30)])
    assert hashes.shape == (30, HASH_BITS // 8)
    assert len(like_hashes(hashes)) == 0


def test_like_hashes_count_bits() -> None:
    base = np.zeros((3, 8), np.uint8)
    base[1, 0] = 0b111111  # six bits from row 0
    base[2, 7] = 0b1  # one bit from row 0, seven from row 1
    found = like_hashes(base)
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == [(0, 1), (0, 2)]
    assert found.similarity.tolist() == pytest.approx([1 - 6 / 64, 1 - 1 / 64])
    assert len(like_hashes(np.zeros((0, 8), np.uint8))) == 0


def pairs_of(found: Pairs) -> set[tuple[int, int]]:
    return set(zip(found.a.tolist(), found.b.tolist(), strict=True))


def test_like_vectors_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_TILE", 16)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(70, 12)).astype(np.float32)
    vectors[5] = vectors[60] * 3
    vectors[17] = vectors[60] + 0.05 * rng.normal(size=12)
    vectors[33] = 0  # a quarantined half
    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    whole = unit @ unit.T
    for least in (0.5, 0.9, 0.99):
        seen: list[int] = []
        found = like_vectors(vectors, least, seen.append)
        assert pairs_of(found) == {(i, j) for i in range(70) for j in range(i + 1, 70) if whole[i, j] >= least}
        assert found.similarity == pytest.approx(whole[found.a, found.b], abs=1e-8)
        assert sum(seen) == tiles(70) == 15
    assert (5, 60) in pairs_of(like_vectors(vectors, 1.0))
    assert not any(33 in pair for pair in pairs_of(like_vectors(vectors, 0.1)))


def test_like_vectors_do_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.normal(size=(20, 8)), 3, axis=0).astype(np.float32)
    vectors += 0.2 * rng.normal(size=vectors.shape).astype(np.float32)
    expected = {frozenset(pair) for pair in pairs_of(like_vectors(vectors, 0.95))}
    assert expected
    for seed, tile in ((2, 7), (3, 2048)):
        monkeypatch.setattr(duplicates, "_TILE", tile)
        order = np.random.default_rng(seed).permutation(60)
        found = like_vectors(vectors[order], 0.95)
        assert {frozenset((int(order[a]), int(order[b]))) for a, b in pairs_of(found)} == expected


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 100)
    with pytest.raises(DataError, match="raise it"):
        like_vectors(np.ones((20, 4), np.float32), 0.9)


# --- groups


def chain(n: int, falling: bool = True) -> Pairs:
    """0-1, 1-2, ...: the first pair is the likest."""
    similarity = np.linspace(1, 0.9, n - 1)
    return Pairs(np.arange(n - 1), np.arange(1, n), similarity if falling else similarity[::-1])


def test_joining_is_transitive_below_the_limit() -> None:
    groups, cut = joined(np.arange(5), chain(4), list("abcde"), 4)
    assert (groups.tolist(), cut) == ([0, 0, 0, 0, 1], 0)


def test_a_chain_is_parted_at_its_weakest_links() -> None:
    groups, cut = joined(np.arange(6), chain(6), list("abcdef"), 4)
    assert (groups.tolist(), cut) == ([0, 0, 0, 0, 1, 1], 1)
    groups, cut = joined(np.arange(6), chain(6, falling=False), list("abcdef"), 4)
    assert (groups.tolist(), cut) == ([0, 0, 1, 1, 1, 1], 1)


def test_groups_given_are_never_parted() -> None:
    given = np.array([7, 7, 7, 7, 7, 3, 3, 1])
    pairs = Pairs(np.array([0, 5]), np.array([5, 7]), np.array([0.95, 0.94]))
    groups, cut = joined(given, pairs, list("abcdefgh"), 4)
    assert (groups.tolist(), cut) == ([0, 0, 0, 0, 0, 1, 1, 1], 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_groups_do_not_depend_on_the_order(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 14))
    drawn = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=25))
    links = sorted({(min(p), max(p)) for p in drawn if p[0] != p[1]})
    levels = [data.draw(st.sampled_from([0.9, 0.95, 1.0])) for _ in links]
    given_groups = np.array([data.draw(st.integers(0, n)) for _ in range(n)])
    most = data.draw(st.integers(1, 6))
    ids = [f"r{i:02}" for i in range(n)]

    def partition(order: list[int]) -> set[frozenset[str]]:
        where = {row: k for k, row in enumerate(order)}
        ends = np.array([sorted((where[a], where[b])) for a, b in links], np.int64).reshape(-1, 2)
        pairs = Pairs(ends[:, 0], ends[:, 1], np.array(levels))
        found, _ = joined(given_groups[order], pairs, [ids[i] for i in order], most)
        first = {g: k for k, g in reversed(list(enumerate(found.tolist())))}
        assert sorted(first, key=lambda g: first[g]) == list(range(len(first)))  # numbered as they appear
        return {frozenset(ids[order[k]] for k in np.flatnonzero(found == g)) for g in first}

    plain = partition(list(range(n)))
    shuffled = data.draw(st.permutations(range(n)))
    assert partition(list(shuffled)) == plain
    start = {frozenset(ids[i] for i in np.flatnonzero(given_groups == g)) for g in set(given_groups.tolist())}
    for group in plain:
        inside = [given for given in start if given <= group]
        assert sum(map(len, inside)) == len(group)  # whole groups given
        assert len(group) <= most or len(inside) == 1
