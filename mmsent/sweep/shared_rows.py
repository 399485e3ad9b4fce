"""The ground that trials are compared on: the training rows of a cache, cut once and the same for every trial, in
arrays that all processes map read-only.

A part is one split: rows to train on, rows that decide when to stop, and, in cross-validation, rows of the fold to
score. The parts of the search come first; those of the check, cut by other seeds, follow.

Shapes: N rows, V views, D_image and D_text widths.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.features.cache import Cache, Features
from mmsent.features.cache.groups import with_thresholds
from mmsent.training.fit import require_classes, split_rows
from mmsent.training.folds import plan_folds
from mmsent.training.loaders import Picked, Tensors

Ints = NDArray[np.int64]
ARRAYS = ("image", "text", "labels")


@dataclass(frozen=True)
class Part:
    """One split: positions of the rows to train on, to stop on and to score, (n,) each. out None: val is scored."""

    train: Ints
    val: Ints
    out: Ints | None = None


@dataclass(frozen=True)
class Ground:
    """image (N, V, D_image), text (N, D_text) float32, labels (N,) int64; the parts; which of them the search scores on
    (`search`), and each time another cut that the check repeats it on (`checks`)."""

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    labels: Ints
    parts: tuple[Part, ...]
    search: tuple[int, ...]
    checks: tuple[tuple[int, ...], ...]
    classes: int

    @property
    def scored(self) -> int:
        """Rows that a trial's score is taken over."""
        return sum(len(part.val if part.out is None else part.out) for part in (self.parts[i] for i in self.search))


def cut(
    cache: Cache, features: Features, split: SplitSettings, folds: int | None, checks: int
) -> tuple[tuple[Part, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Cut the training rows: the parts, those of the search, those of each check. folds: so many by cross-validation;
    None: one validation split. checks: how often they are cut anew, by the seeds that follow.

    Raises UsageError or DataError where rows or groups are too few.
    """
    split = with_thresholds(split, cache.encoder)
    parts: list[Part] = []
    sets: list[tuple[int, ...]] = []
    for turn in range(checks + 1):
        here = split.model_copy(update={"seed": split.seed + turn})
        before = len(parts)
        if folds is None:
            rows = split_rows(features.index, here, features)
            require_classes(cache, features.index, rows.train)
            parts.append(Part(rows.train, rows.val))
        else:
            plan = plan_folds(cache, here, folds, features=features)
            for number in range(folds):
                sides = plan.sides(number)
                parts.append(Part(sides.train, sides.val, plan.rows[plan.fold == number]))
        sets.append(tuple(range(before, len(parts))))
    return tuple(parts), sets[0], tuple(sets[1:])


def make_ground(cache: Cache, features: Features, split: SplitSettings, folds: int | None, checks: int) -> Ground:
    """The training rows of a cache, cut (see `cut`). features: the train split, loaded; test rows are not read."""
    parts, search, others = cut(cache, features, split, folds, checks)
    labels = features.index.labels
    return Ground(features.image, features.text, labels, parts, search, others, len(cache.labels))


def share_ground(ground: Ground, folder: Path) -> Path:
    """Write a ground where other processes can map it; it stays one copy in memory however many do."""
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(ground, name))
    for number, part in enumerate(ground.parts):
        file = folder / f"part-{number}.npz"
        if part.out is None:
            np.savez(file, train=part.train, val=part.val)
        else:
            np.savez(file, train=part.train, val=part.val, out=part.out)
    about = {"parts": len(ground.parts), "search": ground.search, "checks": ground.checks, "classes": ground.classes}
    (folder / "ground.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def map_ground(folder: Path) -> Ground:
    """Map a shared ground, read-only."""
    about = json.loads((folder / "ground.json").read_text(encoding="utf-8"))
    parts = []
    for number in range(about["parts"]):
        with np.load(folder / f"part-{number}.npz") as kept:
            parts.append(Part(kept["train"], kept["val"], kept.get("out")))
    arrays: list[Any] = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
    checks = tuple(tuple(one) for one in about["checks"])
    return Ground(arrays[0], arrays[1], arrays[2], tuple(parts), tuple(about["search"]), checks, about["classes"])


@dataclass(frozen=True)
class Sides:
    """One part, ready to train on. out None: val is scored."""

    train: Picked
    val: Tensors
    out: Tensors | None


def sides_on(ground: Ground, device: str) -> Callable[[int], Sides]:
    """A function from a part's number to its rows on a device. The large arrays are moved once (on a CPU not even
    copied), and the rows of the part used last are kept."""
    image, text, labels = (_tensor(getattr(ground, name)).to(device) for name in ARRAYS)

    def clean(rows: Ints) -> Tensors:
        places = torch.from_numpy(rows).to(device)
        return Tensors(image[places, :1], text[places], labels[places])

    @functools.lru_cache(maxsize=max(4, len(ground.search)))
    def sides(number: int) -> Sides:
        part = ground.parts[number]
        places = torch.from_numpy(part.train).to(device)
        train = Picked(image, text, places, labels[places])
        return Sides(train, clean(part.val), None if part.out is None else clean(part.out))

    return sides


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a mapped array that cannot be written; nothing here writes
        return torch.from_numpy(array)
