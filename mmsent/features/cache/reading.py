"""Reading a finished cache. Rows are read on demand; the file does not stay open. Shapes: N rows, V = K + 1 views,
D_image and D_text widths."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import DataSettings, EncoderSettings
from mmsent.data.text import EMPTY_TEXT
from mmsent.errors import CacheError
from mmsent.features.cache.damage import CRC, INDEX, Damage, check_rows, index_crcs, read_column, read_rows, row_crcs
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.opening import (
    ANEW,
    Reading,
    attribute,
    check_attributes,
    find_damage,
    reading,
    told,
)
from mmsent.features.cache.table import IMAGE_BAD, TEXT_BAD

INDEX_ROWS = 1 << 13  # rows whose index is read at a time
_KEYED = ("image_sha256", "text_sha256")


@dataclass(frozen=True)
class RowIndex:
    """All data of a split except its embeddings. labels (N,) int64, NO_LABEL if there is none; outcome (N,) uint8, bits
    IMAGE_BAD and TEXT_BAD; the reasons, empty if good; tokens (N,) int64, before truncation; hashes, N SHA-256
    digests; empty (N, 2), images and texts that say nothing, such as blank ones."""

    ids: list[str]
    labels: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    image_reasons: list[str]
    text_reasons: list[str]
    tokens: NDArray[np.int64]
    image_hashes: list[bytes]
    text_hashes: list[bytes]
    empty: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def good(self) -> NDArray[np.bool_]:
        """(N,) rows whose two halves were both encoded."""
        return np.equal(self.outcome, 0)

    def contents(self) -> tuple[list[bytes], list[bytes]]:
        """The hashes of N images and N texts by which rows are duplicates of each other: none of a half that is empty,
        missing or broken."""
        bad = (self.outcome[:, None] & np.array([IMAGE_BAD, TEXT_BAD], np.uint8)) > 0
        halves = zip((self.image_hashes, self.text_hashes), (self.empty | bad).T, strict=True)
        image, text = ([b"" if no else h for h, no in zip(hashes, empty, strict=True)] for hashes, empty in halves)
        return image, text

    def reason(self, i: int) -> str:
        """Why row i was quarantined; empty if it was not."""
        return "; ".join(filter(None, (self.image_reasons[i], self.text_reasons[i])))


@dataclass(frozen=True)
class Columns:
    """What training needs to know of a split's rows, in arrays, for splits of millions: ids (N,) UTF-8, labels (N,)
    int64, outcome (N,) uint8, and keys (N,) uint64 that differ for different contents, 0 if there is none or it says
    nothing."""

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
    """A finished cache file: its attributes. Rows are read on demand.

    damage: what `salvage` found; if there is any, rows are read without checking and may be wrong.
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

    @property
    def validation(self) -> tuple[str, ...]:
        """The ids of training rows that the data set itself keeps for validation."""
        return tuple(self.provenance.get("validation", ()))

    @property
    def definition(self) -> str:
        """Which definition of the data set a number is of: its name, its training posts, and the reader."""
        reader = f", read by {self.provenance['reader']}" if "reader" in self.provenance else ""
        return f"{self.data_name}: {self.rows.get('train', 0):,} training posts{reader}"

    @property
    def data_settings(self) -> DataSettings:
        """How the data set was read and its texts cleaned."""
        return DataSettings.model_validate(self.provenance["data_settings"])

    @property
    def encoder_settings(self) -> EncoderSettings:
        """How the rows were encoded, so that others can be encoded alike."""
        return EncoderSettings.model_validate({"runtime": "torch"} | self.provenance["encoder_settings"])

    @classmethod
    def open(cls, path: Path) -> Cache:
        """Read a cache's attributes. Raises CacheError if the file is missing, not a cache, newer or damaged."""
        if not path.is_file():
            raise CacheError(f"no cache at {path}; make one with `mmsent extract`")
        with reading(path) as file:
            check_attributes(path, file)
            return _about(cls, path, file, tuple(file))

    @classmethod
    def salvage(cls, path: Path) -> Cache:
        """Open a damaged cache to use its undamaged rows. Raises CacheError if it cannot be read at all."""
        damage = find_damage(path)
        if damage.metadata:
            raise CacheError(f"{path} is damaged beyond repair: {damage.metadata}; {ANEW}")
        with reading(path, lenient=True) as file:
            return _about(cls, path, file, [split for split in file if split not in damage.splits], damage)

    def require(self, split: str) -> None:
        """Raise CacheError unless the cache holds a split."""
        if split not in self.rows:
            raise CacheError(
                f"{self.path} holds no {split} rows (it has {', '.join(self.rows)}); "
                f"run `mmsent extract --split {split}`"
            )

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
            images, texts = ([v.tobytes() for v in columns[name]] for name in _KEYED)
            blank, silent = self._empty()
            empty = [(image in blank, text in silent) for image, text in zip(images, texts, strict=True)]
            return RowIndex(
                [v.decode("utf-8", how) for v in columns["id"]],
                columns["label"].astype(np.int64),
                columns["outcome"],
                [v.decode("utf-8", how) for v in columns["image_reason"]],
                [v.decode("utf-8", how) for v in columns["text_reason"]],
                columns["tokens"].astype(np.int64),
                images,
                texts,
                np.array(empty, np.bool_).reshape(-1, 2),
            )

    def _empty(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """The hashes of images and of texts that say nothing. Older caches know of empty texts alone."""
        known = self.provenance.get("empty", {})
        image, text = (frozenset(map(bytes.fromhex, known.get(half, ()))) for half in ("image", "text"))
        return image, text | {EMPTY_TEXT}

    def blocks(self, split: str, *, kept: bool = False) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """The columns of `index` as stored, some thousand rows at a time, each with the position of its first row."""
        with self._group(split) as group:
            end = group["id"].shape[0] if kept else int(group.attrs["listed"])
            # HDF5 caches the last chunk of a data set while that is open; otherwise each is read again and again.
            whole = {name: read_column(group[name])[0][:end] if self.damage else group[name] for name in INDEX}
            _sums = group.get(CRC)
            for start in range(0, end, INDEX_ROWS):
                rows = slice(start, min(start + INDEX_ROWS, end))
                columns = {name: whole[name][rows] for name in INDEX}
                if not self.damage:
                    check_rows(group, "index", rows, index_crcs(columns))
                yield start, columns

    def columns(self, split: str) -> Columns:
        """A split's rows in arrays: less than `index`, and a tenth of its memory."""
        n = self.rows.get(split, 0)  # if there is no such split, reading it raises an error
        ids: NDArray[np.bytes_] | None = None
        labels, outcome = np.zeros(n, np.int64), np.zeros(n, np.uint8)
        keys = {name: np.zeros(n, np.uint64) for name in _KEYED}
        for start, columns in self.blocks(split):
            rows = slice(start, start + len(columns["id"]))
            ids = np.zeros(n, columns["id"].dtype) if ids is None else ids
            ids[rows], labels[rows], outcome[rows] = columns["id"], columns["label"], columns["outcome"]
            for name in _KEYED:
                # 8 of 32 bytes: among ten million contents, two collide with a probability of 3 in a million.
                keys[name][rows] = np.ascontiguousarray(columns[name][:, :8]).view(">u8")[:, 0]
        for values, empty, bit in zip(keys.values(), self._empty(), (IMAGE_BAD, TEXT_BAD), strict=True):
            values[np.isin(values, [int.from_bytes(value[:8]) for value in empty]) | (outcome & bit > 0)] = 0
        return Columns(np.zeros(0, "S1") if ids is None else ids, labels, outcome, *keys.values())

    @contextmanager
    def reader(
        self, split: str, checked: NDArray[np.bool_] | None = None
    ) -> Iterator[Callable[[int, int], tuple[NDArray[Any], NDArray[Any]]]]:
        """Open the file for many reads: a function (start, stop) -> image (n, V, D_image) and text (n, D_text) as
        stored. Close it before a fork.

        checked (N,): the rows whose checksums were compared already; rows that are read now are added. HDF5 compares
        its own checksums of whole chunks at every read.
        """
        with self._group(split).opened() as group:
            checked = np.zeros(group["id"].shape[0], bool) if checked is None else checked
            images, texts, _sums = (
                group["image"],
                group["text"],
                group.get(CRC),
            )  # kept open, so that each chunk is read once

            def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
                with told(self.path):
                    image, text = images[start:stop], texts[start:stop]
                    if not checked[start:stop].all():  # only the first time; HDF5 compares its own sums every time
                        check_rows(group, "image", slice(start, stop), row_crcs(image))
                        check_rows(group, "text", slice(start, stop), row_crcs(text))
                        checked[start:stop] = True
                return image, text

            yield read

    def row_bytes(self, split: str) -> int:
        """The memory of one row of a split after `load`, in bytes."""
        with self._group(split) as group:
            return 4 * (int(np.prod(group["image"].shape[1:])) + int(group["text"].shape[1]))

    def load(self, split: str) -> Features:
        """A whole split in memory, embeddings as float32. Checksums are verified."""
        index = self.index(split)
        image, text = self.embeddings(split, range(len(index)))
        return Features(index, image.astype(np.float32, copy=False), text.astype(np.float32, copy=False))

    def embeddings(self, split: str, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """image (n, V, D_image) and text (n, D_text) at positions, as stored."""
        with self._group(split) as group:
            if self.damage:
                return read_rows(group["image"], positions), read_rows(group["text"], positions)
            return _take(group, "image", positions), _take(group, "text", positions)

    def _group(self, split: str) -> Reading:
        self.require(split)
        return reading(self.path, split, lenient=bool(self.damage))


def _about(cls: type[Cache], path: Path, file: Any, splits: Sequence[str], damage: Damage | None = None) -> Cache:
    """A cache from an open file's attributes, which were checked before."""
    return cls(
        path,
        FeatureSettings.model_validate_json(attribute(file, "settings")),
        tuple(json.loads(attribute(file, "labels"))),
        attribute(file, "data_name"),
        attribute(file, "encoder"),
        json.loads(attribute(file, "provenance")),
        {split: int(file[split].attrs["listed"]) for split in splits},
        damage,
    )


def _take(group: Any, part: str, positions: Sequence[int]) -> NDArray[Any]:
    """Rows of a split's embeddings in the given order; one contiguous read if they are consecutive."""
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
