"""What the machine refuses - rights, locks, open files, disk space, memory - in words that name the way out."""

from __future__ import annotations

import errno
import os

from mmsent.errors import MachineError, first_line

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
        where = f" {error.filename}" if error.filename else ""
        return MachineError(f"cannot use{where}: {reason(error)}")
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
