"""Which trials of a sweep stop early: successive halving over the epochs, one fusion at a time.

A trial is looked at after a third of its first epoch and after epochs 1, 3, 9 and so on of its first fold, its rungs.
It goes on if it is among the best share of the trials of its fusion that have reached this rung, without waiting for
the others (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"). The share follows from what is
left of a budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from mmsent.sweep.trial import FOLD, THIRD

STEP = 3  # from rung to rung
REACHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def rungs(epochs: int, early: bool = True) -> list[int]:
    """The steps at which trials of so many epochs are looked at: 1, 3, 9 and so on; before them, where trials report
    early, 0, which is a third of the first epoch."""
    return [*([0] if early else []), *(STEP**k for k in range(epochs) if STEP**k < epochs)]


def share_for(wanted: float, epochs: int, folds: int = 1, early: bool = True) -> float:
    """The share that may go on at each rung so that trials train `wanted` epochs on average: epochs per fold in whole
    fits; a trial that passes every rung trains all of its folds. Within 0 and 1."""
    ends = [*(step or THIRD for step in rungs(epochs, early)), epochs]
    parts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    parts[-1] += (folds - 1) * epochs
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        enough = sum(part * middle**k for k, part in enumerate(parts)) < wanted
        low, high = (middle, high) if enough else (low, middle)
    return high


@dataclass
class SuccessiveHalving(optuna.pruners.BasePruner):
    """Stops a trial at a rung where it is not among the best of its fusion, itself counted. One that ended before a
    rung counts there with its last value. budget: whole fits whose epochs all `trials` may train together, about;
    epochs: per fold of a whole fit; early: whether trials report within their first epoch.

    Later trials are better than the first, so a fixed share would train about twice the budget. Optuna's
    SuccessiveHalvingPruner has one, and compares all fusions with each other."""

    budget: float
    trials: int
    epochs: int
    folds: int = 1
    early: bool = True

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop."""
        step = trial.last_step
        epochs = int(trial.params.get("epochs", self.epochs))  # where these vary, a trial's own
        if step is None or step not in rungs(min(epochs, FOLD), self.early):
            return False
        known = study.get_trials(deepcopy=False, states=REACHED)
        left = self.budget * self.folds * self.epochs - sum(map(_epochs_of, known))
        share = share_for(left / max(1, self.trials - len(known)), self.epochs, self.folds, self.early)
        fusion = trial.params.get("fusion")
        others = [one for one in known if one.params.get("fusion") == fusion and one.number != trial.number]
        values = [v for v in (_value_at(one, step) for one in others) if v is not None]
        better = sum(value > trial.intermediate_values[step] for value in values)
        return better >= math.ceil(share * (len(values) + 1))


def _epochs_of(trial: FrozenTrial) -> float:
    steps = trial.intermediate_values
    return len(steps.keys() - {0}) or (THIRD if steps else 0.0)


def _value_at(trial: FrozenTrial, step: int) -> float | None:
    """A trial's value at a rung; of one that ended before, its last; None where it did not get there, or not yet."""
    values = trial.intermediate_values
    if step in values or trial.state is not TrialState.COMPLETE:
        return values.get(step)
    known = [s for s in values if s < step]
    return values[max(known)] if known else None
