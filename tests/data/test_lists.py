"""Lists and manifests: what is read, what is refused, and that a list is written as it was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.check import check_dataset
from mmsent.data.corrections import corrected_list
from mmsent.data.dataset import load_dataset
from mmsent.data.lists import ListForm, cell, list_text, read_list, read_manifest, write_text
from mmsent.errors import DataError
from tests.helpers.made import make_manifest

SETTINGS = DataSettings()


def put(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_read_list_keeps_line_numbers_and_skips_blank_lines(tmp_path: Path) -> None:
    rows, form = read_list(put(tmp_path / "train.txt", "guid,tag\n7,positive\n\n , \n8, neutral\n"), SETTINGS)
    assert rows == [(2, ["7", "positive"]), (5, ["8", " neutral"])]
    assert form == ListForm(("guid", "tag"), "\n")


def test_read_list_without_header_and_with_crlf(tmp_path: Path) -> None:
    rows, form = read_list(put(tmp_path / "train.txt", "7,positive\r\n8,neutral\r\n"), SETTINGS)
    assert [fields for _, fields in rows] == [["7", "positive"], ["8", "neutral"]]
    assert form == ListForm(None, "\r\n")


def test_read_list_decodes_and_drops_a_byte_order_mark(tmp_path: Path) -> None:
    rows, form = read_list(put(tmp_path / "a.txt", "Guid, Tag\n1,好\n", "utf-8-sig"), SETTINGS)
    assert (rows, form.header) == ([(2, ["1", "好"])], ("guid", "tag"))
    rows, _ = read_list(put(tmp_path / "b.txt", "guid,tag\n1,好\n", "gb18030"), SETTINGS)
    assert rows[0][1] == ["1", "好"]


def test_empty_list(tmp_path: Path) -> None:
    assert read_list(put(tmp_path / "train.txt", ""), SETTINGS) == ([], ListForm(None, "\n"))


def test_unreadable_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        read_list(tmp_path / "none.txt", SETTINGS)
    path = put(tmp_path / "train.txt", "1,好\n")
    with pytest.raises(DataError, match=r"is not ascii text.*--text-encoding"):
        read_list(path, DataSettings(text_encoding="ascii"))


@pytest.mark.parametrize("raw", ["guid,tag\n1,positive\n2,neutral\n", "1,positive\r\n2,neutral\r\n"])
def test_a_list_is_written_as_it_was_read(tmp_path: Path, raw: str) -> None:
    rows, form = read_list(put(tmp_path / "in.txt", raw), SETTINGS)
    out = write_text(tmp_path / "out.txt", list_text([(f[0], f[1]) for _, f in rows], form))
    assert out.read_bytes() == raw.encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.txt"]  # no temporary file stays


def test_write_list_quotes_and_replaces(tmp_path: Path) -> None:
    path = put(tmp_path / "out.txt", "old")
    write_text(path, list_text([("a,b", "好")], ListForm(None)))
    assert path.read_text(encoding="utf-8") == '"a,b",好\n'


def test_empty_last_cells_of_a_tsv_are_kept(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", "\n \nid\ttext\tlabel\tnote\r\n1\ta\tneutral\t\r\n\r\n  \n")
    rows, _ = read_manifest(path, SETTINGS)
    assert rows == [{"id": "1", "text": "a", "label": "neutral", "note": ""}]
    rows, _ = read_manifest(put(tmp_path / "b.csv", "id,text,note\n1,a, "), SETTINGS)
    assert rows == [{"id": "1", "text": "a", "note": " "}]


def test_a_list_of_one_line_keeps_its_line_end(tmp_path: Path) -> None:
    assert read_list(put(tmp_path / "a.txt", "1,neutral\r\n"), SETTINGS)[1].newline == "\r\n"


def test_cells_that_are_no_plain_value() -> None:
    for value, name in ((b"x", "bytes"), ([1], "list"), ({"a": 1}, "dict")):
        with pytest.raises(DataError, match=f"column 'a' holds a {name}; expected a text or a number"):
            cell({"a": value}, "a")


def test_cell() -> None:
    row = {"a": 3, "b": None, "c": float("nan"), "d": "", "e": 0.5}
    assert [cell(row, name) for name in "abcdef"] == ["3", None, None, "", "0.5", None]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_manifests_of_every_kind_hold_the_same_rows(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    rows, decoding = read_manifest(make_manifest(tmp_path, ending, 5, 2, size=4), SETTINGS)
    assert decoding.encoding == "utf-8"
    assert len(rows) == 7
    assert list(rows[0]) == ["id", "image", "text", "label", "lang"]
    assert cell(rows[6], "id") == "post 7"
    assert "… post 1 " in str(rows[1]["text"])
    assert not cell(rows[6], "label")


def test_manifest_with_another_encoding_and_upper_case_ending(tmp_path: Path) -> None:
    path = put(tmp_path / "POSTS.CSV", "id,text\n1,好的\n", "gb18030")
    rows, decoding = read_manifest(path, SETTINGS)
    assert (rows[0]["text"], decoding.encoding) == ("好的", "gb18030")


def test_rows_of_two_programs_in_one_manifest(tmp_path: Path) -> None:
    words = "très déçu par ce café"
    path = tmp_path / "posts.csv"
    lines = [f"{i},{words},positive\r\n".encode("cp1252" if i % 5 == 0 else "utf-8") for i in range(40)]
    path.write_bytes(b"id,text,label\r\n" + b"".join(lines))
    rows, decoding = read_manifest(path, SETTINGS)
    assert (decoding.encoding, {row["text"] for row in rows}) == ("utf-8+cp1252", {words})
    dataset = load_dataset(path, SETTINGS)
    assert [f.message for f in check_dataset(dataset).findings if f.kind == "text encoding"] == [decoding.doubt]
    _, _, raw = corrected_list(dataset, {"5": "negative"})
    labels = ["negative" if i == 5 else "positive" for i in range(40)]
    assert raw.decode() == "id,text,label\r\n" + "".join(f"{i},{words},{k}\r\n" for i, k in enumerate(labels))
    path.write_bytes(b"id,text\r\n" + b"".join(lines[1:5]) + "6,好的\r\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"is not utf-8 text: .*; pass --text-encoding, or utf-8\+CODEC where two are"):
        read_manifest(path, SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "x", r"a manifest ends in csv, tsv, jsonl, parquet; got '\.xlsx'"),
        ("a.csv", "id,text\n", "has no rows"),
        ("a.csv", "key,text\n1,a\n", "no column 'id'; it has 'key', 'text'; set --id-column"),
        ("a.csv", "id,words\n1,a\n", "neither a column 'image' nor 'text'"),
        ("a.csv", "id,text\n1,a,b\n", "row 1: the number of fields differs from the header's 2"),
        ("a.csv", "id,text\n1,a\n2\n", "row 2: the number of fields differs"),
        ("a.csv", 'id,text\n1,"a" b\n', r"a\.csv:2: not readable as CSV"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{oops\n', r"a\.jsonl:2: not a JSON object"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: expected one JSON object per line, got list"),
    ],
)
def test_bad_manifests(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(put(tmp_path / name, text), SETTINGS)


def test_bad_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="not readable as Parquet"):
        read_manifest(put(tmp_path / "a.parquet", "PAR1 no"), SETTINGS)
