"""Files of encoders that are made once per machine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from mmsent.encoders.kept import kept_folder
from mmsent.system.files import BUILDING
from mmsent.system.process import host


def whole(folder: Path) -> bool:
    return (folder / "file").is_file() and (folder / "file").read_text() == "whole"


def fill(folder: Path) -> None:
    (folder / "file").write_text("whole")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mmsent"


def test_it_is_made_once_and_again_where_it_is_damaged(home: Path) -> None:
    made = kept_folder("one", whole, fill)
    assert made == home / "one"
    assert kept_folder("one", whole, lambda _: pytest.fail("made again")) == made
    (made / "file").write_text("half")
    assert whole(kept_folder("one", whole, fill))
    assert list(home.iterdir()) == [made]


def test_what_a_killed_process_left_is_removed_at_once(home: Path) -> None:
    """It may be a gigabyte, and nothing else is made here for months."""
    dead, alive = (home / f"{BUILDING}{host()}-{number}-x" for number in (2**22 + 1, os.getppid()))
    for left in (dead, alive):
        left.mkdir(parents=True)
    made = kept_folder("one", whole, fill)
    assert set(home.iterdir()) == {made, alive}


def test_what_was_not_taken_for_half_a_year_goes_when_something_new_is_made(home: Path) -> None:
    unused, used, stranger = (home / name for name in (f"timm-{'1' * 16}", f"timm-{'2' * 16}", "my files"))
    for folder in (unused, used):
        kept_folder(folder.name, whole, fill)
    stranger.mkdir()
    long_ago = time.time() - 181 * 24 * 3600
    for folder in (unused, used, stranger):
        os.utime(folder, (long_ago, long_ago))
    kept_folder(used.name, whole, fill)
    assert unused.is_dir()
    made = kept_folder(f"timm-{'3' * 16}", whole, fill)
    assert set(home.iterdir()) == {used, stranger, made}


def test_what_is_damaged_and_cannot_be_replaced_is_not_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder of root's in the home of a user."""
    made, removed = kept_folder("one", whole, fill), shutil.rmtree
    (made / "file").write_text("half")
    monkeypatch.setattr("shutil.rmtree", lambda path, **how: None if path == made else removed(path, **how))
    found = kept_folder("one", whole, fill)
    assert whole(found)
    assert found.parent != home
    assert list(home.iterdir()) == [made]
