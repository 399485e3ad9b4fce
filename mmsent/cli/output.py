"""How every command prints: results on standard output, notes on standard error, tables that fit the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmsent.errors import Interrupted
from mmsent.system.tables import columns


def say(text: str) -> None:
    """A line of the result, on standard output. What it cannot show, half a surrogate pair say, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """A remark, on standard error."""
    print(text, file=sys.stderr)


def say_json(value: Any) -> None:
    """The result for a program."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON's own escapes say it anywhere
        text = json.dumps(value, indent=1)
    print(text)


def terminal_width() -> int | None:
    """Columns of the terminal that results go to; None where they go to a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True)
class Layout:
    """How a table is shown. left: titles of left-aligned columns, numbers stand right. best: titles whose best value
    gets a star, with `max` or `min`. drop: titles of columns that go where the terminal is too narrow, the first first;
    `*` stands for all that are named nowhere here."""

    left: Sequence[str] = ()
    best: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()


# The comparison of heads, see mmsent.evaluation.evaluate.comparison.
SCORES = Layout(
    left=["run", "head"],
    best={"accuracy": "max", "F1 weighted": "max", "F1 macro": "max", "NLL": "min", "ECE": "min"},
    drop=["rows", "ECE", "NLL", "*", "accuracy", "F1 macro"],
)


def say_table(rows: Sequence[Sequence[str]], layout: Layout, *, wide: bool = False) -> None:
    """A table, its header first. On a terminal that is too narrow its less important columns go, unless `wide`."""
    titles = list(rows[0])
    table = [list(row) for row in rows]
    for title, which in layout.best.items():
        _mark(table, titles.index(title), which)
    width = None if wide else terminal_width()
    keep = list(range(len(titles)))
    dropped = []
    named = {*layout.left, *layout.best, *layout.drop}
    others = [title for title in reversed(titles) if title not in named]
    for title in [one for name in layout.drop for one in (others if name == "*" else [name])]:
        if width is None or _width(table, keep) <= width:
            break
        keep.remove(titles.index(title))
        dropped.append(title)
    right = [k for k, place in enumerate(keep) if titles[place] not in layout.left]
    say(columns([[row[place] for place in keep] for row in table], right=right))
    if dropped:
        note(f"left out for want of room: {', '.join(dropped)}; --wide shows all columns")


def _width(table: Sequence[Sequence[str]], keep: Sequence[int]) -> int:
    return sum(max(len(row[place]) for row in table) for place in keep) + 2 * (len(keep) - 1)


def _mark(table: list[list[str]], place: int, which: str) -> None:
    """A star before the best of a column's numbers, where there are two or more that differ."""
    found = {k: float(row[place].split()[0]) for k, row in enumerate(table[1:], 1) if row[place]}
    if len(set(found.values())) < 2:
        return
    best = (max if which == "max" else min)(found.values())
    for k, value in found.items():
        if value == best:
            table[k][place] = f"*{table[k][place]}"


def outline(value: Any, indent: int = 0) -> str:
    """Nested values as indented `key: value` lines."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{'  ' * indent}{key}:")
            lines.append(outline(item, indent + 1))
        else:
            shown = json.dumps(item, ensure_ascii=False) if isinstance(item, (list, dict)) else item
            lines.append(f"{'  ' * indent}{key}: {shown}")
    return "\n".join(lines)


AGAIN = "run the same command again to go on"


@contextmanager
def resumable(kept: str, then: str = AGAIN) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an error that says what is kept and how to go on; also a decorator."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; {kept}, {then}", stop) from None
