"""Rows of delimited text in which a quote may be a character."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from mmsent.data.lists import ListRow, trimmed


@dataclass(frozen=True)
class Stray:
    """A quote that opens a cell in one line and closes it some lines on, where every line reads as a row of its own.
    taken: the quote was taken as a character, and the lines as rows."""

    first: int
    last: int
    taken: bool

    def __str__(self) -> str:
        lines = f"lines {self.first} to {self.last}" if self.last > self.first else f"line {self.first}"
        if self.taken:
            return f"a quote in {lines} does not enclose a cell; it was read as a character"
        return (
            f"a cell goes over {lines}, each of which reads as a row of its own; if its quote is a character, double it"
        )


def records(
    lines: Iterable[str],
    delimiter: str,
    width: int,
    is_row: Callable[[list[str]], bool],
    on_stray: Callable[[Stray], None] = lambda _: None,
) -> Iterator[ListRow]:
    """The rows of delimited text as (number of their last line, fields).

    A quote at the start of one row and the end of another would swallow the rows between. So where a cell goes over
    several lines, or a quote is misplaced, and every one of these lines has `width` fields alone, they are read as rows
    if `is_row` agrees for all; else as one cell. on_stray is told of either. Raises csv.Error at other misplaced ones.
    """
    taken: list[str] = []

    def recorded() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(recorded(), delimiter=delimiter, strict=True)
    at = 0
    while True:
        taken.clear()
        wrong: csv.Error | None = None
        fields: list[str] = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = error
        before, at = at, at + len(taken)
        several = [(before + k, line) for k, line in enumerate(taken, 1) if line.strip()] if wrong or taken[1:] else []
        alone = [(number, _fields(line, delimiter, width)) for number, line in several]
        if alone and all(len(cells) == width for _, cells in alone):
            sure = all(is_row(cells) for _, cells in alone)
            on_stray(Stray(before + 1, at, sure))
            if sure:
                yield from alone
                continue
        if wrong:
            raise csv.Error(f"line {at}: {wrong}")
        yield at, fields


def _fields(line: str, delimiter: str, width: int) -> list[str]:
    """The fields of one line alone; where its quotes do not enclose cells, they are characters, or backslashes escape
    them."""
    for escape in (None, "\\") if '\\"' in line else (None,):
        with suppress(csv.Error):
            own = csv.reader([line], delimiter=delimiter, strict=True, escapechar=escape, doublequote=escape is None)
            fields = trimmed(next(own), width)
            if len(fields) == width:
                return fields
    return trimmed(line.rstrip("\r\n").split(delimiter), width)
