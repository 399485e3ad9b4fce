"""What is wrong with a cache file, row by row: checksums of rows, and reading past what HDF5 refuses to read.

HDF5's Fletcher-32 sums only tell that some row of a block is damaged, and the whole block is refused. A cache also has
three CRC-32s per row: of its index, of its image's embeddings and of its text's. They tell which row is damaged, so
that the others of the block can be used, and they notice blocks that a storage failure has zeroed, which Fletcher-32
considers valid.

Callers in mmsent.features.cache pass open HDF5 objects. Shapes: N rows.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import first_line

# The index of a row, in the order in which its checksum covers the stored bytes.
INDEX = ("id", "label", "outcome", "image_reason", "text_reason", "tokens", "image_sha256", "text_sha256")
CRC = "crc32"  # the data set of the checksums, (N, 3) uint32
PARTS = ("index", "image", "text")  # its columns
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, AttributeError, TypeError)  # what h5py raises on damage
SHOWN = 5  # rows that a line names


def says_nothing(error: BaseException) -> bool:
    """Whether an error tells nothing of the file's content: a lock, rights, limits or a lost network drive. What HDF5
    says of the content has no number of the system; a disk that cannot read a block has EIO."""
    return isinstance(error, OSError) and error.errno not in (None, 0, errno.EIO)


@dataclass(frozen=True)
class Damage:
    """What is damaged in a cache; false if nothing is.

    metadata: why the file cannot be read at all, else empty. cut: where the file ends too early, else empty. splits:
    split -> why none of its rows can be read. rows: split -> index, image or text -> positions of damaged rows.
    refused: split -> data sets that HDF5 refuses to read, be their rows damaged or only their checksums. ids: split ->
    position -> id, where it can be read. coarse: whether a row may be listed for another in its block, in a cache that
    has no checksums a row.
    """

    metadata: str = ""
    cut: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    ids: dict[str, dict[int, str]] = field(default_factory=dict)
    coarse: bool = False

    def __bool__(self) -> bool:
        return bool(self.metadata or self.cut or self.splits or self.refused or any(self.rows.values()))

    def lost(self, split: str, part: str) -> frozenset[int]:
        """The positions whose index, image or text is damaged."""
        return frozenset(self.rows.get(split, {}).get(part, ()))

    def lines(self) -> list[str]:
        """For people: one line a split and part."""
        found = [line for line in (self.metadata, self.cut) if line]
        found += [f"{split}: all rows, for its structure cannot be read ({why})" for split, why in self.splits.items()]
        for split in sorted({*self.rows, *self.refused}, reverse=True):
            parts = self.rows.get(split, {})
            found += [f"{split}: {part} of {self._named(split, parts[part])}" for part in PARTS if parts.get(part)]
            if not any(parts.values()):
                found.append(f"{split}: the checksums of {', '.join(self.refused[split])}, but no row")
        return found

    def _named(self, split: str, positions: Sequence[int]) -> str:
        ids = self.ids.get(split, {})
        shown = [f"{i} (id {ids[i]})" if i in ids else str(i) for i in positions[:SHOWN]]
        more = f" and {len(positions) - SHOWN} more" if len(positions) > SHOWN else ""
        return f"row{'s' * (len(positions) > 1)} {', '.join(shown)}{more}"


def row_crcs(values: NDArray[Any]) -> NDArray[np.uint32]:
    """The CRC-32 of each row's stored bytes, (N,)."""
    return np.fromiter(map(zlib.crc32, _bytes(values)), np.uint32, len(values))


def index_crcs(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint32]:
    """The CRC-32 of each row's index, (N,): of its stored bytes in the columns INDEX, one after the other."""
    return row_crcs(np.concatenate([_bytes(columns[name]) for name in INDEX], axis=1))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(N, ...) values as (N, bytes)."""
    size = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    return np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8).reshape(len(values), size)


def check_rows(group: Any, part: str, rows: Any, found: NDArray[np.uint32]) -> None:
    """Raise ValueError unless the checksums of rows (a slice, or increasing positions) are those that are stored.

    A cache of an older mmsent holds none and passes.
    """
    if CRC in group and not np.array_equal(group[CRC][rows, PARTS.index(part)], found):
        raise ValueError(f"the checksums of {part} rows differ")


def blocks_of(dataset: Any) -> Iterator[tuple[int, NDArray[Any], bool]]:
    """Every block of a chunked data set: its first row, its values as they are stored, and whether HDF5 reads it."""
    n, size = dataset.shape[0], dataset.chunks[0]
    for start in range(0, n, size):
        values, sound = read_block(dataset, start)
        yield start, values, sound


def read_block(dataset: Any, start: int) -> tuple[NDArray[Any], bool]:
    """The block that begins with a row, even if its checksum is wrong; zeros if it cannot be read at all."""
    rows = min(dataset.chunks[0], dataset.shape[0] - start)
    try:
        return dataset[start : start + rows], True
    except UNREADABLE as error:
        if says_nothing(error):
            raise
    shape, wanted = dataset.chunks, int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    try:
        _, raw = dataset.id.read_direct_chunk((start, *(0 for _ in dataset.shape[1:])))
    except UNREADABLE as error:
        if says_nothing(error):
            raise
        raw = b""
    # A chunk is stored at full length, followed by its checksum.
    whole = raw[:wanted] if len(raw) >= wanted else bytes(wanted)
    return np.frombuffer(whole, dataset.dtype).reshape(shape)[:rows], False


def read_column(dataset: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A whole data set as stored, and which rows HDF5 reads, (N,)."""
    values = np.zeros(dataset.shape, dataset.dtype)
    sound = np.ones(len(values), bool)
    for start, block, good in blocks_of(dataset):
        values[start : start + len(block)] = block
        sound[start : start + len(block)] = good
    return values, sound


def read_rows(dataset: Any, positions: Sequence[int]) -> NDArray[Any]:
    """Rows at positions as stored."""
    out = np.zeros((len(positions), *dataset.shape[1:]), dataset.dtype)
    size = dataset.chunks[0]
    at = np.asarray(positions, np.int64)
    for block in np.unique(at // size).tolist():
        values, _ = read_block(dataset, block * size)
        here = np.flatnonzero(at // size == block)
        out[here] = values[at[here] - block * size]
    return out


def scan(file: Any, cut: str = "") -> Damage:
    """Read every row of an open cache and find damaged ones. Its attributes must be valid."""
    splits: dict[str, str] = {}
    rows: dict[str, dict[str, list[int]]] = {}
    refused: dict[str, list[str]] = {}
    ids: dict[str, dict[int, str]] = {}
    coarse = False
    for split in file:
        try:
            group = file[split]
            found, unread, known, rough = _scan_split(group)
        except UNREADABLE as error:
            if says_nothing(error):
                raise
            splits[split] = first_line(error)
            continue
        coarse |= rough
        if unread:
            refused[split] = unread
        if any(found.values()):
            rows[split] = found
        ids[split] = known
    return Damage("", cut, splits, rows, refused, ids, coarse)


def _scan_split(group: Any) -> tuple[dict[str, list[int]], list[str], dict[int, str], bool]:
    n = group["id"].shape[0]
    if not 0 <= int(group.attrs["listed"]) <= n or {group[name].shape[0] for name in (*INDEX, "image", "text")} != {n}:
        raise ValueError("its data sets differ in length")
    columns, sound, unread = {}, {}, []
    for name in INDEX:
        columns[name], sound[name] = read_column(group[name])
        if not sound[name].all():
            unread.append(name)
    stored, trusted = read_column(group[CRC]) if CRC in group else (None, np.ones(n, bool))
    if not trusted.all():
        unread.append(CRC)

    def damaged(k: int, start: int, crcs: NDArray[np.uint32], good: NDArray[np.bool_]) -> list[int]:
        """Damaged rows: by the row's own checksum if that is trustworthy, else by HDF5's refusal."""
        stop = start + len(good)
        if stored is None:
            wrong = ~good
        else:
            differs = stored[start:stop, k] != crcs
            wrong = differs & (trusted[start:stop] | ~good)
        return (np.flatnonzero(wrong) + start).tolist()

    readable = np.logical_and.reduce([sound[name] for name in INDEX])
    found = {"index": damaged(0, 0, index_crcs(columns), readable)}
    for k, part in enumerate(PARTS[1:], 1):
        found[part] = []
        for start, values, good in blocks_of(group[part]):
            found[part] += damaged(k, start, row_crcs(values), np.full(len(values), good))
            if not good and part not in unread:
                unread.append(part)
    gone = set(found["index"])
    wanted = sorted({i for part in PARTS[1:] for i in found[part]} - gone)
    known = {i: bytes(columns["id"][i]).decode("utf-8", "replace") for i in wanted}
    return found, unread, known, stored is None and bool(unread)
