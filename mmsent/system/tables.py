"""Plain tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

LEAST = 24  # characters of a last column that is wrapped


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = (), *, width: int | None = None) -> str:
    """Rows of cells in aligned columns. Control characters, which ids of strangers may hold, become question marks.

    width: of the terminal; the last column is wrapped between words so that lines fit. None: lines as long as they are.
    """
    plain = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    aligned = set(right)
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if width is not None and before + widths[-1] > width:
        widths[-1] = max(LEAST, width - before)
    lines = []
    for row in plain:
        first, *more = textwrap.wrap(row[-1], widths[-1], break_long_words=False) or [""]
        cells = [*row[:-1], first if len(row[-1]) > widths[-1] else row[-1]]
        lines.append(
            "  ".join(
                c.rjust(w) if i in aligned else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
        )
        if len(row[-1]) > widths[-1]:
            lines += [" " * before + line for line in more]
    return "\n".join(line.rstrip() for line in lines)
