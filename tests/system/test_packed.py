"""Texts in one buffer, posts and rows in arrays: what goes in comes out, in a few bytes each."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsent.data.posts import Post, Posts
from mmsent.features.cache import NO_HASH, Row, RowTable
from mmsent.system.packed import Places, Strings

texts = st.lists(st.one_of(st.none(), st.text()), max_size=30)


@given(texts)
def test_strings_come_back(values: list[str | None]) -> None:
    packed = Strings(values)
    assert list(packed) == values
    assert [packed.get(i) for i in range(len(packed))] == values
    fixed = packed.fixed()
    # numpy drops NULs at the end of a value of fixed width; ids hold none.
    assert [v.decode() for v in fixed] == [(v or "").rstrip("\0") for v in values]


def test_half_a_surrogate_pair_is_kept_and_cannot_be_fixed() -> None:
    packed = Strings(["a\ud83d", "b"])
    assert list(packed) == ["a\ud83d", "b"]
    assert packed.fixed().tolist() == [b"a?", b"b"]


def test_where_there_is_no_text() -> None:
    packed = Strings(["a", None])
    with pytest.raises(KeyError):
        packed[1]
    with pytest.raises(IndexError):
        packed[2]


@given(st.lists(st.text(max_size=3), max_size=30))
def test_repeated_texts(values: list[str]) -> None:
    assert Strings(values).repeated() == {i for i, v in enumerate(values) if values.count(v) > 1}


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.lists(st.text(max_size=5), max_size=20))
def test_places(values: list[str], others: list[str]) -> None:
    wanted = [*values, *others]
    assert Places(Strings(values)).find(wanted).tolist() == [values.index(w) if w in values else -1 for w in wanted]


def test_places_tell_texts_of_equal_hash_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsent.system.packed.hash", lambda value: 7, raising=False)
    values = ["a", "b", "c"]
    assert Places(Strings(values)).find(["c", "a", "d", "b"]).tolist() == [2, 0, -1, 1]


def some_posts(folder: Path) -> list[Post]:
    return [
        Post("1", "train", "positive", folder / "1.jpg", "a text"),
        Post("2", "test", "negative", None, folder / "2.txt"),
        Post("3", "train", None, Path("/elsewhere/3.jpg"), None),
        Post("4", "train", "negative", folder / ".." / "4.jpg", ""),
    ]


@pytest.mark.parametrize("folder", [Path("/data/x"), Path("data"), Path()])
def test_posts_come_back(folder: Path) -> None:
    made = some_posts(folder)
    posts = Posts(folder, made)
    assert list(posts) == made
    assert posts[-1] == made[-1]
    assert posts[1:3] == made[1:3]
    assert posts == Posts(folder, made)
    assert posts != Posts(folder, made[:3])
    assert posts.splits == ["train", "test"]
    train = posts.of("train")
    assert list(train) == [made[0], made[2], made[3]]
    assert train[1:] == [made[2], made[3]]
    assert len(train) == 3


def test_posts_lose_their_test_labels_alone() -> None:
    posts = Posts(Path("d"), some_posts(Path("d")))
    bare = posts.without_test_labels()
    assert [p.label for p in bare] == ["positive", None, None, "negative"]
    assert [p.label for p in posts] == ["positive", "negative", None, "negative"]


def test_a_path_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(ValueError, match="neither below"):
        Posts(Path("data"), [Post("1", "train", "positive", Path("other/1.jpg"), "a")])


def test_posts_take_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/some/where/data")
    # pathlib interns names; Python's table of interned strings, when full, moves to a larger place of many megabytes.
    monkeypatch.setattr(sys, "intern", str)
    tracemalloc.start()
    posts = Posts(folder, (Post(f"{i}", "train", "positive", folder / f"{i}.jpg", "word " * 10) for i in range(20_000)))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(posts) == 20_000
    assert held / len(posts) < 120


def test_row_tables() -> None:
    rows = [Row("a", 1, b"x" * 32, NO_HASH), Row("b", -1, NO_HASH, b"y" * 32)]
    table = RowTable.of(rows)
    assert list(table) == rows
    assert table[1:] == rows[1:]
    assert RowTable.of(table) is table
    assert table.followed_by([]) is table
    longer = table.followed_by([Row("c", 0, b"z" * 32, b"z" * 32)])
    assert [row.id for row in longer] == ["a", "b", "c"]
    assert longer.image_hashes.shape == (3, 32)
    assert np.array_equal(longer.labels, [1, -1, 0])
    assert len(RowTable.of([])) == 0
