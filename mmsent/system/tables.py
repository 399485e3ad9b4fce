"""Plain tables for a terminal."""

from __future__ import annotations

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
