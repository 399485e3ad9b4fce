"""Which settings the trials of a sweep try."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from mmsent.sweep.space import Space

STARTUP = 10  # finished trials before TPE learns from them
SLOT = "slot"  # the user attribute with a trial's slot


@dataclass(frozen=True)
class Sampling:
    """The trials of a sweep: their search space, their number, and the sampler (tpe, random or grid) with its seed."""

    space: Space
    trials: int
    sampler: str
    seed: int

    def optuna_sampler(self) -> optuna.samplers.BaseSampler:
        """The sampler of the study. Only TPE chooses settings when a trial starts; else they are planned."""
        return Seeded(self.seed) if self.sampler == "tpe" else optuna.samplers.RandomSampler(seed=self.seed)

    def planned(self, slot: int) -> dict[str, Any]:
        """The settings of a slot that are decided in advance: a grid's point, a random trial's settings, and in the
        first slots the recipe itself with each fusion."""
        if self.sampler == "grid":
            return self._grid[slot]
        starts = self.space.starts()
        if slot < len(starts):
            return starts[slot]
        if self.sampler == "random":
            return self.space.random(slot, self.seed)
        # TPE would soon try only the best fusion; a vote needs the best of each, so fusions take turns.
        fusions = self.space.varied.get("fusion", ())
        return {"fusion": fusions[slot % len(fusions)]} if isinstance(fusions, tuple) and fusions else {}

    @functools.cached_property
    def _grid(self) -> list[dict[str, Any]]:
        return self.space.grid(self.trials, self.seed)


class Seeded(optuna.samplers.BaseSampler):
    """TPE with one seed per slot, so that processes that start at the same moment do not sample the same trials."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = self._of(-1)

    def _of(self, slot: int) -> optuna.samplers.TPESampler:
        own = int(np.random.SeedSequence([self._seed, slot + 1]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=own)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the random numbers for the trial's slot."""
        slot = trial.user_attrs.get(SLOT)
        self._tpe = self._of(slot if isinstance(slot, int) else -1)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """As TPE does."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """As TPE does."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """As TPE does."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)
