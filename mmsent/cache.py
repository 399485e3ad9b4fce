"""The feature cache: one HDF5 file per data set and settings. This module alone touches h5py.

A cache file is only ever replaced whole: an extraction in progress lives in a journal (mmsent.journal), and when the
split is complete, old rows and journalled rows are poured into a new file that takes the old one's place in one rename.
So a file that can be read is a file that was finished. The layout is documented in cache/README.md.

Shapes: N rows, V = K + 1 views, D_image and D_text widths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmsent.dataset import Split
from mmsent.errors import CacheError
from mmsent.fingerprint import FeatureSettings
from mmsent.journal import Half, Journal

FORMAT, FORMAT_VERSION = "mmsent-cache", 1
IMAGE_BAD, TEXT_BAD = 1, 2  # bits of a row's outcome; 0 is good
NO_LABEL = -1
NO_HASH = bytes(32)  # content that is not there
REASON_BYTES = 240
_CHUNK_BYTES = 1 << 20
_POUR_ROWS = 1024
_KEY_ROWS = 1 << 16


@dataclass(frozen=True)
class Row:
    """What the data set says of one row: id, label index (or NO_LABEL) and content hashes (NO_HASH: not there)."""

    id: str
    label: int
    image_hash: bytes
    text_hash: bytes


@dataclass(frozen=True)
class RowIndex:
    """All of a split but its embeddings. labels (N,) int64, NO_LABEL where none; outcome (N,) uint8, bits IMAGE_BAD
    and TEXT_BAD; the reasons say why, empty where good; tokens (N,) int64, before any cut; hashes N SHA-256 digests."""

    ids: list[str]
    labels: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    image_reasons: list[str]
    text_reasons: list[str]
    tokens: NDArray[np.int64]
    image_hashes: list[bytes]
    text_hashes: list[bytes]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def good(self) -> NDArray[np.bool_]:
        """(N,) rows whose two halves were both encoded."""
        return np.equal(self.outcome, 0)

    def reason(self, i: int) -> str:
        """Why row i was quarantined; empty where it was not."""
        return "; ".join(filter(None, (self.image_reasons[i], self.text_reasons[i])))


@dataclass(frozen=True)
class Columns:
    """What training needs to know of a split's rows, in arrays, for splits of millions: ids (N,) UTF-8, labels (N,)
    int64, outcome (N,) uint8, and keys (N,) uint64 that tell contents apart, 0 where there is none."""

    ids: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    image_keys: NDArray[np.uint64]
    text_keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def good(self) -> NDArray[np.bool_]:
        """(N,) rows whose two halves were both encoded."""
        return np.equal(self.outcome, 0)


@dataclass(frozen=True)
class Features:
    """A split in memory: its index, image (N, V, D_image) and text (N, D_text). Quarantined halves hold zeros."""

    index: RowIndex
    image: NDArray[np.float32]
    text: NDArray[np.float32]


@dataclass(frozen=True)
class Cache:
    """A finished cache file: its attributes. Rows are read on demand, never kept open."""

    path: Path
    settings: FeatureSettings
    labels: tuple[str, ...]
    data_name: str
    encoder: str
    provenance: dict[str, Any]
    rows: dict[str, int]  # split -> listed rows

    @property
    def fingerprint(self) -> str:
        """The digest of all settings that determine the numbers."""
        return self.settings.fingerprint

    @classmethod
    def open(cls, path: Path) -> Cache:
        """Read a cache's attributes. Raises CacheError where the file is missing, foreign, newer or damaged."""
        if not path.is_file():
            raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
        with _reading(path) as file:
            if "format" not in file.attrs or _attribute(file, "format") != FORMAT:
                raise CacheError(f"{path} is not an mmsent cache")
            if file.attrs["format_version"] > FORMAT_VERSION:
                raise CacheError(f"{path} was written by a newer mmsent; upgrade to read it")
            settings = FeatureSettings.model_validate_json(_attribute(file, "settings"))
            if settings.fingerprint != _attribute(file, "fingerprint"):
                raise CacheError(f"{path}: its settings do not match its fingerprint; the file is damaged")
            return cls(
                path,
                settings,
                tuple(json.loads(_attribute(file, "labels"))),
                _attribute(file, "data_name"),
                _attribute(file, "encoder"),
                json.loads(_attribute(file, "provenance")),
                {split: int(group.attrs["listed"]) for split, group in file.items()},
            )

    def index(self, split: str, *, kept: bool = False) -> RowIndex:
        """A split's rows without embeddings. kept: also the rows that have left the list since they were encoded."""
        with self._group(split) as group:
            end = group["id"].shape[0] if kept else int(group.attrs["listed"])
            return RowIndex(
                [v.decode() for v in group["id"][:end]],
                group["label"][:end].astype(np.int64),
                group["outcome"][:end],
                [v.decode() for v in group["image_reason"][:end]],
                [v.decode() for v in group["text_reason"][:end]],
                group["tokens"][:end].astype(np.int64),
                [v.tobytes() for v in group["image_sha256"][:end]],
                [v.tobytes() for v in group["text_sha256"][:end]],
            )

    def columns(self, split: str) -> Columns:
        """A split's rows in arrays: less than `index`, and a tenth of its memory."""
        with self._group(split) as group:
            end = int(group.attrs["listed"])
            keys = []
            for name in ("image_sha256", "text_sha256"):
                parts = [
                    # 8 of 32 bytes: two of ten million contents are taken for one with a chance of 3 in a million.
                    np.ascontiguousarray(group[name][start : min(start + _KEY_ROWS, end), :8]).view(">u8")[:, 0]
                    for start in range(0, end, _KEY_ROWS)
                ]
                keys.append(np.concatenate(parts or [np.zeros(0, ">u8")]).astype(np.uint64))
            labels = group["label"][:end].astype(np.int64)
            return Columns(np.asarray(group["id"][:end], np.bytes_), labels, group["outcome"][:end], *keys)

    def hashes(self, split: str) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """The listed rows' content hashes, pictures' and texts', block by block, (n, 32) bytes each."""
        with self._group(split) as group:
            end = int(group.attrs["listed"])
            for start in range(0, end, _KEY_ROWS):
                rows = slice(start, min(start + _KEY_ROWS, end))
                yield group["image_sha256"][rows], group["text_sha256"][rows]

    @contextmanager
    def reader(self, split: str) -> Iterator[Callable[[int, int], tuple[NDArray[Any], NDArray[Any]]]]:
        """Opens the file for many reads: gives a function (start, stop) -> image (n, V, D_image) and text (n, D_text)
        as stored. Close it before a fork."""
        with self._group(split) as group:
            image, text = group["image"], group["text"]
            yield lambda start, stop: (image[start:stop], text[start:stop])

    def row_bytes(self, split: str) -> int:
        """What one row of a split takes in memory as `load` gives it."""
        with self._group(split) as group:
            return 4 * (int(np.prod(group["image"].shape[1:])) + int(group["text"].shape[1]))

    def load(self, split: str) -> Features:
        """A whole split in memory, embeddings as float32. Checksums are verified by HDF5 on the way."""
        index = self.index(split)
        with self._group(split) as group:
            image = group["image"][: len(index)].astype(np.float32, copy=False)
            text = group["text"][: len(index)].astype(np.float32, copy=False)
        return Features(index, image, text)

    def embeddings(self, split: str, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """image (n, V, D_image) and text (n, D_text) at positions, as stored."""
        with self._group(split) as group:
            return _take(group["image"], positions), _take(group["text"], positions)

    def _group(self, split: str) -> _Reading:
        if split not in self.rows:
            raise CacheError(
                f"{self.path} holds no {split} rows (it has {', '.join(self.rows)}); "
                f"run `mmsent extract --split {split}`"
            )
        return _reading(self.path, split)


class _Reading:
    """A file or group opened for the length of a with block; HDF5's errors become CacheErrors."""

    def __init__(self, path: Path, group: str | None) -> None:
        self._path, self._group = path, group

    def __enter__(self) -> Any:
        try:
            self._file = h5py.File(self._path, "r")
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error
        try:
            return self._file if self._group is None else self._file[self._group]
        except (OSError, KeyError, RuntimeError) as error:
            self._file.close()
            raise self._damaged(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, (OSError, RuntimeError, KeyError, ValueError, AttributeError, TypeError)):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> CacheError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return CacheError(f"{self._path} is damaged or no HDF5 file ({reason}); remove it and extract again")


def _reading(path: Path, group: str | None = None) -> _Reading:
    return _Reading(path, group)


def _take(dataset: Any, positions: Sequence[int]) -> NDArray[Any]:
    """Rows of an HDF5 data set in the given order; one contiguous read where they are a run."""
    if not len(positions):
        return np.empty((0, *dataset.shape[1:]), dataset.dtype)
    first = positions[0]
    if list(positions) == list(range(first, first + len(positions))):
        run: NDArray[Any] = dataset[first : first + len(positions)]
        return run
    increasing, inverse = np.unique(positions, return_inverse=True)  # HDF5 wants increasing positions
    rows: NDArray[Any] = dataset[increasing][inverse]
    return rows


# --- writing


def pour(
    path: Path,
    journal: Journal,
    settings: FeatureSettings,
    lists: Mapping[Split, list[Row]],
    attributes: dict[str, Any],
) -> Cache:
    """Write the cache anew from the old file and the journal, and put it in place in one rename.

    lists: the rows of each split that was extracted now; other splits are copied. A row that left its list is kept
    behind the listed ones, so that a truncated list loses nothing. Raises CacheError if a listed row is in neither
    source or the disk is full; the old file and the journal stay as they were.
    """
    old = Cache.open(path) if path.is_file() else None
    temporary = path.with_name(path.name + ".tmp")
    names = attributes["labels"]
    everything: dict[str, list[Row]] = {split: _rows_of(old, split, names) for split in old.rows} if old else {}
    everything.update((str(split), rows) for split, rows in lists.items())
    try:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as file:
            _write_attributes(file, settings, attributes)
            for split in sorted(everything, reverse=True):  # train before test
                _pour_split(file.create_group(split), split, everything[split], old, journal, settings)
        with open(temporary, "rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error).splitlines()[0]
        raise CacheError(f"cannot write {path}: {reason}; encoded rows are kept in {journal.path.name}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Cache.open(path)


def write_cache(
    path: Path,
    settings: FeatureSettings,
    attributes: dict[str, Any],
    n: int,
    blocks: Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]],
) -> Cache:
    """Write a cache of n training rows from features that come from elsewhere, block by block: image (b, V, D_image),
    text (b, D_text), labels (b,). Ids are row numbers; every row counts as good and as different from all others.

    attributes: labels, data_name, encoder and provenance. Raises CacheError where the blocks do not hold n rows.
    """
    temporary = path.with_name(path.name + ".tmp")
    width, storage = len(str(max(0, n - 1))), np.dtype(settings.storage)
    try:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as file:
            _write_attributes(file, settings, attributes)
            group = file.create_group("train")
            group.attrs["listed"] = n

            def column(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
                row = max(1, np.dtype(dtype).itemsize * int(np.prod(shape)))
                chunks = (max(1, min(n, _CHUNK_BYTES // row)), *shape)
                return group.create_dataset(name, (n, *shape), dtype, chunks=chunks, fletcher32=True, track_times=False)

            columns = {
                "id": column("id", (), h5py.string_dtype("utf-8", width)),
                "label": column("label", (), np.int16),
                "outcome": column("outcome", (), np.uint8),
                "image_reason": column("image_reason", (), h5py.string_dtype("utf-8", 1)),
                "text_reason": column("text_reason", (), h5py.string_dtype("utf-8", 1)),
                "tokens": column("tokens", (), np.int32),
                "image_sha256": column("image_sha256", (32,), np.uint8),
                "text_sha256": column("text_sha256", (32,), np.uint8),
                "image": column("image", (settings.views.count + 1, settings.image.width), storage),
                "text": column("text", (settings.text.width,), storage),
            }
            at = 0
            for image, text, labels in blocks:
                rows = slice(at, at + len(labels))
                hashes = np.zeros((len(labels), 32), np.uint8)
                hashes[:, :8] = np.arange(at + 1, at + 1 + len(labels), dtype=">u8")[:, None].view(np.uint8)
                names = [f"{k:0{width}}".encode() for k in range(at, at + len(labels))]
                columns["id"][rows] = np.array(names, dtype=h5py.string_dtype("utf-8", width))
                columns["label"][rows] = labels
                columns["image_sha256"][rows], columns["text_sha256"][rows] = hashes, hashes
                columns["image"][rows], columns["text"][rows] = image, text
                at += len(labels)
            if at != n:
                raise CacheError(f"{at} rows came for a cache of {n}")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CacheError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Cache.open(path)


def _write_attributes(file: Any, settings: FeatureSettings, attributes: dict[str, Any]) -> None:
    file.attrs["format_version"] = FORMAT_VERSION
    texts = {
        "format": FORMAT,
        "fingerprint": settings.fingerprint,
        "contract": settings.contract,
        "settings": settings.model_dump_json(),
    } | attributes
    for name, value in texts.items():
        file.attrs[name] = _fixed(value if isinstance(value, str) else json.dumps(value))


def _rows_of(old: Cache, split: str, names: Sequence[str]) -> list[Row]:
    """The listed rows of an old file, their labels counted by the new list of names."""
    index = old.index(split)
    numbers = {name: i for i, name in enumerate(names)} | {"": NO_LABEL}
    labels = [numbers.get(old.labels[k] if k != NO_LABEL else "", NO_LABEL) for k in index.labels.tolist()]
    return [Row(*values) for values in zip(index.ids, labels, index.image_hashes, index.text_hashes, strict=True)]


def _pour_split(
    group: Any, split: str, rows: list[Row], old: Cache | None, journal: Journal, settings: FeatureSettings
) -> None:
    sources = Sources(split, old, journal)
    listed = {row.id for row in rows}
    kept = [row for row in (sources.old_rows.values()) if row.id not in listed]
    everything = rows + kept
    halves = [sources.half(row) for row in everything]
    n, views = len(everything), settings.views.count + 1
    group.attrs["listed"] = len(rows)

    def column(name: str, values: NDArray[Any]) -> None:
        chunk = (max(1, min(n, _CHUNK_BYTES // max(1, values.dtype.itemsize * int(np.prod(values.shape[1:]))))),)
        group.create_dataset(name, data=values, chunks=chunk + values.shape[1:], fletcher32=True, track_times=False)

    column("id", _strings([row.id for row in everything]))
    column("label", np.array([row.label for row in everything], np.int16))
    column("outcome", np.array([bool(i.reason) * IMAGE_BAD + bool(t.reason) * TEXT_BAD for i, t in halves], np.uint8))
    column("image_reason", _strings([i.reason for i, _ in halves], REASON_BYTES))
    column("text_reason", _strings([t.reason for _, t in halves], REASON_BYTES))
    column("tokens", np.array([t.tokens for _, t in halves], np.int32))
    for half, hashes in (("image", [r.image_hash for r in everything]), ("text", [r.text_hash for r in everything])):
        column(f"{half}_sha256", np.frombuffer(b"".join(hashes), np.uint8).reshape(n, 32))
    shapes: dict[Half, tuple[int, ...]] = {
        "image": (views, settings.image.width),
        "text": (settings.text.width,),
    }
    kind: Half
    for kind, shape in shapes.items():
        row_bytes = int(np.prod(shape)) * np.dtype(settings.storage).itemsize
        data = group.create_dataset(
            kind,
            (n, *shape),
            settings.storage,
            chunks=(max(1, min(n, _CHUNK_BYTES // row_bytes)), *shape),
            fletcher32=True,
            track_times=False,
        )
        for start in range(0, n, _POUR_ROWS):
            block = everything[start : start + _POUR_ROWS]
            data[start : start + len(block)] = sources.vectors(kind, block, shape, settings.storage)


@dataclass(frozen=True)
class HalfState:
    """What is known of one half of a row: the hash it was encoded from, why it was quarantined, its token count."""

    hash: bytes
    reason: str
    tokens: int


class Sources:
    """What a split's rows can be taken from: the journal first, then the old file."""

    def __init__(self, split: str, old: Cache | None, journal: Journal) -> None:
        self._split, self._old, self._journal = split, old, journal
        self._known = {half: journal.known(split, half) for half in ("image", "text")}
        self.old_rows: dict[str, Row] = {}
        self._position: dict[str, int] = {}
        self._old_states: dict[str, tuple[HalfState, HalfState]] = {}
        if old is not None and split in old.rows:
            index = old.index(split, kept=True)
            for i, row_id in enumerate(index.ids):
                self._position[row_id] = i
                label = int(index.labels[i])
                self.old_rows[row_id] = Row(row_id, label, index.image_hashes[i], index.text_hashes[i])
                self._old_states[row_id] = (
                    HalfState(index.image_hashes[i], index.image_reasons[i], 0),
                    HalfState(index.text_hashes[i], index.text_reasons[i], int(index.tokens[i])),
                )

    def state(self, half: Half, row_id: str, content: bytes) -> HalfState | None:
        """What is stored of a half that was made from this content, or None where it must be encoded."""
        journalled = self._known[half].get(row_id)
        if journalled is not None and journalled[0] == content:
            return HalfState(*journalled)
        if row_id in self._old_states:
            old = self._old_states[row_id][half == "text"]
            if old.hash == content:
                return old
        return None

    def half(self, row: Row) -> tuple[HalfState, HalfState]:
        """Both halves of a row. Raises CacheError if one is in neither source."""
        image, text = self.state("image", row.id, row.image_hash), self.state("text", row.id, row.text_hash)
        if image is None or text is None:
            raise CacheError(f"row {row.id} of {self._split} was not encoded; run extract again")
        return image, text

    def vectors(self, half: Half, rows: list[Row], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Embeddings of rows, (n, *shape); zeros where the half was quarantined."""
        out = np.zeros((len(rows), *shape), dtype)
        fresh = {
            row.id
            for row in rows
            if self._known[half].get(row.id, (None,))[0] == (row.image_hash if half == "image" else row.text_hash)
        }
        found = self._journal.vectors(self._split, half, sorted(fresh), dtype)
        stale = [i for i, row in enumerate(rows) if row.id not in fresh and row.id in self._position]
        for i, row in enumerate(rows):
            if row.id in found:
                out[i] = found[row.id].reshape(shape)
        if stale and self._old is not None:
            pair = self._old.embeddings(self._split, [self._position[rows[i].id] for i in stale])
            out[stale] = pair[half == "text"]
        return out


def _fixed(text: str) -> NDArray[np.bytes_]:
    """A text for an attribute, of fixed length: those of variable length lie in a heap of HDF5's without checksums."""
    raw = text.encode("utf-8", "surrogateescape")
    return np.array(raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def _attribute(file: Any, name: str) -> str:
    """A text attribute, of fixed or variable length."""
    value = file.attrs[name]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _strings(values: list[str], limit: int | None = None) -> NDArray[np.bytes_]:
    encoded = [v.encode("utf-8", "replace") for v in values]
    if limit:
        encoded = [v[:limit].decode("utf-8", "ignore").encode() for v in encoded]
    width = max([1, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
