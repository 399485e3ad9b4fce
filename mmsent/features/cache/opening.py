"""Opening cache files, and errors about damage in them. Used by reading and writing."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmsent.errors import CacheError, CacheShutError, first_line
from mmsent.features.cache.damage import UNREADABLE, Damage, says_nothing, scan
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.system.failures import reason

FORMAT, FORMAT_VERSION = "mmsent-cache", 1
DIGEST = "attributes_sha256"
ANEW = "restore a copy of it, or rename it and run `mmsent extract` again"
_LOCKED = re.compile(r"\block|already open")
_NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP") if hasattr(errno, name)}


def check_attributes(path: Path, file: Any) -> None:
    """Raise CacheError unless an open file is a cache of this format, ValueError if its attributes are damaged."""
    if "format" not in file.attrs or attribute(file, "format") != FORMAT:
        raise CacheError(f"{path} is not an mmsent cache")
    if file.attrs["format_version"] > FORMAT_VERSION:
        raise CacheError(f"{path} was written by a newer mmsent; upgrade to read it")
    settings = FeatureSettings.model_validate_json(attribute(file, "settings"))
    if settings.fingerprint != attribute(file, "fingerprint"):
        raise ValueError("its settings do not match its fingerprint")
    if DIGEST in file.attrs and attribute(file, DIGEST) != attributes_digest(file):
        raise ValueError("its attributes do not match their checksum")


def kept_shut(path: Path, error: BaseException) -> CacheShutError | None:
    """What keeps a file from being read though it may be whole - a lock, rights, a limit - and what helps; None where
    the error is about the file's content."""
    if not isinstance(error, OSError):
        return None
    said = first_line(error)
    if _LOCKED.search(said):
        if error.errno in _NO_LOCKS:
            return CacheShutError(
                f"{path} cannot be locked: its disk has no file locks; set HDF5_USE_FILE_LOCKING=FALSE"
            )
        return CacheShutError(
            f"{path} is in use by another process, such as a notebook or a backup; close it there, or wait. Where "
            f"nothing uses it, its disk may lack file locks: set HDF5_USE_FILE_LOCKING=FALSE ({said})"
        )
    if not says_nothing(error) and error.errno != errno.EIO:
        return None
    why = reason(OSError(error.errno, os.strerror(error.errno or 0)))
    return CacheShutError(f"{path} cannot be read: {why}; the file itself may be whole")


def find_damage(path: Path) -> Damage:
    """Read every row of a cache file and find all damage. Raises CacheError if there is no file, it may not be read
    now, or it is not a cache of this format."""
    if not path.is_file():
        raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
    try:
        cut = cut_off(path)
        with _open(path, lenient=True) as file:
            try:
                check_attributes(path, file)
            except ValueError as error:
                return Damage(first_line(error), cut)
            return scan(file, cut)
    except UNREADABLE as error:
        if told := kept_shut(path, error):
            raise told from error
        return Damage(f"its structure cannot be read ({first_line(error)})", cut)


class Reading:
    """A file or group that is open inside a with block. An error inside it becomes a CacheError that names damaged rows
    if a scan finds such, or what keeps the file shut; any other error stays what it is."""

    def __init__(self, path: Path, group: str | None, lenient: bool) -> None:
        self._path, self._group, self._lenient = path, group, lenient

    def __enter__(self) -> Any:
        with told(self._path):
            self._file = _open(self._path, self._lenient)
        try:
            with told(self._path):
                return self._file if self._group is None else self._file[self._group]
        except BaseException:
            self._file.close()
            raise

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The same where others work inside the with block: their errors stay as they are."""
        found = self.__enter__()
        try:
            yield found
        finally:
            self._file.close()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UNREADABLE) and (better := _told_of(self._path, error)):
            raise better from error


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn errors of reading a cache into CacheErrors, as `Reading` does."""
    try:
        yield
    except UNREADABLE as error:
        if better := _told_of(path, error):
            raise better from error
        raise


def _told_of(path: Path, error: BaseException) -> CacheError | None:
    """An error of reading a cache as one that says what keeps the file shut, or what a scan finds damaged; None where
    it is about neither. Raises CacheError if the file cannot be scanned."""
    if shut := kept_shut(path, error):
        return shut
    if cut := cut_off(path):
        return CacheError(f"{path} is damaged: {cut}; {repair_command(path)} keeps the rows that it has")
    damage = find_damage(path)
    if damage.metadata:
        return CacheError(f"{path} is damaged beyond repair, or no cache: {damage.metadata}; {ANEW}")
    if damage:
        lines = "; ".join(damage.lines())
        return CacheError(f"{path} is damaged: {lines}; {repair_command(path)} encodes only these again")
    if isinstance(error, OSError):
        return CacheError(
            f"{path} could not be read ({first_line(error)}), but all its checksums hold; run the same again"
        )
    return None


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
