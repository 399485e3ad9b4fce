"""What the machine refuses - rights, locks, open files, disk space, memory - in words that name the way out."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from mmsent.errors import MachineError, MmsentError, UsageError, first_line

P = ParamSpec("P")
T = TypeVar("T")

_WAYS = {
    errno.EMFILE: "this process may not open more; raise the limit (`ulimit -n 4096`) or use fewer --workers",
    errno.ENFILE: "the whole machine may not open more; close other programs",
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.EACCES: "its owner can allow it; `ls -l` says whose it is",
    errno.EPERM: "its owner can allow it; `ls -l` says whose it is",
    errno.EIO: "the disk or the network drive fails; the system's log says more",
    errno.ENOMEM: "close other programs, or use fewer --workers",
}
if hasattr(errno, "EDQUOT"):
    _WAYS |= {errno.EDQUOT: "free some space, or choose another folder", errno.ESTALE: "mount the network drive again"}


def reason(error: OSError) -> str:
    """Why the system refused, and what helps where that is known."""
    why = os.strerror(error.errno) if error.errno and not error.strerror else error.strerror or first_line(error)
    way = _WAYS.get(error.errno or 0)
    return f"{why}; {way}" if way else why


def machine_error(error: BaseException) -> MachineError | None:
    """An error of the system or of memory as one that says what helps; None for any other."""
    if isinstance(error, OSError):
        what = f"cannot use {error.filename}" if error.filename else "the system refuses"
        return MachineError(f"{what}: {reason(error)}")
    said = first_line(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return MachineError(
            f"the GPU is out of memory ({said}); close other programs on it, take smaller batches (--batch-size) or "
            "--device cpu"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in said):
        return MachineError(
            f"out of memory ({said}); close other programs, take smaller batches (--batch-size), fewer --workers or "
            "less --memory"
        )
    return None


def cause_of(error: BaseException) -> OSError | None:
    """The system's refusal behind an error of a library; None where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def promised(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors of the system and of memory are MmsentErrors, as the Python API promises."""

    @functools.wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        try:
            return function(*given, **named)
        except MmsentError:
            raise
        except Exception as error:
            if told := machine_error(error):
                raise told from error
            raise

    return call


def no_cluster(address: str | None, error: BaseException) -> UsageError:
    """Why there is no Ray cluster, and what helps."""
    said = first_line(error)
    if "AF_UNIX path" in said:
        folder = tempfile.gettempdir()
        return UsageError(
            f"Ray cannot start: the folder for temporary files, {folder}, has too long a path for its sockets "
            f"({len(folder)} characters); set TMPDIR to a shorter one, such as /tmp ({said})"
        )
    if address in (None, "local"):
        return UsageError(f"Ray cannot start a cluster on this machine: {said}")
    return UsageError(
        f"no Ray cluster at {address!r}: {said}; start one with `ray start --head`, or leave out --address to use only "
        "this machine"
    )
