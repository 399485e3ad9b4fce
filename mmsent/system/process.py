"""What this process may use of the machine, and settings that make encoding and fitting several times faster."""

from __future__ import annotations

import ctypes
import getpass
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

# glibc's mallopt parameters, from malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


_OF_THE_MACHINE = "pid:[4026531836]"  # Linux numbers all others anew
_GROUP, _LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # Linux says what a container may use


def host() -> str:
    """This machine's name, within a container with that container's numbering of processes: a process's number says
    nothing elsewhere, also where containers have the name of their machine and share a folder."""
    name = platform.node()
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        return name
    return name if numbering == _OF_THE_MACHINE else f"{name}.{numbering.strip('pid:[]')}"


def cores() -> int:
    """CPUs that this process may use: those it may run on, within its container's quota."""
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        n = os.cpu_count() or 1
    return max(1, min([n, *map(math.ceil, _quotas())]))


def memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, within its container's limit; None where that is not
    known."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limits = [*_numbers("memory", "memory.max"), *_numbers("memory", "memory.limit_in_bytes")]
    return min([whole, *(int(one[0]) for one in limits)])


def _quotas() -> Iterator[float]:
    """CPUs per period of every group that limits this process."""
    for quota, period in (n for n in _numbers("cpu", "cpu.max") if len(n) == 2):
        yield quota / period
    quotas, periods = (_numbers("cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    for (quota, *_), (period, *_) in zip(quotas, periods, strict=False):
        if quota > 0:
            yield quota / period


def _numbers(controller: str, name: str) -> list[list[float]]:
    """The numbers in a control file of this process's group and of those around it; none where a file sets no limit."""
    try:
        lines = [line.split(":", 2) for line in _GROUP.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        top = _LIMITS / controller if controllers else _LIMITS  # of version 1 or 2
        inner = top / group.strip("/")
        for folder in dict.fromkeys([inner, *inner.parents, top]):
            if not folder.is_relative_to(top):
                continue
            try:
                found.append([float(word) for word in (folder / name).read_text(encoding="utf-8").split()])
            except (OSError, ValueError):  # no such file, or `max`
                continue
    return found


_forks_survive = False


def survive_forks() -> None:
    """Let torch compute with one thread in processes that are forked from this one, as by a web server that forks after
    loading: its other threads stay behind, and a child would wait for them for ever."""
    global _forks_survive
    if not _forks_survive and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)
        _forks_survive = True


def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def tune_process() -> None:
    """Keep freed memory for the next batch, let waiting threads sleep, start no more threads than a container's quota
    has CPUs, and let a GPU repeat its sums. Call it once, before importing torch. Environment variables override all.

    By default glibc returns every large buffer to the kernel and allocates it again, page by page, for each layer of
    each batch; in threads other than the first it does so regardless of its settings, unless all share one arena. And
    libgomp's threads spin while they wait, which slows down small steps when other processes are busy.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products of matrices differ from run to run
    if hasattr(os, "sched_getaffinity") and (allowed := cores()) < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(allowed))  # torch counts the machine's processors
    _name_user()
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 << 20)


def _name_user() -> None:
    """A name for a user without an entry in the password file, as in containers: libraries ask for one, torch among
    them for the folder of what it compiles."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}" if hasattr(os, "getuid") else "user"
