"""Images inside Parquet and tar files: what names one, and its bytes.

Of Parquet, a whole group of rows is read at a time, and two groups are kept, as rows are asked for in order.
"""

from __future__ import annotations

import base64
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from mmsent.errors import DataError
from mmsent.system.files import open_file

_PREFIX, _BYTES, _BASE64 = "inside://", "bytes", "base64"
_lock = threading.Lock()  # several threads want rows of one group: one reads it


class Inside(str):
    """The name of an image inside a file: `inside://PATH#GROUP/ROW/COLUMN`, ROW within its group, or
    `inside://PATH#bytes/OFFSET/SIZE`, or `base64` for `bytes`. A manifest's cell is never one."""

    __slots__ = ()

    @classmethod
    def of(cls, path: Path, group: int, row: int, column: str) -> Inside:
        """The name of a row's image."""
        return cls(f"{_PREFIX}{path.absolute()}#{group}/{row}/{quote(column, safe='')}")

    @classmethod
    def at(cls, path: Path, offset: int, size: int) -> Inside:
        """The name of an image that is a stretch of a file's bytes."""
        return cls(f"{_PREFIX}{path.absolute()}#{_BYTES}/{offset}/{size}")

    @classmethod
    def base64(cls, path: Path, start: int, end: int) -> Inside:
        """The name of an image that stands in a file as base64."""
        return cls(f"{_PREFIX}{path.absolute()}#{_BASE64}/{start}/{end - start}")


def is_inside(image: object) -> bool:
    """Whether something names an image inside a file."""
    return isinstance(image, str) and image.startswith(_PREFIX)


def file_of(image: Path | str | None) -> Path | None:
    """The file that an image is, or is inside; None for a URL."""
    if isinstance(image, str):
        return Path(image.removeprefix(_PREFIX).rpartition("#")[0]) if is_inside(image) else None
    return image


def read_inside(name: str, limit: int) -> bytes:
    """The bytes of the image of a name. limit: the most that there may be. Raises DataError if there is none."""
    path, _, place = name.removeprefix(_PREFIX).rpartition("#")
    group, row, column = place.split("/")
    if group == _BYTES:
        return _stretch(Path(path), int(row), int(column), limit)
    if group == _BASE64:
        return _plain(_stretch(Path(path), int(row), int(column), limit * 4 // 3 + 4))
    try:
        with _lock:
            rows = _group(path, Path(path).stat().st_mtime_ns, int(group), unquote(column))
        found = rows[int(row)].as_py()
    except DataError:
        raise
    except Exception as error:  # Arrow's errors have no other common parent class
        raise DataError(f"picture cannot be read from {path}: {error}") from error
    raw = found.get("bytes") if isinstance(found, dict) else found
    if raw is None:
        raise DataError("no picture")
    if len(raw) > limit:
        raise DataError(f"picture cannot be read: it has {len(raw)} bytes; the limit is {limit}")
    return bytes(raw)


def _stretch(path: Path, offset: int, size: int, limit: int) -> bytes:
    if size > limit:
        raise DataError(f"picture cannot be read: it has {size} bytes; the limit is {limit}")
    try:
        with open_file(path) as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"picture cannot be read from {path}: {error.strerror or error}") from error


def _plain(coded: bytes) -> bytes:
    try:
        return base64.b64decode(coded, validate=True)
    except ValueError as error:
        raise DataError(f"picture cannot be read: its base64 is damaged: {error}") from error


@lru_cache(maxsize=2)
def _group(path: str, written: int, group: int, column: str) -> Any:
    """A column of a group of rows. written: the file's time, so that a new file is read anew."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column).combine_chunks()
