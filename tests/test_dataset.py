"""Both layouts: which posts come out, and which problems are found."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from made import make_guid, make_manifest
from PIL import Image

from mmsent.config import Clean, DataSettings
from mmsent.data.dataset import Dataset, load_dataset, unsafe_id
from mmsent.data.lists import ListForm
from mmsent.errors import DataError


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
    with pytest.raises(DataError, match=r"^no text$"):
        data.text_of(data.posts[0])
    with pytest.raises(DataError, match="text is not utf-8"):
        data.text_of(data.posts[1])
    (root / "data" / "3.txt").unlink()
    with pytest.raises(DataError, match="text cannot be read: No such file"):
        data.text_of(data.posts[2])


def test_cleaning_is_applied(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 3, 0)
    (root / "data" / "1.txt").write_text("RT @x: nice http://t.co/1")
    data = load_dataset(root, DataSettings(clean=(Clean.mentions, Clean.links)))
    assert data.settings.clean == (Clean.links, Clean.mentions)
    assert data.text_of(data.posts[0]) == "RT : nice"


def test_missing_files_give_none_and_endings_are_ranked(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 4, 0)
    (root / "data" / "1.jpg").unlink()
    (root / "data" / "2.jpg").rename(root / "data" / "2.PNG")
    Image.new("RGB", (4, 4)).save(root / "data" / "3.webp")
    (root / "data" / "99.txt").write_text("nobody's")
    data = load_dataset(root)
    assert data.posts[0].image is None
    assert [p.image.name for p in data.posts[1:3] if p.image] == ["2.PNG", "3.jpg"]
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
        "or to a CSV, TSV, JSONL or Parquet manifest"
    )
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"found neither list nor manifest; expected train.txt"):
        load_dataset(tmp_path / "a")
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
        ({"split": "validation"}, "unknown split"),
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
