"""The ledger: which trials a sweep has, which are next, which stop early. An Optuna study in a database.

Every trial has a slot, 0 to trials - 1, and a slot counts once however often it is tried: where a process dies in the
middle of a trial, the trial becomes a failed one and its slot is queued again with the same settings. Should two
processes on different machines queue one slot at the same moment, the trial with the lower number stands and the
other fails. So a sweep ends with exactly as many trials as were asked for, whatever was killed and however many
processes took part.

That a trial's process is gone is seen at once where it ran on this machine (its process id and start time), else by its
heartbeat, which ceases.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from filelock import BaseFileLock
from optuna.trial import FrozenTrial, TrialState

from mmsent.config import FitSettings
from mmsent.errors import RunError, UsageError
from mmsent.sweep.database import BEAT, GRACE, claims_lock, is_gone, open_storage, owner, shown_url
from mmsent.sweep.space import Space
from mmsent.sweep.trial import FOLD, Outcome

STARTUP = 10  # finished trials before the sampler learns
KEPT = 1 / 3  # share of the finished trials that a trial must be among
PEERS = 5  # finished trials of the same fusion before the pruner prunes
WARM_UP = 1  # epochs before a trial may be stopped
LOST = 3  # times that the process of one slot may die before the sweep gives up
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
ALIVE = (*COUNTED, TrialState.RUNNING, TrialState.WAITING)
_ABOUT, _SLOT, _OWNER, _OUTCOME, _FIT = "mmsent", "slot", "owner", "outcome", "fit"
_PROCESS = "process "  # leads the name under which a process says that it takes part


@dataclass(frozen=True)
class Entry:
    """A trial that counts: its slot and number, what varied, all settings, and its outcome. score: None where it was
    stopped early; curve: the reported values by step."""

    slot: int
    number: int
    params: dict[str, Any]
    settings: FitSettings
    outcome: Outcome
    curve: dict[int, float]

    @property
    def score(self) -> float | None:
        """The mean weighted F1 of a finished trial."""
        return None if self.outcome.stopped else self.outcome.value


class AmongTheBest(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best KEPT of the finished trials of its fusion at the same step of the same
    fold; one that had already ended there counts with its last value. Optuna's PercentilePruner takes a trial's best
    value over all steps, which in cross-validation is that of the easiest fold, and leaves out trials that had
    ended."""

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


class Seeded(optuna.samplers.BaseSampler):
    """TPE with a seed a slot, so that processes that begin at the same moment do not draw the same trials."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = self._of(-1)

    def _of(self, slot: int) -> optuna.samplers.TPESampler:
        drawn = int(np.random.SeedSequence([self._seed, slot + 1]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=drawn)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin the numbers of a trial's slot."""
        slot = trial.user_attrs.get(_SLOT)
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


class Ledger:
    """The study of one sweep, as one process sees it. about: what makes its scores comparable; a study that was begun
    with something else is refused."""

    def __init__(
        self,
        url: str,
        name: str,
        about: Mapping[str, Any],
        space: Space,
        *,
        trials: int,
        sampler: str,
        seed: int,
        prune: bool,
        precision: str,
    ) -> None:
        """precision: what `auto` means for the trials that run here. Raises RunError where the database cannot be used,
        UsageError where the study is another one."""
        self._space, self._trials, self._sampler, self._seed = space, trials, sampler, seed
        self._precision = precision
        self._mine: dict[int, optuna.Trial] = {}
        self._lost: dict[int, int] = {}
        self._grid: list[dict[str, Any]] = []
        self._known: dict[int, Entry] = {}
        self._stop = threading.Event()
        self._shown = shown_url(url)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with self._usable():
            self._lock = claims_lock(url)
            with self._lock:
                self._storage = open_storage(url)
                self._study = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    direction="maximize",
                    pruner=AmongTheBest() if prune else optuna.pruners.NopPruner(),
                    load_if_exists=True,
                )
                self._agree(about)
            self._study.sampler = self._make_sampler()
            self._study.set_user_attr(_PROCESS + str(uuid.uuid4()), owner())
            self.reap()

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna's own on features it calls experimental
                yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise RunError(
                f"the study in {self._shown} cannot be used: {reason}; finished trials are kept there; once that is "
                "mended, run the same command again"
            ) from error

    def _agree(self, about: Mapping[str, Any]) -> None:
        known = self._study.user_attrs.get(_ABOUT)
        if known is None:
            self._study.set_user_attr(_ABOUT, dict(about))
            known = self._study.user_attrs[_ABOUT]
        if wrong := [key for key in about if known.get(key) != about[key]]:
            then, now = (_short(value.get(wrong[0])) for value in (known, about))
            raise UsageError(
                f"the sweep {self._study.study_name} in {self._shown} was begun with another {wrong[0]}: {then} there, "
                f"{now} here; give what it was begun with, or another --name"
            )

    def _make_sampler(self) -> Any:
        if self._sampler != "tpe":  # every trial's settings are decided when it is queued
            return optuna.samplers.RandomSampler(seed=self._seed)
        return Seeded(self._seed)

    # --- the queue

    def claim(self) -> tuple[int, FitSettings] | None:
        """The next trial's number and settings; None where every slot has its trial."""
        with self._usable(), self._lock:
            while self._waiting() or self._queue_next():
                trial = self._study.ask(self._space.distributions())
                slot = trial.user_attrs.get(_SLOT)
                if slot is None or self._holder(slot) != trial.number:  # another process was there first
                    self._study.tell(trial, state=TrialState.FAIL)
                    continue
                self._mine[trial.number] = trial  # before it has an owner: see `reap`
                trial.set_user_attr(_OWNER, owner())
                self._storage.record_heartbeat(trial._trial_id)
                settings = self._space.settings(trial.params)
                if settings.precision == "auto":  # the record says what it was trained in
                    settings = settings.model_copy(update={"precision": self._precision})
                trial.set_user_attr(_FIT, settings.model_dump(mode="json"))
                return trial.number, settings
        return None

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _holder(self, slot: int) -> int:
        """The number of the trial that stands for a slot."""
        alive = self._study.get_trials(deepcopy=False, states=ALIVE)
        return min(one.number for one in alive if one.user_attrs.get(_SLOT) == slot)

    def _queue_next(self) -> bool:
        """Queue the first slot that no trial stands for, with the settings of the trial that it lost, if it lost one.
        One at a time, for Optuna reads what waits from the database again and again. Whether there was one."""
        found = self._study.get_trials(deepcopy=False)
        alive = {one.user_attrs.get(_SLOT) for one in found if one.state in ALIVE}
        slot = next((slot for slot in range(self._trials) if slot not in alive), None)
        if slot is None:
            return False
        names = set(self._space.varied)
        lost = [one.params for one in found if one.user_attrs.get(_SLOT) == slot and set(one.params) == names]
        self._study.enqueue_trial(lost[-1] if lost else self._planned(slot), user_attrs={_SLOT: slot})
        return True

    def _planned(self, slot: int) -> dict[str, Any]:
        """What is decided beforehand: the points of a grid, random trials, and the recipe itself to begin with."""
        if self._sampler == "grid":
            if len(self._grid) < self._trials:
                self._grid = self._space.grid(self._trials, self._seed)
            return self._grid[slot]
        starts = self._space.starts()
        if slot < len(starts):
            return starts[slot]
        if self._sampler == "random":
            return self._space.random(slot, self._seed)
        # The sampler would soon try the best fusion alone; a vote needs the best of each, so they take turns.
        fusions = self._space.varied.get("fusion", ())
        return {"fusion": fusions[slot % len(fusions)]} if isinstance(fusions, tuple) and fusions else {}

    # --- what becomes of trials

    def report(self, number: int, step: int, value: float) -> bool:
        """Note a value; whether the trial should stop."""
        trial = self._mine.get(number)
        if trial is None:
            return True
        with self._usable():
            try:
                trial.report(value, step)
                return bool(trial.should_prune())
            except optuna.exceptions.UpdateFinishedTrialError:  # it was taken for lost, and runs elsewhere by now
                return True

    def finish(self, number: int, outcome: Outcome) -> bool:
        """Note a trial's outcome; whether it counts. It does not where it was taken for lost meanwhile."""
        trial = self._mine.pop(number, None)
        if trial is None:
            return False
        with self._usable():
            try:
                trial.set_user_attr(_OUTCOME, outcome.to_json())
                state = TrialState.PRUNED if outcome.stopped else TrialState.COMPLETE
                self._study.tell(trial, None if outcome.stopped else outcome.value, state=state)
            except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
                return False
        return True

    def give_up(self, number: int, why: str | None = None) -> None:
        """A trial will not be finished here. why: its process died; without, it was only put off.

        Raises RunError where the process died with the same settings too often.
        """
        trial = self._mine.pop(number, None)
        if trial is None:
            return
        slot = int(trial.user_attrs[_SLOT])
        with self._usable():
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            if why is None:
                return
        self._lost[slot] = self._lost.get(slot, 0) + 1
        if self._lost[slot] >= LOST:
            raise RunError(
                f"trial {number} ended {LOST} times without a result, last: {why}; its settings: {trial.params}"
            )

    def release(self) -> None:
        """Put off everything that runs here, a trial that was being taken when this process was stopped included."""
        for number in list(self._mine):
            self.give_up(number)
        self.reap()

    def reap(self) -> None:
        """Fail the running trials whose process is gone: their slots are free again."""
        with self._usable(), self._lock:
            taking_part = [v for k, v in self._study.user_attrs.items() if k.startswith(_PROCESS)]
            # A trial has no owner for a moment after it was taken. Where the lock holds, nobody is in that moment.
            nobody = isinstance(self._lock, BaseFileLock) or all(is_gone(one) for one in taking_part if one != owner())
            for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if one.number in self._mine:
                    continue
                known = one.user_attrs.get(_OWNER)
                if known is None:
                    began = one.datetime_start
                    gone = nobody or began is None or datetime.now() - began > timedelta(seconds=GRACE)
                else:
                    gone = is_gone(known)
                if gone:
                    self._study.tell(one.number, state=TrialState.FAIL, skip_if_finished=True)
            for trial in list(self._mine.values()):  # alive, even if this process was paused for long
                self._storage.record_heartbeat(trial._trial_id)
            optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the heartbeats of the trials that run here going; at the end put them off."""

        def beat() -> None:
            while not self._stop.wait(BEAT):
                for trial in list(self._mine.values()):
                    with contextlib.suppress(Exception):  # a database that is busy; the next beat comes
                        self._storage.record_heartbeat(trial._trial_id)

        self._stop.clear()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            with contextlib.suppress(RunError):
                self.release()

    # --- what there is

    def entries(self) -> list[Entry]:
        """The trials that count, by slot."""
        with self._usable():
            found = self._study.get_trials(deepcopy=False, states=COUNTED)
        first: dict[int, FrozenTrial] = {}
        for one in found:
            if isinstance(one.user_attrs.get(_SLOT), int) and _OUTCOME in one.user_attrs:
                first.setdefault(one.user_attrs[_SLOT], one)
        for one in first.values():  # what is finished stays as it is, and reading it takes a moment
            if one.number not in self._known:
                self._known[one.number] = _entry(one)
        return [self._known[first[slot].number] for slot in sorted(first)]

    @property
    def done(self) -> int:
        """How many of the asked-for slots have a trial that counts."""
        return sum(entry.slot < self._trials for entry in self.entries())

    @property
    def complete(self) -> bool:
        """Whether every slot has."""
        return self.done >= self._trials

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that run here."""
        return list(self._mine)

    def importances(self) -> dict[str, float]:
        """How much each varied setting matters for the score, by PED-ANOVA, summing to 1; empty where too few trials
        are finished to say."""
        with self._usable():
            finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if len({one.value for one in finished}) < STARTUP:
                return {}
            way = optuna.importance.PedAnovaImportanceEvaluator()  # the default of Optuna 5 alone
            found = optuna.importance.get_param_importances(self._study, evaluator=way)
        return {name: float(share) for name, share in found.items()}


def _entry(one: FrozenTrial) -> Entry:
    settings = FitSettings.model_validate(one.user_attrs[_FIT])
    outcome = Outcome.from_json(one.user_attrs[_OUTCOME])
    return Entry(one.user_attrs[_SLOT], one.number, dict(one.params), settings, outcome, dict(one.intermediate_values))


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
