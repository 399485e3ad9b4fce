"""Cells of CSV files that a spreadsheet would take for a formula.

A post's id may read `=HYPERLINK(...)`, and Excel, LibreOffice and Google Sheets would run it when the table is opened.
A leading apostrophe makes it text. `plain` removes it again, so that nothing is lost; numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# = + - @ at the start (also in their full-width forms, after blanks), or a control character; and more than that alone.
_FORMULA = re.compile(r"'*(?:\s*[=+\-@＝＋－＠].|[\t\r\n])", re.DOTALL)
_BLOCK = 4096
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")


def escape(value: Any) -> Any:
    """A cell that is safe in a spreadsheet: texts that begin like a formula get an apostrophe; all others are
    unchanged."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def plain(cell: str) -> str:
    """The text behind a cell that `escape` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as CSV text whose cells are escaped."""
    return join_csv([escape(cell) for cell in row] for row in rows)


def join_csv(rows: Iterable[Sequence[Any]], delimiter: str = ",", newline: str = "\n") -> str:
    """Rows of cells as CSV text, cells as they are.

    Python's writer quotes a carriage return only if lines end with one, and otherwise a reader would break the row
    there.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    lines: list[str] = []
    blocks = []  # lines are joined in blocks, because each of millions of strings would take 50 bytes besides its text
    for row in rows:
        writer.writerow(row)
        lines.append(out.getvalue().removesuffix("\r\n") + newline)
        out.seek(0)
        out.truncate()
        if len(lines) == _BLOCK:
            blocks.append("".join(lines))
            lines.clear()
    return "".join([*blocks, *lines])
