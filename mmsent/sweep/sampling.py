"""Which settings the trials of a sweep try."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mmsent.sweep.space import Space

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 10  # finished trials before TPE learns from them


@dataclass(frozen=True)
class Sampling:
    """The trials of a sweep: their search space, their number, and the sampler (tpe, random or grid) with its seed."""

    space: Space
    trials: int
    sampler: str
    seed: int

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


class Sampler:
    """Chooses the settings of slots. TPE learns from a study in memory, into which finished trials are copied once.
    Each slot has its own seed, so that processes that start at the same moment do not sample the same trials."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling, self._copied = sampling, set[int]()
        self._study = optuna.create_study(direction="maximize")

    def choose(self, slot: int, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """The settings of a slot. trials: those of the sweep so far."""
        planned = self._sampling.planned(slot)
        if self._sampling.sampler != "tpe":
            return planned
        for one in trials:
            if one.state in COUNTED and one.number not in self._copied:
                self._study.add_trial(one)
                self._copied.add(one.number)
        own = int(np.random.SeedSequence([self._sampling.seed, slot + 1]).generate_state(1)[0])
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=own)
        self._study.enqueue_trial(planned)
        trial = self._study.ask(self._sampling.space.distributions())
        self._study.tell(trial, state=TrialState.FAIL)  # it runs elsewhere
        return trial.params
