"""Process settings that make encoding and fitting on a CPU several times faster. Call it once, before importing
torch."""

from __future__ import annotations

import ctypes
import os
import sys

# glibc's mallopt parameters, from malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def tune_process() -> None:
    """Keep freed memory for the next batch, and let waiting threads sleep. Environment variables override both.

    By default glibc returns every large buffer to the kernel and allocates it again, page by page, for each layer of
    each batch; in threads other than the first it does so regardless of its settings, unless all share one arena. And
    libgomp's threads spin while they wait, which slows down small steps when other processes are busy.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
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
