"""Cross-validation: every labelled row is predicted once, by a head that saw neither it nor any of its duplicates.

For each fold a head is trained on the other rows exactly as `mmsent fit` would: a validation split is cut from them (of
whole groups), which decides when to stop and gives the temperature, and only then is the fold predicted. So no row has
a part in its own probabilities. The heads are thrown away.

    <runs>/<time>-<fusion>-s<seed>-k<folds>/
      folds.json    settings, scores a fold with mean, deviation and standard error, scores over all rows, versions
      oof.csv       id, label, predicted, confidence, a probability per class, fold: the out-of-fold predictions

N rows, C classes, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.errors import DataError, UsageError
from mmsent.features.cache import Cache, Columns, Features, RowIndex
from mmsent.features.cache.groups import row_groups, with_thresholds
from mmsent.metrics import Labels
from mmsent.training.halves import taken
from mmsent.training.sides import SplitRows, ids_at, require_classes, usable_rows
from mmsent.training.splits import hashed_order, smallest_ids, validation_split

SUMMARY, PREDICTIONS = "folds.json", "oof.csv"

Ints = NDArray[np.int64]


def fold_numbers(
    ids: Sequence[str] | NDArray[np.bytes_], labels: Labels, groups: Ints | None, folds: int, seed: int
) -> Ints:
    """The fold of each row, (N,) in 0..K-1: groups whole, classes spread evenly, the same for any order of the rows.

    ids: (N,) all different. labels: (N,) class numbers. groups: (N,), or None: every row on its own. Groups of several
    rows go first, the largest first and then by sha256(seed, smallest id), each to the fold where its classes are
    scarcest; single rows, in the order of that hash, then level each class out. Raises UsageError where there are fewer
    groups than folds or fewer than 2 folds.
    """
    n, classes = len(ids), int(labels.max()) + 1 if len(labels) else 0
    part = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    named = smallest_ids(ids, part) if n else np.zeros(0, np.int64)
    if folds < 2:
        raise UsageError(f"--folds {folds}: cross-validation needs at least 2")
    if len(named) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(named)} rows, or groups of duplicates; use fewer folds")
    if len(np.unique(ids) if isinstance(ids, np.ndarray) else set(ids)) != n:
        raise DataError("cannot cut folds: some ids stand twice; `mmsent check` names them")
    order = hashed_order(ids, named, seed)
    sizes = np.bincount(part)
    content = np.bincount(part * classes + labels, minlength=len(sizes) * classes).reshape(len(sizes), classes)
    totals = np.maximum(content.sum(axis=0), 1)
    have = np.zeros((folds, classes), np.int64)
    fold = np.zeros(len(sizes), np.int64)
    several = order[sizes[order] > 1]
    for group in several[np.argsort(-sizes[several], kind="stable")].tolist():
        # What the sum over classes of (share of the class in the fold) squared grows by.
        cost = ((2 * have + content[group]) * content[group] / totals.astype(np.float64) ** 2).sum(axis=1)
        best = np.lexsort((have.sum(axis=1), cost.round(12)))[0]
        fold[group] = best
        have[best] += content[group]
    single = order[sizes[order] == 1]
    of_class = labels[named[single]]
    for c in range(classes):
        rows = single[of_class == c]
        wanted = _levelled(have[:, c], len(rows), have.sum(axis=1))
        fold[rows] = np.repeat(np.arange(folds), wanted)
        have[:, c] += wanted
    return fold[part]


def _levelled(have: Ints, more: int, filled: Ints) -> Ints:
    """How to spread `more` rows over folds that have (K,) of them, as evenly as can be; what remains goes to the folds
    that are least filled (K,) in all."""
    low, high = int(have.min()), int(have.max()) + more
    while low < high:  # the highest level that these rows can fill everywhere
        middle = (low + high + 1) // 2
        if np.maximum(middle - have, 0).sum() <= more:
            low = middle
        else:
            high = middle - 1
    wanted = np.maximum(low - have, 0)
    open_folds = np.flatnonzero(have <= low)
    rest = open_folds[np.argsort((filled + wanted)[open_folds], kind="stable")][: more - int(wanted.sum())]
    wanted[rest] += 1
    return wanted


@dataclass(frozen=True)
class Published:
    """Where folds come from a file (see mmsent.evaluation.protocols). names: of the folds; scored: test or val;
    left_out: how many posts of the file are in no fold, by the reason in words; others: usable rows that no fold
    scores; sides: the rows of each fold."""

    path: Path
    sha256: str
    names: tuple[str, ...]
    scored: Literal["train", "val", "test"]
    left_out: dict[str, int]
    others: int
    sides: tuple[SplitRows, ...]

    def to_json(self) -> dict[str, Any]:
        """What the record of a cross-validation says of it."""
        return {name: value for name, value in vars(self).items() if name != "sides"} | {"path": str(self.path)}

    def told(self) -> list[str]:
        """What was left out, in words."""
        file = self.path.name
        said = [f"{n} posts of {file} {what} and are left out" for what, n in self.left_out.items()]
        return said + ([f"{self.others} labelled posts are scored in no fold of {file}"] if self.others else [])


@dataclass(frozen=True)
class FoldPlan:
    """Which row is scored in which fold, ready for any number of heads. rows: (N,) positions of the labelled rows that
    are whole or lack a half that they may lack, all of them once unless the folds are published; fold: (N,); groups:
    (N,), or None."""

    cache: Cache
    split: SplitSettings
    folds: int
    index: RowIndex | Columns
    features: Features | None
    rows: Ints
    fold: Ints
    groups: Ints | None
    memory: int | None
    lacking: tuple[int, ...] = ()
    published: Published | None = None

    def of(self, lacking: Sequence[int]) -> FoldPlan:
        """The same folds, without rows that lack another half than these."""
        there = taken(self.index.outcome[self.rows], lacking)
        groups = self.groups[there] if self.groups is not None else None
        rows, fold = self.rows[there], self.fold[there]
        return replace(self, rows=rows, fold=fold, groups=groups, lacking=tuple(lacking))

    @property
    def labels(self) -> Labels:
        """(N,) label indices."""
        return self.index.labels[self.rows]

    @property
    def ids(self) -> list[str]:
        """(N,) ids."""
        found = ids_at(self.index, self.rows)
        return [name.decode() if isinstance(name, bytes) else name for name in found]

    def sides(self, number: int) -> SplitRows:
        """The rows outside fold `number` (from 0) in two sides, to train on and to stop on. Raises DataError where a
        class has no row left to train on."""
        if self.published is not None:
            return self._published_sides(self.published, number)
        held = self.fold == number
        rest = self.rows[~held]
        groups = self.groups[~held] if self.groups is not None else None
        inner = validation_split(ids_at(self.index, rest), self.index.labels[rest], groups, self.split)
        try:
            require_classes(self.cache, self.index, rest[~inner], self.lacking)
        except DataError as error:
            raise DataError(
                f"fold {number + 1} of {self.folds}: {error}; or use other --folds, or --group exact"
            ) from error
        return SplitRows(rest[~inner], rest[inner])

    def _published_sides(self, published: Published, number: int) -> SplitRows:
        both = published.sides[number]
        train, val = (rows[taken(self.index.outcome[rows], self.lacking)] for rows in (both.train, both.val))
        try:
            require_classes(self.cache, self.index, train, self.lacking)
        except DataError as error:
            raise DataError(f"fold {published.names[number]} of {published.path}: {error}") from error
        return SplitRows(train, val)


def plan_folds(
    cache: Cache,
    split: SplitSettings,
    folds: int,
    *,
    features: Features | None = None,
    memory: int | None = None,
    lacking: Sequence[int] = (),
) -> FoldPlan:
    """Cut the labelled training rows of a cache into folds. split: what stays together, the seed, and the size of the
    validation split inside; features and memory as for mmsent.training.fit.fit; lacking: halves that rows may lack."""
    split, features, index = loaded_rows(cache, split, features, memory)
    rows = usable_rows(index, lacking)
    groups = row_groups(index, rows, split, features)
    # posts of each kind spread evenly too
    strata = index.labels[rows] + len(cache.labels) * index.outcome[rows].astype(np.int64)
    fold = fold_numbers(ids_at(index, rows), strata, groups, folds, split.seed)
    return FoldPlan(cache, split, folds, index, features, rows, fold, groups, memory, tuple(lacking))


def loaded_rows(
    cache: Cache, split: SplitSettings, features: Features | None, memory: int | None
) -> tuple[SplitSettings, Features | None, RowIndex | Columns]:
    """The split with the encoder's bounds, and the training rows: in memory, or where they take more than `memory`
    bytes, their columns alone."""
    stored = features is None and memory is not None and cache.rows["train"] * cache.row_bytes("train") > memory
    if not stored:
        features = features or cache.load("train")
    index: RowIndex | Columns = features.index if features is not None else cache.columns("train")
    return with_thresholds(split, cache.encoder), features, index
