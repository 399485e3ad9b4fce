"""The validation split: exact in size, stratified by class, the same for any order of rows, and free of duplicates
that would let a head validate on what it has seen. N rows, C classes, G groups.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.errors import DataError

Ints = NDArray[np.int64]
_BLOCK = 1 << 16


def validation_split(
    ids: Sequence[str] | NDArray[np.bytes_], labels: Ints, groups: Ints | None, settings: SplitSettings
) -> NDArray[np.bool_]:
    """Which training rows validate, (N,), True for validation.

    ids: (N,) all different, as text or UTF-8. labels: (N,) class numbers. groups: (N,) from `duplicate_groups`; a group
    is never parted. None: every row on its own, the report's plain stratified split.

    Class quotas are by largest remainder. Groups are taken in the order of sha256(seed, smallest id) while they fit
    every quota; what is then missing is made up by adding, dropping or swapping groups, first for the total and next
    for the classes. Without groups the size is always exact; with them it is as near as these steps come.
    Raises DataError where no such split can be.
    """
    n = len(ids)
    if n < 2:
        raise DataError(f"cannot cut a validation split from {n} labelled rows; at least 2 are needed")
    if len(np.unique(ids) if isinstance(ids, np.ndarray) else set(ids)) != n:
        raise DataError("cannot split: some ids stand twice; `mmsent check` names them")
    if labels.min() < 0:
        raise DataError(f"cannot split: {int((labels < 0).sum())} rows have no label; `mmsent check` names them")
    size = _rows_wanted(settings.val_size, n)
    counts = np.bincount(labels)
    quotas = _quotas(counts, size)

    part = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(part)
    named = smallest_ids(ids, part)
    order = hashed_order(ids, named, settings.seed)
    found = np.bincount(part * len(counts) + labels, minlength=len(sizes) * len(counts)).astype(np.int32)
    content = found.reshape(len(sizes), len(counts))  # (G, C), int32: there may be millions of groups

    taken = np.zeros(len(order), dtype=np.bool_)
    left = quotas.tolist()
    for start in range(0, len(order), _BLOCK):
        for group, inside in enumerate(content[order[start : start + _BLOCK]].tolist(), start):
            if all(has <= may for has, may in zip(inside, left, strict=True)):
                taken[group] = True
                left = [may - has for has, may in zip(inside, left, strict=True)]
        if not any(left):
            break
    if any(left):
        _improve(taken, content[order].astype(np.int64), quotas)
    if not taken.any():
        raise DataError(
            f"duplicates tie the {n} rows into {len(order)} groups, and none fits a validation split of {size} rows; "
            "change the validation size or split without grouping"
        )
    chosen = np.zeros(len(order), dtype=np.bool_)
    chosen[order[taken]] = True
    return np.asarray(chosen[part], dtype=np.bool_)


def smallest_ids(ids: Sequence[str] | NDArray[np.bytes_], part: Ints) -> Ints:
    """Of each group, the row with the smallest id, (G,). part: (N,) group numbers 0..G-1, each in use."""
    sizes = np.bincount(part)
    named = np.zeros(len(sizes), np.int64)
    named[part] = np.arange(len(part))
    several: dict[int, int] = {}
    for row in np.flatnonzero(sizes[part] > 1).tolist():
        best = several.setdefault(int(part[row]), row)
        if ids[row] < ids[best]:
            several[int(part[row])] = row
    named[list(several)] = list(several.values())
    return named


def hashed_order(ids: Sequence[str] | NDArray[np.bytes_], rows: Ints, seed: int) -> Ints:
    """The order of groups, each named by one row: by sha256(seed, id)."""
    prefix = hashlib.sha256(f"{seed}\0".encode())

    def digest(row: int) -> bytes:
        name, found = ids[row], prefix.copy()
        found.update(name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name)
        return found.digest()

    ranks = np.empty(len(rows), np.uint64)  # the first 8 of 32 bytes, for there may be millions
    for start in range(0, len(rows), _BLOCK):
        heads = [digest(row)[:8] for row in rows[start : start + _BLOCK].tolist()]
        ranks[start : start + len(heads)] = np.frombuffer(b"".join(heads), ">u8")
    order = np.argsort(ranks, kind="stable").astype(np.int64, copy=False)
    same = np.flatnonzero(np.diff(ranks[order]) == 0)
    for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if len(same) else ():
        tied = order[run[0] : run[-1] + 2]
        order[run[0] : run[-1] + 2] = sorted(tied.tolist(), key=lambda k: digest(int(rows[k])))
    return order


def _rows_wanted(val_size: float, n: int) -> int:
    size = math.floor(val_size * n + 0.5) if val_size < 1 else round(val_size)
    if size < 1:
        raise DataError(f"a validation share of {val_size:g} of {n} rows is less than one row; raise it")
    if size >= n:
        raise DataError(f"a validation split of {size} rows leaves none of {n} to train on; lower it")
    return size


def _quotas(counts: Ints, size: int) -> Ints:
    """Validation rows a class, (C,), summing to `size`: largest remainder, but each class keeps a row to train on."""
    most = np.maximum(counts - 1, 0)
    if size > most.sum():
        raise DataError(
            f"a validation split of {size} of {counts.sum()} rows leaves a class without a training row; "
            f"use at most {most.sum()} rows"
        )
    share, remainder = np.divmod(counts * size, counts.sum())
    quotas = np.minimum(share, most)
    order = np.argsort(-remainder, kind="stable")
    while (short := size - quotas.sum()) > 0:
        open_classes = order[quotas[order] < most[order]]
        quotas[open_classes[:short]] += 1
    return np.asarray(quotas, dtype=np.int64)


def _improve(taken: NDArray[np.bool_], content: Ints, quotas: Ints) -> None:
    """Add, drop or swap one group at a time while that brings the total, then the classes, nearer. In place."""
    counts = content.sum(axis=0)
    most = np.maximum(counts - 1, 0)  # a class keeps a row to train on

    def score(gap: Ints) -> tuple[int, int]:
        return abs(int(gap.sum())), int(np.abs(gap).sum())

    nothing = np.zeros_like(quotas)
    gap = quotas - content[taken].sum(axis=0)
    while True:
        best = score(gap)
        move: tuple[int | None, int | None] | None = None
        # Groups of the same content are interchangeable: try the first of each.
        alike = np.sort(np.unique(np.column_stack([taken, content]), axis=0, return_index=True)[1]).tolist()
        inward = [None, *(group for group in alike if not taken[group])]
        outward = [None, *(group for group in alike if taken[group])]
        for add in inward:
            for drop in outward:
                change = (nothing if add is None else content[add]) - (nothing if drop is None else content[drop])
                if score(gap - change) < best and (quotas - gap + change <= most).all():
                    best, move = score(gap - change), (add, drop)
        if move is None:
            return
        for moved in move:
            if moved is not None:
                taken[moved] = not taken[moved]
        gap = quotas - content[taken].sum(axis=0)
