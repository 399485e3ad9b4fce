"""Which training rows of a cache a head trains on and which validate, and both sides ready to train on."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.errors import DataError, UsageError
from mmsent.features.cache import NO_LABEL, Cache, Columns, Features, RowIndex
from mmsent.features.cache.groups import row_groups
from mmsent.features.cache.states import half_of, states_of
from mmsent.training.halves import LACKS, left_out, missing_halves, taken
from mmsent.training.loaders import Chunked, Rows, to_tensors
from mmsent.training.splits import validation_split
from mmsent.training.stored import Stored
from mmsent.training.tuning import BlocksOf, TunedRows


@dataclass(frozen=True)
class SplitRows:
    """Positions of the rows to train on and to validate on, (n,) int64 each; bad and unlabelled rows are in neither.
    kept: whether those that validate did so before, and others would be chosen now."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    kept: bool = False


def usable_rows(index: RowIndex | Columns, lacking: Sequence[int] = ()) -> NDArray[np.int64]:
    """Positions (n,) of the labelled rows that are whole, or lack a half that they may lack (see
    mmsent.training.halves.lackable). Raises DataError where there are none, or none that has a half which heads read.
    """
    usable = np.flatnonzero(taken(index.outcome, lacking) & (index.labels != NO_LABEL))
    if not len(usable):
        what = " or ".join(map(_a, _has(lacking))) if lacking else "both halves"
        raise DataError(f"the cache has no row with {what} and a label{left_out(index, lacking)}; run `mmsent check`")
    for bit in lacking if len(lacking) > 1 else ():
        if (index.outcome[usable] & bit).all():
            raise DataError(f"no training post has {_a(LACKS[bit])}; use --fusion {_has([bit])[0]}")
    return usable


def _has(lacking: Sequence[int]) -> list[str]:
    """The halves that posts have which lack these."""
    return [name for bit in lacking for other, name in LACKS.items() if other != bit]


def _a(half: str) -> str:
    return f"{'an' if half == 'image' else 'a'} {half}"


def ids_at(index: RowIndex | Columns, rows: NDArray[np.int64]) -> list[str] | NDArray[np.bytes_]:
    """The ids of the rows at these positions, as the index has them: text, or UTF-8."""
    return index.ids[rows] if isinstance(index, Columns) else [index.ids[i] for i in rows]


def split_rows(
    index: RowIndex | Columns,
    settings: SplitSettings,
    features: Features | None = None,
    *,
    kept: Collection[str] = (),
    lacking: Sequence[int] = (),
    own: Collection[str] = (),
) -> SplitRows:
    """Cut the validation split from the labelled rows. Depends on ids, labels, contents and settings alone.

    features: the embeddings, needed where near-duplicates are grouped. kept: ids that validated before, which do so
    again, with their duplicates, while they are at least half of the rows wanted. lacking: halves that rows may lack.
    Whole posts, those that lack an image and those that lack a text are split apart, so that the same whole posts
    validate whatever heads may lack; a half post that shares content with a whole one is on its side. own: ids that the
    data set itself keeps for validation; where there are such, they alone validate.
    """
    rows = usable_rows(index, lacking)
    held = _among(index, rows, own)
    if held.any() and not held.all():
        return SplitRows(rows[~held], rows[held])
    groups = row_groups(index, rows, settings, features)
    held, placed, moved = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_), False
    for bits in (0, *lacking):
        if groups is not None:  # with their doubles
            held |= np.isin(groups, groups[held])
            placed |= np.isin(groups, groups[placed])
        part = np.flatnonzero((index.outcome[rows] == bits) & ~placed)
        here = settings
        if placed.any() and settings.val_size >= 1:
            here = settings.model_copy(update={"val_size": float(held.sum() / placed.sum())})
        with contextlib.suppress(DataError):  # too few of a kind
            tied = groups[part] if groups is not None else None
            held[part], other = _held(index, rows[part], tied, here, kept)
            moved |= other
        placed[part] = True
    if not held.any() or held.all():
        held, moved = _held(index, rows, groups, settings, kept)
    return SplitRows(rows[~held], rows[held], moved)


def _held(
    index: RowIndex | Columns,
    rows: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    settings: SplitSettings,
    kept: Collection[str],
) -> tuple[NDArray[np.bool_], bool]:
    """(n,) which of the rows validate, and whether others would if none did before."""
    held = validation_split(ids_at(index, rows), index.labels[rows], groups, settings)
    if len(kept):
        again = _among(index, rows, kept)
        again = again if groups is None else np.isin(groups, groups[again])
        if 2 * again.sum() >= held.sum() and _trainable(index.labels[rows], again):
            return again, not np.array_equal(held, again)
    return held, False


def _among(index: RowIndex | Columns, rows: NDArray[np.int64], ids: Collection[str]) -> NDArray[np.bool_]:
    """(n,) which of the rows at these positions are among the ids."""
    names = {name.encode("utf-8", "replace") for name in ids} if isinstance(index, Columns) else set(ids)
    return np.array([name in names for name in ids_at(index, rows)], np.bool_)


def _trainable(labels: NDArray[np.int64], held: NDArray[np.bool_]) -> bool:
    """Whether every class that there is has a row to train on beside those that are held back."""
    return bool(np.isin(labels, labels[~held]).all())


@dataclass(frozen=True)
class Sides:
    """The two sides of a split, ready to train on, and what identifies their rows."""

    rows: SplitRows
    train: Chunked
    val: Chunked
    stored: bool  # on disk, not in memory
    val_ids: list[str]
    truth: NDArray[np.int64]  # of the validation rows
    left_out: str = ""  # which labelled rows are in neither, in words


def sides(
    cache: Cache,
    split: SplitSettings,
    *,
    device: str,
    features: Features | None = None,
    memory: int | None = None,
    kept: Collection[str] = (),
    lacking: Sequence[int] = (),
) -> Sides:
    """The training rows of a cache in two sides, in memory or, where they would take more than `memory` bytes, on disk.

    kept, lacking: as for split_rows. Raises DataError where a class has no training row.
    """
    stored = features is None and memory is not None and cache.rows["train"] * cache.row_bytes("train") > memory
    if not stored:
        features = features or cache.load("train")
    index: RowIndex | Columns = features.index if features is not None else cache.columns("train")
    rows = split_rows(index, split, features, kept=kept, lacking=lacking, own=cache.validation)
    require_classes(cache, index, rows.train, lacking)
    train = rows_at(cache, index, features, rows.train, device, memory)
    val = rows_at(cache, index, features, rows.val, device, memory, clean=True)
    ids = [name.decode() if isinstance(name, bytes) else name for name in (index.ids[i] for i in rows.val.tolist())]
    left = int((index.labels != NO_LABEL).sum()) - len(rows.train) - len(rows.val)
    return Sides(rows, train, val, stored, ids, index.labels[rows.val], left_out(index, lacking) if left else "")


def require_classes(
    cache: Cache, index: RowIndex | Columns, train: NDArray[np.int64], lacking: Sequence[int] = ()
) -> None:
    """Raise DataError where a class has no row among those to train on. lacking: halves that rows may lack."""
    counts = np.bincount(index.labels[train], minlength=len(cache.labels))
    if (counts == 0).any():
        absent = np.flatnonzero(counts == 0)
        names = ", ".join(cache.labels[i] for i in absent)
        if n := int(np.isin(index.labels, absent).sum()):
            why = f"{n} rows are, but validate or lack a half{left_out(index, lacking)}"
            raise DataError(f"no row to train on is labelled {names}; {why}")
        raise DataError(f"no training row is labelled {names}; add some, or leave the label out of --labels")


def rows_at(
    cache: Cache,
    index: RowIndex | Columns,
    features: Features | None,
    rows: NDArray[np.int64],
    device: str,
    memory: int | None,
    *,
    clean: bool = False,
) -> Chunked:
    """The training rows at increasing positions (n,): in memory where features are given, else on disk. clean: without
    the augmented views, as validation takes them."""
    labels, missing = index.labels[rows], missing_halves(index.outcome[rows])
    if features is not None:
        image = features.image[rows, :1] if clean else features.image[rows]
        return to_tensors(image, features.text[rows], labels, device, missing)
    assert memory is not None
    return Stored(cache, "train", rows, labels, memory, device, missing)


def tuned(
    cache: Cache,
    tune: str,
    sides: Sequence[tuple[Chunked, NDArray[np.int64]]],
    blocks: BlocksOf | None,
    memory: int | None = None,
) -> list[Rows]:
    """Rows of the training split, each with its positions (n,), over one fresh copy of the blocks that `tune` names;
    as they are where it names none. Their states stay on disk where they and the embeddings take more than `memory`
    bytes. Raises UsageError where there are no blocks, CacheError where the states are not stored."""
    if not tune:
        return [rows for rows, _ in sides]
    if blocks is None:
        raise UsageError(f"--tune {tune} needs the encoder's blocks, which are not at hand here")
    left = None if memory is None else memory - cache.rows["train"] * cache.row_bytes("train")
    states, own = states_of(cache, "train", tune, left), blocks(tune).to(sides[0][0].device)
    return [TunedRows(rows, states, places, own, half_of(tune)) for rows, places in sides]
