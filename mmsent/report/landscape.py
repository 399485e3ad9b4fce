"""A map of all posts of a cache: their features in two dimensions, with what is known and predicted of each.

N rows: the training posts, then those of other splits. The places are kept beside the cache (`<cache>.map.npz`), so
that the map opens at once the next time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import MmsentError
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.inference.vote import averages, vote_split
from mmsent.report.figures.projections import umap_points
from mmsent.system.files import write_together
from mmsent.training.runs import Run

NONE = 255  # no label, no prediction
MOST = 50_000  # rows that UMAP takes; more are placed by PCA
TRAIN, VALIDATION, TEST = 0, 1, 2
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Landscape:
    """xy (N, 2) float32; method: UMAP or PCA; label, predicted (N,): label indices or NONE; confidence (N,): of 255;
    split (N,): TRAIN, VALIDATION or TEST; agreeing (N,): how many of `heads` chose the prediction."""

    cache: Cache
    ids: list[str]
    xy: NDArray[np.float32]
    method: str
    label: Bytes
    predicted: Bytes
    confidence: Bytes
    split: Bytes
    agreeing: Bytes
    heads: int

    def to_json(self, rows: Sequence[int] | None = None) -> dict[str, Any]:
        """For the page: numbers as base64 of little-endian float32 and bytes. rows: only these, None for all."""
        chosen = np.arange(len(self.ids)) if rows is None else np.asarray(rows, np.int64)
        parts = ("label", "predicted", "confidence", "split", "agreeing")
        packed = {"x": self.xy[:, 0], "y": self.xy[:, 1]} | {name: getattr(self, name) for name in parts}
        told = {name: base64.b64encode(values[chosen].tobytes()).decode() for name, values in packed.items()}
        ids = [self.ids[i] for i in chosen.tolist()]
        return {"labels": list(self.cache.labels), "ids": ids, "method": self.method, "heads": self.heads} | told

    @cached_property
    def _unit(self) -> NDArray[np.float32]:
        return np.concatenate([_features(self.cache, split) for split in _splits(self.cache)])

    def near(self, row: int, count: int) -> list[tuple[int, float]]:
        """The rows most like a row by the cosine of image and text features together, and that cosine, without the row
        itself."""
        cosine = self._unit @ self._unit[row] / 2  # each half has length 1
        cosine[row] = -np.inf
        best = np.argsort(-cosine, kind="stable")[: min(count, len(cosine) - 1)]
        return [(int(i), float(cosine[i])) for i in best]


def landscape(cache: Cache, runs: Sequence[Run], *, tie: str | None = None, soft: bool = False) -> Landscape:
    """The map of a cache with the vote of runs; without predictions where they do not fit it."""
    kept = cache.path.with_suffix(".map.npz")
    indexes = {split: cache.index(split) for split in _splits(cache)}
    ids = [one for index in indexes.values() for one in index.ids]
    digest = _digest(cache, ids)
    placed = _read(kept, digest, len(ids)) or _placed(cache, kept, digest)
    validated = set.intersection(*(set(_validated(run)) for run in runs)) if runs else set()
    columns: dict[str, list[Bytes]] = {}
    for split, index in indexes.items():
        labels = np.where(index.labels == NO_LABEL, NONE, index.labels)
        labels = labels if split == "train" else np.full(len(index), NONE)  # test labels stay closed
        _add(columns, _predictions(cache, runs, split, tie, averages(runs, soft)) | {"label": labels})
        _add(columns, {"split": _sides(split, index.ids, validated)})
    parts = {name: np.concatenate(values).astype(np.uint8) for name, values in columns.items()}
    known, said, sure = parts["label"], parts["predicted"], parts["confidence"]
    return Landscape(cache, ids, *placed, known, said, sure, parts["split"], parts["agreeing"], len(runs))


def _add(columns: dict[str, list[Bytes]], more: dict[str, Any]) -> None:
    for name, values in more.items():
        columns.setdefault(name, []).append(np.asarray(values))


def _sides(split: str, ids: Sequence[str], validated: Collection[str]) -> list[int]:
    return [TEST if split != "train" else VALIDATION if one in validated else TRAIN for one in ids]


def _validated(run: Run) -> list[str]:
    try:
        return run.validation_ids()
    except MmsentError:
        return []


def _predictions(cache: Cache, runs: Sequence[Run], split: str, tie: str | None, soft: bool) -> dict[str, Any]:
    n = cache.rows[split]
    nothing = {"predicted": np.full(n, NONE), "confidence": np.zeros(n), "agreeing": np.zeros(n)}
    try:
        found = vote_split(runs, cache, split, tie=tie, soft=soft) if runs else None
    except MmsentError:
        found = None
    if found is None:
        return nothing
    said = np.array([found.labels.index(one) for one in found.predicted])
    sure = np.round(255 * found.probabilities[np.arange(n), said])
    said[found.fallback] = NONE
    return {"predicted": said, "confidence": sure, "agreeing": np.minimum(found.agreeing, 255)}


def features_of(cache: Cache, ids: Sequence[str]) -> tuple[list[int], NDArray[np.float32]]:
    """The features of those of some posts that a cache holds: their places among ids, and (n, D_image + D_text), each
    half of length 1, zeros where it is missing."""
    wanted = {one: i for i, one in enumerate(ids)}
    places: list[int] = []
    parts: list[NDArray[np.float32]] = []
    for split in _splits(cache):
        here = {row: wanted.pop(one) for row, one in enumerate(cache.index(split).ids) if one in wanted}
        if here:
            places += here.values()
            parts.append(_features(cache, split)[list(here)])
    return places, np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _features(cache: Cache, split: str) -> NDArray[np.float32]:
    """(n, D_image + D_text), each half of length 1, zeros where it is missing."""
    found = cache.load(split)
    halves = (found.image[:, 0], found.text)
    lengths = [np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12) for half in halves]
    return np.concatenate([half / length for half, length in zip(halves, lengths, strict=True)], axis=1)


def _splits(cache: Cache) -> list[str]:
    return sorted(cache.rows, key=lambda split: split != "train")


def _digest(cache: Cache, ids: Sequence[str]) -> str:
    said = "\n".join([cache.fingerprint, str(cache.provenance.get("written")), *ids])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, digest: str, rows: int) -> tuple[NDArray[np.float32], str] | None:
    """The places that were kept, where they are of these rows."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            xy = np.asarray(kept["xy"], np.float32)
            if str(kept["digest"]) != digest or xy.shape != (rows, 2):
                return None
            return xy, str(kept["method"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _placed(cache: Cache, kept: Path, digest: str) -> tuple[NDArray[np.float32], str]:
    """Place all rows, and keep that where the folder can be written."""
    xy, method = place(np.concatenate([_features(cache, split) for split in _splits(cache)]))
    out = io.BytesIO()
    np.savez_compressed(out, xy=xy, method=method, digest=digest)
    with contextlib.suppress(OSError, MmsentError):  # then they are computed again the next time
        write_together({kept: out.getvalue()})
    return xy, method


def place(features: NDArray[np.float32], seed: int = 0) -> tuple[NDArray[np.float32], str]:
    """(N, D) features -> (N, 2) in 0..1, and by which method: UMAP where it is installed and there are neither too few
    nor too many rows, else PCA."""
    n = len(features)
    slim = _pca(features, min(50, n, features.shape[1]), seed)
    found = umap_points(slim, seed) if 5 <= n <= MOST else None
    method = "PCA" if found is None else "UMAP"
    xy = np.zeros((n, 2))
    chosen = slim[:, :2] if found is None else found
    xy[:, : chosen.shape[1]] = chosen
    low, high = xy.min(axis=0), xy.max(axis=0)
    return ((xy - low) / max(float((high - low).max()), 1e-12)).astype(np.float32), method


def _pca(features: NDArray[np.float32], width: int, seed: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    if len(features) < 3:
        return np.asarray(features[:, :2], np.float64)
    solver = "randomized" if width < min(features.shape) else "full"
    with np.errstate(invalid="ignore"):  # all posts are alike
        found: NDArray[np.float64] = PCA(width, random_state=seed, svd_solver=solver).fit_transform(features)
    return found
