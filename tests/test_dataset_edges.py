"""Edges of the manifest loader that a mutation run found untested (see docs/testing.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmsent.dataset import load_dataset
from mmsent.errors import DataError

HEADER = "id,image,text,label,split"


def manifest(folder: Path, *rows: str) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    path = folder / "posts.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_bad_row_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "one,a.png,first,positive,",
        ",a.png,an id that is empty,positive,",
        "two,a.png,second,positive,dev",
        "three,gone.png,third,negative,",
        "four,a.png,fourth,,test",
    )
    dataset = load_dataset(path, strict=False)
    assert [post.id for post in dataset.posts] == ["one", "three", "four"]
    bad = [(p.kind, p.where, p.message) for p in dataset.problems if p.kind in {"unsafe id", "unknown split"}]
    assert bad == [
        ("unsafe id", "posts.csv row 2", "id '' is empty"),
        ("unknown split", "posts.csv row 3", "split 'dev' is neither 'train' nor 'test'"),
    ]
    pictures = {post.id: post.image for post in dataset.posts}
    assert pictures["one"] == tmp_path / "a.png"
    assert pictures["three"] is None
    with pytest.raises(DataError, match=r"posts\.csv row 2: id '' is empty; posts\.csv row 3: split 'dev'"):
        load_dataset(path)


def test_long_names_are_cut_in_messages(tmp_path: Path) -> None:
    long = "x" * 300
    path = manifest(tmp_path, f"one,a.png,first,positive,{long}", "two\x07" + "y" * 100 + ",a.png,second,positive,")
    messages = [p.message for p in load_dataset(path, strict=False).problems if p.severity == "error"]
    assert f"split {'x' * 60!r} is neither" in messages[0]
    assert f"id {('two' + chr(7) + 'y' * 100)[:60]!r} holds" in messages[1]


@pytest.mark.parametrize(
    ("split", "row", "needs"),
    [
        ("train", "one,a.png,first,,", "rows with a label"),
        ("test", "one,a.png,first,positive,", "rows without a label"),
    ],
)
def test_a_manifest_without_a_split_says_what_it_needs(tmp_path: Path, split: str, row: str, needs: str) -> None:
    dataset = load_dataset(manifest(tmp_path, row))
    told = rf"has no {split} split: it needs {needs}, or a column 'split' that says '{split}'$"
    with pytest.raises(DataError, match=told):
        dataset.of("train" if split == "train" else "test")


def test_an_id_of_a_manifest_may_hold_a_slash(tmp_path: Path) -> None:
    dataset = load_dataset(manifest(tmp_path, "a/b,a.png,first,positive,"))
    assert [post.id for post in dataset.posts] == ["a/b"]
