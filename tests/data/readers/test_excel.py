"""The first sheet of an Excel file as a manifest."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from mmsent.data.dataset import load_dataset
from mmsent.data.readers.choosing import choose
from mmsent.errors import DataError, UsageError
from tests.helpers.made import make_manifest
from tests.helpers.reading import Commands


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """24 posts with whole numbers as ids, formatted cells beyond the table, an empty row, and a second sheet."""
    openpyxl = pytest.importorskip("openpyxl")
    made = make_manifest(tmp_path / "made", "csv", 20, 4, size=32)
    book = openpyxl.Workbook()
    book.active.title = "posts"
    book.active.append(["id", "image", "text ", "Label", "note", None])
    for number, row in enumerate(csv.DictReader(made.open(encoding="utf-8")), 1):
        label = row["label"].capitalize() or None
        book.active.append([float(number), row["image"], row["text"], label, None, None])
        if number == 7:
            book.active.append([None] * 6)
    book.create_sheet("others").append(["x"])
    path = made.parent / "posts.xlsx"
    book.save(path)
    made.unlink()
    return path


def test_a_sheet_is_encoded(sheet: Path, commands: Commands) -> None:
    cache, facts = commands.extract(sheet)
    commands.label(sheet, cache)
    assert cache.rows == {"train": 20, "test": 4}
    assert cache.index("test").ids[-1] == "24"
    assert facts["quarantined"] == []
    told = facts["read"]["told"]
    assert told[:3] == [
        "read by excel: an .xlsx file",
        "sheet: posts; not read: others",
        "columns: id=id, image=image, text=text, label=Label; none for split; not read: note",
    ]
    assert "'Positive' is 'positive' (10 rows)" in told[3]
    assert choose(sheet.parent) == choose(sheet)
    assert commands.extract(sheet)[1]["encoded"] == {"train": 0, "test": 0}


def test_sheets_that_cannot_be_read(sheet: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(sheet)
    book.active.cell(1, 5).value = "id"
    book.save(sheet)
    with pytest.raises(DataError, match=r"column 'id' stands twice"):
        load_dataset(sheet)
    book.active.delete_rows(2, 100)
    book.save(sheet)
    with pytest.raises(DataError, match=r"its first sheet, 'posts', has no rows"):
        load_dataset(sheet)
    sheet.write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"posts.xlsx: not readable as Excel"):
        load_dataset(sheet)


def test_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UsageError, match=r"Excel files need openpyxl: pip install 'mmsent\[excel\]'"):
        load_dataset(tmp_path / "a.xlsx")


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(["id", "text"])
    book.active.append(["1", "a"])
    book.save(tmp_path / "a.xlsx")
    monkeypatch.setattr("mmsent.data.readers.excel.MAX_UNPACKED", 100)
    with pytest.raises(DataError, match=r"a\.xlsx unpacks to \d+ bytes; the limit is 100\. Save the sheet as CSV"):
        load_dataset(tmp_path / "a.xlsx")
