"""The validation split: exact in size, stratified by class, the same for any order of rows, and free of duplicates
that would let a head validate on what it has seen. N rows, C classes, G groups.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.errors import DataError

Ints = NDArray[np.int64]


def duplicate_groups(image_hashes: Sequence[bytes], text_hashes: Sequence[bytes]) -> Ints:
    """Group number of each row, (N,): rows that share an exact picture or an exact text, also by way of others.

    A hash that is empty or all zero bytes means "absent" and links nothing. Raises ValueError on unequal lengths.
    """
    parent = list(range(len(image_hashes)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, bytes], int] = {}
    for row, (image, text) in enumerate(zip(image_hashes, text_hashes, strict=True)):
        for kind, value in (("image", image), ("text", text)):
            if any(value):
                parent[root(row)] = root(first.setdefault((kind, bytes(value)), row))
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(row), len(numbers)) for row in range(len(parent))], dtype=np.int64)


def validation_split(
    ids: Sequence[str], labels: Ints, groups: Ints | None, settings: SplitSettings
) -> NDArray[np.bool_]:
    """Which training rows validate, (N,), True for validation.

    ids: (N,) all different. labels: (N,) class numbers. groups: (N,) from `duplicate_groups`; a group is never
    parted. None: every row on its own, the report's plain stratified split.

    Class quotas are by largest remainder. Groups are taken in the order of sha256(seed, smallest id) while they fit
    every quota; what is then missing is made up by adding, dropping or swapping groups, first for the total and next
    for the classes. Without groups the size is always exact; with them it is as near as these steps come.
    Raises DataError where no such split can be.
    """
    n = len(ids)
    if n < 2:
        raise DataError(f"cannot cut a validation split from {n} labelled rows; at least 2 are needed")
    if len(set(ids)) != n:
        raise DataError("cannot split: some ids stand twice; `mmsent check` names them")
    if labels.min() < 0:
        raise DataError(f"cannot split: {int((labels < 0).sum())} rows have no label; `mmsent check` names them")
    size = _rows_wanted(settings.val_size, n)
    counts = np.bincount(labels)
    quotas = _quotas(counts, size)

    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(range(n) if groups is None else groups.tolist()):
        members[group].append(row)
    ordered = sorted(members.values(), key=lambda rows: _rank(settings.seed, min(ids[row] for row in rows)))
    content = np.array([np.bincount(labels[rows], minlength=len(counts)) for rows in ordered])  # (G, C)

    taken = np.zeros(len(ordered), dtype=np.bool_)
    left = quotas.copy()
    for group, inside in enumerate(content):
        if (inside <= left).all():
            taken[group] = True
            left -= inside
    if left.any():
        _improve(taken, content, quotas)
    if not taken.any():
        raise DataError(
            f"duplicates tie the {n} rows into {len(ordered)} groups, and none fits a validation split of {size} rows; "
            "change the validation size or split without grouping"
        )
    chosen = np.zeros(n, dtype=np.bool_)
    for group in np.flatnonzero(taken):
        chosen[ordered[group]] = True
    return chosen


def _rank(seed: int, smallest_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{smallest_id}".encode("utf-8", "surrogatepass")).digest()


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
        alike: dict[tuple[bool, bytes], int] = {}  # groups of the same content are interchangeable: try one of each
        for group, inside in enumerate(content):
            alike.setdefault((bool(taken[group]), inside.tobytes()), group)
        inward = [None, *(group for (is_in, _), group in alike.items() if not is_in)]
        outward = [None, *(group for (is_in, _), group in alike.items() if is_in)]
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
