from __future__ import annotations

import errno

import pytest

from mmsent.system.failures import machine_error, reason


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "cannot use a.jpg: Too many open files; this process"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (MemoryError(), "out of memory (MemoryError)"),
        (OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "the GPU is out of memory (CUDA out of memory. Tried"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory (DefaultCPU"),
    ],
)
def test_what_the_machine_refuses_says_what_helps(error: Exception, said: str) -> None:
    assert said in str(machine_error(error))


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("shapes differ"), KeyError("train")])
def test_a_bug_is_not_the_machines(error: Exception) -> None:
    assert machine_error(error) is None


def test_a_reason_without_words() -> None:
    assert reason(OSError("the file is odd")) == "the file is odd"
    assert reason(OSError(errno.ENOTDIR, "Not a directory")) == "Not a directory"
