"""Settings of the process: the environment wins, and where there is no glibc nothing happens."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest

from mmsent.system import process


class Library:
    """Notes what mallopt is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> int:
        self.told.append((name, value))
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    for name in [name for name in os.environ if name.startswith("MALLOC_")] + ["GOMP_SPINCOUNT"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")  # so that it comes back after the test, whatever it was
    monkeypatch.delenv("GOMP_SPINCOUNT")
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: made)
    monkeypatch.setattr(sys, "platform", "linux")
    return made


def test_freed_memory_is_kept_and_waiting_threads_sleep(library: Library) -> None:
    process.tune_process()
    assert os.environ["GOMP_SPINCOUNT"] == "3000"
    assert {name for name, _ in library.told} == {-1, -2, -4, -8}
    assert (-4, 0) in library.told


def test_the_environment_wins(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    process.tune_process()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert library.told == []


def test_other_systems_are_left_alone(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    process.tune_process()
    assert library.told == []


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_another_c_library_is_no_error(
    library: Library, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fails)
    process.tune_process()
    assert library.told == []
