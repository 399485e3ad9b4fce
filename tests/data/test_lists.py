"""Lists of labels: what is read, what is refused, and that a list is written as it was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsent.config import DataSettings
from mmsent.data.lists import ListForm, list_text, read_list, write_text
from mmsent.errors import DataError

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


def test_a_list_of_one_line_keeps_its_line_end(tmp_path: Path) -> None:
    assert read_list(put(tmp_path / "a.txt", "1,neutral\r\n"), SETTINGS)[1].newline == "\r\n"


@pytest.mark.parametrize(
    ("raw", "delimiter"),
    [
        ("guid;tag\r\n7;positive\r\n8;neutral\r\n", ";"),
        ("7\tpositive\r\n8\tneutral\r\n", "\t"),
        ("guid,tag,,\r\n7,positive,,\r\n8,neutral, ,\r\n", ","),
        ("guid;tag;;\r\n7;positive;;\r\n;;;\r\n8;neutral;;\r\n;;;\r\n", ";"),
    ],
)
def test_a_list_that_a_spreadsheet_saved(tmp_path: Path, raw: str, delimiter: str) -> None:
    rows, form = read_list(put(tmp_path / "train.txt", raw), SETTINGS)
    assert [fields for _, fields in rows] == [["7", "positive"], ["8", "neutral"]]
    assert form == ListForm(("guid", "tag") if raw.startswith("guid") else None, "\r\n", delimiter)
    assert list_text([("7", "a")], form).splitlines()[-1] == f"7{delimiter}a"


def test_a_semicolon_in_an_id_parts_nothing(tmp_path: Path) -> None:
    rows, form = read_list(put(tmp_path / "train.txt", "a;b,positive\nc;d,neutral\n"), SETTINGS)
    assert ([fields for _, fields in rows], form.delimiter) == ([["a;b", "positive"], ["c;d", "neutral"]], ",")
