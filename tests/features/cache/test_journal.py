"""The journal: what survives a kill, what replaces what, and what it refuses."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.errors import CacheError
from mmsent.features.cache import journal as journal_module
from mmsent.features.cache.journal import Entry, Journal

META = {"fingerprint": "f", "batch_size": 8}
DAY = 86400.0


def entry(name: str, value: float = 1.0, **options: Any) -> Entry:
    return Entry(name, bytes([len(name)]) * 32, np.full(3, value, np.float32), **options)


def known(journal: Journal, split: str, half: Any) -> dict[str, tuple[bytes, str, int]]:
    return {found[0]: found[1:] for found in journal.known(split, half)}


def seen_from_outside(path: Path) -> list[str]:
    """The ids that another connection sees: what a kill now would leave."""
    with sqlite3.connect(path) as other:
        return sorted(row[0] for row in other.execute("SELECT id FROM rows"))


def test_only_commits_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMMIT_SECONDS", DAY)
    journal = Journal(tmp_path / "j", META)
    journal.put("train", "text", [entry("a"), entry("b")])
    assert seen_from_outside(journal.path) == []
    assert set(known(journal, "train", "text")) == {"a", "b"}  # its own view
    journal.commit()
    journal.put("train", "text", [entry("c")])
    assert seen_from_outside(journal.path) == ["a", "b"]
    journal.close()
    assert seen_from_outside(tmp_path / "j") == ["a", "b", "c"]


def test_puts_are_committed_once_a_second_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mmsent.features.cache.journal.time.monotonic", lambda: now[0])
    journal = Journal(tmp_path / "j", META)
    now[0] += journal_module.COMMIT_SECONDS / 2
    journal.put("train", "text", [entry("a")])
    assert seen_from_outside(journal.path) == []
    now[0] += journal_module.COMMIT_SECONDS / 2
    journal.put("train", "text", [entry("b")])
    assert seen_from_outside(journal.path) == ["a", "b"]
    now[0] += journal_module.COMMIT_SECONDS / 2
    journal.put("train", "text", [entry("c")])
    assert seen_from_outside(journal.path) == ["a", "b"]


def test_a_killed_process_leaves_its_commits(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from mmsent.features.cache import journal as j
import numpy as np
j.COMMIT_SECONDS = 1e9
journal = j.Journal(Path(sys.argv[1]), {"batch_size": 8})
for name in "abc":
    journal.put("train", "image", [j.Entry(name + str(i), bytes(32), np.zeros(100_000, np.float32)) for i in range(9)])
    if name == "b":
        journal.commit()
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (9, "")
    journal = Journal(tmp_path / "j", {"batch_size": 16})
    assert sorted(known(journal, "train", "image")) == [f"{c}{i}" for c in "ab" for i in range(9)]
    assert journal.meta == {"batch_size": 8}


def test_entries_come_back(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with_views = Entry("post 1 ü", b"h" * 32, values)
    bad = Entry("bad", bytes(32), None, "no picture")
    with Closing(tmp_path / "j") as journal:
        journal.put("train", "image", [with_views, bad])
        journal.put("train", "text", [entry("post 1 ü", tokens=7)])
        journal.put("test", "image", [entry("post 1 ü", 5.0)])
    with Closing(tmp_path / "j") as journal:
        images = known(journal, "train", "image")
        assert images == {"post 1 ü": (b"h" * 32, "", 0), "bad": (bytes(32), "no picture", 0)}
        assert known(journal, "train", "text")["post 1 ü"][1:] == ("", 7)
        assert known(journal, "test", "text") == {}
        found = journal.vectors("train", "image", ["post 1 ü", "bad", "never"], "float32")
        assert set(found) == {"post 1 ü"}
        assert found["post 1 ü"].tolist() == [0, 1, 2, 3, 4, 5]
        assert journal.vectors("test", "image", ["post 1 ü"], "float32")["post 1 ü"].tolist() == [5, 5, 5]


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    with Closing(tmp_path / "j") as journal:
        journal.put("train", "text", [Entry("a", bytes(32), None, "no text")])
        journal.put("train", "text", [Entry("a", b"x" * 32, np.full(2, 9, np.float16), tokens=4)])
        assert known(journal, "train", "text") == {"a": (b"x" * 32, "", 4)}
        assert journal.vectors("train", "text", ["a"], "float16")["a"].tolist() == [9, 9]
        journal.put("train", "text", [Entry("a", bytes(32), None, "gone")])
        assert journal.vectors("train", "text", ["a"], "float16") == {}


def test_the_first_meta_is_kept(tmp_path: Path) -> None:
    Journal(tmp_path / "j", META).close()
    journal = Journal(tmp_path / "j", {"fingerprint": "f", "batch_size": 99, "new": [1]})
    assert journal.meta == {"fingerprint": "f", "batch_size": 8, "new": [1]}


def test_many_ids(tmp_path: Path) -> None:
    """More than SQLite takes in one query's parameters at once, and across the chunk borders."""
    names = [f"row {i}" for i in range(1201)]
    with Closing(tmp_path / "j") as journal:
        journal.put("train", "text", [entry(name, i) for i, name in enumerate(names)])
        found = journal.vectors("train", "text", names, "float32")
        assert [found[name][0] for name in names] == list(range(1201))
        assert set(journal.vectors("train", "text", names[499:501], "float32")) == set(names[499:501])
        assert journal.vectors("train", "text", [], "float32") == {}


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to have a header" * 40, b"SQLite format 3\0x"]
)
def test_a_corrupt_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(CacheError, match=r"journal .*j cannot be used: .*; rename it, and the same command starts"):
        Journal(tmp_path / "j", META)
    assert (tmp_path / "j").read_bytes() == content


def test_a_full_disk_is_a_cache_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", META)
    journal.put("train", "text", [entry("a")])
    journal.commit()
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(CacheError, match=r"cannot write .*: database or disk is full; what was committed is kept"):
        journal.put("train", "text", [Entry(f"b{i}", bytes(32), np.zeros(5000, np.float32)) for i in range(9)])
    journal.close()  # must not raise over the error that is on its way
    assert set(known(Journal(tmp_path / "j", META), "train", "text")) >= {"a"}


@pytest.mark.parametrize("call", ["commit", "close"])
def test_a_commit_that_fails_is_a_cache_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    class FullDisk:
        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return self._db.execute(sql, *values)

    journal = Journal(tmp_path / "j", META)
    monkeypatch.setattr(journal, "_db", FullDisk(journal._db))
    journal.put("train", "text", [entry("a")])
    with pytest.raises(CacheError, match=r"cannot write .*: database or disk is full; what was committed is kept"):
        getattr(journal, call)()


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", META)
    journal.put("train", "text", [entry("a")])
    for suffix in ("-journal", "-wal", "-shm"):
        (tmp_path / f"j{suffix}").touch()
    (tmp_path / "other").touch()
    journal.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["other"]
    journal.close()  # once more does no harm


class Closing:
    """A journal closed at the end of a with block."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path, META)

    def __enter__(self) -> Journal:
        return self._journal

    def __exit__(self, *_: object) -> None:
        self._journal.close()
