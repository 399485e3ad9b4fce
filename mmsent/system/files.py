"""Files: reading those of strangers, regular ones alone and none without end, and what lies at URLs; writing so that a
reader never meets half of one, beside the target first, then in place by renaming."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from mmsent.errors import DataError, RunError, UsageError, first_line

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # a path has lost the second slash


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file; links are followed. limit: the most bytes that are read.

    Raises OSError, its `strerror` the reason: also for a pipe, a socket, a device or a folder, none of which is waited
    for, and for a file beyond the limit.
    """
    with open_file(path) as file:
        if limit is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            raw = file.read(size + 1)  # Python takes as much memory as it is asked to read, so not the limit
            raw += file.read(limit + 1 - len(raw)) if len(raw) > size else b""  # it has grown since
            if len(raw) <= limit:
                return raw
        raise OSError(errno.EFBIG, f"it has {size} bytes; the limit is {limit}", str(path))


def open_file(path: Path) -> BinaryIO:
    """A regular file opened to read; links are followed. Raises OSError as `read_file` does."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL or half a surrogate pair in the path
        raise OSError(errno.EINVAL, "no such path can exist", str(path)) from error
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return open(number, "rb")
    os.close(number)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file but a pipe, socket or device", str(path))


def protocol(text: str) -> str | None:
    """The protocol of a URL in small letters; None for what is none, such as a path (C:/ is one)."""
    found = _URL.match(text)
    return found[1].lower() if found else None


def require_local(path: Path, what: str) -> None:
    """Raise UsageError for a URL where only a path will do. what: what is to lie there."""
    if (found := protocol(str(path))) is not None:
        raise UsageError(f"{path}: {what} must lie on a disk of this machine, not behind {found}:; copy it here first")


def fetch(url: str, limit: int) -> bytes:
    """The bytes at a URL, by fsspec. limit: the most bytes that are read.

    Raises OSError, its `strerror` the reason, and UsageError where the library for its protocol is not installed.
    """
    from fsspec.core import url_to_fs

    if "::" in url:  # fsspec would open one place through another
        raise OSError(errno.EINVAL, "'::' is not allowed in a URL", url)
    try:
        store, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # a library that is not installed, a protocol that there is not
        raise UsageError(f"{url} cannot be fetched: {first_line(error)}") from error
    try:
        with store.open(path, "rb") as file:
            raw: bytes = file.read(limit + 1)
    except Exception as error:  # each file system has errors of its own
        reason = first_line(error)
        raise OSError(errno.EIO, reason, url) from error
    if len(raw) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes, the limit", url)
    return raw


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False too for a path that no file can have."""
    return os.path.isfile(path)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a file lies outside a folder once links are followed. folder: resolved."""
    return not Path(os.path.realpath(path)).is_relative_to(folder)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all, making its folder. Raises DataError where it cannot be written."""
    write_together({path: data})
    return path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: none is put in place before all of them are on disk.

    Raises DataError where one cannot be written; then all are as they were.
    """
    temporaries = {path: path.with_name(path.name + ".tmp") for path in files}
    path = Path()
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporaries[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in temporaries:
            if path.is_dir():  # known before anything is replaced
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        _remove(temporaries)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        _remove(temporaries)
        raise


def _remove(temporaries: Mapping[Path, Path]) -> None:
    for temporary in temporaries.values():
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # a folder that cannot be written, or that is none
            continue


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable, where the system lets folders be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def put_folder(folder: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """Make a folder in `folder`, filled by `fill` and on disk before it appears, in one rename. Returns its path; a
    number is added to the name where it is taken. Raises OSError where it cannot be written, RunError on a thousandth
    name."""
    building: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{name}.", dir=folder))
        building.chmod(0o755)  # mkdtemp's own is for the owner alone
        fill(building)
        for file in building.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        for attempt in range(1, 1000):
            path = folder / (name if attempt == 1 else f"{name}-{attempt}")
            if path.exists():
                continue
            try:
                os.rename(building, path)
            except OSError:
                if path.exists():
                    continue
                raise
            sync_folder(folder)
            return path
        raise RunError(f"{folder} holds a thousand folders called {name}")
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)


BUILDING = ".building."  # leads the name of a folder in the making; never a run


def ready_folder(folder: Path) -> None:
    """Make the runs folder and clear what killed fits left in it. Raises RunError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder)).rmdir()
    except OSError as error:
        raise RunError(f"cannot write runs in {folder}: {error.strerror or error}; --runs names another") from error
    for left in folder.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:  # a run folder is written in a moment
                shutil.rmtree(left)


_STALE_SECONDS = 3600.0
