"""Digests of what a cache holds, column by column."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.features.cache.reading import Cache
from mmsent.features.cache.table import RowTable

_ROWS = 1 << 12  # digested at a time


def content(
    cache: Cache, split: str, used: NDArray[np.bool_] | None = None, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Digests of a split's listed rows, in the order of the list: of ids, labels (by name) and contents (hashes of
    images and texts), separately, so that a difference can be named. used: (N,), only these rows; names: the labels
    that count, by default the cache's."""
    known = [name if names is None or name in names else None for name in cache.labels]

    def parts() -> Iterator[_Part]:
        for start, columns in cache.blocks(split):
            n = len(columns["id"])
            kept = np.ones(n, np.bool_) if used is None else used[start : start + n]
            hashes = columns["image_sha256"][kept], columns["text_sha256"][kept]
            yield columns["id"][kept].tolist(), columns["label"][kept], *hashes

    return _digests(parts(), known)


def content_of(rows: RowTable, names: Sequence[str]) -> dict[str, Any]:
    """The same digests of rows that are not in a cache yet."""

    def parts() -> Iterator[_Part]:
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            ids = [rows.ids[i].encode("utf-8", "replace") for i in range(len(rows))[part]]
            yield ids, rows.labels[part], rows.image_hashes[part], rows.text_hashes[part]

    return _digests(parts(), names)


_Part = tuple[list[bytes], NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]  # ids, labels, hashes of both halves


def _digests(parts: Iterable[_Part], names: Sequence[str | None]) -> dict[str, Any]:
    # A label counts by its name; the last place is for NO_LABEL, which is -1.
    keys = [hashlib.sha256(name.encode("utf-8", "replace")).digest()[:8] if name else bytes(8) for name in names]
    table = np.frombuffer(b"".join([*keys, bytes(8)]), ">u8")
    rows, ids, labels, contents = 0, hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for some, numbers, images, texts in parts:
        ids.update(b"".join(b"\0" * (rows + k > 0) + one for k, one in enumerate(some)))
        labels.update(table[numbers].tobytes())
        contents.update(np.concatenate([images, texts], axis=1).data)
        rows += len(some)
    digests = {"ids": ids, "labels": labels, "contents": contents}
    return {"rows": rows, **{name: digest.hexdigest() for name, digest in digests.items()}}


def array_digest(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 over the shapes, types and bytes of arrays, hex."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
