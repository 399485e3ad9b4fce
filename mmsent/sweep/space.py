"""The search space: for each setting of a head one value, a list of choices, or a range. Names, types and bounds of the
settings come from FitSettings, so a new setting needs no code here.

    fusion = ["concat", "attention"]                        # choices
    lr = { low = 1e-5, high = 1e-2, log = true }            # a range; log: even in its logarithm
    hidden = { low = 64, high = 512, log = true }           # a range of whole numbers, as both ends are
    epochs = 30                                             # one value: the same for every trial
"""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import RECIPES, VOTING_FUSIONS, FitSettings, Settings, fit_settings, nearest, settings
from mmsent.errors import UsageError
from mmsent.training.halves import lackable

POINTS = 3  # of a range in a grid, unless the range says otherwise
SHUFFLED = 1 << 20  # a grid up to so many points is shuffled whole

# Sensible ranges for any encoder pair; a --space file replaces the settings that it names.
DEFAULT: dict[str, Any] = {
    "fusion": [fusion.value for fusion in VOTING_FUSIONS],
    "lr": {"low": 3e-5, "high": 3e-3, "log": True},
    "weight_decay": {"low": 1e-3, "high": 1.0, "log": True},
    "dropout": {"low": 0.1, "high": 0.8},
    "hidden": [64, 128, 256, 512],
    "depth": [1, 2],
    "label_smoothing": {"low": 0.0, "high": 0.3},
    "class_weight_power": {"low": 0.0, "high": 1.0},
    "batch_size": [64, 128, 256],
    "views": [True, False],
    "standardize": [False, True],
    "rms": [True, False],
    "modality_dropout": {"low": 0.0, "high": 0.3},
}

# The same where the recipe tunes blocks of the text encoder; its trials take minutes each.
TUNED: dict[str, Any] = {
    "fusion": DEFAULT["fusion"],
    "lr": {"low": 5e-5, "high": 1e-3, "log": True},
    "tune_lr": {"low": 2e-5, "high": 4e-4, "log": True},
    "dropout": {"low": 0.1, "high": 0.8},
    "label_smoothing": {"low": 0.0, "high": 0.3},
    "class_weight_power": {"low": 0.0, "high": 1.0},
    "batch_size": [16, 32, 64],
}

Value = bool | int | float | str


class Range(Settings):
    """All numbers from low to high; only whole numbers if both ends are. points: their number in a grid."""

    low: int | float
    high: int | float
    log: bool = False
    points: int = POINTS

    def grid(self) -> list[Value]:
        """The points of this range in a grid."""
        if self.points == 1:
            return [self.low]
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        places = np.linspace(*ends, self.points)
        values = np.exp(places) if self.log else places
        if self.whole:
            return list(dict.fromkeys(int(v) for v in values.round()))
        return [float(v) for v in np.clip(values, self.low, self.high)]

    @property
    def whole(self) -> bool:
        """Whether it holds only whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        kind = int if self.whole else (int, float)
        return isinstance(value, kind) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Space:
    """What trials vary, by the setting's name, and what is fixed for all. recipe: gives all other settings."""

    varied: dict[str, Range | tuple[Value, ...]]
    fixed: dict[str, Value]
    recipe: str

    def settings(self, params: Mapping[str, Any]) -> FitSettings:
        """The settings of a trial. Raises UsageError if they do not fit together."""
        return fit_settings(self.recipe, **(self.fixed | dict(params)))

    def distributions(self) -> dict[str, Any]:
        """The space as Optuna's distributions."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for name, entry in self.varied.items():
            if not isinstance(entry, Range):
                found[name] = CategoricalDistribution(entry)
            else:
                kind: Any = IntDistribution if entry.whole else FloatDistribution
                found[name] = kind(entry.low, entry.high, log=entry.log)
        return found

    def tunes(self) -> set[str]:
        """What the trials and the recipe itself tune, as in text:2; an empty name: nothing."""
        own = fit_settings(self.recipe).tune
        entry = self.varied.get("tune", (self.fixed.get("tune", own),))
        return {own, *map(str, entry)} if isinstance(entry, tuple) else {own}

    def epochs(self) -> int:
        """The most epochs that a trial trains one head for."""
        entry = self.varied.get("epochs", (self.fixed.get("epochs", fit_settings(self.recipe).epochs),))
        return int(entry.high if isinstance(entry, Range) else max(map(int, entry)))

    def lacking(self) -> tuple[int, ...]:
        """The halves that posts may lack from which the heads of all trials learn."""
        entry = self.varied.get("modality_dropout", (self.fixed.get("modality_dropout", 0.0),))
        least = entry.low if isinstance(entry, Range) else min(map(float, entry))
        own = (lackable(self.settings({"fusion": one, "modality_dropout": least})) for one in self._fusions())
        return tuple(sorted(set.intersection(*map(set, own))))

    def starts(self) -> list[dict[str, Value]]:
        """The first trials: the recipe itself with each fusion, if it is in the space."""
        found = []
        for fusion in self._fusions():
            known = fit_settings(self.recipe, fusion=fusion).model_dump(mode="json")
            params = {name: known[name] for name in self.varied}
            if all(_holds(entry, params[name]) for name, entry in self.varied.items()):
                found.append(params)
        return found

    def _fusions(self) -> tuple[Value, ...]:
        fusions = self.varied.get("fusion", (self.fixed.get("fusion", FitSettings().fusion.value),))
        assert not isinstance(fusions, Range)
        return fusions

    def size(self) -> int:
        """How many points the grid has."""
        return math.prod(len(points) for points in self._axes().values())

    def grid(self, count: int, seed: int) -> list[dict[str, Value]]:
        """The first `count` points of the grid in an order shuffled by `seed`; a longer list begins with a shorter
        one."""
        axes = self._axes()
        return [self._point(axes, place) for place in itertools.islice(_shuffled(self.size(), seed), count)]

    def random(self, number: int, seed: int) -> dict[str, Value]:
        """The random trial with this number; it is the same in every process."""
        import optuna

        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=own))
        return dict(study.ask(self.distributions()).params)

    def _axes(self) -> dict[str, Sequence[Value]]:
        return {name: entry.grid() if isinstance(entry, Range) else entry for name, entry in self.varied.items()}

    def _point(self, axes: dict[str, Sequence[Value]], place: int) -> dict[str, Value]:
        point = {}
        for name, values in axes.items():
            place, at = divmod(place, len(values))
            point[name] = values[at]
        return point

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a TOML file would hold them."""
        shown = {
            name: entry.model_dump(exclude_defaults=True) if isinstance(entry, Range) else list(entry)
            for name, entry in self.varied.items()
        }
        return {**shown, **self.fixed}

    def to_toml(self) -> str:
        """The space as a file for --space."""
        lines = []
        for name, entry in self.to_json().items():
            if isinstance(entry, dict):
                parts = ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
                lines.append(f"{name} = {{ {parts} }}")
            else:
                lines.append(f"{name} = {json.dumps(entry)}")
        return "\n".join(lines) + "\n"


def make_space(
    recipe: str,
    *,
    file: Path | None = None,
    fusions: Sequence[str] | None = None,
    seed: int | None = None,
    modality_dropout: float | None = None,
) -> Space:
    """The default space, changed by a TOML file and by fusions from the command line. seed: of every trial's fit,
    unless the space varies it; modality_dropout: of every trial, unless the file names it. Raises UsageError that names
    the setting and the file."""
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    given = TUNED if fit_settings(recipe).tune else DEFAULT
    if modality_dropout is not None:
        given = given | {"modality_dropout": modality_dropout}
    given = given | (read_space(file) if file else {})
    if fusions:
        given["fusion"] = list(fusions)
    if seed is not None:
        given.setdefault("seed", seed)
    where = str(file) if file else "the search space"
    varied: dict[str, Range | tuple[Value, ...]] = {}
    fixed: dict[str, Value] = {}
    for name, entry in given.items():
        read = _entry(name, entry, where)
        if isinstance(read, tuple) and len(read) == 1:
            fixed[name] = read[0]
        else:
            varied[name] = read
    if not varied:
        raise UsageError(f"{where} leaves nothing to vary; set several values or a range for a setting")
    return Space(varied, fixed, recipe)


def read_space(file: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises UsageError if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--space {file} cannot be read: {reason}; `mmsent sweep --show-space` prints one") from error


def _entry(name: str, given: Any, where: str) -> Range | tuple[Value, ...]:
    if name not in FitSettings.model_fields:
        like = nearest(name, FitSettings.model_fields)
        raise UsageError(f"{where}: unknown setting {name!r}{like}; settings are {', '.join(FitSettings.model_fields)}")
    if not isinstance(given, dict):
        values = tuple(given) if isinstance(given, list) else (given,)
        read = tuple(_checked(name, value, where) for value in values)
        if not read or len(set(read)) < len(read):  # after conversion: 1 and 1.0 are the same rate
            raise UsageError(f"{where}: {name} = {given!r}: set one value, or several different ones")
        return read
    try:
        found = settings(Range, **given)
    except UsageError as error:
        raise UsageError(f"{where}: {name}: {error}; a range is {{ low = 0.1, high = 1.0, log = true }}") from error
    low, high = (_checked(name, end, where) for end in (found.low, found.high))  # after conversion: 1 becomes 1.0
    if isinstance(low, bool) or isinstance(high, bool):
        raise UsageError(f"{where}: {name} is on or off; use [true, false]")
    found = found.model_copy(update={"low": low, "high": high})
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high):
        raise UsageError(f"{where}: {name}: low must be below high; got {found.low:g} and {found.high:g}")
    if found.log and found.low <= 0:
        raise UsageError(f"{where}: {name}: a range with log needs low above 0; got {found.low:g}")
    if found.points < 1:
        raise UsageError(f"{where}: {name}: points must be at least 1; got {found.points}")
    return found


def _checked(name: str, value: Any, where: str) -> Value:
    """A value, converted and checked by the setting's type and bounds."""
    try:
        known = settings(FitSettings, **{name: value}).model_dump(mode="json")[name]
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    if not isinstance(known, (bool, int, float, str)):
        raise UsageError(f"{where}: {name} = {value!r} cannot be varied; it is not a single value")
    return known


def _holds(entry: Range | tuple[Value, ...], value: Any) -> bool:
    if isinstance(entry, Range):
        return entry.holds(value)
    return any(value == known and type(value) is type(known) for known in entry)


def _shuffled(total: int, seed: int) -> Iterator[int]:
    """The numbers below `total`, each once, in an order that depends on `seed`."""
    rng = np.random.default_rng([seed, total])
    if total <= SHUFFLED:
        yield from (int(i) for i in rng.permutation(total))
        return
    seen: set[int] = set()
    while True:  # there are so many numbers that repetitions are rare
        place = int(rng.integers(min(total, 2**63 - 1)))
        if place not in seen:
            seen.add(place)
            yield place
