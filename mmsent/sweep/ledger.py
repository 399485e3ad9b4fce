"""The ledger of a sweep: its trials, which one is next, and how each ended. It is an Optuna study in a database.

Every trial has a slot, 0 to trials - 1, and a slot counts once however often it is tried: if a process dies in the
middle of a trial, the trial fails and its slot is tried again with the same settings. If two processes on different
machines begin one slot at the same moment, the trial with the lower number counts and the other one fails. So a sweep
ends with exactly the number of trials that was asked for, whatever was killed and however many processes took part.

A dead process is noticed at once if it ran on this machine (by its process id and start time), else when its heartbeat
stops.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from filelock import BaseFileLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from mmsent.config import FitSettings
from mmsent.errors import RunError, UsageError, first_line
from mmsent.sweep.database import BEAT, claims_lock, is_gone, open_storage, owner, shown_url
from mmsent.sweep.pruning import SuccessiveHalving
from mmsent.sweep.sampling import COUNTED, STARTUP, Sampler, Sampling
from mmsent.sweep.trial import Outcome

LOST = 3  # how often the process of one slot may die before the sweep gives up
ALIVE = (*COUNTED, TrialState.RUNNING)
_ABOUT, _SLOT, _OWNER, _OUTCOME, _FIT = "mmsent", "slot", "owner", "outcome", "fit"


@dataclass(frozen=True)
class Entry:
    """A trial that counts: its slot and number, the varied settings, all settings, and its outcome."""

    slot: int
    number: int
    params: dict[str, Any]
    settings: FitSettings
    outcome: Outcome

    @property
    def score(self) -> float | None:
        """The mean weighted F1 of a finished trial; None if it was stopped early."""
        return None if self.outcome.stopped else self.outcome.value


class Ledger:
    """The study of one sweep, as one process sees it.

    about: what makes scores comparable; a study that was begun with something else is refused. pruner: stops bad
    trials early; None: nothing does. precision: what `auto` means for the trials that run here. Raises RunError if the
    database cannot be used, UsageError if the study was begun with something else.
    """

    def __init__(
        self,
        url: str,
        name: str,
        about: Mapping[str, Any],
        sampling: Sampling,
        *,
        pruner: SuccessiveHalving | None,
        precision: str,
    ) -> None:
        self._sampling, self._precision = sampling, precision
        self._me = {**owner(), "ledger": str(uuid.uuid4())}
        self._mine: dict[int, FrozenTrial] = {}
        self._lost: dict[int, int] = {}
        self._known: dict[int, Entry] = {}
        self._stop = threading.Event()
        self._shown = shown_url(url)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler = Sampler(sampling)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with self._usable():
            self._lock = claims_lock(url)
            with self._lock:
                self._storage: Any = optuna.storages.get_storage(open_storage(url))
                self._study = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    direction="maximize",
                    pruner=pruner or optuna.pruners.NopPruner(),
                    load_if_exists=True,
                )
                self._agree(about)
            self._id = self._storage.get_study_id_from_name(name)
            self.reap()

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna's own on features it calls experimental
                yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError) as error:
            below = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else None
            reason = first_line(getattr(below or error, "orig", None) or below or error)  # Optuna guesses at the cause
            raise RunError(
                f"the study in {self._shown} cannot be used: {reason}; finished trials are kept; fix the problem "
                "and run the same command again"
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
                f"{now} here; use the same {wrong[0]}, or another --name"
            )

    # --- the queue

    def claim(self) -> tuple[int, FitSettings] | None:
        """The next trial's number and settings; None if every slot has a trial."""
        with self._usable(), self._lock:
            while True:
                found = self._study.get_trials(deepcopy=False)
                alive = {one.user_attrs.get(_SLOT) for one in found if one.state in ALIVE}
                slot = next((slot for slot in range(self._sampling.trials) if slot not in alive), None)
                if slot is None:
                    return None
                number, settings = self._begin(slot, found)
                if isinstance(self._lock, BaseFileLock) or self._holder(slot) == number:
                    return number, settings
                self.give_up(number)  # another machine was faster

    def _begin(self, slot: int, found: Sequence[FrozenTrial]) -> tuple[int, FitSettings]:
        """A running trial for a slot, with the settings of the trial that it lost, if any. All that is known of it is
        written in one transaction; with Optuna's `ask`, each setting would be one."""
        space = self._sampling.space
        lost = [one.params for one in found if one.user_attrs.get(_SLOT) == slot]
        params = lost[-1] if lost and set(lost[-1]) == set(space.varied) else self._sampler.choose(slot, found)
        settings = space.settings(params)
        if settings.precision == "auto":  # the record says what it was trained in
            settings = settings.model_copy(update={"precision": self._precision})
        about = {_SLOT: slot, _OWNER: self._me, _FIT: settings.model_dump(mode="json")}
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=space.distributions(), user_attrs=about
        )
        trial._trial_id = self._storage.create_new_trial(self._id, template_trial=trial)
        trial.number = self._storage.get_trial_number_from_id(trial._trial_id)
        self._mine[trial.number] = trial
        self._storage.record_heartbeat(trial._trial_id)
        return trial.number, settings

    def _holder(self, slot: int) -> int:
        """The number of the trial that counts for a slot."""
        alive = self._study.get_trials(deepcopy=False, states=ALIVE)
        return min(one.number for one in alive if one.user_attrs.get(_SLOT) == slot)

    # --- how trials end

    def report(self, number: int, step: int, value: float) -> bool:
        """Record a value. Returns whether the trial should stop."""
        trial = self._mine.get(number)
        if trial is None:
            return True
        with self._usable():
            try:
                self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
                trial.intermediate_values[step] = value
                return self._study.pruner.prune(self._study, trial)
            except optuna.exceptions.UpdateFinishedTrialError:  # it counted as lost and runs elsewhere by now
                return True

    def finish(self, number: int, outcome: Outcome) -> bool:
        """Record a trial's outcome. Returns whether it counts; it does not if the trial was considered lost
        meanwhile."""
        trial = self._mine.pop(number, None)
        if trial is None:
            return False
        with self._usable():
            try:
                self._storage.set_trial_user_attr(trial._trial_id, _OUTCOME, outcome.to_json())
                state, reached = TrialState.PRUNED if outcome.stopped else TrialState.COMPLETE, trial.last_step
                last = None if reached is None else trial.intermediate_values[reached]
                value = last if outcome.stopped else outcome.value
                # What Optuna's `tell` writes, which reads the trial again before.
                self._storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])
            except optuna.exceptions.UpdateFinishedTrialError:
                return False
        return True

    def give_up(self, number: int, why: str | None = None) -> None:
        """Give up a trial that runs here. why: how its process died; None: the trial is only postponed.

        Raises RunError if processes died too often with the same settings.
        """
        trial = self._mine.pop(number, None)
        if trial is None:
            return
        slot = int(trial.user_attrs[_SLOT])
        with self._usable():
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            if why is None:
                return
        self._lost[slot] = self._lost.get(slot, 0) + 1
        if self._lost[slot] >= LOST:
            raise RunError(
                f"trial {number} ended {LOST} times without a result, last: {why}; its settings: {trial.params}"
            )

    def release(self) -> None:
        """Postpone all trials that run here, including one that was being claimed when this process was stopped."""
        for number in list(self._mine):
            self.give_up(number)
        self.reap()

    def reap(self) -> None:
        """Fail the running trials whose process is gone, which frees their slots."""
        with self._usable(), self._lock:
            for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                known = one.user_attrs.get(_OWNER)
                if one.number not in self._mine and (known == self._me or known is None or is_gone(known)):
                    self._study.tell(one.number, state=TrialState.FAIL, skip_if_finished=True)
            for trial in list(self._mine.values()):  # alive, even if this process was paused for long
                self._storage.record_heartbeat(trial._trial_id)
            optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Send heartbeats for the trials that run here; at the end postpone them."""

        def beat() -> None:
            while not self._stop.wait(BEAT):
                for trial in list(self._mine.values()):
                    with contextlib.suppress(Exception):  # the database is busy; the next heartbeat will do
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

    # --- reading

    def entries(self) -> list[Entry]:
        """The trials that count, by slot."""
        with self._usable():
            found = self._study.get_trials(deepcopy=False, states=COUNTED)
        first: dict[int, FrozenTrial] = {}
        for one in found:
            if isinstance(one.user_attrs.get(_SLOT), int) and _OUTCOME in one.user_attrs:
                first.setdefault(one.user_attrs[_SLOT], one)
        for one in first.values():  # finished trials do not change, and parsing them takes time
            if one.number not in self._known:
                self._known[one.number] = _entry(one)
        return [self._known[first[slot].number] for slot in sorted(first)]

    @property
    def done(self) -> int:
        """How many slots have a trial that counts."""
        return sum(entry.slot < self._sampling.trials for entry in self.entries())

    @property
    def complete(self) -> bool:
        """Whether every slot has a trial that counts."""
        return self.done >= self._sampling.trials

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that run here."""
        return list(self._mine)

    def importances(self) -> dict[str, float]:
        """How much each varied setting matters for the score, by PED-ANOVA over all trials that have reported, summing
        to 1; empty if these are too few. Trials that were stopped rank below the finished ones, by how far they came
        and then by what they had reached: so the sampler sees them too."""
        with self._usable():
            known = self._study.get_trials(deepcopy=False, states=COUNTED)
        ranks = sorted((_rank(one), one.number) for one in known if one.value is not None)
        if len({rank for rank, _ in ranks}) < STARTUP:
            return {}
        by_number = {one.number: one for one in known}
        ranked = optuna.create_study(direction="maximize")
        for place, (_, number) in enumerate(ranks):
            one = by_number[number]
            ranked.add_trial(create_trial(params=one.params, distributions=one.distributions, value=float(place)))
        way = optuna.importance.PedAnovaImportanceEvaluator()  # the default only since Optuna 5
        found = optuna.importance.get_param_importances(ranked, evaluator=way)
        return {name: float(share) for name, share in found.items()}


def _rank(one: FrozenTrial) -> tuple[float, float]:
    """How good a trial that has a value is: the epochs it came through, without end where it is finished, and this
    value, which is the last that a stopped one reported."""
    assert one.value is not None
    return math.inf if one.state is TrialState.COMPLETE else max(one.intermediate_values), one.value


def _entry(one: FrozenTrial) -> Entry:
    settings = FitSettings.model_validate(one.user_attrs[_FIT])
    outcome = Outcome.from_json(one.user_attrs[_OUTCOME])
    return Entry(one.user_attrs[_SLOT], one.number, dict(one.params), settings, outcome)


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
