"""Lists of labels, and the text of any file with one row per post. Reading is strict, writing is atomic."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.encodings import Decoding, decide_lines, known_encoding
from mmsent.data.text import NUL_HINT
from mmsent.errors import DataError
from mmsent.system.files import open_file, read_file, write_bytes
from mmsent.system.safe_csv import join_csv

DELIMITERS = (",", ";", "\t", "|")

_PACKED = {b"\x1f\x8b": "packed by gzip", b"PK\x03\x04": "a zip or Excel file"}
_PIECE = 1 << 18  # bytes of a file that are decoded at a time

csv.field_size_limit(64 * 1024 * 1024)


@dataclass(frozen=True)
class ListForm:
    """The form of a list of labels, so that predictions can be written in the same form."""

    header: tuple[str, str] | None = ("guid", "tag")
    newline: str = "\n"
    delimiter: str = ","


ListRow = tuple[int, list[str]]


def read_list(path: Path, settings: DataSettings) -> tuple[list[ListRow], ListForm]:
    """The rows of a `guid,tag` list as (line number, fields), and its form. Raises DataError if it cannot be read."""
    rows, form = list_rows(path, settings)
    return list(rows), form


def list_rows(path: Path, settings: DataSettings) -> tuple[Iterator[ListRow], ListForm]:
    """Like `read_list`, one row at a time; the iterator raises DataError too. As a spreadsheet saves it, with `;` or
    tabs between the fields and empty cells behind them, a list reads the same."""
    text = TextFile(path, settings)
    newline = "\r\n" if text.crlf else "\n"
    first_line = next(iter(text.lines()), "")
    delimiter = next((d for d in DELIMITERS if d in first_line), ",")
    rows = _list_rows(path, text, delimiter)
    first = next(rows, None)
    if first is not None and [f.strip().lower() for f in first[1]] == ["guid", "tag"]:
        return rows, ListForm(("guid", "tag"), newline, delimiter)
    return chain([] if first is None else [first], rows), ListForm(None, newline, delimiter)


def _list_rows(path: Path, text: TextFile, delimiter: str) -> Iterator[ListRow]:
    reader = csv.reader(text.lines(), delimiter=delimiter)
    try:
        for fields in reader:
            if any(f.strip() for f in fields):
                yield reader.line_num, trimmed(fields, 2)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: cannot be read as 'guid,tag' lines: {error}") from error


def trimmed(fields: list[str], width: int) -> list[str]:
    """The fields without empty cells beyond the width, which spreadsheets add."""
    return fields[:width] if not any(f.strip() for f in fields[width:]) else fields


class TextFile:
    """The text of a list or manifest, without blank lines before and after. A UTF-8 file is never wholly in memory.

    crlf: whether any of its lines ends in CR LF. Raises DataError if the file cannot be read.
    """

    def __init__(self, path: Path, settings: DataSettings) -> None:
        self._path = path
        self._whole: bytes | None = None  # as UTF-8, if it had to be decoded as a whole
        try:
            with open_file(path) as file:
                start = file.read(4)
            if packed := next((how for mark, how in _PACKED.items() if start.startswith(mark)), None):
                raise DataError(f"{path} is {packed}, whatever its name says; unpack it, or save it as CSV")
            first = settings.text_encoding or settings.encodings[0] if settings.encodings else None
            if first is None or known_encoding(first) != "utf-8" or not self._is_utf8():
                self._read_whole(settings)
            else:
                why = "given by --text-encoding" if settings.text_encoding else "the whole file is valid UTF-8"
                self.decoding = Decoding("utf-8", why, int(self._marked))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if 4 * self._nuls > self._characters:  # a single one is a problem of its row
            raise DataError(f"{path} {NUL_HINT}")

    def _is_utf8(self) -> bool:
        """Whether the file is UTF-8; it is read in pieces, whose characters are counted."""
        decoder, last = codecs.getincrementaldecoder("utf-8-sig")(), ""
        self._nuls = self._characters = 0
        self.crlf = False
        with open_file(self._path) as file:
            self._marked = file.read(3) == codecs.BOM_UTF8
            file.seek(0)
            try:
                while raw := file.read(_PIECE):
                    text = decoder.decode(raw)
                    self._count(text)
                    self.crlf |= "\r\n" in last + text[:1]
                    last = text[-1:]
                decoder.decode(b"", True)
            except UnicodeError:
                return False
        return True

    def _read_whole(self, settings: DataSettings) -> None:
        raw = read_file(self._path)
        self.decoding = decide_lines(raw, settings.encodings, settings.text_encoding)
        try:
            text = self.decoding.decode_lines(raw)
        except UnicodeError as error:
            name = self.decoding.encoding
            hint = "pass --text-encoding, or utf-8+CODEC where two are mixed"
            raise DataError(f"{self._path} is not {name} text: {error}; {hint}") from error
        self._nuls = self._characters = 0
        self.crlf = False
        self._count(text)
        self._whole = text.encode("utf-8", "surrogatepass")

    def _count(self, text: str) -> None:
        self._nuls += text.count("\0")
        self._characters += len(text)
        self.crlf |= "\r\n" in text

    def lines(self, newline: str = "") -> Iterator[str]:
        """Its lines with their ends. newline: as for `open`. Raises DataError if the file has changed since."""
        try:
            raw = open_file(self._path) if self._whole is None else io.BytesIO(self._whole)
            name = "utf-8-sig" if self._whole is None else "utf-8"
            errors = "strict" if self._whole is None else "surrogatepass"
            with io.TextIOWrapper(raw, encoding=name, errors=errors, newline=newline) as file:
                yield from _without_blank_ends(file)
        except (OSError, UnicodeError) as error:
            raise DataError(f"{self._path} cannot be read: {error}") from error


def _without_blank_ends(lines: Iterable[str]) -> Iterator[str]:
    """The lines without blank ones before and after. Spaces and tabs at the end of the last line stay, because they may
    be a cell."""
    blank: list[str] | None = None  # blank lines since the last other line; None before the first
    for line in lines:
        if line.strip(" \r\n"):
            yield from blank or ()
            yield line if blank is not None else line.lstrip(" ")
            blank = []
        elif blank is not None:
            blank.append(line)


def list_text(rows: Sequence[tuple[str, str]], form: ListForm) -> str:
    """(id, label) rows in the form of a list that was read."""
    return join_csv([*([form.header] if form.header else []), *rows], form.delimiter, form.newline)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file completely or not at all, and create its folder. Raises DataError if it cannot be written."""
    return write_bytes(path, encoded(text))


def encoded(text: str) -> bytes:
    """Text as UTF-8; lone surrogates, which UTF-8 cannot encode, become escapes."""
    return text.encode("utf-8", "backslashreplace")
