"""How every command prints: results on standard output, notes on standard error, tables that fit the terminal."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsent.errors import Interrupted
from mmsent.system.tables import columns
from mmsent.system.words import singular


@dataclass
class _Suggesting:
    """What the command at work was told of its data, cache and runs, and which options another command has."""

    told: Mapping[str, Any] = field(default_factory=dict)
    takes: Callable[[str], set[str]] = lambda _: set()
    more: Callable[[str], Mapping[str, Any]] = lambda _: {}


_now = _Suggesting()
_COMMAND = re.compile(r"`mmsent ((?:cache )?[a-z]+(?:-[a-z]+)*)\b([^`]*)`")
# Options that name things; others, such as --epochs, belong to one command alone.
_REPEATED = (
    *("data", "cache", "encoder", "runs", "labels", "label_map", "reader", "images"),
    *("columns", "id_column", "image_column", "text_column", "label_column", "text_encoding", "remote", "clean"),
)


def suggesting(told: Mapping[str, Any], takes: Callable[[str], set[str]]) -> None:
    """Begin a command. told: its options as typed; takes: which options a command has, by its name."""
    _now.told, _now.takes, _now.more = told, takes, lambda _: {}


def suggest_also(more: Callable[[str], Mapping[str, Any]]) -> None:
    """Options that a suggested command needs although nobody typed them, by its name."""
    _now.more = more


def completed(text: str) -> str:
    """A message whose suggested commands, `mmsent ...` in backticks, work as typed: with the data set, cache and runs
    that this command was told of."""
    return _COMMAND.sub(_completed, text)


def _completed(found: re.Match[str]) -> str:
    command, rest = found[1], found[2]
    given = {word.partition("=")[0] for word in rest.split()}
    try:
        takes = _now.takes(command)
    except (ImportError, AttributeError):  # no command
        return found[0]
    words: list[str] = []
    told = {name: value for name, value in {**_now.more(command), **_now.told}.items() if name in takes}
    for name in _REPEATED:
        flag, value = "--" + name.replace("_", "-"), told.get(name)
        if value is None or flag in given:
            continue
        if (command, name) == ("extract", "cache") and Path(value).is_file():
            value = Path(value).parent  # extract takes the folder
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={one}" for key, one in value.items())
        words += [word for one in (value if isinstance(value, list | tuple) else [value]) for word in (flag, str(one))]
    return f"`mmsent {command}{rest}{' ' * bool(words)}{shlex.join(words)}`"


def echo(text: str, *, raw: bool = False) -> None:
    """Lines of the result, on standard output, on a terminal wrapped between words. raw: as they are, for tables and
    for what is to be copied. What standard output cannot show, half a surrogate pair for example, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = text if raw else wrapped(singular(completed(text)), terminal_width())
    print(shown.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """A remark, on standard error, on a terminal wrapped between words."""
    text = singular(completed(text))
    print(wrapped(text, shutil.get_terminal_size().columns if sys.stderr.isatty() else None), file=sys.stderr)


def wrapped(text: str, width: int | None) -> str:
    """Every line that is longer than width parted between words, indented as it is; words and paths stay whole."""
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        parts = [line]
        if len(line) > width:
            parts = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += parts
    return "\n".join(lines)


def echo_json(value: Any) -> None:
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
    gets a star, with `max` or `min`. drop: titles of columns that go where the terminal is too narrow, the first first
    and those of a tuple together; `*` stands for all that are named nowhere here."""

    left: Sequence[str] = ()
    best: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str | tuple[str, ...]] = ()


# The comparison of heads, see mmsent.evaluation.evaluate.comparison.
SCORES = Layout(
    left=["run", "head"],
    best={"accuracy": "max", "F1 weighted": "max", "F1 macro": "max", "NLL": "min", "ECE": "min"},
    drop=["rows", "ECE", "NLL", "*", "accuracy", "F1 macro"],
)


def echo_kinds(rows: Sequence[Sequence[str]], *, wide: bool = False) -> None:
    """The table of scores for each kind of post, where there is one."""
    if rows:
        echo("\nposts by what they have:")
        echo_table(rows, Layout(left=["run", "head"]), wide=wide)


def echo_table(rows: Sequence[Sequence[str]], layout: Layout, *, wide: bool = False) -> None:
    """A table, its header first. On a terminal that is too narrow its less important columns go, unless `wide`."""
    titles = list(rows[0])
    table = [list(row) for row in rows]
    for title, which in layout.best.items():
        _mark(table, titles.index(title), which)
    width = None if wide else terminal_width()
    keep = list(range(len(titles)))
    dropped: list[str] = []
    together = [(names,) if isinstance(names, str) else names for names in layout.drop]
    named = {*layout.left, *layout.best, *(name for names in together for name in names)}
    others = tuple(title for title in titles if title not in named)
    for titles_out in (others if names == ("*",) else names for names in together):
        if width is None or _width(table, keep) <= width:
            break
        keep = [place for place in keep if titles[place] not in titles_out]
        dropped += titles_out
    right = [k for k, place in enumerate(keep) if titles[place] not in layout.left]
    echo(columns([[row[place] for place in keep] for row in table], right=right), raw=True)
    if dropped:
        note(f"columns left out: {', '.join(dropped)}; --wide shows all")


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
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {kept}, {then}") from None
