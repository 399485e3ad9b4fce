"""Which column of a table holds what: names match whatever their case and blanks, and likely ones are suggested."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from mmsent.config import DataSettings, default
from mmsent.data.posts import Problem
from mmsent.errors import DataError

COLUMNS = ("id_column", "image_column", "text_column", "label_column", "split_column")


def loose(name: str) -> str:
    """A column's name without case and blanks."""
    return "".join(name.split()).casefold()


def named(path: Path, names: Sequence[str], settings: DataSettings, problems: list[Problem]) -> DataSettings:
    """The settings with the names that the wanted columns have in the file. Raises DataError where a name stands twice,
    several could be meant, or a column is missing without which there are no posts."""
    if twice := [name for name, n in Counter(names).items() if n > 1 and name.strip()]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice; rename or remove one of the two")
    there: dict[str, str] = {}
    for field in COLUMNS:
        wanted = getattr(settings, field)
        alike = [name for name in names if loose(name) == loose(wanted)]
        others = [name for name in alike if name != wanted]
        if wanted in alike:
            there[field] = wanted
            problems += [_note(path, f"column {name!r} is not read, as {wanted!r} is there") for name in others]
        elif len(others) > 1:
            raise DataError(
                f"{path}: {' and '.join(map(repr, others))} could both be the column {wanted!r}; rename the one that "
                f"is{'' if field == 'split_column' else f', or name it with {_option(field)}'}"
            )
        elif others:
            there[field] = others[0]
            problems.append(_note(path, f"column {others[0]!r} is read as {wanted!r}"))
    meant = _meant([field for field in COLUMNS if field not in there], names, settings, there.values())
    if "id_column" not in there and "id_column" not in meant and "image_column" in there:
        meant = {"id_column": there["image_column"]} | meant
    pairs = shlex.quote(",".join(f"{_what(field)}={name}" for field, name in meant.items()))
    has = f"it has {', '.join(map(repr, names))}"
    if "id_column" not in there:
        hint = f"{has}; name them, as in --columns id=NAME,image=NAME,text=NAME,label=NAME"
        if "id_column" in meant:
            like = f"did you mean {meant['id_column']!r}? "
            hint = f"{like}add --columns {pairs}; {has}"
        raise DataError(f"{path}: no column {settings.id_column!r}; {hint}")
    if "image_column" not in there and "text_column" not in there:
        hint = f"{has}; name them, as in --columns image=NAME,text=NAME"
        if meant:
            hint = f"did you mean {next(iter(meant.values()))!r}? add --columns {pairs}; {has}"
        raise DataError(f"{path}: neither a column {settings.image_column!r} nor {settings.text_column!r}; {hint}")
    for field, name in meant.items():
        pair = shlex.quote(f"{_what(field)}={name}")
        message = f"no column {getattr(settings, field)!r}; did you mean {name!r}? add --columns {pair}"
        problems.append(Problem("warning", "column not found", path.name, message))
    return settings.model_copy(update=there)


# What other people call the columns.
_ALSO = {
    "id_column": ["guid", "post_id", "tweet_id", "image_id", "uid", "index", "unnamed:0"],
    "image_column": [
        "img",
        "picture",
        "photo",
        "image_path",
        "img_path",
        "image_name",
        "file_name",
        "filename",
        "file",
    ],
    "text_column": ["tweet", "tweet_text", "caption", "sentence", "content", "message", "body", "post"],
    "label_column": ["sentiment", "overall_sentiment", "class", "category", "polarity", "target", "tag"],
    "split_column": ["set", "subset", "partition"],
}


def _meant(missing: Sequence[str], names: Sequence[str], settings: DataSettings, used: Iterable[str]) -> dict[str, str]:
    """The column that may be meant by each missing one: by its usual names, a name with the word in it, or a likely
    slip of the pen. Each column once."""
    taken = set(used)
    free = {loose(name): name for name in reversed(names) if name.strip() and name not in taken}
    found: dict[str, str] = {}
    for field in missing:
        name = getattr(settings, field)
        wanted = loose(name)
        usual = _ALSO[field] if name == default(DataSettings, field) else []
        with_word = [one for one in free if len(wanted) > 2 and wanted in one]
        slips = get_close_matches(wanted, free, 1, 0.75) if len(wanted) > 2 else []
        if like := next((one for one in (*usual, *with_word, *slips) if one in free), None):
            found[field] = free.pop(like)
    return found


def _what(field: str) -> str:
    return field.removesuffix("_column")


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _note(path: Path, message: str) -> Problem:
    return Problem("note", "how it is read", path.name, message)


def columns_told(settings: DataSettings, names: Sequence[str]) -> str:
    """Which of a file's columns are read as what, and which are not read."""
    wanted = {_what(field): getattr(settings, field) for field in COLUMNS}
    absent = [what for what, name in wanted.items() if name not in names]
    others = [name.strip() or "one without a name" for name in names if name not in wanted.values()]
    told = f"columns: {', '.join(f'{what}={name}' for what, name in wanted.items() if name in names)}"
    told += f"; none for {', '.join(absent)}" if absent else ""
    return told + (f"; not read: {', '.join(others)}" if others else "")
