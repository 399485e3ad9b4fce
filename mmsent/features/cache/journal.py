"""The journal of an extraction in progress: one SQLite file beside the cache. If the process is killed at any moment,
only the rows it was encoding are lost.

A kill in the middle of a write can damage an HDF5 file; SQLite's transactions are safe. Rows are journalled in whole
blocks and copied into a new HDF5 file when a split is complete (see mmsent.features.cache). Only this module uses
sqlite3.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
    empty INTEGER,           -- 1: a content that says nothing, such as a blank image; NULL: not known
    about_crc INTEGER,       -- CRC-32 of id, hash, reason and tokens; NULL where an older mmsent wrote the row
    data_crc INTEGER,        -- CRC-32 of data
    PRIMARY KEY (split, half, id)
) WITHOUT ROWID;
"""
_LATER = ("empty", "about_crc", "data_crc")  # columns that older journals lack


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled half of a row. `data` is (V, D_image) or (D_text,), or None if the half was quarantined. empty:
    the content says nothing, as a blank image or a text without letters, so that it makes no duplicates."""

    id: str
    hash: bytes
    data: NDArray[Any] | None
    reason: str = ""
    tokens: int = 0
    empty: bool = False


class Journal:
    """A journal opened for writing. Entries are committed together, at most a second after `put`."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        """Open or create it. meta: what identifies the extraction; an existing journal keeps its values."""
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            have = {row[1] for row in self._db.execute("PRAGMA table_info(rows)")}
            for name in _LATER:
                if name not in have:
                    self._db.execute(f"ALTER TABLE rows ADD COLUMN {name} INTEGER")
            self._db.execute("BEGIN IMMEDIATE")
            for key, value in meta.items():
                self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
            self.meta = {k: json.loads(v) for k, v in self._db.execute("SELECT key, value FROM meta")}
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:  # a full disk, a read-only folder or a lock: the rows are fine
            raise CacheError(
                f"cannot write {path}: {error}; its rows are kept; fix the problem and run again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error
        self._last_commit = time.monotonic()

    def put(self, split: str, half: Half, entries: Iterable[Entry]) -> None:
        """Add the entries of one whole block; a later entry replaces an earlier one of the same row."""
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO rows "
                "(split, half, id, hash, reason, tokens, data, empty, about_crc, data_crc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_record(split, half, entry) for entry in entries],
            )
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        if time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make all entries so far durable. Raises CacheError if that is impossible, for example on a full disk."""
        if self._db.in_transaction:  # only SQLite knows: it rolls back by itself when the disk is full
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unwritable(error) from error
        self._last_commit = time.monotonic()

    def _unwritable(self, error: sqlite3.Error) -> CacheError:
        return CacheError(f"cannot write {self.path}: {error}; what was committed is kept; run it again")

    def _unreadable(self, error: sqlite3.Error) -> CacheError:
        if isinstance(error, sqlite3.OperationalError):  # a lock, a disk that fails: SQLite blames no row
            return CacheError(f"journal {self.path} cannot be read: {error}; its rows are kept; run the same again")
        return CacheError(
            f"journal {self.path} cannot be used: {error}; rename it, and the same command starts this extraction anew"
        )

    def known(self, split: str, half: Half) -> Iterator[tuple[str, bytes, str, int]]:
        """(id, content hash, reason, tokens) of every undamaged journalled half. Do not call `put` meanwhile."""
        query = "SELECT id, hash, reason, tokens, about_crc FROM rows WHERE split=? AND half=?"
        try:
            for row in self._db.execute(query, (split, half)):
                if row[4] in (None, _about_crc(*row[:4])):
                    yield row[:4]
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def sizes(self, split: str, half: Half) -> dict[str, int]:
        """id -> bytes of the journalled vectors; none where quarantined."""
        query = "SELECT id, length(data) FROM rows WHERE split=? AND half=?"
        try:
            return dict(self._db.execute(query, (split, half)))
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def empty(self, half: Half) -> set[bytes]:
        """The hashes of the journalled contents that say nothing."""
        try:
            return {row[0] for row in self._db.execute("SELECT hash FROM rows WHERE half=? AND empty", (half,))}
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def vectors(self, split: str, half: Half, ids: Sequence[str], dtype: str) -> dict[str, NDArray[Any]]:
        """id -> flat vector of the journalled, not quarantined halves among `ids`.

        Raises CacheError if one was damaged on disk; it is dropped, so that the next run encodes it again.
        """
        out: dict[str, NDArray[Any]] = {}
        damaged: list[str] = []
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, data, data_crc FROM rows WHERE split=? AND half=? AND data != x'' AND id IN ({marks})"
            try:
                for row_id, data, crc in self._db.execute(query, (split, half, *part)):
                    if crc in (None, zlib.crc32(data)):
                        out[row_id] = np.frombuffer(data, dtype=dtype)
                    else:
                        damaged.append(row_id)
            except sqlite3.Error as error:
                raise self._unreadable(error) from error
        if damaged:
            self.drop(split, half, damaged)
            raise CacheError(
                f"{self.path}: {len(damaged)} rows were damaged on the disk ({split} {half} of "
                f"{', '.join(damaged[:3])}); they are dropped; run extract again to encode them"
            )
        return out

    def damaged(self, split: str, half: Half) -> list[str]:
        """The ids whose checksums do not hold. Reads everything, drops nothing."""
        query = "SELECT id, hash, reason, tokens, about_crc, data, data_crc FROM rows WHERE split=? AND half=?"
        try:
            return [
                row[0]
                for row in self._db.execute(query, (split, half))
                if row[4] not in (None, _about_crc(*row[:4])) or row[6] not in (None, zlib.crc32(row[5]))
            ]
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def drop(self, split: str, half: Half, ids: Sequence[str]) -> None:
        """Forget these halves, at once, so that the next run encodes them again."""
        try:
            self._db.executemany(
                "DELETE FROM rows WHERE split=? AND half=? AND id=?", [(split, half, row_id) for row_id in ids]
            )
            self.commit()
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Commit and close."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # already closed
            try:
                self.commit()
            finally:
                self._db.close()

    def discard(self, splits: Sequence[str]) -> bool:
        """Drop the rows of splits that the cache holds now. Returns whether rows of another split are left.

        If none are left, nothing is written: the caller removes the journal, which works on a full disk too.
        """
        marks = ",".join("?" * len(splits))
        try:
            if self._db.execute(f"SELECT 1 FROM rows WHERE split NOT IN ({marks}) LIMIT 1", splits).fetchone() is None:
                return False
            self._db.execute(f"DELETE FROM rows WHERE split IN ({marks})", splits)
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        return True

    def remove(self) -> None:
        """Close and delete the journal and SQLite's own side files."""
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def begun_with(path: Path) -> dict[str, Any]:
    """What an unfinished extraction wrote into its journal when it began; empty where that cannot be read, and for
    journals of earlier versions."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'begun'").fetchone()
        found: dict[str, Any] = json.loads(row[0]) if row else {}
    except (sqlite3.Error, ValueError):
        return {}
    return found


def _about_crc(row_id: str, content: bytes, reason: str, tokens: int) -> int:
    said = f"{row_id}\0{reason}\0{tokens}".encode("utf-8", "surrogatepass")
    return zlib.crc32(said, zlib.crc32(content))


def _record(split: str, half: Half, entry: Entry) -> tuple[Any, ...]:
    data = b"" if entry.data is None else entry.data.tobytes()
    about = _about_crc(entry.id, entry.hash, entry.reason, entry.tokens)
    return split, half, entry.id, entry.hash, entry.reason, entry.tokens, data, entry.empty, about, zlib.crc32(data)
