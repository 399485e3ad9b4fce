"""The end of a sweep: the best trial of each fusion, its scores on other splits, and the runs that are saved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import FitSettings, Fusion, SplitSettings, fit_settings
from mmsent.errors import RunError
from mmsent.features.cache import Cache, Features
from mmsent.sweep.ledger import Entry
from mmsent.sweep.results import Sweep, open_sweep
from mmsent.sweep.shared_rows import SharedRows
from mmsent.sweep.space import Space
from mmsent.sweep.trial import Job
from mmsent.sweep.workers import Executor, compute, one_thread
from mmsent.training.fit import Training, fit
from mmsent.training.runs import WINNERS, open_run


@dataclass(frozen=True)
class Progress:
    """How far a sweep is. what: the stage; best: the best trial so far, None before the first."""

    what: str
    done: int
    total: int
    best: Entry | None


Watch = Callable[[Progress], None]


def conclude(
    entries: Sequence[Entry], shared: SharedRows, executor: Callable[[], Executor], space: Space, watch: Watch
) -> dict[str, Any]:
    """The best of each fusion, repeated on other splits together with the recipe itself. executor: only created if
    there are other splits."""
    best: dict[Fusion, Entry] = {}
    for entry in entries:
        if entry.score is not None:
            known = best.get(entry.settings.fusion)
            if known is None or entry.outcome.value > known.outcome.value:
                best[entry.settings.fusion] = entry
    winners = sorted(best.values(), key=lambda entry: (-entry.outcome.value, entry.slot))
    first = winners[0].settings
    # The recipe itself, with the winner's fusion and what all trials had in common.
    same: dict[str, Any] = {"fusion": first.fusion, "seed": first.seed, "precision": first.precision}
    if shared.missing is not None and shared.missing.any():  # it learns from the same rows
        same["modality_dropout"] = first.modality_dropout
    plain = fit_settings(space.recipe, **same)
    wanted = [entry.settings for entry in winners] + [plain]
    jobs = [
        Job(place * len(shared.checks) + turn, settings, parts)
        for place, settings in enumerate(wanted)
        for turn, parts in enumerate(shared.checks)
    ]
    done = 0

    def counted() -> None:
        nonlocal done
        done += 1
        watch(Progress("checking", done, len(jobs), winners[0]))

    found = compute(executor(), jobs, counted) if jobs else {}
    turns = len(shared.checks)
    values = [[v for turn in range(turns) for v in found[place * turns + turn].values] for place in range(len(wanted))]
    checks = [_mean(one) for one in values]
    # Without a value the recipe itself has settings that no head can have for these features.
    gain = _mean([a - b for a, b in zip(values[0], values[-1], strict=True)]) if values[-1] else None
    return {
        "winners": [
            {**record(entry), "fit": entry.settings.model_dump(mode="json"), "check": check}
            for entry, check in zip(winners, checks, strict=False)
        ],
        "baseline": {"fit": plain.model_dump(mode="json"), "check": checks[-1]},
        "gain": gain,
    }


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and standard error of at least two values; None for fewer."""
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": float(np.mean(values)), "se": error, "values": [float(v) for v in values]}


def record(entry: Entry) -> dict[str, Any]:
    """A trial as stored in sweep.json."""
    outcome = entry.outcome
    return {
        "slot": entry.slot,
        "number": entry.number,
        "params": entry.params,
        "stopped": outcome.stopped,
        "score": entry.score,
        **{
            k: v
            for k, v in outcome.to_json().items()
            if k in {"se", "accuracy", "f1_macro", "epochs", "seconds", "problem"}
        },
    }


def save_winners(
    cache: Cache,
    features: Features,
    folder: Path,
    winners: Sequence[dict[str, Any]],
    split: SplitSettings,
    how: Training,
    earlier: Sweep | None,
) -> list[str]:
    """Fit each winner on the sweep's split and save it as a run in the sweep's own folder, unless an earlier end of the
    sweep saved it already. Returns the runs' names in the order of the winners."""
    kept = {FitSettings.model_validate(one["fit"]): one["run"] for one in (earlier.winners if earlier else ())}
    names: dict[int, str] = {}
    for place in reversed(range(len(winners))):
        settings = FitSettings.model_validate(winners[place]["fit"])
        known = kept.get(settings)
        if known is not None and earlier is not None and earlier.run_path(known).is_dir():
            names[place] = known
            continue
        # One thread, as for trials: on a CPU the run is then identical to the trial.
        with one_thread() if how.device == "cpu" else contextlib.nullcontext():
            own = replace(how, sweep={"name": folder.name, "trial": winners[place]["number"]})
            (run,) = fit(cache, folder / WINNERS, [settings], split, own, features=features)
        names[place] = run.name
    return [names[place] for place in range(len(winners))]


def earlier_end(folder: Path) -> Sweep | None:
    """The result that an earlier end of the sweep wrote, if it can be read."""
    with contextlib.suppress(RunError):
        return open_sweep(folder)
    return None


def up_to_date(earlier: Sweep, entries: Sequence[Entry], checks: int) -> bool:
    """Whether an earlier result covers exactly these trials, and its runs are still there."""
    same = [one["number"] for one in earlier.trials] == [entry.number for entry in entries]
    if not same or earlier.info["checks"] != checks:
        return False
    try:
        for one in earlier.winners:
            open_run(earlier.run_path(one["run"]))
    except RunError:
        return False
    return True
