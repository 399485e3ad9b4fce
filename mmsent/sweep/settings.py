"""The settings of a sweep."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator, model_validator

from mmsent.config import OnCommandLine, Panel, Settings, setting

CHECKS, FOLD_CHECKS = 5, 1  # other splits, other sets of folds
_TRAIN, _RUN = OnCommandLine(panel=Panel.training), OnCommandLine(panel=Panel.running)


class SweepSettings(Settings):
    """How a sweep runs. Trials, sampler and seed decide which trials there are; folds and checks what they are scored
    on; the rest only where and how long."""

    trials: int = setting(200, "Trials in all; more later goes on from these.", _TRAIN, ge=1)
    sampler: Literal["tpe", "random", "grid"] = setting(
        "tpe", "tpe (learns from what it tried), random, or grid (each range in 3 points).", _TRAIN
    )
    seed: int = setting(0, "Seed of the sampler and of every trial's head.", _TRAIN, ge=0, lt=2**63)
    folds: int | None = setting(
        None,
        "Score by cross-validation with this many folds: slower, and far less luck.",
        OnCommandLine(shown="one validation split", panel=Panel.training),
        ge=2,
    )
    checks: int | None = setting(
        None,
        "Other splits (with --folds: other sets of folds) to repeat the best on.",
        OnCommandLine(shown=f"{CHECKS}; with --folds {FOLD_CHECKS}", panel=Panel.training),
        ge=0,
        le=100,
    )
    prune: bool = setting(
        True,
        "Stop trials that fall behind others of their fusion, after a third of an epoch and after epochs 1, 3, 9, ...",
        OnCommandLine("--prune/--no-prune", None, Panel.training),
    )
    budget: float | None = setting(
        None,
        "About how many whole fits all trials together may train; the fewer, the more trials are stopped early.",
        OnCommandLine(shown="0.07 per trial, at least 12", panel=Panel.training),
        gt=0,
    )
    timeout: float | None = setting(
        None, "Begin no trial after this many seconds.", OnCommandLine(shown="none", panel=Panel.running), gt=0
    )
    workers: int | None = setting(
        None,
        "Worker processes, one thread each.",
        OnCommandLine(shown="one per core", panel=Panel.running),
        ge=1,
    )
    engine: Literal["local", "stacked", "ray"] = setting(
        "local",
        "local (worker processes on CPUs, stacks of trials on a GPU), stacked (stacks anywhere), or ray.",
        _RUN,
    )
    address: str | None = setting(
        None, "Ray cluster, for --engine ray.", OnCommandLine(shown="one on this machine", panel=Panel.running)
    )
    name: str = setting("sweep", "Name of the sweep and of its folder in --runs.", _RUN)
    storage: str | None = setting(
        None,
        "Database of the study, such as postgresql://USER@HOST/NAME, for processes on several machines.",
        OnCommandLine(shown="SQLite in the sweep's folder", panel=Panel.running),
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .-]*", value):
            raise ValueError("a name has letters, digits, spaces, dots, dashes and underscores, and begins with no dot")
        return value

    @model_validator(mode="after")
    def _address_of_ray(self) -> SweepSettings:
        if self.address is not None and self.engine != "ray":
            raise ValueError("--address is of a Ray cluster; it goes with --engine ray")
        return self

    @model_validator(mode="after")
    def _budget_of_pruning(self) -> SweepSettings:
        if self.budget is not None and not self.prune:
            raise ValueError("--budget says how many trials --prune stops; leave one of --budget and --no-prune out")
        return self

    @property
    def repetitions(self) -> int:
        """How many times the best are repeated on other splits."""
        if self.checks is not None:
            return self.checks
        return CHECKS if self.folds is None else FOLD_CHECKS
