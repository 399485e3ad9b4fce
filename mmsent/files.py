"""Reading files of strangers: regular files alone, and none without end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file; links are followed. limit: the most bytes that are read.

    Raises OSError, its `strerror` the reason: also for a pipe, a socket, a device or a folder, none of which is waited
    for, and for a file beyond the limit.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL or half a surrogate pair in the path
        raise OSError(errno.EINVAL, "no such path can exist", str(path)) from error
    with open(number, "rb") as file:
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file but a pipe, socket or device", str(path))
        if limit is None:
            return file.read()
        if found.st_size <= limit:
            raw = file.read(limit + 1)  # it may have grown since
            if len(raw) <= limit:
                return raw
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes; the limit is {limit}", str(path))


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False too for a path that no file can have."""
    return os.path.isfile(path)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a file lies outside a folder once links are followed. folder: resolved."""
    return not Path(os.path.realpath(path)).is_relative_to(folder)
