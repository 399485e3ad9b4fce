"""Lists and manifests: files that hold one row a post. Reading is strict, writing is atomic."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsent.config import DataSettings
from mmsent.errors import DataError, UsageError
from mmsent.files import read_file, write_bytes
from mmsent.spreadsheet import join_csv
from mmsent.text import NUL_HINT, Decoding, decide_encoding

MANIFEST_ENDINGS = ("csv", "tsv", "jsonl", "parquet")

csv.field_size_limit(64 * 1024 * 1024)


@dataclass(frozen=True)
class ListForm:
    """How a list of labels was written, so that predictions can be written alike."""

    header: tuple[str, str] | None = ("guid", "tag")
    newline: str = "\n"


def read_list(path: Path, settings: DataSettings) -> tuple[list[tuple[int, list[str]]], ListForm]:
    """The rows of a `guid,tag` list as (line number, fields), and its form. Raises DataError where unreadable."""
    text, _ = _decode_file(path, settings)
    newline = "\r\n" if "\r\n" in text else "\n"
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, fields) for fields in reader if any(f.strip() for f in fields)]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: cannot be read as 'guid,tag' lines: {error}") from error
    header = None
    if rows and [f.strip().lower() for f in rows[0][1]] == ["guid", "tag"]:
        header = ("guid", "tag")
        rows = rows[1:]
    return rows, ListForm(header, newline)


def _decode_file(path: Path, settings: DataSettings) -> tuple[str, Decoding]:
    try:
        raw = read_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    decoding = decide_encoding([raw], settings.encodings, settings.text_encoding)
    try:
        text = _without_blank_ends(decoding.decode_whole(raw))
    except UnicodeError as error:
        raise DataError(f"{path} is not {decoding.encoding} text: {error}; pass --text-encoding") from error
    if 4 * text.count("\0") > len(text):  # one alone is its row's problem
        raise DataError(f"{path} {NUL_HINT}")
    return text, decoding


def _without_blank_ends(text: str) -> str:
    """Without blank lines before and after. Blanks and tabs at the end of the last line stay: they may be a cell."""
    core = text.rstrip(" \r\n")
    tail = text[len(core) :]
    kept = tail[: len(tail) - len(tail.lstrip(" "))]
    end = "\r\n" if "\r\n" in tail else "\n" if "\n" in tail or "\r" in tail else ""
    return (core + kept + end).lstrip(" \r\n")


def cell(row: dict[str, Any], column: str) -> str | None:
    """One manifest value as text; None where the column is missing or null.

    Raises DataError where it is neither a text nor a number: a list, say, or bytes.
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (bytes, bytearray, list, tuple, dict, set)):
        raise DataError(f"column {column!r} holds a {type(value).__name__}; expected a text or a number")
    return str(value)


def read_manifest(path: Path, settings: DataSettings) -> tuple[list[dict[str, Any]], Decoding]:
    """The rows of a CSV, TSV, JSONL or Parquet file as dictionaries. Raises DataError where it cannot be read."""
    ending = path.suffix.lower().lstrip(".")
    if ending not in MANIFEST_ENDINGS:
        raise DataError(f"{path}: a manifest ends in {', '.join(MANIFEST_ENDINGS)}; got '.{ending}'")
    if ending == "parquet":
        rows, decoding = _read_parquet(path), Decoding("utf-8", "Parquet strings are UTF-8")
    else:
        text, decoding = _decode_file(path, settings)
        rows = _read_jsonl(path, text) if ending == "jsonl" else _read_csv(path, text, ending)
    if not rows:
        raise DataError(f"{path}: the manifest has no rows")
    needed = [settings.id_column]
    columns = Counter(name for row in rows[:100] for name in row)
    if absent := [name for name in needed if name not in columns]:
        raise DataError(
            f"{path}: no column {absent[0]!r}; it has {', '.join(map(repr, columns))}; "
            "name yours with --id-column, --image-column, --text-column, --label-column"
        )
    if settings.image_column not in columns and settings.text_column not in columns:
        raise DataError(
            f"{path}: neither a column {settings.image_column!r} nor {settings.text_column!r}; "
            f"it has {', '.join(map(repr, columns))}; name yours with --image-column and --text-column"
        )
    return rows, decoding


def _read_csv(path: Path, text: str, ending: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ending == "tsv" else ",", strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: not readable as {ending.upper()}: {error}") from error
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            width = len(reader.fieldnames or ())
            raise DataError(f"{path} row {i + 1}: the number of fields differs from the header's {width}")
    return rows


def _read_jsonl(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object a line, got {type(row).__name__}")
        rows.append(row)
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("Parquet manifests need pyarrow: pip install 'mmsent[parquet]'") from error
    try:
        rows: list[dict[str, Any]] = parquet.read_table(pyarrow.BufferReader(read_file(path))).to_pylist()
    except Exception as error:  # Arrow's errors have no common parent but this
        raise DataError(f"{path}: not readable as Parquet: {error}") from error
    return rows


def write_list(path: Path, rows: Sequence[tuple[str, str]], form: ListForm) -> Path:
    """Write (id, label) rows in the form of a list that was read, atomically. Returns the path."""
    return write_text(path, list_text(rows, form))


def list_text(rows: Sequence[tuple[str, str]], form: ListForm) -> str:
    """(id, label) rows in the form of a list that was read."""
    return join_csv([*([form.header] if form.header else []), *rows], newline=form.newline)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all, making its folder. Raises DataError where it cannot be written."""
    return write_bytes(path, encoded(text))


def encoded(text: str) -> bytes:
    """Text as the bytes that files hold: UTF-8; lone surrogates, which it cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace")
