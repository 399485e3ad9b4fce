"""Both layouts: which posts come out, and which problems are found."""

from __future__ import annotations

import csv
import os
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from PIL import Image

from mmsent.config import Clean, DataSettings
from mmsent.data.dataset import Dataset, Post, load_dataset, locate, name_of, unsafe_id
from mmsent.data.images import read_image
from mmsent.data.lists import ListForm
from mmsent.data.posts import Posts
from mmsent.data.readers.files import IMAGE_ENDINGS
from mmsent.data.text import MAX_BYTES
from mmsent.errors import DataError
from tests.helpers.made import make_guid, make_manifest


def kinds(data: Dataset) -> list[tuple[str, str]]:
    return [(p.severity, p.kind) for p in data.problems]


def test_guid_layout(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 20, 5)
    data = load_dataset(root)
    assert (data.name, data.layout, data.splits, data.problems) == ("posts", "guid", ["train", "test"], ())
    assert [p.id for p in data.of("train")] == [str(i) for i in range(1, 21)]
    assert [p.id for p in data.of("test")] == ["21", "22", "23", "24", "25"]
    labels = [p.label for p in data.of("train")]
    assert [labels.count(x) for x in data.settings.labels] == [6, 4, 10]
    assert {p.label for p in data.of("test")} == {None}
    first = data.posts[0]
    assert first.image == root / "data" / "1.jpg"
    assert "… post 0 " in data.text_of(first)
    assert data.forms["train"] == ListForm(("guid", "tag"), "\n")


def test_test_labels_stay_hidden_unless_asked_for(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 10, 10, test_labels=True)
    assert {p.label for p in load_dataset(root).of("test")} == {None}
    shown = [p.label for p in load_dataset(root, with_test_labels=True).of("test")]
    assert [shown.count(x) for x in ("negative", "neutral", "positive")] == [3, 2, 5]


def test_one_encoding_for_the_set(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 10, 2, encoding="gb18030")
    (root / "data" / "3.txt").write_bytes("鈥".encode("gb18030"))  # a text that is valid in both
    data = load_dataset(root)
    assert data.decoding.encoding == "gb18030"
    assert data.decoding.why == "decodes all 12 texts, as would shift_jis, cp1251, cp1252; utf-8 fails on 12"
    assert data.text_of(data.posts[2]) == "鈥"


def test_text_of_says_why_there_is_none(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 5, 0)
    (root / "data" / "1.txt").unlink()
    (root / "data" / "2.txt").write_bytes(b"\xff\xff")
    data = load_dataset(root, DataSettings(text_encoding="utf-8"))
    with pytest.raises(DataError, match=r"^no file .*data.1\.txt$"):
        data.text_of(data.posts[0])
    with pytest.raises(DataError, match="text is not utf-8"):
        data.text_of(data.posts[1])
    (root / "data" / "3.txt").unlink()
    with pytest.raises(DataError, match=r"^no file .*data.3\.txt$"):
        data.text_of(data.posts[2])


def test_cleaning_is_applied(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 3, 0)
    (root / "data" / "1.txt").write_text("RT @x: nice http://t.co/1")
    data = load_dataset(root, DataSettings(clean=(Clean.mentions, Clean.links)))
    assert data.settings.clean == (Clean.links, Clean.mentions)
    assert data.text_of(data.posts[0]) == "RT : nice"


def test_missing_files_are_named_and_endings_are_ranked(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 4, 0)
    (root / "data" / "1.jpg").unlink()
    (root / "data" / "2.jpg").rename(root / "data" / "2.PNG")
    Image.new("RGB", (4, 4)).save(root / "data" / "3.webp")
    (root / "data" / "99.txt").write_text("nobody's")
    data = load_dataset(root)
    assert not data.posts[0].has_image
    with pytest.raises(DataError, match=r"^no file .*data.1\.\*$"):
        read_image(data.posts[0].image)
    assert [p.image.name for p in data.posts[1:3] if isinstance(p.image, Path)] == ["2.PNG", "3.jpg"]
    assert kinds(data) == [("warning", "two pictures"), ("note", "unlisted")]
    assert data.problems[1].message == "1 ids have files but are in no list"


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("5,good", "unknown label", r"label 'good' is not one of negative, neutral, positive; add it with --labels"),
        ("5", "malformed line", r"train\.txt:6: expected 'guid,tag', got 1 fields"),
        ("5,neutral,x", "malformed line", "got 3 fields"),
        ("../5,neutral", "unsafe id", "holds a path separator"),
        ("..,neutral", "unsafe id", "holds a path separator"),
        (",neutral", "unsafe id", "is empty"),
        ("x" * 256 + ",neutral", "unsafe id", "is longer than 255 bytes"),
        ("5,null", "no label", "a training row has no label"),
        ("4,neutral", "duplicate id", "this id stands twice in its list"),
    ],
)
def test_bad_rows_are_errors(tmp_path: Path, line: str, kind: str, message: str) -> None:
    root = make_guid(tmp_path, 4, 0)
    with (root / "train.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(root)
    assert "`mmsent check --data" in str(caught.value)
    assert ("error", kind) in kinds(load_dataset(root, strict=False))


def test_many_errors_are_counted(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 4, 0)
    with (root / "train.txt").open("a") as file:
        file.write("5\n6\n7\n8\n9\n")
    with pytest.raises(DataError, match=r"and 2 more"):
        load_dataset(root)


def test_an_id_in_both_splits_is_a_warning(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 4, 2)
    with (root / "test_without_label.txt").open("a") as file:
        file.write("1,null\n")
    assert kinds(load_dataset(root)) == [("warning", "id in both splits")]


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "nowhere")
    assert str(caught.value) == (
        f"no data set at {tmp_path / 'nowhere'}; set --data to a folder with train.txt and data/, "
        f"or to a CSV, TSV, JSONL or Parquet manifest; {tmp_path} holds neither folders nor manifests"
    )
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"found neither list nor manifest; expected train.txt"):
        load_dataset(tmp_path / "a")
    with pytest.raises(DataError, match=rf"; {tmp_path} holds a/$"):
        load_dataset(tmp_path / "nowhere" / "else")
    (tmp_path / "my posts").mkdir()
    with pytest.raises(
        DataError, match=rf"; did you mean --data '{tmp_path}/my posts'\?; {tmp_path} holds a/, my posts/"
    ):
        load_dataset(tmp_path / "my post")
    (tmp_path / "a" / "x.csv").touch()
    (tmp_path / "a" / "y.csv").touch()
    with pytest.raises(DataError, match="found 2 manifests"):
        load_dataset(tmp_path / "a")
    (tmp_path / "a" / "train.txt").write_text("1,neutral\n")
    with pytest.raises(DataError, match=r"no folder .*data; the guid layout keeps"):
        load_dataset(tmp_path / "a")
    root = make_guid(tmp_path / "b", 4, 0)
    (root / "test_without_label.txt").unlink()
    assert load_dataset(root).splits == ["train"]
    with pytest.raises(DataError, match=r"no test split: test_without_label\.txt is missing or empty"):
        load_dataset(root).of("test")


def test_unsafe_ids() -> None:
    assert unsafe_id("a b-ö.7") is None
    assert unsafe_id("ö" * 127) is unsafe_id("ö" * 127 + "X") is None
    assert unsafe_id("ö" * 128) == "is longer than 255 bytes"
    for bad in ("a/b", "a\\b", ".", ".."):
        assert unsafe_id(bad) == "holds a path separator"
        assert unsafe_id(bad, names_files=False) is None
    for bad in ("a\0b", "a\nb", "a\x1bb", "a\0"):
        assert unsafe_id(bad) == unsafe_id(bad, names_files=False) == "holds a control character"
    assert unsafe_id("a\ud83d") == "holds half a surrogate pair, which is not a character"


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text('{"id": 1, "text": "\\ud83d", "label": "neutral"}\n{"id": 2, "text": "\\ud83d\\ude00"}\n')
    data = load_dataset(path)
    with pytest.raises(DataError, match="half a surrogate pair"):
        data.text_of(data.posts[0])
    assert data.text_of(data.posts[1]) == "\U0001f600"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_manifest_layout(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    manifest = make_manifest(tmp_path, ending, 10, 3, size=8)
    data = load_dataset(manifest)
    assert load_dataset(tmp_path).posts == data.posts  # its folder will do
    assert (data.name, data.layout, len(data.of("train")), len(data.of("test"))) == ("posts", "manifest", 10, 3)
    assert data.posts[12].image == tmp_path / "pictures" / "13.png"
    assert "… post 1 " in data.text_of(data.posts[1])
    assert data.forms["test"].header == ("id", "label")


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_manifest_columns_and_splits(tmp_path: Path) -> None:
    base = {"key": "a", "words": " hi ", "tag": "good", "part": "train"}
    rows = [base, base | {"key": "b", "part": "test"}, base | {"key": "c", "tag": "bad", "part": ""}]
    rows.append(base | {"key": "d", "tag": "NULL", "part": ""})
    named = DataSettings(
        labels=("good", "bad"), id_column="key", text_column="words", label_column="tag", split_column="part"
    )
    data = load_dataset(write_rows(tmp_path / "m.csv", rows), named, with_test_labels=True)
    assert [(p.id, p.split, p.label) for p in data.posts] == [
        ("a", "train", "good"),
        ("b", "test", "good"),
        ("c", "train", "bad"),
        ("d", "test", None),
    ]
    assert data.text_of(data.posts[0]) == "hi"
    assert data.posts[0].image is None


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"id": ""}, "unsafe id"),
        ({"id": "x" * 256}, "unsafe id"),
        ({"split": "fold 2"}, "unknown split"),
        ({"label": "good"}, "unknown label"),
        ({"split": "train", "label": ""}, "no label"),
    ],
)
def test_bad_manifest_rows(tmp_path: Path, row: dict[str, str], kind: str) -> None:
    base = {"id": "a/b", "text": "t", "label": "neutral", "split": ""}  # a manifest's ids may hold anything
    path = write_rows(tmp_path / "m.csv", [base, base | {"id": "2"} | row])
    assert kinds(load_dataset(path, strict=False)) == [("error", kind)]
    with pytest.raises(DataError, match="mmsent check"):
        load_dataset(path)


def test_manifest_without_a_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "m.csv", [{"id": "1", "text": "t", "label": "neutral"}])
    with pytest.raises(DataError, match="no test split: it needs rows without a label, or a column 'split'"):
        load_dataset(path).of("test")


@pytest.mark.mvsa
def test_mvsa(mvsa: Path) -> None:
    data = load_dataset(mvsa)
    train = [p.label for p in data.of("train")]
    assert (len(train), len(data.of("test"))) == (4000, 511)
    assert [train.count(x) for x in ("negative", "neutral", "positive")] == [1193, 419, 2388]
    assert [p.message for p in data.problems] == ["20 ids have files but are in no list"]
    assert all(p.image and p.text for p in data.posts)
    assert len({data.text_of(p) for p in data.posts}) == 4511 - 188  # 342 rows in 154 groups


# --- edges

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
        "two,a.png,second,positive,fold2",
        "three,gone.png,third,negative,",
        "four,a.png,fourth,,test",
    )
    dataset = load_dataset(path, strict=False)
    assert [post.id for post in dataset.posts] == ["one", "two", "three", "four"]
    bad = [(p.kind, p.where, p.message) for p in dataset.problems if p.kind in {"unsafe id", "unknown split"}]
    assert bad == [
        ("unsafe id", "posts.csv row 2", "id '' is empty"),
        ("unknown split", "posts.csv row 3", "split 'fold2' is neither 'train' nor 'test', nor 'val'"),
    ]
    pictures = {post.id: post.image for post in dataset.posts}
    assert pictures["one"] == tmp_path / "a.png"
    assert pictures["three"] == tmp_path / "gone.png"
    with pytest.raises(DataError, match=r"posts\.csv row 2: id '' is empty; posts\.csv row 3: split 'fold2'"):
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
    told = rf"has no {split} split: it needs {needs}, or a column 'split' that says '{split}'($|; `mmsent prepare)"
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
            f"label {'y' * 60!r} is not one of negative, neutral, positive; add it with --labels if it is right, "
            "or say with --label-map which one it is",
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
        file.write(f"8,{'z' * 90},9\n")
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
    said = f"1 has more than one picture; the first of {', '.join(IMAGE_ENDINGS)} is used"
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
        "or one file ending in csv, tsv, jsonl, parquet, json; it holds 1 .jpg (1.jpg), 1 .txt; "
        "other readers: mvsa (MVSA's folder with labelResultAll.txt and data/); "
        "mvsa-same (the posts of it whose two labels are the same); "
        "memotion (Memotion's folder with labels.csv and images/); "
        "hateful-memes (Hateful Memes' folder with train.jsonl, dev.jsonl and img/); "
        "imagefolder (a folder of images per label, .txt beside them or a metadata.csv); "
        "label-studio (a JSON export of Label Studio); argilla (records of Argilla, as to_disk writes them); "
        "hf-parquet (Parquet files with the images inside); "
        "excel (an .xlsx file); webdataset (WebDataset's .tar shards); "
        "split-files (a folder with train.csv, val.csv and test.csv, or the like); "
        "folder (a folder of images, .txt beside them or in texts/, not labelled yet); "
        "the smallest manifest is a CSV of id,image,text,label"
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


def test_unusual_endings_are_known_by_their_bytes(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "posts", 6, 0, size=8)
    data = root / "data"
    for k, name in enumerate(("1.jpg_large", "2", "3.jpg!d", "4.json", "5.xyz"), 1):
        (data / f"{k}.jpg").rename(data / name)
    (data / "4.json").write_text("{}")
    (data / "5.xyz").write_bytes(b"not read")
    found = load_dataset(root)
    names = [post.image.name for post in found.posts if isinstance(post.image, Path)]
    assert names == ["1.jpg_large", "2", "3.jpg!d", "4.*", "5.*", "6.jpg"]
    assert [(p.severity, p.message) for p in found.problems] == [
        ("note", "3 images have unusual endings and were known by their bytes")
    ]


def test_blanks_around_cells_and_names_of_splits_in_any_case(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, "one, a.png ,first,positive , Train", "two,a.png,second,N/A,", "three,a.png,x,neutral,TEST"
    )
    posts = load_dataset(path, with_test_labels=True).posts
    assert [(p.split, p.label, p.has_image) for p in posts] == [
        ("train", "positive", True),
        ("test", None, True),
        ("test", "neutral", True),
    ]


def test_labels_in_another_case_are_read_and_counted(tmp_path: Path) -> None:
    rows = ("one,a.png,first,POSITIVE,", "two,b.png,second,Neutral ,", "three,c.png,third,POSITIVE,")
    found = load_dataset(manifest(tmp_path, *rows))
    assert [post.label for post in found.posts] == ["positive", "neutral", "positive"]
    assert "labels: 'POSITIVE' is 'positive' (2 rows), 'Neutral' is 'neutral' (1 rows)" in found.told


def test_labels_of_a_guid_list_in_another_case_are_read_and_counted(tmp_path: Path) -> None:
    root = make_guid(tmp_path)
    path = root / "train.txt"
    path.write_text(path.read_text().replace("positive", "Positive"))
    found = load_dataset(root)
    assert {post.label for post in found.posts.of("train")} <= {*found.settings.labels}
    n = path.read_text().count("Positive")
    assert found.told[1:] == (f"labels: 'Positive' is 'positive' ({n} rows)",)


def test_test_rows_stay_test_rows_whatever_the_case_of_the_column(tmp_path: Path) -> None:
    path = manifest(tmp_path, "one,a.png,first,positive,train", "two,a.png,second,positive,test")
    path.write_text(path.read_text().replace("split", "Split").replace("label", "Label "))
    found = load_dataset(path)
    assert [(p.split, p.label) for p in found.posts] == [("train", "positive"), ("test", None)]
    assert [(p.severity, p.message) for p in found.problems] == [
        ("note", "column 'Label ' is read as 'label'"),
        ("note", "column 'Split' is read as 'split'"),
    ]


def test_a_row_whose_image_may_not_be_fetched_is_kept_and_told(tmp_path: Path) -> None:
    found = load_dataset(manifest(tmp_path, "one,https://example.org/x.png,first,positive,"), strict=False)
    assert [(p.id, p.image) for p in found.posts] == [("one", None)]
    assert [(p.severity, p.kind, p.post) for p in found.problems] == [("error", "remote picture", "one")]


def test_a_json_file_beside_a_manifest_is_not_taken_for_one(tmp_path: Path) -> None:
    path = manifest(tmp_path, "one,a.png,first,positive,")
    (tmp_path / "info.json").write_text("{}")
    assert locate(tmp_path) == path
    path.unlink()
    assert locate(tmp_path) == tmp_path / "info.json"


@pytest.mark.parametrize("folder", ["data", "C:\\posts\\data", "."])
def test_paths_of_windows_are_stored_and_given_back(folder: str) -> None:
    home: Any = PureWindowsPath(folder)
    images = [home / "1.jpg", home / "sub" / "2.jpg", PureWindowsPath("D:\\other\\3.jpg"), "https://x.org/4.jpg"]
    posts = Posts(home, [Post(str(k), "train", None, image, home / "1.txt") for k, image in enumerate(images)])
    assert [post.image for post in posts] == images
    assert {post.text for post in posts} == {home / "1.txt"}


@pytest.mark.parametrize("name", ["dev", "Val", " validation ", "VALID"])
def test_rows_that_the_data_set_keeps_for_validation(tmp_path: Path, name: str) -> None:
    rows = ("one,a.png,first,positive,train", f"two,a.png,second,neutral,{name}", "three,a.png,x,,test")
    found = load_dataset(manifest(tmp_path, *rows))
    assert [p.split for p in found.posts] == ["train", "train", "test"]
    assert found.validation == ("two",)
    assert [(p.severity, p.message) for p in found.problems] == [
        ("note", "1 training rows are the data set's own validation rows; fit and sweep validate on them")
    ]
