"""The journal of an extraction in progress: one SQLite file beside the cache, so that a kill at any moment loses only
the rows in flight.

HDF5 is not safe against a kill in the middle of a write; SQLite's transactions are. Rows are journalled in whole blocks
and poured into a new HDF5 file once a split is complete (see mmsent.cache). This module alone touches sqlite3.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import CacheError

Half = Literal["image", "text"]
COMMIT_SECONDS = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    split TEXT NOT NULL, half TEXT NOT NULL, id TEXT NOT NULL,
    hash BLOB NOT NULL,      -- SHA-256 of the content that was encoded
    reason TEXT NOT NULL,    -- empty, or why the half was quarantined
    tokens INTEGER NOT NULL, -- texts: tokens before any cut
    data BLOB NOT NULL,      -- float32 or float16, row-major; empty where quarantined
    PRIMARY KEY (split, half, id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled half of a row. `data` is (V, D_image) or (D_text,), or None where the half was quarantined."""

    id: str
    hash: bytes
    data: NDArray[Any] | None
    reason: str = ""
    tokens: int = 0


class Journal:
    """A journal opened for writing. Entries are committed together at most a second after they were put."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        """Open or create. meta: what identifies the extraction; a journal that was begun keeps the values it has."""
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute("BEGIN IMMEDIATE")
            for key, value in meta.items():
                self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
            self.meta = {k: json.loads(v) for k, v in self._db.execute("SELECT key, value FROM meta")}
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise CacheError(
                f"journal {path} cannot be used: {error}; remove it to start this extraction anew"
            ) from error
        self._last_commit = time.monotonic()

    def put(self, split: str, half: Half, entries: Iterable[Entry]) -> None:
        """Add the entries of one whole block; a later entry replaces an earlier one of the same row."""
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (split, half, e.id, e.hash, e.reason, e.tokens, b"" if e.data is None else e.data.tobytes())
                    for e in entries
                ],
            )
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        if time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make everything put so far durable. Raises CacheError where that cannot be, on a full disk say."""
        if self._db.in_transaction:  # asked of SQLite, which rolls back by itself when the disk is full
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unwritable(error) from error
        self._last_commit = time.monotonic()

    def _unwritable(self, error: sqlite3.Error) -> CacheError:
        return CacheError(f"cannot write {self.path}: {error}; what was committed is kept, run it again")

    def known(self, split: str, half: Half) -> dict[str, tuple[bytes, str, int]]:
        """id -> (content hash, reason, tokens) of every journalled half."""
        found = self._db.execute("SELECT id, hash, reason, tokens FROM rows WHERE split=? AND half=?", (split, half))
        return {row[0]: (row[1], row[2], row[3]) for row in found}

    def vectors(self, split: str, half: Half, ids: Sequence[str], dtype: str) -> dict[str, NDArray[Any]]:
        """id -> flat vector of the journalled, not quarantined halves among `ids`."""
        out: dict[str, NDArray[Any]] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, data FROM rows WHERE split=? AND half=? AND data != x'' AND id IN ({marks})"
            for row_id, data in self._db.execute(query, (split, half, *part)):
                out[row_id] = np.frombuffer(data, dtype=dtype)
        return out

    def close(self) -> None:
        """Commit and close."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # already closed
            try:
                self.commit()
            finally:
                self._db.close()

    def discard(self, splits: Iterable[str]) -> bool:
        """Drop the rows of splits that a cache holds now. Returns whether any row is left."""
        try:
            for split in splits:
                self._db.execute("DELETE FROM rows WHERE split=?", (split,))
            return self._db.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is not None
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Close and delete the journal and SQLite's own side files."""
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
