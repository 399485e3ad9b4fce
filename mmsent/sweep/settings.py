"""The settings of a sweep."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from mmsent.config import Settings

CHECKS, FOLD_CHECKS = 5, 1  # other splits, other sets of folds


class SweepSettings(Settings):
    """How a sweep runs. Trials, sampler and seed decide which trials there are; folds and checks what they are scored
    on; the rest only where and how long."""

    trials: int = Field(default=200, ge=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**63)  # of the sampler, and of every trial's fit unless the space varies it
    folds: int | None = Field(default=None, ge=2)  # None: one validation split
    checks: int | None = Field(default=None, ge=0, le=100)  # other cuts to repeat the best on; None: by the folds
    prune: bool = True
    timeout: float | None = Field(default=None, gt=0)  # seconds after which no trial is begun
    workers: int | None = Field(default=None, ge=1)  # processes on a CPU; None: one a core
    engine: Literal["local", "stacked", "ray"] = "local"
    name: str = "sweep"
    storage: str | None = None  # a database's URL; None: SQLite in the sweep's folder

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .-]*", value):
            raise ValueError("a name has letters, digits, spaces, dots, dashes and underscores, and begins with no dot")
        return value

    @property
    def other_cuts(self) -> int:
        """How many other cuts the best are repeated on."""
        if self.checks is not None:
            return self.checks
        return CHECKS if self.folds is None else FOLD_CHECKS
