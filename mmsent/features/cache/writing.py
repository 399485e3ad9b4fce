"""Writing a cache: always a new file, which replaces the old one in one rename."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmsent.data.dataset import Split
from mmsent.errors import CacheError, first_line
from mmsent.features.cache.damage import CRC, PARTS, index_crcs, row_crcs
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Half, Journal
from mmsent.features.cache.opening import DIGEST, FORMAT, FORMAT_VERSION, attributes_digest, fixed_text, stored_end
from mmsent.features.cache.reading import Cache
from mmsent.features.cache.sources import HALVES, Sources
from mmsent.features.cache.table import IMAGE_BAD, NO_LABEL, TEXT_BAD, Row, RowTable
from mmsent.system.files import sync_folder
from mmsent.system.packed import Strings

REASON_BYTES = 240
_CHUNK_BYTES = 1 << 20
_POUR_ROWS = 1024
_META_BLOCK = 1 << 13  # bytes that HDF5 allocates at a time for its structures


def pour(
    path: Path,
    journal: Journal,
    settings: FeatureSettings,
    lists: Mapping[Split, Sequence[Row]],
    attributes: dict[str, Any],
    salvaged: Cache | None = None,
) -> Cache:
    """Write a new cache file from the old one and the journal, and put it in place in one rename.

    lists: the rows of each split that was extracted now; other splits are copied. Rows that have left their list are
    kept after the listed ones, so that nothing is lost if a list was truncated by mistake. salvaged: the old file if it
    is damaged, opened by `Cache.salvage`; damaged rows count as missing. Raises CacheError if a listed row is in
    neither source or the disk is full; the old file and the journal then stay as they were.
    """
    old = salvaged or (Cache.open(path) if path.is_file() else None)
    names = attributes["labels"]
    copied = [split for split in old.rows if split not in lists] if old is not None else []
    everything: dict[str, Sequence[Row]] = {split: _rows_of(old, split, names) for split in copied if old is not None}
    everything.update((str(split), rows) for split, rows in lists.items())
    plans = {
        split: _plan(Sources(split, everything[split], old, journal, names), settings)
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
        reason = error.strerror or first_line(error)
        raise CacheError(f"cannot write {path}: {reason}; encoded rows are kept in {journal.path.name}") from error
    return Cache.open(path)


@contextmanager
def _new_file(path: Path, settings: FeatureSettings, attributes: dict[str, Any], size: int) -> Iterator[Any]:
    """A new file, put in place in one rename if the with block succeeds, and removed otherwise.

    size: bytes of its rows. They are reserved first, because HDF5 cannot handle a full disk: it can no longer close its
    file, so the space stays occupied and the process crashes when it ends.
    """
    temporary = path.with_name(path.name + ".tmp")
    texts = _attribute_texts(settings, attributes)
    size += (1 << 17) + 4 * sum(map(len, texts.values())) + size // 1000  # for HDF5's own structures, generously
    try:
        with open(temporary, "wb") as raw:
            _reserve(raw.fileno(), size)
        # The structure comes first and the rows follow, so that a file that is cut off loses only rows.
        with h5py.File(temporary, "w", libver=("v110", "v110"), meta_block_size=_META_BLOCK) as file:
            with open(temporary, "rb+") as raw:
                _reserve(raw.fileno(), size)
            _write_attributes(file, texts)
            yield file
        with open(temporary, "rb+") as raw:
            raw.truncate(stored_end(temporary))
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _reserve(handle: int, size: int) -> None:
    """Reserve disk space for an open file. Raises OSError if there is too little."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)


def write_cache(
    path: Path,
    settings: FeatureSettings,
    attributes: dict[str, Any],
    n: int,
    blocks: Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]],
) -> Cache:
    """Write a cache of n training rows from existing features, block by block: image (b, V, D_image), text (b, D_text),
    labels (b,). Ids are row numbers; every row counts as good and different from all others.

    attributes: labels, data_name, encoder and provenance. Raises CacheError if the blocks do not hold n rows.
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
                raise CacheError(f"the blocks hold {at} rows; the cache needs {n}")
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
        file.attrs[name] = fixed_text(value)
    file.attrs[DIGEST] = fixed_text(attributes_digest(file))


def _rows_of(old: Cache, split: str, names: Sequence[str]) -> RowTable:
    """The listed rows of an old file, their labels numbered by the new list of names."""
    numbers = {name: i for i, name in enumerate(names)}
    table = np.array([*(numbers.get(name, NO_LABEL) for name in old.labels), NO_LABEL], np.int32)  # the last for -1
    ids, labels, images, texts = Strings(), [], [], []
    for _, columns in old.blocks(split):
        for name in columns["id"]:
            ids.append(name.decode("utf-8", "replace" if old.damage else "strict"))
        labels.append(table[columns["label"]])
        images.append(columns["image_sha256"])
        texts.append(columns["text_sha256"])
    if not labels:
        return RowTable.of([])
    return RowTable(ids, np.concatenate(labels), np.concatenate(images), np.concatenate(texts))


@dataclass(frozen=True)
class _Plan:
    """What will be written of a split: all columns except the embeddings, and the sources of those."""

    columns: dict[str, NDArray[Any]]
    embeddings: dict[Half, tuple[int, ...]]  # half -> shape of a row
    storage: str
    sources: Sources

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        n = len(self.sources.rows)
        kinds = [(values.shape, values.dtype) for values in self.columns.values()]
        kinds += [((n, *shape), np.dtype(self.storage)) for shape in self.embeddings.values()]
        return sum(_stored_bytes(shape, dtype) for shape, dtype in [*kinds, ((n, 3), np.dtype(np.uint32))])


def _plan(sources: Sources, settings: FeatureSettings) -> _Plan:
    sources.require_all()
    rows = sources.rows
    outcome = np.zeros(len(rows), np.uint8)
    for half, bit in zip(HALVES, (IMAGE_BAD, TEXT_BAD), strict=True):
        outcome[list(sources.reasons[half])] |= bit
    columns: dict[str, NDArray[Any]] = {
        "id": _texts(rows.ids.fixed()),
        "label": rows.labels.astype(np.int16),
        "outcome": outcome,
        "image_reason": _reasons(sources.reasons["image"], len(rows)),
        "text_reason": _reasons(sources.reasons["text"], len(rows)),
        "tokens": sources.tokens,
        "image_sha256": rows.image_hashes,
        "text_sha256": rows.text_hashes,
    }
    shapes: dict[Half, tuple[int, ...]] = {
        "image": (settings.views.count + 1, settings.image.width),
        "text": (settings.text.width,),
    }
    return _Plan(columns, shapes, settings.storage, sources)


def _texts(values: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """UTF-8 of fixed width in HDF5's type."""
    return values.view(h5py.string_dtype("utf-8", values.dtype.itemsize))


def _reasons(found: Mapping[int, str], n: int) -> NDArray[np.bytes_]:
    """Reasons by position as (n,) UTF-8, cut at REASON_BYTES."""
    raw = {
        i: reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore").encode()
        for i, reason in found.items()
    }
    out = np.zeros(n, f"S{max([1, *map(len, raw.values())])}")
    for i, reason in raw.items():
        out[i] = reason
    return _texts(out)


def _make_split(group: Any, plan: _Plan) -> Any:
    """Create all data sets of a split, without values. Returns the group."""
    n = len(plan.sources.rows)
    group.attrs["listed"] = plan.sources.listed
    for name, values in plan.columns.items():
        _create(group, name, values.shape, values.dtype)
    for half, shape in plan.embeddings.items():
        _create(group, half, (n, *shape), plan.storage)
    _create(group, CRC, (n, len(PARTS)), np.uint32)
    return group


def _pour_split(group: Any, plan: _Plan) -> None:
    for name, values in plan.columns.items():
        group[name][...] = values
    for start in range(0, len(plan.sources.rows), _POUR_ROWS):
        rows = range(start, min(start + _POUR_ROWS, len(plan.sources.rows)))
        part = slice(rows.start, rows.stop)
        sums = [index_crcs({name: values[part] for name, values in plan.columns.items()})]
        for half, shape in plan.embeddings.items():
            vectors = plan.sources.vectors(half, rows, shape, plan.storage)
            group[half][part] = vectors
            sums.append(row_crcs(vectors))
        group[CRC][part] = np.stack(sums, axis=1)


def _chunk_rows(shape: tuple[int, ...], dtype: Any) -> int:
    row = max(1, int(np.dtype(dtype).itemsize * np.prod(shape[1:])))
    return max(1, min(shape[0], _CHUNK_BYTES // row))


def _create(group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    chunks = (_chunk_rows(shape, dtype), *shape[1:])
    return group.create_dataset(name, shape, dtype, chunks=chunks, fletcher32=True, track_times=False)


def _stored_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of a data set on the disk: whole chunks, each with its checksum and its entry in HDF5's index."""
    rows = _chunk_rows(shape, dtype)
    chunk = int(rows * np.dtype(dtype).itemsize * np.prod(shape[1:]))
    return -(-shape[0] // rows) * (chunk + 64) + 4096
