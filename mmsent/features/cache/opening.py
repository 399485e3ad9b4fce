"""Opening cache files, and errors about damage in them. Used by reading and writing."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmsent.errors import CacheError, first_line
from mmsent.features.cache.damage import UNREADABLE, Damage, scan
from mmsent.features.cache.fingerprint import FeatureSettings

FORMAT, FORMAT_VERSION = "mmsent-cache", 1
DIGEST = "attributes_sha256"
ANEW = "remove it and extract again"


def check_attributes(path: Path, file: Any) -> None:
    """Raise CacheError unless an open file is a cache of this format with valid attributes."""
    if "format" not in file.attrs or attribute(file, "format") != FORMAT:
        raise CacheError(f"{path} is not an mmsent cache")
    if file.attrs["format_version"] > FORMAT_VERSION:
        raise CacheError(f"{path} was written by a newer mmsent; upgrade to read it")
    settings = FeatureSettings.model_validate_json(attribute(file, "settings"))
    if settings.fingerprint != attribute(file, "fingerprint"):
        raise CacheError(f"{path}: its settings do not match its fingerprint; the file is damaged, {ANEW}")
    if DIGEST in file.attrs and attribute(file, DIGEST) != attributes_digest(file):
        raise CacheError(f"{path} is damaged: its attributes do not match their SHA-256; {ANEW}")


def find_damage(path: Path) -> Damage:
    """Read every row of a cache file and find all damage. Raises CacheError if there is no file, or it is not a cache
    of this format."""
    if not path.is_file():
        raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
    cut = cut_off(path)
    try:
        with _open(path, lenient=True) as file:
            try:
                check_attributes(path, file)
            except CacheError as error:
                if "damaged" not in str(error):
                    raise
                return Damage("its attributes do not match their checksum", cut)
            return scan(file, cut)
    except UNREADABLE as error:
        return Damage(f"its structure cannot be read ({first_line(error)})", cut)


class Reading:
    """A file or group that is open inside a with block; HDF5's errors become CacheErrors that name the rows."""

    def __init__(self, path: Path, group: str | None, lenient: bool) -> None:
        self._path, self._group, self._lenient = path, group, lenient

    def __enter__(self) -> Any:
        try:
            self._file = _open(self._path, self._lenient)
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error
        try:
            return self._file if self._group is None else self._file[self._group]
        except (OSError, KeyError, RuntimeError) as error:
            self._file.close()
            raise self._damaged(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UNREADABLE):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> CacheError:
        if self._group is not None and self._path.is_file():
            damage = find_damage(self._path)
            if damage and not damage.metadata:
                lines = "; ".join(damage.lines())
                return CacheError(
                    f"{self._path} is damaged: {lines}; {repair_command(self._path)} encodes only these again"
                )
        return CacheError(f"{self._path} is damaged or not an HDF5 file ({first_line(error)}); {ANEW}")


def reading(path: Path, group: str | None = None, lenient: bool = False) -> Reading:
    return Reading(path, group, lenient)


def _open(path: Path, lenient: bool = False) -> Any:
    """Open a file for reading. lenient: also one that was cut off; its missing end is read as zeros."""
    end = stored_end(path) if lenient else None
    if end is not None and path.stat().st_size < end:
        return h5py.File(_Padded(path, end), "r")
    return h5py.File(path, "r")


class _Padded(io.RawIOBase):
    """A file that was cut off, padded with zeros to its full length."""

    def __init__(self, path: Path, end: int) -> None:
        super().__init__()
        self._raw, self._end, self._at = path.open("rb", buffering=0), end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), max(0, self._end - self._at))
        self._raw.seek(self._at)
        have = self._raw.read(size) or b""
        view[: len(have)] = have
        view[len(have) : size] = bytes(size - len(have))
        self._at += size
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def stored_end(path: Path) -> int | None:
    """The length of an HDF5 file by its own first block, in bytes; None if that does not tell."""
    with path.open("rb") as file:
        head = file.read(36)
    # The superblock of HDF5 1.10 (version 3): signature, version, sizes, flags, base, extension, end of file.
    return int.from_bytes(head[28:36], "little") if head[:10] == b"\x89HDF\r\n\x1a\n\x03\x08" else None


def cut_off(path: Path) -> str:
    """Where a file ends too early; empty if it does not."""
    end, size = stored_end(path), path.stat().st_size
    return f"it ends after {size:,} of {end:,} bytes" if end is not None and size < end else ""


def repair_command(path: Path) -> str:
    return f"`mmsent cache repair --cache {path}`"


def attributes_digest(file: Any) -> str:
    """SHA-256 over the names and values of the file's attributes, hex. HDF5 has no checksum for those beyond 4 kB."""
    digest = hashlib.sha256()
    for name in sorted(set(file.attrs) - {DIGEST}):
        value = str(file.attrs[name]) if name == "format_version" else attribute(file, name)
        for part in (name.encode(), value.encode("utf-8", "surrogateescape")):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def fixed_text(text: str) -> NDArray[np.bytes_]:
    """A text of fixed length for an attribute: HDF5 stores texts of variable length in a heap without checksums."""
    raw = text.encode("utf-8", "surrogateescape")
    return np.array(raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def attribute(file: Any, name: str) -> str:
    """A text attribute, of fixed or variable length."""
    value = file.attrs[name]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
