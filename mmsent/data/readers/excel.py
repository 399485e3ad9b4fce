"""Excel: the first sheet of an `.xlsx` file as a manifest, with the names of columns in its first row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from mmsent.config import DataSettings
from mmsent.data.columns import columns_told, named
from mmsent.data.encodings import Decoding
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ImageFiles, files_in
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import SPLIT, RowPosts
from mmsent.errors import DataError, UsageError

ENDING = ".xlsx"
MAX_UNPACKED = 1 << 30  # bytes of a workbook, which is a ZIP file


def _locate(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.suffix.lower() == ENDING else None
    found = [path / name for name in files_in(path) if name.lower().endswith(ENDING) and not name.startswith("~$")]
    return found[0] if len(found) == 1 and not manifests_in(path) else None


def _read(path: Path, settings: DataSettings) -> Reading:
    sheets, table = _table(path)
    head = [str(_value(cell) or "").strip() for cell in (table[0] if table else ())]
    while head and not head[-1]:  # formatted cells beyond the table
        head.pop()
    if len(table) < 2 or not head:
        raise DataError(f"{path}: its first sheet, {sheets[0]!r}, has no rows; the first one names the columns")
    if twice := [name for name, n in Counter(filter(None, head)).items() if n > 1]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice; rename or remove one of the two")
    problems: list[Problem] = []
    settings = named(path, [name for name in head if name], settings, problems)
    made = RowPosts(settings, ImageFiles(path.parent, settings), path.name)
    made.add(_rows(path, head, table))
    others = f"; not read: {', '.join(sheets[1:])}" if sheets[1:] else ""
    told = [f"sheet: {sheets[0]}{others}", columns_told(settings, [name for name in head if name])]
    return made.reading((path,), told, problems, Decoding("utf-8", "Excel's texts are Unicode"))


def _table(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the sheets, and the cells of the first one."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UsageError("Excel files need openpyxl: pip install 'mmsent[excel]', or save the sheet as CSV") from error
    try:
        with ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > MAX_UNPACKED:
            raise DataError(f"{path} unpacks to {size} bytes; the limit is {MAX_UNPACKED}. Save the sheet as CSV")
        book = load_workbook(path, read_only=True, data_only=True)  # values, not formulas
        try:
            return [sheet.title for sheet in book.worksheets], list(book.worksheets[0].iter_rows(values_only=True))
        finally:
            book.close()
    except DataError:
        raise
    except Exception as error:  # of the ZIP file, its XML, or what is in it
        raise DataError(f"{path}: not readable as Excel: {error}") from error


def _rows(path: Path, head: list[str], table: list[tuple[Any, ...]]) -> Iterator[tuple[str, ManifestRow]]:
    for number, cells in enumerate(table[1:], 2):
        values = [_value(cell) for cell in cells[: len(head)]]
        if any(value is not None for value in values):
            yield f"{path.name} row {number}", {name: one for name, one in zip(head, values, strict=False) if name}


def _value(cell: Any) -> Any:
    """A cell's value. Excel keeps whole numbers as fractions, and an id of them has no `.0`."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


READER = Reader("excel", "an .xlsx file", SPLIT, _locate, _read)
