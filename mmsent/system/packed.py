"""Many texts in one buffer. A Python string takes 50 bytes besides its characters and a path several hundred, too much
for millions of ids and file names.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096


class Strings:
    """A sequence of texts (or None), stored one after the other as UTF-8. Lone surrogates are kept."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q")  # where each text ends; ~end if there is none
        for value in values:
            self.append(value)

    def append(self, value: str | None) -> None:
        """Add one at the end."""
        if value is None:
            self._ends.append(~len(self._bytes))
            return
        self._bytes += value.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str | None]:
        return map(self.get, range(len(self)))

    def raw(self, i: int) -> bytes | None:
        """Text i (0 <= i < N) as UTF-8."""
        end = self._ends[i]
        if end < 0:
            return None
        before = self._ends[i - 1] if i else 0
        return bytes(self._bytes[before if before >= 0 else ~before : end])

    def get(self, i: int) -> str | None:
        """Text i (0 <= i < N)."""
        raw = self.raw(i)
        return None if raw is None else raw.decode("utf-8", "surrogatepass")

    def __getitem__(self, i: int) -> str:
        """Text i (0 <= i < N). Raises KeyError if there is none."""
        value = self.get(i)
        if value is None:
            raise KeyError(i)
        return value

    def fixed(self) -> NDArray[np.bytes_]:
        """All texts (N,) as UTF-8 of one width; lone surrogates are replaced."""
        ends = np.frombuffer(self._ends, np.int64)
        ends = np.where(ends < 0, ~ends, ends)
        width = int(np.diff(ends, prepend=0).max(initial=1))
        out = np.zeros(len(self), f"S{width}")
        for start in range(0, len(self), _BLOCK):
            block = range(start, min(start + _BLOCK, len(self)))
            out[block.start : block.stop] = [(self.get(i) or "").encode("utf-8", "replace") for i in block]
        return out

    def repeated(self) -> set[int]:
        """The positions of texts that occur more than once, and rarely a few more (equal hashes)."""
        hashes = _hashes(self)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order]) == 0)
        return set(order[np.union1d(again, again + 1)].tolist())


class Places:
    """Finds the positions of texts in a sequence of different texts. Takes 16 bytes per text."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        hashes = _hashes(strings)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, wanted: Sequence[str]) -> NDArray[np.int64]:
        """The position (n,) of each of n texts; -1 if it is not there."""
        hashes = np.fromiter(map(hash, wanted), np.int64, len(wanted))
        first, last = (np.searchsorted(self._hashes, hashes, side).tolist() for side in ("left", "right"))
        out = np.full(len(wanted), -1, np.int64)
        for k, (low, high) in enumerate(zip(first, last, strict=True)):
            for at in self._order[low:high].tolist():
                if self._strings.get(at) == wanted[k]:
                    out[k] = at
                    break
        return out


def _hashes(strings: Strings) -> NDArray[np.int64]:
    return np.fromiter(map(hash, strings), np.int64, len(strings))
