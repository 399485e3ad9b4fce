"""The rows that all trials of a sweep share: the training rows of a cache in fixed splits, in arrays that all processes
map read-only.

A part is one split: rows to train on, rows that decide when to stop, and, in cross-validation, rows of the fold to
score. The parts of the search come first; those of the check, with other seeds, follow.

Shapes: N rows, V views, D_image and D_text widths.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.errors import UsageError
from mmsent.features.cache import Cache, Features
from mmsent.features.cache.groups import with_thresholds
from mmsent.features.cache.states import Ragged, half_of, load_states
from mmsent.training.fit import Training
from mmsent.training.folds import plan_folds
from mmsent.training.halves import missing_halves
from mmsent.training.loaders import Chunked, Picked, Rows, Tensors
from mmsent.training.sides import require_classes, split_rows
from mmsent.training.tuning import BlocksOf, TunedRows

Ints = NDArray[np.int64]
ARRAYS = ("image", "text", "labels")


@dataclass(frozen=True)
class Part:
    """One split: positions of the rows to train on, to stop on and to score, (n,) each. out None: val is scored. kept:
    whether those that validate did so before, and others would be chosen now."""

    train: Ints
    val: Ints
    out: Ints | None = None
    kept: bool = False


@dataclass(frozen=True)
class SharedRows:
    """image (N, V, D_image), text (N, D_text) float32, labels (N,) int64. parts: all splits; search: the numbers of
    those that the search scores on; checks: for each repetition on other splits, the numbers of its parts."""

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    labels: Ints
    parts: tuple[Part, ...]
    search: tuple[int, ...]
    checks: tuple[tuple[int, ...], ...]
    classes: int
    missing: NDArray[np.bool_] | None = None  # (N, 2): which rows lack their image or text; None: no row does
    tuned: Mapping[str, Ragged] = field(default_factory=dict)  # the rows' states, by what heads tune (text:2)
    blocks: BlocksOf | None = None  # fresh ones, for these heads

    @property
    def scored(self) -> int:
        """How many rows a trial is scored on."""
        return sum(len(part.val if part.out is None else part.out) for part in (self.parts[i] for i in self.search))


def cut(
    cache: Cache,
    features: Features,
    split: SplitSettings,
    folds: int | None,
    checks: int,
    lacking: Sequence[int] = (),
    kept: Collection[str] = (),
) -> tuple[tuple[Part, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Split the training rows: all parts, the numbers of those of the search, and of those of each check.

    folds: their number for cross-validation; None: one validation split. checks: how often to split again, with the
    next seeds. lacking: halves that rows may lack; kept: ids that validated before, as for split_rows; the check has
    other splits. Raises UsageError or DataError if there are too few rows or groups.
    """
    split = with_thresholds(split, cache.encoder)
    parts: list[Part] = []
    sets: list[tuple[int, ...]] = []
    for turn in range(checks + 1):
        here = split.model_copy(update={"seed": split.seed + turn})
        before = len(parts)
        if folds is None:
            before_too = () if turn else kept
            rows = split_rows(features.index, here, features, kept=before_too, lacking=lacking, own=cache.validation)
            require_classes(cache, features.index, rows.train, lacking)
            parts.append(Part(rows.train, rows.val, kept=rows.kept))
        else:
            plan = plan_folds(cache, here, folds, features=features, lacking=lacking)
            for number in range(folds):
                sides = plan.sides(number)
                parts.append(Part(sides.train, sides.val, plan.rows[plan.fold == number]))
        sets.append(tuple(range(before, len(parts))))
    return tuple(parts), sets[0], tuple(sets[1:])


def cut_rows(
    cache: Cache,
    features: Features,
    split: SplitSettings,
    folds: int | None,
    checks: int,
    *,
    how: Training | None = None,
    tunes: Collection[str] = (),
) -> SharedRows:
    """The training rows of a cache, cut (see `cut`). features: the train split, loaded; test rows are not read. how:
    halves that rows may lack, ids that validated before, and blocks; tunes: what heads tune, as in text:2."""
    how = how or Training()
    lacking = how.lacking or ()
    parts, search, others = cut(cache, features, split, folds, checks, lacking, how.kept or ())
    missing = missing_halves(features.index.outcome) if lacking else None
    given = features.image, features.text, features.index.labels
    states = {tune: load_states(cache, "train", tune) for tune in sorted(tunes)}
    return SharedRows(*given, parts, search, others, len(cache.labels), missing, states, how.blocks)


def write_shared(shared: SharedRows, folder: Path) -> Path:
    """Write the rows to files that other processes map, so that they all use one copy in memory."""
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(shared, name))
    if shared.missing is not None:
        np.save(folder / "missing.npy", shared.missing)
    for number, part in enumerate(shared.parts):
        file = folder / f"part-{number}.npz"
        if part.out is None:
            np.savez(file, train=part.train, val=part.val)
        else:
            np.savez(file, train=part.train, val=part.val, out=part.out)
    for number, states in enumerate(shared.tuned.values()):
        np.save(folder / f"states-{number}.npy", states.values)
        np.save(folder / f"offsets-{number}.npy", states.offsets)
    about = {
        "parts": len(shared.parts),
        "search": shared.search,
        "checks": shared.checks,
        "classes": shared.classes,
        "tuned": list(shared.tuned),
    }
    (folder / "rows.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def map_shared(folder: Path, blocks: BlocksOf | None = None) -> SharedRows:
    """Map rows that `write_shared` wrote, read-only. blocks: see SharedRows."""
    about = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    parts = []
    for number in range(about["parts"]):
        with np.load(folder / f"part-{number}.npz") as kept:
            parts.append(Part(kept["train"], kept["val"], kept.get("out")))
    arrays: list[Any] = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
    checks = tuple(tuple(one) for one in about["checks"])
    tuned = {
        tune: Ragged(np.load(folder / f"states-{k}.npy", mmap_mode="r"), np.load(folder / f"offsets-{k}.npy"))
        for k, tune in enumerate(about["tuned"])
    }
    cuts = tuple(parts), tuple(about["search"]), checks
    missing = np.load(folder / "missing.npy") if (folder / "missing.npy").exists() else None
    return SharedRows(arrays[0], arrays[1], arrays[2], *cuts, about["classes"], missing, tuned, blocks)


@dataclass(frozen=True)
class PartRows:
    """The rows of one part on a device. out None: val is scored."""

    train: Rows
    val: Rows
    out: Rows | None


# The rows of a part by its number, and by what a head on them tunes (text:2; empty: nothing).
PartsOf = Callable[[int, str], PartRows]


def parts_on(shared: SharedRows, device: str) -> PartsOf:
    """The parts on a device. The large arrays are moved once (on a CPU they are not copied), and the rows of recent
    parts are kept. Where a head tunes blocks, these are fresh each time."""
    image, text, labels = (_tensor(getattr(shared, name)).to(device) for name in ARRAYS)

    def lost(rows: Ints) -> torch.Tensor | None:
        if shared.missing is None or not shared.missing[rows].any():
            return None
        return torch.from_numpy(shared.missing[rows]).to(device)

    def clean(rows: Ints) -> Tensors:
        places = torch.from_numpy(rows).to(device)
        return Tensors(image[places, :1], text[places], labels[places], lost(rows))

    @functools.lru_cache(maxsize=max(4, len(shared.search)))
    def sides(number: int) -> tuple[Chunked, Chunked, Chunked | None]:
        part = shared.parts[number]
        places = torch.from_numpy(part.train).to(device)
        train = Picked(image, text, places, labels[places], lost(part.train))
        return train, clean(part.val), None if part.out is None else clean(part.out)

    def rows(number: int, tune: str) -> PartRows:
        train, val, out = sides(number)
        if not tune:
            return PartRows(train, val, out)
        if tune not in shared.tuned or shared.blocks is None:
            raise UsageError(f"a sweep that tunes {tune} needs the encoder's blocks, which are not at hand here")
        own, states, part = shared.blocks(tune).to(device), shared.tuned[tune], shared.parts[number]

        def over(rows: Chunked, places: NDArray[np.int64]) -> TunedRows:
            return TunedRows(rows, states, places, own, half_of(tune))

        last = None if out is None or part.out is None else over(out, part.out)
        return PartRows(over(train, part.train), over(val, part.val), last)

    return rows


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a mapped array is read-only; nothing here writes
        return torch.from_numpy(array)
