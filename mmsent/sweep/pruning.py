"""Which trials of a sweep stop early."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mmsent.sweep.trial import FOLD

KEPT = 1 / 3  # share of the finished trials that a trial must be among
PEERS = 5  # finished trials of the same fusion before any is stopped
WARM_UP = 1  # epochs before a trial may be stopped


class AmongTheBest(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best KEPT of the finished trials of its fusion at the same step of the same
    fold. A finished trial with fewer steps counts with its last value.

    Optuna's PercentilePruner would compare with a trial's best value over all steps, which in cross-validation is the
    value of the easiest fold, and would leave out trials with fewer steps."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop."""
        step = trial.last_step
        if step is None or step % FOLD <= WARM_UP:
            return False
        fusion = trial.params.get("fusion")
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        peers = [one for one in finished if one.params.get("fusion") == fusion]
        others = [v for v in (_value_at(one.intermediate_values, step) for one in peers) if v is not None]
        return len(others) >= PEERS and trial.intermediate_values[step] < float(np.quantile(others, 1 - KEPT))


def _value_at(values: Mapping[int, float], step: int) -> float | None:
    known = [s for s in values if s <= step and s // FOLD == step // FOLD]
    return values[max(known)] if known else None
