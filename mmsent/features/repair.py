"""Verifying a cache by encoding a sample again, and repairing a damaged one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import ExtractSettings
from mmsent.data.dataset import Dataset, Split
from mmsent.data.text import text_hash
from mmsent.encoders.base import Encoders
from mmsent.errors import CacheError, DataError
from mmsent.features.batches import block_rows, blocks, load_views, scaled, text_batches, text_windows
from mmsent.features.cache import NO_HASH, Cache, find_damage
from mmsent.features.cache.states import damaged_states, drop_damaged
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.features.token_states import extract_states

TOLERANCE = 0.045  # relative distance beyond which a row that was encoded again differs; a cosine of 0.999


@dataclass(frozen=True)
class Verified:
    """The result of verifying. rows: read and checked by checksums; sampled: encoded again; identical: bit for bit;
    changed: ids whose image or text has changed since; wrong: ids whose embeddings differ; lowest: smallest cosine;
    damaged: one line per damaged part of a split, with its rows."""

    rows: int
    sampled: int
    identical: int
    changed: list[str]
    wrong: list[str]
    lowest: float
    damaged: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the file is undamaged and every sampled row agrees."""
        return not self.wrong and not self.damaged

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"ok": self.ok}


def verify(cache: Cache, dataset: Dataset | None, encoders: Encoders | None, sample: int, seed: int = 0) -> Verified:
    """Read every row and its checksums, then encode a random sample again and compare.

    dataset, encoders: None to check only the file; no sample of a damaged file is encoded.
    """
    total = sum(cache.rows.values())
    damage = find_damage(cache.path) if cache.damage is None else cache.damage
    damaged = [*(damage.lines() or _not_finite(cache)), *damaged_states(cache).values()]
    if damaged or dataset is None or encoders is None or not sample:
        return Verified(total, 0, 0, [], [], 1.0, damaged)
    rng = np.random.default_rng(seed)
    everything = [
        (name, i)
        for name in cache.rows
        if name in dataset.splits
        for i in np.flatnonzero(cache.index(name).good).tolist()
    ]
    picked = [everything[k] for k in sorted(rng.permutation(len(everything))[:sample].tolist())]
    identical, changed, wrong, lowest = 0, [], [], 1.0
    for split in dataset.splits:
        positions = [i for name, i in picked if name == split]
        if not positions:
            continue
        index = cache.index(split)
        stored = cache.embeddings(split, positions)
        again = encode_again(cache, dataset, encoders, split, positions)
        for k, i in enumerate(positions):
            if i not in again:
                changed.append(index.ids[i])
                continue
            pairs = [(stored[half][k].reshape(-1, stored[half].shape[-1]), again[i][half]) for half in (0, 1)]
            identical += all(np.array_equal(a, b.astype(a.dtype)) for a, b in pairs)
            lowest = min(lowest, *(_cosine(a, b) for a, b in pairs))
            if max(_distance(a, b) for a, b in pairs) > TOLERANCE:
                wrong.append(index.ids[i])
    return Verified(total, len(picked), identical, changed, wrong, lowest)


def _not_finite(cache: Cache) -> list[str]:
    """One line per block of rows with values that are not finite."""
    found = []
    for name, n in cache.rows.items():
        for block in blocks(n, 4096):
            image, text = cache.embeddings(name, block)
            bad = ~(np.isfinite(image).all(axis=(1, 2)) & np.isfinite(text).all(axis=1))
            rows = (np.flatnonzero(bad) + block.start).tolist()
            if rows:
                found.append(f"{name}: rows {', '.join(map(str, rows[:5]))} hold values that are not finite")
    return found


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The smallest cosine between rows of (n, D) and (n, D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = (a == b).all(axis=1).astype(np.float64)  # a zero vector has no angle
    return float(np.divide((a * b).sum(axis=1), norms, out=alike, where=norms > 0).min())


def _distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest |a - b| / |b| between rows of (n, D) and (n, D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-12)).max())


def encode_again(
    cache: Cache, dataset: Dataset, encoders: Encoders, split: Split, positions: Sequence[int]
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Encode rows of a cache again, in the same batches as extraction: position -> (V, D_image), (1, D_text).

    Rows whose content has changed are left out.
    """
    index, posts = cache.index(split), dataset.of(split)
    if index.ids != [post.id for post in posts]:
        raise CacheError(
            f"the {split} list of {dataset.root} differs from the cache; run `mmsent extract --split {split}`"
        )
    views, how = cache.settings.views.count + 1, cache.settings.image.preprocess
    wanted = set(positions)
    images: dict[int, NDArray[np.float32]] = {}
    for block in blocks(len(posts), block_rows(cache.provenance["batch_size"], views)):
        rows = sorted(wanted.intersection(block))
        pixels = np.zeros((len(block), views, how.size, how.size, 3), np.uint8)
        for i in rows:
            digest, picture, *_ = load_views(posts[i], how, cache.settings.views)
            if picture is None or digest != index.image_hashes[i]:
                wanted.discard(i)
            else:
                pixels[i - block.start] = picture
        if wanted.intersection(rows):
            vectors = encoders.image.encode(pixels.reshape(-1, how.size, how.size, 3)).reshape(len(block), views, -1)
            images |= {i: scaled(vectors[i - block.start], cache.settings.normalize) for i in rows if i in wanted}
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for window in text_windows(len(posts)):
        if wanted.isdisjoint(window):
            continue
        texts: dict[int, str] = {}
        for i in window:
            if index.text_hashes[i] != NO_HASH:
                try:
                    texts[i] = dataset.text_of(posts[i])
                except DataError:  # it was readable when it was encoded
                    wanted.discard(i)
        for batch in text_batches(texts, encoders.text)[1]:
            if not wanted.isdisjoint(batch):
                vectors = scaled(encoders.text.encode([texts[i] for i in batch]), cache.settings.normalize)
                for k, i in enumerate(batch):
                    if i in wanted and text_hash(texts[i]) == index.text_hashes[i]:
                        found[i] = (images[i], vectors[k : k + 1])
    return found


@dataclass(frozen=True)
class Repaired:
    """The result of a repair. cache: the repaired one; found: the damage, in lines; encoded: split -> rows encoded
    again; dropped: split -> rows that had left the list and could not be encoded again; states: as in `text:2` -> texts
    whose states were encoded again."""

    cache: Cache
    found: list[str]
    encoded: dict[str, int]
    dropped: dict[str, int]
    notes: list[str] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.cache.path),
            "found": self.found,
            "encoded": self.encoded,
            "dropped": self.dropped,
            "states": self.states,
        }


def repair(path: Path, dataset: Dataset, encoders: Encoders, options: ExtractSettings) -> Repaired:
    """Encode again what is damaged in a cache and in the states beside it. Errors as of `repair_rows`; CacheError also
    where a file of states cannot be read at all."""
    done = repair_rows(path, dataset, encoders, options)
    states, found = {}, damaged_states(done.cache)
    for tune in found:
        drop_damaged(done.cache, tune)
        splits = [name for name in dataset.splits if name in done.cache.rows]
        states[tune] = sum(extract_states(dataset, splits, done.cache, encoders, tune, show=False).values())
    return replace(done, found=[*done.found, *found.values()], states=states)


def repair_rows(path: Path, dataset: Dataset, encoders: Encoders, options: ExtractSettings) -> Repaired:
    """Replace a damaged cache by one whose damaged rows are encoded again and whose other rows stay the same.

    Rows are encoded in the same batches as by extraction, so an unchanged data set gives the same bytes. Raises
    CacheError if the damage is not in rows, the data set lacks a damaged split, or encoders or settings differ from
    those of the cache. With other libraries or another precision the rows differ by rounding, and a note says so.
    """
    damaged = Cache.salvage(path)
    assert damaged.damage is not None
    found = damaged.damage.lines()
    if not found:
        return Repaired(Cache.open(path), [], {}, {})
    affected = [*damaged.damage.splits, *(name for name in damaged.rows if damaged.damage.rows.get(name))]
    if absent := [name for name in affected if name not in dataset.splits]:
        raise CacheError(f"{dataset.root} has no {absent[0]} posts, so those rows of {path} cannot be encoded again")
    before = {name: len(damaged.index(name, kept=True)) - n for name, n in damaged.rows.items() if name in affected}
    done = extract(
        dataset,
        [name for name in dataset.splits if name in affected],
        damaged,
        encoder=damaged.encoder_settings,
        views=damaged.settings.views,
        options=options,
        engine=LocalEngine(encoders),
    )
    after = {name: len(done.cache.index(name, kept=True)) - done.cache.rows[name] for name in before}
    dropped = {name: n - after[name] for name, n in before.items() if n > after[name]}
    return Repaired(done.cache, found, done.encoded, dropped, done.notes)
