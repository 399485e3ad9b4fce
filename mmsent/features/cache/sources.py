"""Where the rows of a split come from: the journal first, then the old file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import CacheError
from mmsent.features.cache.journal import Half, Journal
from mmsent.features.cache.reading import Cache
from mmsent.features.cache.table import NO_LABEL, Row, RowTable
from mmsent.system.packed import Places

_MISSING, _JOURNAL, _OLD = range(3)
HALVES: tuple[Half, Half] = ("image", "text")
_ROWS = 4096  # journalled rows looked up at a time


@dataclass
class _Kept:
    """A row of the old file that has left the list: its position there, and for each half its source and reason."""

    row: Row
    at: int
    tokens: int
    source: dict[Half, int] = field(default_factory=dict)
    reason: dict[Half, str] = field(default_factory=dict)


class Sources:
    """For each row and half, where an embedding of its current content is, why it was quarantined, and its number of
    tokens. In arrays, for splits of millions; N rows.

    names: the label names behind the numbers in `rows`. They are passed for writing; `self.rows` then continues, after
    the first `listed` rows, with rows of the old file that have left the list and still have both halves.
    """

    def __init__(
        self, split: str, rows: Sequence[Row], old: Cache | None, journal: Journal, names: Sequence[str] | None = None
    ) -> None:
        self._split, self._old, self._journal = split, old, journal
        self.rows = RowTable.of(rows)
        self.listed = len(self.rows)
        self._hashes = {"image": self.rows.image_hashes, "text": self.rows.text_hashes}
        self._source = {half: np.full(self.listed, _MISSING, np.uint8) for half in HALVES}
        self._at = np.full(self.listed, -1, np.int64)  # in the old file
        self.tokens = np.zeros(self.listed, np.int32)
        self.reasons: dict[Half, dict[int, str]] = {half: {} for half in HALVES}  # by position, of quarantined halves
        places = Places(self.rows.ids)
        kept: dict[str, _Kept] = {}
        if old is not None and split in old.rows:
            kept = self._look_up_old(old, places, names)
        for half in HALVES:
            self._look_up_journal(half, places, kept)
        self._append([k for k in kept.values() if all(k.source.values())])

    def _look_up_old(self, old: Cache, places: Places, names: Sequence[str] | None) -> dict[str, _Kept]:
        """Use what is undamaged and still wanted in the old file. Returns its rows that are not in the list."""
        lost = {part: old.damage.lost(self._split, part) if old.damage else () for part in ("index", *HALVES)}
        numbers = {name: k for k, name in enumerate(names or ())}
        kept: dict[str, _Kept] = {}
        for start, columns in old.blocks(self._split, kept=True):
            n = len(columns["id"])
            ids = [name.decode("utf-8", "replace" if old.damage else "strict") for name in columns["id"]]
            sound = {part: _without(lost[part], start, n) for part in lost if lost[part]}
            here = places.find(ids)
            usable = sound.get("index", np.ones(n, bool))
            mine = np.flatnonzero((here >= 0) & usable)
            to = here[mine]
            self._at[to] = start + mine
            for half in HALVES:
                same = (columns[f"{half}_sha256"][mine] == self._hashes[half][to]).all(axis=1)
                same &= sound.get(half, np.ones(n, bool))[mine]
                self._source[half][to[same]] = _OLD
                reasons = columns[f"{half}_reason"][mine[same]]
                for k in np.flatnonzero(reasons != b"").tolist():
                    self.reasons[half][int(to[same][k])] = reasons[k].decode("utf-8", "replace")
                if half == "text":
                    self.tokens[to[same]] = columns["tokens"][mine[same]]
            if names is None:
                continue
            for k in np.flatnonzero((here < 0) & usable).tolist():
                label = int(columns["label"][k])
                label = label if label == NO_LABEL else numbers.get(old.labels[label], NO_LABEL)
                hashes = (columns[f"{half}_sha256"][k].tobytes() for half in HALVES)
                one = _Kept(Row(ids[k], label, *hashes), start + k, int(columns["tokens"][k]))
                for half in HALVES:
                    one.source[half] = _OLD if half not in sound or sound[half][k] else _MISSING
                    one.reason[half] = columns[f"{half}_reason"][k].decode("utf-8", "replace")
                kept[ids[k]] = one
        return kept

    def _look_up_journal(self, half: Half, places: Places, kept: dict[str, _Kept]) -> None:
        for entries in _in_blocks(self._journal.known(self._split, half)):
            here = places.find([entry[0] for entry in entries])
            for at, (row_id, content, reason, tokens) in zip(here.tolist(), entries, strict=True):
                if at >= 0:
                    if self._hashes[half][at].tobytes() != content:
                        continue
                    self._source[half][at] = _JOURNAL
                    self.reasons[half].pop(at, None)
                    if reason:
                        self.reasons[half][at] = reason
                    if half == "text":
                        self.tokens[at] = tokens
                elif row_id in kept:
                    one = kept[row_id]
                    if content == (one.row.image_hash if half == "image" else one.row.text_hash):
                        one.source[half], one.reason[half] = _JOURNAL, reason
                        one.tokens = tokens if half == "text" else one.tokens

    def _append(self, kept: list[_Kept]) -> None:
        """Append rows that have left the list to the listed ones."""
        self.rows = self.rows.followed_by([one.row for one in kept])
        self._at = np.concatenate([self._at, np.array([one.at for one in kept], np.int64)])
        self.tokens = np.concatenate([self.tokens, np.array([one.tokens for one in kept], np.int32)])
        for half in HALVES:
            more = np.array([one.source[half] for one in kept], np.uint8)
            self._source[half] = np.concatenate([self._source[half], more])
            for k, one in enumerate(kept, self.listed):
                if one.reason[half]:
                    self.reasons[half][k] = one.reason[half]

    def missing(self, half: Half) -> NDArray[np.bool_]:
        """(N,) the rows whose half must be encoded."""
        return np.equal(self._source[half], _MISSING)

    def require_all(self) -> None:
        """Raise CacheError if a half of a row is in neither source."""
        gone = np.flatnonzero(self.missing("image") | self.missing("text"))
        if len(gone):
            raise CacheError(
                f"row {self.rows.ids[int(gone[0])]} of {self._split} was not encoded; run extract again: finished "
                "rows are kept, and rows that changed meanwhile are read again"
            )

    def vectors(self, half: Half, rows: range, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Embeddings of consecutive rows, (n, *shape); zeros for quarantined halves."""
        out = np.zeros((len(rows), *shape), dtype)
        source = self._source[half][rows.start : rows.stop]
        fresh = {self.rows.ids[rows.start + k]: k for k in np.flatnonzero(source == _JOURNAL).tolist()}
        for row_id, vector in self._journal.vectors(self._split, half, sorted(fresh), dtype).items():
            out[fresh[row_id]] = vector.reshape(shape)
        stale = np.flatnonzero(source == _OLD)
        if len(stale) and self._old is not None:
            pair = self._old.embeddings(self._split, self._at[rows.start + stale].tolist())
            out[stale] = pair[half == "text"]
        return out


def _without(lost: Iterable[int], start: int, n: int) -> NDArray[np.bool_]:
    """(n,) which of the n positions from `start` on are not lost."""
    out = np.ones(n, bool)
    out[[at - start for at in lost if start <= at < start + n]] = False
    return out


def _in_blocks(entries: Iterator[tuple[str, bytes, str, int]]) -> Iterator[list[tuple[str, bytes, str, int]]]:
    while block := list(islice(entries, _ROWS)):
        yield block
