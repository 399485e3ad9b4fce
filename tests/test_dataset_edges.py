"""Edges of the loaders that a mutation run found untested (see docs/testing.md)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made import make_guid
from PIL import Image

from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset, locate, name_of
from mmsent.data.text import MAX_BYTES
from mmsent.errors import DataError

HEADER = "id,image,text,label,split"
BOTH = "this id is in both splits; validation would see a test post"


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


def test_a_cell_that_holds_no_plain_value_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text('{"id": "1", "text": ["a"], "label": "neutral"}\n{"id": "2", "text": "b", "label": "neutral"}\n')
    dataset = load_dataset(path, strict=False)
    assert [post.id for post in dataset.posts] == ["2"]
    (problem,) = dataset.problems
    assert (problem.severity, problem.kind, problem.where) == ("error", "malformed row", "posts.jsonl row 1")
    assert problem.message.startswith("column 'text' holds ")
    with pytest.raises(DataError, match=r"^posts\.jsonl row 1: .*; `mmsent check --data .*posts\.jsonl` lists"):
        load_dataset(path)


def test_problems_of_rows_say_where_and_what(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 2, 1, size=8)
    long = "x" * 70
    with (root / "train.txt").open("a") as file:
        file.write(f"{long},{'y' * 70}\n2,NULL\n")
    with (root / "test_without_label.txt").open("a") as file:
        file.write("1,null\n1,null\n3,None\n")
    found = load_dataset(root, strict=False).problems
    assert [(p.severity, p.kind, p.where, p.message) for p in found] == [
        (
            "error",
            "unknown label",
            f"posts train {'x' * 60}",
            f"label {'y' * 60!r} is not one of negative, neutral, positive; add it with --labels if it is right",
        ),
        ("error", "no label", "posts train 2", "a training row has no label"),
        ("error", "duplicate id", "posts train 2", "this id stands twice in its list"),
        ("warning", "id in both splits", "posts test 1", BOTH),
        ("warning", "id in both splits", "posts test 1", BOTH),
        ("error", "duplicate id", "posts test 3", "this id stands twice in its list"),
    ]


def test_three_errors_are_all_shown_and_the_rest_counted(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 1, 0, size=8)
    with (root / "train.txt").open("a") as file:
        file.write("5\n6\n7\n")
    said = "; ".join(f"train.txt:{n}: expected 'guid,tag', got 1 fields: '{n + 2}'" for n in (3, 4, 5))
    with pytest.raises(DataError) as caught:
        load_dataset(root)
    assert str(caught.value) == f"{said}; `mmsent check --data {root}` lists all problems"
    with (root / "train.txt").open("a") as file:
        file.write(f"8,{'z' * 90},\n")
    with pytest.raises(DataError) as caught:
        load_dataset(root)
    assert str(caught.value) == f"{said} (and 1 more); `mmsent check --data {root}` lists all problems"
    last = load_dataset(root, strict=False).problems[-1]
    assert last.message == f"expected 'guid,tag', got 3 fields: {'8,' + 'z' * 78!r}"


def test_a_word_for_no_label_may_be_a_label(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 2, 0, size=8)
    (root / "train.txt").write_text("1,none\n2,NaN\n")
    settings = DataSettings(labels=("none", "some"))
    assert [post.label for post in load_dataset(root, settings, strict=False).posts] == ["none", None]
    path = manifest(tmp_path, "1,a.png,t,none,", "2,a.png,t,None,", "3,a.png,t,nan,train")
    found = load_dataset(path, settings, strict=False).posts
    assert [(post.split, post.label) for post in found] == [("train", "none"), ("test", None), ("train", None)]


def test_files_of_a_post_by_ending(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 3, 0, size=8)
    data = root / "data"
    (data / "1.txt").rename(data / "1.TXT")
    for ending in ("gif", "png", "tiff"):
        (data / f"1.{ending}").write_bytes(b"x")
    (data / "2.jpg").rename(data / "2.tiff")
    (data / "2.Png").write_bytes(b"x")
    (data / "3.md").write_text("no picture")
    (data / "9.jpg").write_bytes(b"x")
    (data / "8.jpg").write_bytes(b"x")
    dataset = load_dataset(root, strict=False)
    assert [(p.image, p.text) for p in dataset.posts] == [
        (data / "1.jpg", data / "1.TXT"),
        (data / "2.Png", data / "2.txt"),
        (data / "3.jpg", data / "3.txt"),
    ]
    said = "1 has more than one picture; the first of jpg, jpeg, png, webp, bmp, gif, tif, tiff is used"
    assert [(p.severity, p.kind, p.where, p.message) for p in dataset.problems] == [
        ("warning", "two pictures", "1.jpg", said),
        ("warning", "two pictures", "1.png", said),
        ("warning", "two pictures", "1.tiff", said),
        ("warning", "two pictures", "2.tiff", said.replace("1 has", "2 has")),
        ("note", "unlisted", "data/", "2 ids have files but are in no list"),
    ]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_links_out_of_the_data_set_are_counted(tmp_path: Path) -> None:
    (tmp_path / "away.txt").write_text("elsewhere")
    root = make_guid(tmp_path / "posts", 3, 0, size=8)
    (root / "beside.txt").write_text("within the data set, though not in data/")
    for name, target in (("2.txt", tmp_path / "away.txt"), ("3.txt", root / "beside.txt")):
        (root / "data" / name).unlink()
        (root / "data" / name).symlink_to(target)
    said = "files are links that lead out of the data set; their targets are read"
    (problem,) = load_dataset(root).problems
    assert (problem.severity, problem.kind, problem.where, problem.message) == (
        "warning",
        "link to outside",
        "2",
        f"1 {said}",
    )
    # A data/ that is itself a link leads nowhere foreign.
    (root / "data").rename(tmp_path / "real")
    (root / "data").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "3.txt").unlink()
    (tmp_path / "real" / "3.txt").symlink_to(tmp_path / "real" / "1.txt")
    assert [p.where for p in load_dataset(root).problems] == ["2"]
    (tmp_path / "set").mkdir()
    path = manifest(tmp_path / "set", "one,a.png,first,positive,", "two,b.png,second,positive,", "3,c.png,x,neutral,")
    (tmp_path / "set" / "b.png").symlink_to(tmp_path / "away.txt")
    (tmp_path / "set" / "c.png").symlink_to(tmp_path / "away.txt")
    (problem,) = load_dataset(path).problems
    assert (problem.where, problem.message) == ("two", f"2 {said}")


def test_where_a_data_set_is_and_what_it_is_called(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "my.posts", 1, 0, size=8)
    assert locate(root) == root
    assert name_of(root) == "my.posts"
    (tmp_path / "link").symlink_to(root)
    assert name_of(tmp_path / "link") == "my.posts"
    (root / "train.txt").rename(root / "test_without_label.txt")
    assert locate(root) == root  # either list will do
    (tmp_path / "set").mkdir()
    path = manifest(tmp_path / "set", "one,a.png,first,positive,")
    path = path.rename(path.with_name("a.b.CSV"))
    assert locate(tmp_path / "set") == path
    assert name_of(tmp_path / "set") == "a.b"
    with pytest.raises(DataError) as caught:
        locate(tmp_path / "my.posts" / "data")
    assert str(caught.value) == (
        f"{root / 'data'} is not a data set: found neither list nor manifest; expected train.txt and data/, "
        "or one file ending in csv, tsv, jsonl, parquet"
    )


def test_missing_texts_do_not_decide_the_encoding(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 4, 0, size=8)
    dataset = load_dataset(root)
    for number in (1, 2):
        (root / "data" / f"{number}.txt").unlink()
    (root / "data" / "3.txt").write_bytes(bytes(MAX_BYTES + 1))
    assert dataset.decoding.encoding == "utf-8"
    assert dataset.decoding.why.startswith("decodes all 1 texts")
    with pytest.raises(DataError, match=r"^text cannot be read: "):
        dataset.text_of(dataset.posts[2])


def test_an_id_with_dots_and_two_pictures(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 1, 0, size=8)
    for ending in ("png", "jpg"):
        (root / "data" / "a.b.c.gif").with_suffix(f".{ending}").write_bytes(b"x")
    (root / "train.txt").write_text("a.b.c,neutral\n")
    assert load_dataset(root).posts[0].image == root / "data" / "a.b.c.jpg"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_links_beside_a_manifest_lead_nowhere_foreign(tmp_path: Path) -> None:
    path = manifest(tmp_path, "one,b.png,first,positive,")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert load_dataset(path).problems == ()


def test_a_set_without_a_training_list_and_an_unsafe_id_among_others(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 1, 3, size=8)
    (root / "train.txt").unlink()
    long = "../" + "x" * 100
    (root / "test_without_label.txt").write_text(f"guid,tag\n2,null\n{long},null\n4,null\n")
    dataset = load_dataset(root, strict=False)
    assert [post.id for post in dataset.posts] == ["2", "4"]
    (problem,) = (p for p in dataset.problems if p.severity == "error")
    assert (problem.kind, problem.where) == ("unsafe id", "test_without_label.txt:3")
    assert f"id {long[:60]!r} " in problem.message


def test_of_two_pictures_alike_but_for_the_case_of_their_ending_the_first_is_used(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 1, 0, size=8)
    (root / "data" / "1.JPG").write_bytes(b"x")
    if len(list((root / "data").glob("1.[jJ]*"))) < 2:
        pytest.skip("this file system tells no case")
    assert load_dataset(root).posts[0].image == root / "data" / "1.JPG"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_links_within_a_data_folder_that_lies_elsewhere(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 2, 0, size=8)
    (root / "data").rename(tmp_path / "real")
    (root / "data").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "2.txt").unlink()
    (tmp_path / "real" / "2.txt").symlink_to("1.txt")
    assert load_dataset(root).problems == ()


def test_a_manifest_keeps_the_encoding_that_it_was_read_by(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_bytes("id,text,label\n1,今天天气很好,positive\n".encode("gb18030"))
    dataset = load_dataset(path)
    assert dataset.posts[0].text == "今天天气很好"
    assert dataset.decoding.encoding == "gb18030"
