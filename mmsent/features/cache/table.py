"""Rows of a data set with labels and content hashes, one by one or in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mmsent.system.packed import Strings

NO_LABEL = -1
NO_HASH = bytes(32)  # of missing content
IMAGE_BAD, TEXT_BAD = 1, 2  # bits of a row's outcome; 0 means good


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set: id, label index (or NO_LABEL) and content hashes (or NO_HASH)."""

    id: str
    label: int
    image_hash: bytes
    text_hash: bytes


class RowTable(Sequence[Row]):
    """Rows in list order, in arrays: ids N texts, labels (N,) int32, image_hashes and text_hashes (N, 32) bytes.
    mended: ids of rows whose image is used although its file lacks its end."""

    def __init__(
        self, ids: Strings, labels: NDArray[np.int32], image_hashes: NDArray[np.uint8], text_hashes: NDArray[np.uint8]
    ) -> None:
        self.ids, self.labels = ids, labels
        self.image_hashes, self.text_hashes = image_hashes, text_hashes
        self.mended: list[str] = []

    @classmethod
    def of(cls, rows: Iterable[Row]) -> RowTable:
        """A table of single rows."""
        if isinstance(rows, RowTable):
            return rows
        ids, labels, images, texts = Strings(), [], bytearray(), bytearray()
        for row in rows:
            ids.append(row.id)
            labels.append(row.label)
            images += row.image_hash
            texts += row.text_hash
        halves = (np.frombuffer(half, np.uint8).reshape(-1, 32) for half in (images, texts))
        return cls(ids, np.array(labels, np.int32), *halves)

    def followed_by(self, rows: Sequence[Row]) -> RowTable:
        """This table followed by more rows; the table itself if there are none."""
        if not rows:
            return self
        more = RowTable.of(rows)
        return RowTable(
            Strings([*self.ids, *more.ids]),
            np.concatenate([self.labels, more.labels]),
            np.concatenate([self.image_hashes, more.image_hashes]),
            np.concatenate([self.text_hashes, more.text_hashes]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def _at(self, i: int) -> Row:
        hashes = self.image_hashes[i].tobytes(), self.text_hashes[i].tobytes()
        return Row(self.ids[i], int(self.labels[i]), *hashes)

    @overload
    def __getitem__(self, i: int) -> Row: ...
    @overload
    def __getitem__(self, i: slice) -> list[Row]: ...
    def __getitem__(self, i: int | slice) -> Row | list[Row]:
        found = range(len(self))[i]
        return self._at(found) if isinstance(found, int) else [self._at(k) for k in found]

    def __iter__(self) -> Iterator[Row]:
        return map(self._at, range(len(self)))
