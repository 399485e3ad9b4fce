"""One trial: from the settings of a head and some parts to a score with its standard error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmsent.config import FitSettings
from mmsent.errors import UsageError
from mmsent.metrics import bootstrap_intervals, scores
from mmsent.sweep.shared_rows import PartsOf
from mmsent.training.train import evaluate_head, train_head

THIRD = 1 / 3  # of the first epoch, after which a trial reports as step 0
FOLD = 10_000  # steps between the first epochs of two folds, so that a step tells epoch and fold
ONE_SIGMA = 0.6827  # the level at which a normal interval reaches one standard error to each side

Report = Callable[[int, float], bool]


@dataclass(frozen=True)
class Job:
    """A trial to run: its key, its settings, and the numbers of its parts."""

    key: int
    settings: FitSettings
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a trial. values: weighted F1 of each part, empty if it was stopped early; se: the standard error of
    their mean (of a single part: by bootstrap over its rows); epochs: of all parts together, a third where it was
    stopped within the first; problem: of a trial that failed, why no head can have its settings."""

    values: tuple[float, ...]
    stopped: bool
    se: float
    accuracy: float
    f1_macro: float
    epochs: float
    best_epochs: tuple[int, ...]
    seconds: float
    problem: str = ""

    @property
    def value(self) -> float:
        """The mean weighted F1."""
        return sum(self.values) / len(self.values)

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for what a stopped trial lacks."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Outcome:
        """The outcome that `to_json` gave."""
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in read.items()}
        return Outcome(**known)


class Stopped(Exception):
    """The report asked a trial to stop."""


def run_trial(job: Job, sides: PartsOf, classes: int, report: Report) -> Outcome:
    """Train one head per part, one after the other.

    report: called after each epoch with the step (epoch, plus FOLD per earlier part) and the mean over the parts so far
    of the best weighted F1 on the rows that decide when to stop; unless blocks are tuned, also after a third of the
    first epoch, as step 0. If it returns true, the trial stops. A trial whose settings no head can have is one that
    failed.
    """
    started = time.monotonic()
    reached: list[float] = []  # on the rows that decide when to stop
    epochs: float = 0
    best_epochs: list[int] = []
    found: list[tuple[Any, Any]] = []
    try:
        for at, number in enumerate(job.parts):
            part, best = sides(number, job.settings.tune), -1.0

            def on_epoch(record: dict[str, Any], at: int = at) -> None:
                nonlocal epochs, best
                epochs += 1
                best = max(best, record["val_f1_weighted"])
                if report(at * FOLD + record["epoch"], (sum(reached) + best) / (at + 1)):
                    raise Stopped

            def on_third(value: float) -> None:
                nonlocal epochs
                if report(0, value):
                    epochs = THIRD
                    raise Stopped

            early = on_third if at == 0 and not job.settings.tune else None
            trained = train_head(part.train, part.val, job.settings, classes, on_epoch, traced=False, on_third=early)
            reached.append(best)
            best_epochs.append(trained.best_epoch)
            if part.out is None:
                truth, logits = part.val.labels, trained.val_logits
            else:
                truth, logits = part.out.labels, evaluate_head(trained.head, part.out)[0].cpu().numpy()
            found.append((truth.cpu().numpy(), logits.argmax(axis=1).astype(np.int64)))
    except Stopped:
        return stopped(epochs, time.monotonic() - started)
    except UsageError as error:
        return stopped(epochs, time.monotonic() - started, str(error))
    return outcome(found, classes, epochs, best_epochs, time.monotonic() - started)


def stopped(epochs: float, seconds: float, problem: str = "") -> Outcome:
    """The outcome of a trial that was stopped early, or that failed."""
    return Outcome((), True, math.nan, math.nan, math.nan, epochs, (), seconds, problem)


def outcome(
    found: Sequence[tuple[Any, Any]], classes: int, epochs: float, best_epochs: Sequence[int], seconds: float
) -> Outcome:
    """The outcome of a trial from the true and the predicted labels, (n,) each, of its parts."""
    each = [scores(truth, predicted, classes) for truth, predicted in found]
    values = tuple(one["f1_weighted"] for one in each)
    if len(values) > 1:
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    else:
        low, high = bootstrap_intervals(*found[0], classes, level=ONE_SIGMA)["f1_weighted"]
        error = (high - low) / 2
    accuracy, macro = (float(np.mean([one[name] for one in each])) for name in ("accuracy", "f1_macro"))
    return Outcome(values, False, error, accuracy, macro, epochs, tuple(best_epochs), seconds)
