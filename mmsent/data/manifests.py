"""Manifests: one CSV, TSV, JSON, JSONL or Parquet file with one row per post. Reading is strict.

A manifest is opened with settings that name its columns; what is opened holds the settings with the names as they stand
in the file, which may differ by case and blanks. Everything that was not plain is a problem to be told.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mmsent.config import DataSettings
from mmsent.data.columns import COLUMNS, loose, named
from mmsent.data.delimited import Stray, records
from mmsent.data.encodings import Decoding
from mmsent.data.labels import label_of
from mmsent.data.lists import DELIMITERS, ListRow, TextFile, trimmed
from mmsent.data.posts import Problem
from mmsent.errors import DataError, UsageError
from mmsent.system.files import read_file

MANIFEST_ENDINGS = ("csv", "tsv", "jsonl", "parquet", "json")

_PARQUET_ROWS = 4096
_PACKED = ("gz", "tgz", "bz2", "xz", "zst", "zip", "7z")
_RECORDS = ", as pandas writes it with orient='records'"

ManifestRow = dict[str, Any]
Naming = Callable[[Path, Sequence[str], DataSettings, list[Problem]], DataSettings]


@dataclass(frozen=True)
class Manifest:
    """An opened manifest. rows: one at a time; the iterator raises DataError too. settings: with the columns' names as
    they stand in the file. problems: grows while rows are read. names: of all columns. delimiter: of CSV and TSV."""

    rows: Iterator[ManifestRow]
    settings: DataSettings
    decoding: Decoding
    problems: list[Problem]
    names: tuple[str, ...] = ()
    delimiter: str = ","


def read_manifest(path: Path, settings: DataSettings) -> tuple[list[ManifestRow], Manifest]:
    """All rows of a manifest, and what was opened. Raises DataError if it cannot be read."""
    opened = open_manifest(path, settings)
    return list(opened.rows), opened


def open_manifest(path: Path, settings: DataSettings, *, naming: Naming | None = None) -> Manifest:
    """Open a CSV, TSV, JSONL, JSON or Parquet file. naming: what finds the columns, for a table of something else than
    posts; None: `named`. Raises DataError if it has not the columns that a manifest needs, a column stands twice, or it
    cannot be read."""
    naming = naming or named
    ending = path.suffix.lower().lstrip(".")
    if ending not in MANIFEST_ENDINGS:
        how = "unpack it first" if ending in _PACKED else "rename or convert it"
        raise DataError(f"{path}: a manifest ends in {', '.join(MANIFEST_ENDINGS)}; got '.{ending}'; {how}")
    problems: list[Problem] = []
    if ending == "parquet":
        names, rows = _read_parquet(path)
        found = naming(path, names, settings, problems)
        return Manifest(rows, found, Decoding("utf-8", "Parquet strings are UTF-8"), problems, tuple(names))
    text = TextFile(path, settings)
    if ending in ("csv", "tsv"):
        return _open_table(path, text, ending, settings, problems, naming)
    rows = _read_json(path, text, ending)
    first = list(islice(rows, 100))
    if len(first) == 1 and first[0] and all(isinstance(value, dict | list) for value in first[0].values()):
        raise DataError(f"{path}: one object around all posts; it must be an array of objects, one per post{_RECORDS}")
    names = list(dict.fromkeys(name for row in first for name in row))
    found = naming(path, names, settings, problems) if first else settings
    rows = _same_names(path, chain(first, rows), found)
    return Manifest(_some(path, rows), found, text.decoding, problems, tuple(names))


def _some(path: Path, rows: Iterator[ManifestRow]) -> Iterator[ManifestRow]:
    """The rows. Raises DataError where there are none: now, not at the first use."""
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the manifest has no rows")
    return chain([first], rows)


def _same_names(path: Path, rows: Iterable[ManifestRow], settings: DataSettings) -> Iterator[ManifestRow]:
    """JSON rows, each of which may have names of its own. Raises DataError where one spells a column otherwise."""
    names = {loose(getattr(settings, field)): getattr(settings, field) for field in COLUMNS}
    known: set[tuple[str, ...]] = set()
    for i, row in enumerate(rows):
        if (mine := tuple(row)) not in known:
            known.add(mine)
            for name in mine:
                meant = names.get(loose(name), name)
                if meant != name and meant not in row:
                    raise DataError(f"{path} row {i + 1} has a column {name!r} where others have {meant!r}")
        yield row


# --- CSV and TSV


def _open_table(
    path: Path, text: TextFile, ending: str, settings: DataSettings, problems: list[Problem], naming: Naming
) -> Manifest:
    usual = "\t" if ending == "tsv" else ","
    said = _said_delimiter(text)
    usual = said or usual
    wanted = loose(settings.id_column)
    first = list(islice(_table_lines(text), 20))
    heads = {d: cells for d in ([said] if said else (usual, *DELIMITERS)) if (cells := _head(first, d))}
    delimiter = next((d for d, head in heads.items() if wanted in map(loose, head)), usual)
    if delimiter != usual:
        shown = "tabs" if delimiter == "\t" else repr(delimiter)
        problems.append(Problem("note", "how it is read", path.name, f"cells are separated by {shown}"))
    if not first:
        raise DataError(f"{path}: the manifest has no rows")
    if delimiter not in heads:
        raise DataError(f"{path}:1: not readable as {ending.upper()}: a quote is not closed, or text follows it")
    head = heads[delimiter]
    if wanted not in map(loose, head):
        _require_header(path, first, head, delimiter, settings)
    if sum(not name.strip() for name in head) > 1:
        while head and not head[-1].strip():  # as spreadsheets add them
            head.pop()
    if len(nameless := [str(k) for k, name in enumerate(head, 1) if not name.strip()]) > 1:
        raise DataError(f"{path}: columns {', '.join(nameless)} have no name; name or remove them")
    found = naming(path, head, settings, problems)
    label = head.index(found.label_column) if found.label_column in head else None

    def is_row(cells: list[str]) -> bool:
        if label is None:
            return delimiter == "\t"  # hardly any text holds tabs, many hold commas
        return label_of(cells[label], found) in (None, *found.labels)

    def on_stray(stray: Stray) -> None:
        problems.append(Problem("warning", "stray quote", path.name, str(stray)))

    rows = _table_rows(path, records(_table_lines(text), delimiter, len(head), is_row, on_stray), head, ending)
    known = delimiter if delimiter in DELIMITERS else ","  # a copy has no line that says another one
    return Manifest(_some(path, rows), found, text.decoding, problems, tuple(head), known)


def _said_delimiter(text: TextFile) -> str | None:
    """The delimiter that a first line such as `sep=;` says, as Excel has it."""
    first = next(iter(text.lines()), "").rstrip("\r\n").strip('"')
    return first[4:] if first[:4].lower() == "sep=" and len(first) == 5 else None


def _table_lines(text: TextFile) -> Iterator[str]:
    return islice(text.lines(), 1 if _said_delimiter(text) else 0, None)


def _head(lines: Iterable[str], delimiter: str) -> list[str] | None:
    """The cells of the first line; None where it has none, or its quotes are for another delimiter."""
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True), None)
    except csv.Error:
        return None


def _require_header(path: Path, first: list[str], head: list[str], delimiter: str, settings: DataSettings) -> None:
    """Raises DataError where the names of the columns stand further down, or nowhere."""
    wanted = loose(settings.id_column)
    for number, line in enumerate(first[1:], 2):
        if any(wanted in map(loose, _head([line], d) or []) for d in DELIMITERS):
            raise DataError(f"{path}: line {number} looks like the header; remove the lines before it")
    if {loose(name) for name in head} & {label.casefold() for label in settings.labels}:
        names = delimiter.join(getattr(settings, field) for field in COLUMNS[:4])
        raise DataError(f"{path}: its first line is a post; write a line with the names of the columns above: {names}")


def _table_rows(path: Path, found: Iterator[ListRow], head: list[str], ending: str) -> Iterator[ManifestRow]:
    number, bad = 0, Counter[str]()
    try:
        next(found)  # the head
        for _, fields in found:
            if not any(field.strip() for field in fields):
                continue
            number += 1
            cells = trimmed(fields, len(head))
            if len(cells) == len(head):
                yield dict(zip(head, cells, strict=True))
            else:
                bad[f"row {number} has {len(cells)}" if len(bad) < 3 else "…"] += 1
    except csv.Error as error:
        raise DataError(f"{path}: not readable as {ending.upper()}: {error}") from error
    if bad:
        raise DataError(
            f"{path}: the number of fields differs from the header's {len(head)} in {bad.total()} of {number} rows: "
            f"{', '.join(bad)}; a text that holds the delimiter needs double quotes right around it"
        )


# --- JSON and Parquet


def json_rows(path: Path, settings: DataSettings) -> tuple[Iterator[ManifestRow], Decoding]:
    """The objects of a JSON array, whatever they hold, or one object per line; and the file's encoding."""
    text = TextFile(path, settings)
    return _some(path, _read_json(path, text, path.suffix.lower().lstrip("."))), text.decoding


def _read_json(path: Path, text: TextFile, ending: str) -> Iterator[ManifestRow]:
    """The objects of an array, or one object per line."""
    start = next((line for line in text.lines("\n") if line.strip()), "")
    if start.lstrip().startswith("["):
        try:
            array = json.loads("".join(text.lines("\n")), object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            if ending == "json" or not start.rstrip().endswith("]"):
                raise DataError(f"{path}: not a JSON array: {error}") from error
            array = None  # lines of lists
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        for number, row in enumerate(array or (), 1):
            if not isinstance(row, dict):
                raise DataError(f"{path} row {number}: expected a JSON object, got {type(row).__name__}")
            yield row
        if array is not None:
            return
    for number, line in enumerate(text.lines("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            hint = "; a manifest is an array of objects, or one object per line" if start.strip() == "{" else ""
            raise DataError(f"{path}:{number}: not a JSON object: {error}{hint}") from error
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected one JSON object per line, got {type(row).__name__}")
        yield row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises DataError where a name stands twice: json alone would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise DataError(f"{twice!r} stands twice in one object; rename or remove one of the two")
    return found


def _read_parquet(path: Path) -> tuple[list[str], Iterator[ManifestRow]]:
    """The names of the columns, and the rows."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("Parquet manifests need pyarrow: pip install 'mmsent[parquet]'") from error
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(read_file(path)))
        names = [str(name) for name in file.schema_arrow.names]
    except Exception as error:  # Arrow's errors have no other common parent class
        raise DataError(f"{path}: not readable as Parquet: {error}") from error

    def rows() -> Iterator[ManifestRow]:
        try:
            for batch in file.iter_batches(_PARQUET_ROWS):
                yield from batch.to_pylist()
        except Exception as error:
            raise DataError(f"{path}: not readable as Parquet: {error}") from error

    return names, _some(path, rows())


def json_text(rows: Iterable[ManifestRow], ending: str, codec: str) -> str:
    """Rows as the JSON of a manifest: an array in .json, else an object per line. What the codec lacks, such as half a
    surrogate pair, is escaped."""
    lines = [_json_line(row, codec) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if ending.endswith("json") else "".join(f"{line}\n" for line in lines)


def _json_line(row: ManifestRow, codec: str) -> str:
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode(codec)
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line


# --- cells


def cell(row: ManifestRow, column: str) -> str | None:
    """One manifest value as text; None if the column is missing or null.

    Raises DataError if it is neither text nor number, such as a list or bytes.
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (bytes, bytearray, list, tuple, dict, set)):
        raise DataError(f"column {column!r} holds a {type(value).__name__}; expected a text or a number")
    text = str(value)
    if text.startswith('="') and text.endswith('"') and len(text) > 2:  # as programs keep Excel from reading a number
        return text[2:-1].replace('""', '"')
    return text
