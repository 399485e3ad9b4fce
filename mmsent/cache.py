"""The feature cache: one HDF5 file per data set and settings. This module alone touches h5py.

A cache file is only ever replaced whole: an extraction in progress lives in a journal (mmsent.journal), and when the
split is complete, old rows and journalled rows are poured into a new file that takes the old one's place in one rename.
So a file that can be read is a file that was finished. Damage is found on reading, row by row (see mmsent.damage).
The layout is documented in cache/README.md.

Shapes: N rows, V = K + 1 views, D_image and D_text widths.
"""

from __future__ import annotations

import hashlib
import io
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

from mmsent.damage import (
    CRC,
    INDEX,
    PARTS,
    UNREADABLE,
    Damage,
    check_rows,
    index_crcs,
    read_column,
    read_rows,
    row_crcs,
    scan,
)
from mmsent.dataset import Split
from mmsent.errors import CacheError
from mmsent.files import sync_folder
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
_WHOLE, _KEYED = ("id", "label", "outcome"), ("image_sha256", "text_sha256")
_META_BLOCK = 1 << 13  # bytes that HDF5 takes at a time for its structures
_DIGEST = "attributes_sha256"
_ANEW = "remove it and extract again"


@dataclass(frozen=True, slots=True)
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
    """A finished cache file: its attributes. Rows are read on demand, never kept open.

    damage: what `salvage` found; where there is any, rows are read past their checksums and may be wrong.
    """

    path: Path
    settings: FeatureSettings
    labels: tuple[str, ...]
    data_name: str
    encoder: str
    provenance: dict[str, Any]
    rows: dict[str, int]  # split -> listed rows
    damage: Damage | None = None

    @property
    def fingerprint(self) -> str:
        """The digest of all settings that determine the numbers."""
        return self.settings.fingerprint

    @classmethod
    def open(cls, path: Path) -> Cache:
        """Read a cache's attributes. Raises CacheError where the file is missing, foreign, newer or damaged."""
        if not path.is_file():
            raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
        if cut := _cut(path):
            raise CacheError(f"{path} is damaged: {cut}; {_repair(path)} keeps the rows that are there")
        with _reading(path) as file:
            _check_attributes(path, file)
            return _about(cls, path, file, tuple(file))

    @classmethod
    def salvage(cls, path: Path) -> Cache:
        """Open a damaged cache for what is still good in it. Raises CacheError where it cannot be read at all."""
        damage = find_damage(path)
        if damage.metadata:
            raise CacheError(f"{path} is damaged beyond repair: {damage.metadata}; {_ANEW}")
        with _reading(path, lenient=True) as file:
            return _about(cls, path, file, [split for split in file if split not in damage.splits], damage)

    def index(self, split: str, *, kept: bool = False) -> RowIndex:
        """A split's rows without embeddings. kept: also the rows that have left the list since they were encoded."""
        with self._group(split) as group:
            end = group["id"].shape[0] if kept else int(group.attrs["listed"])
            if not self.damage:
                columns = {name: group[name][:end] for name in INDEX}
                check_rows(group, "index", slice(0, end), index_crcs(columns))
            else:
                columns = {name: read_column(group[name])[0][:end] for name in INDEX}
            how = "replace" if self.damage else "strict"
            return RowIndex(
                [v.decode("utf-8", how) for v in columns["id"]],
                columns["label"].astype(np.int64),
                columns["outcome"],
                [v.decode("utf-8", how) for v in columns["image_reason"]],
                [v.decode("utf-8", how) for v in columns["text_reason"]],
                columns["tokens"].astype(np.int64),
                [v.tobytes() for v in columns["image_sha256"]],
                [v.tobytes() for v in columns["text_sha256"]],
            )

    def columns(self, split: str) -> Columns:
        """A split's rows in arrays: less than `index`, and a tenth of its memory."""
        with self._group(split) as group:
            end = int(group.attrs["listed"])
            parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_WHOLE, *_KEYED)}
            for start in range(0, end, _KEY_ROWS):
                rows = slice(start, min(start + _KEY_ROWS, end))
                columns = {name: group[name][rows] for name in INDEX}
                check_rows(group, "index", rows, index_crcs(columns))
                for name in _WHOLE:
                    parts[name].append(columns[name])
                for name in _KEYED:
                    # 8 of 32 bytes: two of ten million contents are taken for one with a chance of 3 in a million.
                    parts[name].append(np.ascontiguousarray(columns[name][:, :8]).view(">u8")[:, 0].astype(np.uint64))
            found = {name: np.concatenate(p) if p else group[name][:0] for name, p in parts.items()}
            image_keys, text_keys = (found[name].reshape(end).astype(np.uint64) for name in _KEYED)
            ids = np.asarray(found["id"], np.bytes_)
            return Columns(ids, found["label"].astype(np.int64), found["outcome"], image_keys, text_keys)

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
            checked = np.zeros(group["id"].shape[0], bool)

            def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
                image, text = group["image"][start:stop], group["text"][start:stop]
                if not checked[start:stop].all():  # the first time; HDF5 checks its own sums every time
                    check_rows(group, "image", slice(start, stop), row_crcs(image))
                    check_rows(group, "text", slice(start, stop), row_crcs(text))
                    checked[start:stop] = True
                return image, text

            yield read

    def row_bytes(self, split: str) -> int:
        """What one row of a split takes in memory as `load` gives it."""
        with self._group(split) as group:
            return 4 * (int(np.prod(group["image"].shape[1:])) + int(group["text"].shape[1]))

    def load(self, split: str) -> Features:
        """A whole split in memory, embeddings as float32. Checksums are verified on the way."""
        index = self.index(split)
        image, text = self.embeddings(split, range(len(index)))
        return Features(index, image.astype(np.float32, copy=False), text.astype(np.float32, copy=False))

    def embeddings(self, split: str, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """image (n, V, D_image) and text (n, D_text) at positions, as stored."""
        with self._group(split) as group:
            if self.damage:
                return read_rows(group["image"], positions), read_rows(group["text"], positions)
            return _take(group, "image", positions), _take(group, "text", positions)

    def _group(self, split: str) -> _Reading:
        if split not in self.rows:
            raise CacheError(
                f"{self.path} holds no {split} rows (it has {', '.join(self.rows)}); "
                f"run `mmsent extract --split {split}`"
            )
        return _reading(self.path, split, lenient=bool(self.damage))


def _check_attributes(path: Path, file: Any) -> None:
    """Raise CacheError unless an open file is a cache of this format whose attributes are sound."""
    if "format" not in file.attrs or _attribute(file, "format") != FORMAT:
        raise CacheError(f"{path} is not an mmsent cache")
    if file.attrs["format_version"] > FORMAT_VERSION:
        raise CacheError(f"{path} was written by a newer mmsent; upgrade to read it")
    settings = FeatureSettings.model_validate_json(_attribute(file, "settings"))
    if settings.fingerprint != _attribute(file, "fingerprint"):
        raise CacheError(f"{path}: its settings do not match its fingerprint; the file is damaged, {_ANEW}")
    if _DIGEST in file.attrs and _attribute(file, _DIGEST) != _attributes_digest(file):
        raise CacheError(f"{path} is damaged: its attributes do not match their SHA-256; {_ANEW}")


def _about(cls: type[Cache], path: Path, file: Any, splits: Sequence[str], damage: Damage | None = None) -> Cache:
    """A cache from an open file's attributes, once they were checked."""
    return cls(
        path,
        FeatureSettings.model_validate_json(_attribute(file, "settings")),
        tuple(json.loads(_attribute(file, "labels"))),
        _attribute(file, "data_name"),
        _attribute(file, "encoder"),
        json.loads(_attribute(file, "provenance")),
        {split: int(file[split].attrs["listed"]) for split in splits},
        damage,
    )


def find_damage(path: Path) -> Damage:
    """Read every row of a cache file and say what is damaged, without stopping at the first. Raises CacheError where
    there is no file, or one that is no cache of this format."""
    if not path.is_file():
        raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
    cut = _cut(path)
    try:
        with _open(path, lenient=True) as file:
            try:
                _check_attributes(path, file)
            except CacheError as error:
                if "damaged" not in str(error):
                    raise
                return Damage("its attributes do not match their checksum", cut)
            return scan(file, cut)
    except UNREADABLE as error:
        return Damage(f"its structure cannot be read ({_reason(error)})", cut)


class _Reading:
    """A file or group opened for the length of a with block; HDF5's errors become CacheErrors that name the rows."""

    def __init__(self, path: Path, group: str | None, lenient: bool) -> None:
        self._path, self._group, self._lenient = path, group, lenient

    def __enter__(self) -> Any:
        try:
            self._file = _open(self._path, self._lenient)
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error
        try:
            return self._file if self._group is None else self._file[self._group]
        except (OSError, KeyError, RuntimeError) as error:
            self._file.close()
            raise self._damaged(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UNREADABLE):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> CacheError:
        if self._group is not None and self._path.is_file():
            damage = find_damage(self._path)
            if damage and not damage.metadata:
                lines = "; ".join(damage.lines())
                return CacheError(f"{self._path} is damaged: {lines}; {_repair(self._path)} encodes just these again")
        return CacheError(f"{self._path} is damaged or no HDF5 file ({_reason(error)}); {_ANEW}")


def _reading(path: Path, group: str | None = None, lenient: bool = False) -> _Reading:
    return _Reading(path, group, lenient)


def _open(path: Path, lenient: bool = False) -> Any:
    """Open a file to read. lenient: one that was cut off too, what is missing read as zeros."""
    end = _stored_end(path) if lenient else None
    if end is not None and path.stat().st_size < end:
        return h5py.File(_Padded(path, end), "r")
    return h5py.File(path, "r")


class _Padded(io.RawIOBase):
    """A file that was cut off, with zeros up to where it should end."""

    def __init__(self, path: Path, end: int) -> None:
        super().__init__()
        self._raw, self._end, self._at = path.open("rb", buffering=0), end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), max(0, self._end - self._at))
        self._raw.seek(self._at)
        have = self._raw.read(size) or b""
        view[: len(have)] = have
        view[len(have) : size] = bytes(size - len(have))
        self._at += size
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def _stored_end(path: Path) -> int | None:
    """Where an HDF5 file says that it ends, in bytes; None where its first block does not say so."""
    with path.open("rb") as file:
        head = file.read(36)
    # The superblock of HDF5 1.10 (version 3): signature, version, sizes, flags, base, extension, end of file.
    return int.from_bytes(head[28:36], "little") if head[:10] == b"\x89HDF\r\n\x1a\n\x03\x08" else None


def _cut(path: Path) -> str:
    """Where a file ends too early; empty where it does not."""
    end, size = _stored_end(path), path.stat().st_size
    return f"it ends after {size:,} of {end:,} bytes" if end is not None and size < end else ""


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _repair(path: Path) -> str:
    return f"`mmsent cache repair --cache {path}`"


def _take(group: Any, part: str, positions: Sequence[int]) -> NDArray[Any]:
    """Rows of a split's embeddings in the given order; one contiguous read where they are a run."""
    dataset = group[part]
    if not len(positions):
        return np.empty((0, *dataset.shape[1:]), dataset.dtype)
    first = int(positions[0])
    if list(positions) == list(range(first, first + len(positions))):
        span = slice(first, first + len(positions))
        run: NDArray[Any] = dataset[span]
        check_rows(group, part, span, row_crcs(run))
        return run
    increasing, inverse = np.unique(positions, return_inverse=True)  # HDF5 wants increasing positions
    rows: NDArray[Any] = dataset[increasing]
    check_rows(group, part, increasing, row_crcs(rows))
    again: NDArray[Any] = rows[inverse]
    return again


# --- writing


def pour(
    path: Path,
    journal: Journal,
    settings: FeatureSettings,
    lists: Mapping[Split, list[Row]],
    attributes: dict[str, Any],
    salvaged: Cache | None = None,
) -> Cache:
    """Write the cache anew from the old file and the journal, and put it in place in one rename.

    lists: the rows of each split that was extracted now; other splits are copied. A row that left its list is kept
    behind the listed ones, so that a truncated list loses nothing. salvaged: the old file where it is damaged, opened
    by `Cache.salvage`; what is damaged in it counts as absent. Raises CacheError if a listed row is in neither source
    or the disk is full; the old file and the journal stay as they were.
    """
    old = salvaged or (Cache.open(path) if path.is_file() else None)
    names = attributes["labels"]
    copied = [split for split in old.rows if split not in lists] if old is not None else []
    everything = {split: _rows_of(old, split, names) for split in copied if old is not None}
    everything.update((str(split), rows) for split, rows in lists.items())
    plans = {
        split: _plan(split, everything[split], old, journal, settings)
        for split in sorted(everything, reverse=True)  # train before test
    }
    try:
        size = sum(plan.size for plan in plans.values())
        with _new_file(path, settings, attributes, size) as file:
            groups = {split: _make_split(file.create_group(split), plan) for split, plan in plans.items()}
            file.flush()
            for split, plan in plans.items():
                _pour_split(groups[split], plan)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise CacheError(f"cannot write {path}: {reason}; encoded rows are kept in {journal.path.name}") from error
    return Cache.open(path)


@contextmanager
def _new_file(path: Path, settings: FeatureSettings, attributes: dict[str, Any], size: int) -> Iterator[Any]:
    """A file to write, put in place in one rename when the with block ends well; otherwise nothing is left of it.

    size: bytes of its rows. They are reserved first, for HDF5 does not survive a full disk: it cannot close its file
    any more, which keeps the space taken and crashes the process at its end.
    """
    temporary = path.with_name(path.name + ".tmp")
    texts = _attribute_texts(settings, attributes)
    size += (1 << 17) + 4 * sum(map(len, texts.values())) + size // 1000  # what HDF5 itself needs, rather too much
    try:
        with open(temporary, "wb") as raw:
            _reserve(raw.fileno(), size)
        # The structure lies in front and the rows behind it, so that a file that is cut off loses rows alone.
        with h5py.File(temporary, "w", libver=("v110", "v110"), meta_block_size=_META_BLOCK) as file:
            with open(temporary, "rb+") as raw:
                _reserve(raw.fileno(), size)
            _write_attributes(file, texts)
            yield file
        with open(temporary, "rb+") as raw:
            raw.truncate(_stored_end(temporary))
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _reserve(handle: int, size: int) -> None:
    """Take space on the disk for an open file. Raises OSError where there is too little."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)


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
    width, storage = len(str(max(0, n - 1))), np.dtype(settings.storage)
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "id": ((), h5py.string_dtype("utf-8", width)),
        "label": ((), np.int16),
        "outcome": ((), np.uint8),
        "image_reason": ((), h5py.string_dtype("utf-8", 1)),
        "text_reason": ((), h5py.string_dtype("utf-8", 1)),
        "tokens": ((), np.int32),
        "image_sha256": ((32,), np.uint8),
        "text_sha256": ((32,), np.uint8),
        "image": ((settings.views.count + 1, settings.image.width), storage),
        "text": ((settings.text.width,), storage),
        CRC: ((3,), np.uint32),
    }
    size = sum(_stored_bytes((n, *shape), dtype) for shape, dtype in kinds.values())
    try:
        with _new_file(path, settings, attributes, size) as file:
            group = file.create_group("train")
            group.attrs["listed"] = n
            columns = {name: _create(group, name, (n, *shape), dtype) for name, (shape, dtype) in kinds.items()}
            at = 0
            for image, text, labels in blocks:
                b = len(labels)
                hashes = np.zeros((b, 32), np.uint8)
                hashes[:, :8] = np.arange(at + 1, at + 1 + b, dtype=">u8")[:, None].view(np.uint8)
                names = [f"{k:0{width}}".encode() for k in range(at, at + b)]
                values: dict[str, NDArray[Any]] = {
                    name: np.zeros((b, *shape), dtype) for name, (shape, dtype) in kinds.items() if name != CRC
                }
                values["id"] = np.array(names, dtype=h5py.string_dtype("utf-8", width))
                values["label"][:] = labels
                values["image_sha256"] = values["text_sha256"] = hashes
                values["image"][:], values["text"][:] = image, text
                sums = [index_crcs(values), row_crcs(values["image"]), row_crcs(values["text"])]
                for name, data in {**values, CRC: np.stack(sums, axis=1)}.items():
                    columns[name][at : at + b] = data
                at += b
            if at != n:
                raise CacheError(f"{at} rows came for a cache of {n}")
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror or error}") from error
    return Cache.open(path)


def _attribute_texts(settings: FeatureSettings, attributes: dict[str, Any]) -> dict[str, str]:
    texts = {
        "format": FORMAT,
        "fingerprint": settings.fingerprint,
        "contract": settings.contract,
        "settings": settings.model_dump_json(),
    } | attributes
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in texts.items()}


def _write_attributes(file: Any, texts: Mapping[str, str]) -> None:
    file.attrs["format_version"] = FORMAT_VERSION
    for name, value in texts.items():
        file.attrs[name] = _fixed(value)
    file.attrs[_DIGEST] = _fixed(_attributes_digest(file))


def _attributes_digest(file: Any) -> str:
    """SHA-256 over the names and values of the file's attributes, hex. HDF5 has no checksum for those beyond 4 kB."""
    digest = hashlib.sha256()
    for name in sorted(set(file.attrs) - {_DIGEST}):
        value = str(file.attrs[name]) if name == "format_version" else _attribute(file, name)
        for part in (name.encode(), value.encode("utf-8", "surrogateescape")):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _rows_of(old: Cache, split: str, names: Sequence[str]) -> list[Row]:
    """The listed rows of an old file, their labels counted by the new list of names."""
    index = old.index(split)
    numbers = {name: i for i, name in enumerate(names)} | {"": NO_LABEL}
    labels = [numbers.get(old.labels[k] if k != NO_LABEL else "", NO_LABEL) for k in index.labels.tolist()]
    return [Row(*values) for values in zip(index.ids, labels, index.image_hashes, index.text_hashes, strict=True)]


@dataclass(frozen=True)
class _Plan:
    """What will be written of a split: all but the embeddings, and where those come from."""

    listed: int
    rows: list[Row]
    columns: dict[str, NDArray[Any]]
    embeddings: dict[Half, tuple[int, ...]]  # half -> shape of a row
    storage: str
    sources: Sources

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        n = len(self.rows)
        kinds = [(values.shape, values.dtype) for values in self.columns.values()]
        kinds += [((n, *shape), np.dtype(self.storage)) for shape in self.embeddings.values()]
        return sum(_stored_bytes(shape, dtype) for shape, dtype in [*kinds, ((n, 3), np.dtype(np.uint32))])


def _plan(split: str, rows: list[Row], old: Cache | None, journal: Journal, settings: FeatureSettings) -> _Plan:
    sources = Sources(split, old, journal)
    listed = {row.id for row in rows}
    kept = [row for row in sources.old_rows.values() if row.id not in listed and sources.whole(row)]
    everything = rows + kept
    halves = [sources.half(row) for row in everything]
    n = len(everything)
    outcome = [bool(i.reason) * IMAGE_BAD + bool(t.reason) * TEXT_BAD for i, t in halves]
    columns: dict[str, NDArray[Any]] = {
        "id": _strings([row.id for row in everything]),
        "label": np.array([row.label for row in everything], np.int16),
        "outcome": np.array(outcome, np.uint8),
        "image_reason": _strings([i.reason for i, _ in halves], REASON_BYTES),
        "text_reason": _strings([t.reason for _, t in halves], REASON_BYTES),
        "tokens": np.array([t.tokens for _, t in halves], np.int32),
        "image_sha256": np.frombuffer(b"".join(r.image_hash for r in everything), np.uint8).reshape(n, 32),
        "text_sha256": np.frombuffer(b"".join(r.text_hash for r in everything), np.uint8).reshape(n, 32),
    }
    shapes: dict[Half, tuple[int, ...]] = {
        "image": (settings.views.count + 1, settings.image.width),
        "text": (settings.text.width,),
    }
    return _Plan(len(rows), everything, columns, shapes, settings.storage, sources)


def _make_split(group: Any, plan: _Plan) -> Any:
    """Make all data sets of a split, without a value. Returns the group."""
    n = len(plan.rows)
    group.attrs["listed"] = plan.listed
    for name, values in plan.columns.items():
        _create(group, name, values.shape, values.dtype)
    for half, shape in plan.embeddings.items():
        _create(group, half, (n, *shape), plan.storage)
    _create(group, CRC, (n, len(PARTS)), np.uint32)
    return group


def _pour_split(group: Any, plan: _Plan) -> None:
    for name, values in plan.columns.items():
        group[name][...] = values
    sums = [index_crcs(plan.columns)]
    for half, shape in plan.embeddings.items():
        found = [np.zeros(0, np.uint32)]
        for start in range(0, len(plan.rows), _POUR_ROWS):
            block = plan.rows[start : start + _POUR_ROWS]
            vectors = plan.sources.vectors(half, block, shape, plan.storage)
            group[half][start : start + len(block)] = vectors
            found.append(row_crcs(vectors))
        sums.append(np.concatenate(found))
    group[CRC][...] = np.stack(sums, axis=1)


def _chunk_rows(shape: tuple[int, ...], dtype: Any) -> int:
    row = max(1, int(np.dtype(dtype).itemsize * np.prod(shape[1:])))
    return max(1, min(shape[0], _CHUNK_BYTES // row))


def _create(group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    chunks = (_chunk_rows(shape, dtype), *shape[1:])
    return group.create_dataset(name, shape, dtype, chunks=chunks, fletcher32=True, track_times=False)


def _stored_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes that a data set takes on the disk: whole chunks, each with its checksum and its place in HDF5's index."""
    rows = _chunk_rows(shape, dtype)
    chunk = int(rows * np.dtype(dtype).itemsize * np.prod(shape[1:]))
    return -(-shape[0] // rows) * (chunk + 64) + 4096


@dataclass(frozen=True, slots=True)
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
        self._lost: set[tuple[str, str]] = set()  # halves that are damaged in the old file
        if old is not None and split in old.rows:
            index = old.index(split, kept=True)
            gone, *halves = (old.damage.lost(split, part) if old.damage else () for part in ("index", "image", "text"))
            for i, row_id in enumerate(index.ids):
                if i in gone:
                    continue
                self._lost.update(
                    (half, row_id) for half, lost in zip(("image", "text"), halves, strict=True) if i in lost
                )
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
        if row_id in self._old_states and (half, row_id) not in self._lost:
            old = self._old_states[row_id][half == "text"]
            if old.hash == content:
                return old
        return None

    def whole(self, row: Row) -> bool:
        """Whether both halves of a row are at hand."""
        found = self.state("image", row.id, row.image_hash), self.state("text", row.id, row.text_hash)
        return None not in found

    def half(self, row: Row) -> tuple[HalfState, HalfState]:
        """Both halves of a row. Raises CacheError if one is in neither source."""
        image, text = self.state("image", row.id, row.image_hash), self.state("text", row.id, row.text_hash)
        if image is None or text is None:
            raise CacheError(
                f"row {row.id} of {self._split} was not encoded; run extract again: what is done is kept, and what "
                "changed or vanished meanwhile is read anew"
            )
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
