from __future__ import annotations

import errno

import pytest

from mmsent.errors import DataError, MachineError
from mmsent.system.failures import cause_of, machine_error, no_cluster, promised, reason


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


def test_a_promised_function_raises_mmsents_errors() -> None:
    @promised
    def work(error: Exception) -> None:
        raise error

    with pytest.raises(MachineError, match="Too many open files"):
        work(OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(MachineError, match="out of memory"):
        work(MemoryError())
    for own in (DataError("no post"), ValueError("a bug")):
        with pytest.raises(type(own)) as caught:
            work(own)
        assert caught.value is own


def test_the_refusal_behind_an_error() -> None:
    refused, failed = OSError(errno.ENOSPC, "No space left on device"), RuntimeError("the exporter failed")
    failed.__cause__ = refused
    assert cause_of(failed) is refused
    assert cause_of(ValueError("a bug")) is None


TOO_LONG = OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /scratch/a/ray")


@pytest.mark.parametrize("address", [None, "local"])
def test_a_long_temporary_folder_is_named(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/scratch/" + "a" * 80
    monkeypatch.setattr("tempfile.tempdir", folder)
    said = str(no_cluster(address, TOO_LONG))
    assert f"the folder for temporary files, {folder}, has too long a path for its sockets (89 characters)" in said
    assert "set TMPDIR to a shorter one" in said
    assert "--address" not in said


def test_only_who_named_an_address_is_told_to_leave_it_out() -> None:
    assert "leave out --address" in str(no_cluster("10.0.0.1:6379", ConnectionError("refused")))
    assert str(no_cluster("local", RuntimeError("no"))) == "Ray cannot start a cluster on this machine: no"
