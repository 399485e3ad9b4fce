"""Plain tables for a terminal, and cells of CSV tables that no spreadsheet runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows of cells in aligned columns. Control characters, which ids of strangers may hold, become question marks."""
    plain = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    aligned = set(right)
    lines = (
        "  ".join(c.rjust(w) if i in aligned else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in plain
    )
    return "\n".join(line.rstrip() for line in lines)


# What a spreadsheet would run as a formula, behind any number of the quotes that keep it from doing so.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def to_cell(text: str) -> str:
    """A text as a cell of a CSV table for people: a quote goes before what a spreadsheet would take for a formula.
    Plain numbers stay as they are. `from_cell` gives the text back."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """The text behind a cell that `to_cell` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
