"""Files: safe reading of untrusted ones (only regular files, with a size limit) and of URLs; writing to a temporary
file that is then renamed, so that nobody reads a half-written file."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mmsent.errors import DataError, RunError, UsageError, first_line
from mmsent.system.failures import machine_error
from mmsent.system.network import dead_proxy, proxy_of
from mmsent.system.process import host

_SHOWN = 200  # characters of a path in a message
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # a path has lost the second slash


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file; links are followed. limit: the largest size in bytes.

    Raises OSError with the reason in `strerror`, also for pipes, sockets, devices and folders (without waiting for
    them), and for files above the limit.
    """
    with open_file(path) as file:
        if limit is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            raw = file.read(size + 1)  # not the limit, because Python allocates as much memory as it shall read
            raw += file.read(limit + 1 - len(raw)) if len(raw) > size else b""  # the file has grown meanwhile
            if len(raw) <= limit:
                return raw
        raise OSError(errno.EFBIG, f"it has {size} bytes; the limit is {limit}", str(path))


def open_file(path: Path) -> BinaryIO:
    """A regular file opened for reading; links are followed. Raises OSError as `read_file` does, MachineError if this
    process may open no more: that says nothing of the file."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # of this process, not of this file
            raise machine_error(error) or error from error
        raise
    except ValueError as error:  # a NUL or half a surrogate pair in the path
        raise OSError(errno.EINVAL, "no such path can exist", str(path)) from error
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return open(number, "rb")
    os.close(number)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is not a regular file but a pipe, socket or device", str(path))


def protocol(text: str) -> str | None:
    """The protocol of a URL in lower case; None for anything else, such as a path (C:/ is one)."""
    found = _URL.match(text)
    return found[1].lower() if found else None


def require_local(path: Path, what: str) -> None:
    """Raise UsageError for a URL where only a path is allowed. what: what the path stands for."""
    if protocol(str(path)) is not None:
        raise UsageError(f"{path}: {what} must be on a disk of this machine, not at a URL; copy it here first")


def fetch(url: str, limit: int, seconds: float = 60.0) -> bytes:
    """The bytes at a URL, by fsspec. limit: the largest size in bytes; seconds: after which it is given up.

    Raises OSError with the reason in `strerror`, and UsageError if the library for its protocol is not installed.
    """
    if "::" in url:  # fsspec would chain file systems
        raise OSError(errno.EINVAL, "'::' is not allowed in a URL", url)
    found: list[bytes | Exception] = []

    def read() -> None:
        try:
            found.append(_fetched(url, limit + 1))
        except Exception as error:
            found.append(error)

    # Each file system has its own idea of a time limit, or none; a thread can be left to itself.
    reader = threading.Thread(target=read, name="mmsent-fetch", daemon=True)
    reader.start()
    reader.join(seconds)
    raw = found[0] if found else OSError(errno.ETIMEDOUT, f"it did not arrive within {seconds:g} s", url)
    if isinstance(raw, Exception):
        raise raw
    if len(raw) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes, the limit", url)
    return raw


def _fetched(url: str, size: int) -> bytes:
    """At most so many bytes of what is at a URL. Errors as of `fetch`."""
    from fsspec.core import url_to_fs

    options = {}
    if protocol(url) in ("http", "https") and (proxy := proxy_of(url)):
        if why := dead_proxy(proxy):
            raise OSError(errno.EHOSTUNREACH, why, url)
        options = {"proxy": proxy}  # which the library does not look for by itself
    try:
        store, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:  # a library that is not installed, or an unknown protocol
        raise UsageError(f"{url} cannot be fetched: {first_line(error)}") from error
    try:
        with store.open(path, "rb") as file:
            raw: bytes = file.read(size)
    except Exception as error:  # each file system has its own errors
        raise OSError(errno.EIO, first_line(error), url) from error
    return raw


def is_file(path: Path) -> bool:
    """Whether there is a regular file; also False for an impossible path."""
    return os.path.isfile(path)


def unreadable(what: str, path: Path, error: OSError) -> str:
    """Why the file of a picture or text cannot be read, with its path where there is none."""
    if error.errno in (errno.ENOENT, errno.ENAMETOOLONG) and not os.path.lexists(path):
        shown = from_here(str(path))
        return f"no file {shown if len(shown) < _SHOWN else f'…{shown[-_SHOWN // 2 :]}'}"
    return f"{what} cannot be read: {error.strerror or error}"


def from_here(words: str) -> str:
    """Words with the paths below the working directory as they are from there."""
    return words.replace(os.getcwd() + os.sep, "")


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a file is outside a folder after following links. folder: resolved."""
    return not Path(os.path.realpath(path)).is_relative_to(folder)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file completely or not at all, and create its folder. Raises DataError if it cannot be written."""
    write_together({path: data})
    return path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: none is renamed before all are on disk.

    Raises DataError if one cannot be written; then all are as before.
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
            if path.is_dir():  # checked before anything is replaced
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
        except OSError:  # a read-only folder, or not a folder
            continue


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable, if the system can sync folders."""
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
    """Create a folder in `folder`: `fill` writes its files, and after they are on disk it appears in one rename.
    Returns its path; if the name is taken, a number is added. Raises OSError if it cannot be written, RunError if a
    thousand names are taken."""
    building: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{name}.", dir=folder))
        building.chmod(0o755)  # mkdtemp allows only the owner
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
        raise RunError(f"{folder} already holds a thousand folders called {name}")
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def passing_folder(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder inside another one, removed at the end of the block. Those of its kind that killed processes of this
    machine left are removed first. Raises OSError where it cannot be made."""
    here = f"{prefix}{host()}-"
    with contextlib.suppress(OSError):  # a folder may let us write and not look
        for left in folder.iterdir():
            made_by = left.name.removeprefix(here).partition("-")[0]
            if left.name.startswith(here) and os.path.isdir("/proc") and not os.path.exists(f"/proc/{made_by}"):
                shutil.rmtree(left, ignore_errors=True)
    owner = os.getpid()
    made = Path(tempfile.mkdtemp(prefix=f"{here}{owner}-", dir=folder))
    try:
        yield made
    finally:
        if os.getpid() == owner:  # not in a process that was forked meanwhile
            shutil.rmtree(made, ignore_errors=True)


def folder_of_this_process(prefix: str) -> Path:
    """A `passing_folder` for temporary files that lasts as long as the process."""
    return _until_the_end.enter_context(passing_folder(Path(tempfile.gettempdir()), prefix))


_until_the_end = contextlib.ExitStack()
atexit.register(_until_the_end.close)


BUILDING = ".building."  # prefix of a folder that is not complete yet


def ready_folder(folder: Path) -> None:
    """Create the runs folder and remove what killed fits left in it. Raises RunError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder)).rmdir()
    except OSError as error:
        raise RunError(
            f"cannot write runs in {folder}: {error.strerror or error}; choose another folder with --runs"
        ) from error
    clear_unfinished(folder)


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left of folders in the making."""
    for left in folder.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:  # writing a run folder takes only a moment
                shutil.rmtree(left)


_STALE_SECONDS = 3600.0
