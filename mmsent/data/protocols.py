"""Published protocols: the rows that each fold trains on, validates on and tests, as a file says it.

A table (CSV, TSV, JSON, JSONL or Parquet) has columns id and fold, where each fold is tested once and the others train
(-1: trains in every fold, as scikit-learn's PredefinedSplit has it), or id, fold and part, where a row stands once per
fold it has a part in. A JSON file may also hold the ids by fold and part: {"1": {"train": [...], "test": [...]}, ...}.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mmsent.config import DataSettings
from mmsent.data.columns import loose
from mmsent.data.manifests import cell, open_manifest
from mmsent.data.readers.base import is_validation, split_named
from mmsent.errors import DataError
from mmsent.system.files import read_file

Part = Literal["train", "val", "test"]
FOLD, PART = "fold", "part"
ALWAYS = "-1"  # the fold of rows that train in every fold


@dataclass
class Fold:
    """The ids of a fold, by what they do in it."""

    name: str
    ids: dict[Part, list[str]] = field(default_factory=lambda: {"train": [], "val": [], "test": []})


@dataclass(frozen=True)
class Protocol:
    """The folds of a file, in order. without: rows of the file that belong to no fold."""

    path: Path
    folds: tuple[Fold, ...]
    without: int = 0

    @property
    def scored(self) -> Part:
        """The part that is scored: the test rows, or where no fold has any, those that validate."""
        return "test" if any(fold.ids["test"] for fold in self.folds) else "val"


def read_protocol(path: Path, *, column: str = FOLD, id_columns: Sequence[str] = ("id",)) -> Protocol:
    """Read the folds of a file. column: the one with the folds; id_columns: what the one with the ids may be called.

    Raises DataError where the file cannot be read, a part is unknown, a row has two parts in one fold, there are fewer
    than two folds, or a fold lacks rows to train on or to score.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; a table with columns {id_columns[0]} and {column} says the folds")
    by_fold = _by_fold(path)
    if by_fold is not None:
        found = Protocol(path, tuple(_fold(path, name, parts) for name, parts in by_fold.items()))
    else:
        found = _of_rows(path, column, id_columns)
    if len(found.folds) < 2:
        raise DataError(f"{path} has {'one fold' if found.folds else 'no fold'}; at least 2 are needed")
    for fold in found.folds:
        for part in ("train", found.scored):
            if not fold.ids[part]:
                raise DataError(f"{path}: fold {fold.name} has no {part} rows")
        parts: dict[str, Part] = {}
        for part, ids in fold.ids.items():
            for one in ids:
                if parts.setdefault(one, part) != part:
                    raise DataError(f"{path}: {one[:60]!r} is in {parts[one]} and in {part} of fold {fold.name}")
            if len(set(ids)) < len(ids):
                raise DataError(f"{path}: ids stand twice in {part} of fold {fold.name}")
    return found


def _by_fold(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds by fold; None where it is a table, or no JSON."""
    if path.suffix.lower() != ".json":
        return None
    try:
        found = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        parted = any(isinstance(value, list) for one in found[:1] for value in one.values())
        return {str(number): one for number, one in enumerate(found, 1)} if parted else None
    return found if isinstance(found, dict) else None


def _fold(path: Path, name: str, parts: Any) -> Fold:
    if not isinstance(parts, Mapping) or not all(isinstance(ids, list) for ids in parts.values()):
        raise DataError(f'{path}: fold {name[:60]!r} is no object such as {{"train": [ids], "val": [], "test": []}}')
    fold = Fold(name)
    for part, ids in parts.items():
        fold.ids[_part(path, part)] += [str(one) for one in ids]
    return fold


def _part(path: Path, written: str) -> Part:
    if is_validation(written):
        return "val"
    if (split := split_named(written)) is None:
        raise DataError(f"{path}: {written[:60]!r} is no part of a fold; parts are {', '.join(get_args(Part))}")
    return split


def _of_rows(path: Path, column: str, id_columns: Sequence[str]) -> Protocol:
    """The folds of a table."""
    settings = DataSettings(id_column=id_columns[0])
    opened = open_manifest(path, settings, naming=lambda _path, _names, as_they_are, _problems: as_they_are)
    names = {loose(name): name for name in reversed(opened.names)}
    has = f"it has {', '.join(map(repr, opened.names))}"
    name = next((names[loose(one)] for one in id_columns if loose(one) in names), None)
    if name is None:
        raise DataError(f"{path}: no column {id_columns[0]!r} with the ids; {has}")
    if loose(column) not in names:
        raise DataError(f"{path}: no column {column!r}; {has}; name the one with the folds by --fold-column")
    part, without = names.get(PART), 0
    folds: dict[str, Fold] = {}
    alone: dict[str, list[str]] = defaultdict(list)  # of a table without parts, the ids of each fold
    seen: set[str] = set()
    for row in opened.rows:
        one, fold = (cell(row, name) or "").strip(), _number((cell(row, names[loose(column)]) or "").strip())
        if not fold:
            without += 1
        elif part is not None:
            folds.setdefault(fold, Fold(fold)).ids[_part(path, cell(row, part) or "")].append(one)
        elif one in seen:
            raise DataError(f"{path}: {one[:60]!r} is in two folds; a column {PART!r} must say train, val or test")
        else:
            alone[fold].append(one)
            seen.add(one)
    always = alone.pop(ALWAYS, [])
    for fold, ids in alone.items():
        others = [one for other, theirs in alone.items() if other != fold for one in theirs]
        folds[fold] = Fold(fold, {"train": [*others, *always], "val": [], "test": ids})
    numbers = all(fold.isdecimal() for fold in folds)
    ordered = sorted(folds.values(), key=lambda one: int(one.name)) if numbers else list(folds.values())
    return Protocol(path, tuple(ordered), without)


def _number(fold: str) -> str:
    """A fold's name; a whole number that a spreadsheet wrote as a fraction is that number."""
    return fold.removesuffix(".0")
