"""Sweeps: exactly as many trials as were asked for, the same whoever computes them, and winners that are runs."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from mmsent.cli.main import main
from mmsent.config import FitSettings, Fusion, SplitSettings, fit_settings, settings
from mmsent.errors import DataError, RunError, UsageError
from mmsent.evaluation.cross_validation import cross_validate
from mmsent.features.cache import Cache
from mmsent.inference.vote import vote_split
from mmsent.report import figure_set, landscape, sweeps
from mmsent.report.figures.sweeps import sweep_figures
from mmsent.report.study import open_study
from mmsent.report.write import write_report
from mmsent.sweep import database, pruning, search
from mmsent.sweep import finish as ending
from mmsent.sweep.ledger import Ledger
from mmsent.sweep.promote import promote
from mmsent.sweep.pruning import SuccessiveHalving, rungs, share_for
from mmsent.sweep.results import Sweep, list_sweeps, open_sweep
from mmsent.sweep.sampling import Sampling
from mmsent.sweep.search import sweep
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.shared_rows import cut_rows, map_shared, parts_on, write_shared
from mmsent.sweep.space import DEFAULT, TUNED, Space, make_space
from mmsent.sweep.trial import FOLD, Job, Outcome, run_trial
from mmsent.sweep.workers import Stacked, compute
from mmsent.system import provenance
from mmsent.training.fit import Training
from mmsent.training.fit import fit as fit_runs
from mmsent.training.folds import plan_folds
from mmsent.training.runs import WINNERS, Run, list_runs, open_run
from tests.helpers.sweeping import SPACE, SPLIT, make_cache, options, small_space
from tests.helpers.tuning import FreshTinyBlocks, store_states

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def space(runs: Path) -> Space:
    return small_space(runs)


@pytest.fixture(scope="module")
def done(cache: Cache, runs: Path, space: Space) -> Sweep:
    """A sweep that was stopped by its time limit, then gone on with."""
    first: list[Any] = []
    hurried = options(timeout=1e-9)
    with pytest.raises(DataError, match="no trial is finished"):
        sweep(cache, runs, space, SPLIT, hurried, watch=first.append)
    return sweep(cache, runs, space, SPLIT, options())


# --- the space


def test_the_default_space_holds_every_recipe_start() -> None:
    for recipe in ("paper", "offline"):
        found = make_space(recipe)
        assert set(found.varied) == set(DEFAULT)
        assert [start["fusion"] for start in found.starts()] == ["concat", "weighted", "attention"]
        for start in found.starts():
            assert found.settings(start).model_dump(exclude={"fusion"}) == make_space(recipe).settings({}).model_dump(
                exclude={"fusion"}
            )


def test_a_file_and_the_command_line_change_the_space(tmp_path: Path) -> None:
    found = small_space(tmp_path, fusions=["image"])
    assert set(found.varied) == {"lr", "hidden", "dropout", "standardize"}
    assert found.fixed["fusion"] == "image"
    assert found.settings({"lr": 0.5}).lr == 0.5
    again = tmp_path / "again.toml"
    again.write_text(found.to_toml(), encoding="utf-8")
    assert make_space("paper", file=again).to_json() == found.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr = 1.0", "unknown setting 'lrr'"),
        ("lr = {low = 1e-3}", "a range is"),
        ("lr = {low = 1, high = 0.1}", "low must be below high"),
        ("lr = {low = 0.0, high = 0.1, log = true}", "lr"),
        ("dropout = {low = 0.0, high = 0.5, log = true}", "low above 0"),
        ("dropout = [0.5, 2.0]", "dropout"),
        ("hidden = [8, 8]", "different"),
        ("dropout = [0, 0.0]", "different"),
        ("hidden = []", "set one value"),
        ("views = {low = 0, high = 1}", "on or off"),
        ("fusion = ['conct']", "fusion"),
        ("lr = {low = 0.1, high = 0.2, points = 0}", "points"),
        ("lr = ", "cannot be read"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        make_space("paper", file=file)


def test_a_space_needs_something_to_vary(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("\n".join(f"{name} = {value}" for name, value in (("fusion", "'text'"), ("lr", "1e-3"))))
    fixed = {name: entry[0] if isinstance(entry, list) else entry["high"] for name, entry in DEFAULT.items()}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fixed.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match="nothing to vary"):
        make_space("paper", file=file)
    with pytest.raises(UsageError, match="cannot be read"):
        make_space("paper", file=tmp_path / "absent.toml")


def test_grids_and_random_trials_are_decided_beforehand(space: Space) -> None:
    assert space.size() == 2 * 3 * 2 * 3 * 2
    every = space.grid(space.size() + 5, 0)
    assert len({json.dumps(point, sort_keys=True) for point in every}) == len(every) == space.size()
    assert sorted({point["lr"] for point in every}) == pytest.approx([1e-3, 1e-2, 1e-1])
    assert space.grid(10, 0) == every[:10] != space.grid(10, 1)
    assert space.random(3, 0) == space.random(3, 0) != space.random(4, 0)
    whole = Space({**space.varied, **make_space("paper").varied}, {}, "paper")
    assert len({json.dumps(p) for p in whole.grid(50, 0)}) == 50
    lows = [space.random(i, 0)["lr"] for i in range(60)]
    assert 0.2 < np.mean(np.array(lows) < 1e-2) < 0.8  # even in the logarithm


# --- the ledger


def make_ledger(folder: Path, space: Space, **more: Any) -> Ledger:
    folder.mkdir(exist_ok=True)
    about = {"space": space.to_json(), **more.pop("about", {})}
    sampling = Sampling(space, **{"trials": 6, "sampler": "random", "seed": 0, **more})
    return Ledger(
        database.file_url(folder / "study.db"),
        "s",
        about,
        sampling,
        pruner=SuccessiveHalving(2, 6, 4),
        precision="fp32",
    )


def outcome(value: float) -> Outcome:
    return Outcome((value,), False, 0.01, value, value, 4, (3,), 0.1)


def states(folder: Path) -> dict[int, list[str]]:
    """The states of all trials, by slot."""
    study = optuna.load_study(study_name="s", storage=database.file_url(folder / "study.db"))
    found: dict[int, list[str]] = {}
    for one in study.get_trials(deepcopy=False):
        found.setdefault(one.user_attrs.get("slot", -1), []).append(one.state.name)
    return found


def test_a_trial_whose_process_died_is_tried_again_and_counts_once(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {**database.owner(), "process": 2**22 + 1, "started": "1"}  # beyond the largest process id
    with monkeypatch.context() as patch:
        patch.setattr("mmsent.sweep.ledger.owner", lambda: dead)
        first = make_ledger(tmp_path, space)
        lost, finished = first.claim(), first.claim()
        assert lost is not None
        assert finished is not None
        first.finish(finished[0], outcome(0.5))
    second = make_ledger(tmp_path, space)
    assert states(tmp_path)[0] == ["FAIL"]
    assert not first.finish(lost[0], outcome(0.9))  # it was not dead after all: too late
    seen = []
    while claim := second.claim():
        seen.append(claim)
        assert second.finish(claim[0], outcome(0.6))
    assert second.complete
    assert second.done == len(second.entries()) == 6
    assert any(settings == lost[1] for _, settings in seen)  # with the settings that it had
    counted = [sum(s in {"COMPLETE", "PRUNED"} for s in of) for of in states(tmp_path).values()]
    assert counted == [1] * 6
    third = make_ledger(tmp_path, space, trials=8)
    assert third.done == 6
    assert third.claim() is not None
    assert [entry.settings for entry in second.entries()] == [entry.settings for entry in third.entries()]


def test_a_slot_that_two_machines_begin_at_once_is_tried_once(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make_ledger(tmp_path, space) for _ in range(2))
    for ledger in (one, other):
        monkeypatch.setattr(ledger, "_lock", contextlib.nullcontext())  # as on a database server
    numbers, real = [], one._sampler.choose

    def beaten(slot: int, trials: Any) -> dict[str, Any]:
        monkeypatch.setattr(one._sampler, "choose", real)
        claim = other.claim()
        assert claim is not None
        numbers.append(claim[0])
        other.finish(claim[0], outcome(0.5))
        return real(slot, trials)

    monkeypatch.setattr(one._sampler, "choose", beaten)
    while claim := one.claim():
        numbers.append(claim[0])
        one.finish(claim[0], outcome(0.5))
    assert len(set(numbers)) == len(numbers) == 6
    assert states(tmp_path)[0] == ["COMPLETE", "FAIL"]


def test_a_trial_that_was_begun_when_the_process_was_stopped_is_freed(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path, space)
    with monkeypatch.context() as patch:
        patch.setattr(ledger._storage, "get_trial_number_from_id", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.claim()
    assert states(tmp_path) == {0: ["RUNNING"]}
    make_ledger(tmp_path, space)  # another one in the same process
    assert states(tmp_path) == {0: ["RUNNING"]}
    ledger.release()
    assert states(tmp_path) == {0: ["FAIL"]}


def test_processes_that_begin_at_once_draw_different_trials(tmp_path: Path, space: Space) -> None:
    both = [make_ledger(tmp_path / "both", space, sampler="tpe") for _ in range(2)]
    alone = make_ledger(tmp_path / "alone", space, sampler="tpe")
    claims = [ledger.claim() for _ in range(3) for ledger in both]
    rates = [claim[1].lr for claim in claims if claim]
    assert len(set(rates)) == 6
    assert rates == [claim[1].lr for claim in (alone.claim() for _ in range(6)) if claim]


def test_a_trial_of_another_machine_is_lost_when_its_heart_stops(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"host": "elsewhere", "process": 1, "started": "1"}
    with monkeypatch.context() as patch:
        patch.setattr("mmsent.sweep.ledger.owner", lambda: elsewhere)
        away = make_ledger(tmp_path, space)
        assert away.claim() is not None
    make_ledger(tmp_path, space)
    assert states(tmp_path)[0] == ["RUNNING"]
    monkeypatch.setattr("mmsent.sweep.database.GRACE", 0.5)
    time.sleep(2.1)  # the database counts whole seconds
    own = make_ledger(tmp_path, space)
    assert states(tmp_path)[0] == ["FAIL"]
    assert own.claim() is not None
    own.reap()  # its own heart beats
    assert sum(of[-1] == "RUNNING" for of in states(tmp_path).values()) == 1


def test_a_process_in_another_container_is_not_taken_for_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is another process's here, or nobody's, although both have the name of the machine."""
    with monkeypatch.context() as patch:
        patch.setattr("os.readlink", lambda _: "pid:[4026532999]")
        there = {**database.owner(), "process": 2**22 + 1}
        assert database.is_gone(there)
    assert not database.is_gone(there)
    assert database.is_gone({**database.owner(), "process": 2**22 + 1})


def test_a_slot_whose_process_keeps_dying_is_given_up(tmp_path: Path, space: Space) -> None:
    ledger = make_ledger(tmp_path, space, trials=1)
    for _ in range(2):
        claim = ledger.claim()
        assert claim is not None
        ledger.give_up(claim[0], "killed")
    claim = ledger.claim()
    assert claim is not None
    with pytest.raises(RunError, match="3 times without a result"):
        ledger.give_up(claim[0], "killed")


def test_another_study_is_refused_and_so_is_no_database(tmp_path: Path, space: Space) -> None:
    make_ledger(tmp_path, space, about={"seed": 0})
    with pytest.raises(UsageError, match="another seed: 0 there, 1 here"):
        make_ledger(tmp_path, space, about={"seed": 1})
    with pytest.raises(UsageError, match="not a database URL"):
        database.shown_url("nonsense")
    assert "secret" not in database.shown_url("postgresql://me:secret@host/name?password=secret&x=1")
    for wrong in ("postgresql//me:secret@host/name", "postgresql://me:secret@host:port/name"):
        with pytest.raises(UsageError, match="not a database URL") as refused:
            database.shown_url(wrong)
        assert "secret" not in str(refused.value)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.db").write_bytes(b"not a database at all, whatever its name" * 50)
    with pytest.raises(RunError, match="cannot be used"):
        make_ledger(tmp_path / "bad", space)


def test_importances_are_by_the_method_that_is_named(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's default was another before its version 5."""
    ledger, used = make_ledger(tmp_path, space, trials=12), []
    while claim := ledger.claim():
        ledger.finish(claim[0], outcome(0.5 + claim[0] / 100))
    real = optuna.importance.get_param_importances
    monkeypatch.setattr(
        optuna.importance, "get_param_importances", lambda *given, **more: used.append(more) or real(*given, **more)
    )
    assert sum(ledger.importances().values()) == pytest.approx(1)
    assert isinstance(used[0]["evaluator"], optuna.importance.PedAnovaImportanceEvaluator)


def test_importances_count_stopped_trials_by_how_far_they_came(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only lr decides who goes on, though the others reach more on the way. The best is one that is finished."""
    ledger, ranked = make_ledger(tmp_path, space, trials=40), list[float]()
    assert ledger.importances() == {}
    while claim := ledger.claim():
        number, settings = claim
        good, whole = settings.lr > 0.03, number == 7
        ledger.report(number, 0, (0.3 if good else 0.6) + number / 1000)
        if good or whole:
            ledger.report(number, 1, 0.4 + number / 1000)
        stopped = Outcome((), True, math.nan, math.nan, math.nan, 1, (), 1.0)
        ledger.finish(number, outcome(0.1) if whole else stopped)
        ranked.append(1000 * whole + 100 * good + number)
    evaluate, seen = optuna.importance.get_param_importances, list[Any]()
    monkeypatch.setattr(
        optuna.importance, "get_param_importances", lambda study, **more: seen.append(study) or evaluate(study, **more)
    )
    found = ledger.importances()
    by_place = [one.params["lr"] for one in seen[0].get_trials()]
    known = ledger.entries()
    assert by_place == [known[i].params["lr"] for i in np.argsort(ranked, kind="stable")]
    assert max(found, key=lambda name: found[name]) == "lr"


def test_a_stopped_trial_keeps_what_it_reported_last(tmp_path: Path, space: Space) -> None:
    ledger = make_ledger(tmp_path, space, trials=2)
    for reported in ([0.3, 0.2], []):
        claim = ledger.claim()
        assert claim is not None
        for step, value in enumerate(reported):
            ledger.report(claim[0], step, value)
        ledger.finish(claim[0], Outcome((), True, math.nan, math.nan, math.nan, 1, (), 1.0))
    study = optuna.load_study(study_name=None, storage=database.file_url(next(tmp_path.rglob("study.db"))))
    assert [(one.state.name, one.value) for one in study.get_trials()] == [("PRUNED", 0.2), ("PRUNED", None)]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tables_that_another_process_makes_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a database server, where no lock file keeps processes apart."""
    from sqlalchemy.exc import IntegrityError

    real, turns = optuna.storages.RDBStorage, []

    def beaten(*given: Any, **more: Any) -> Any:
        turns.append(given)
        if len(turns) < 3:
            raise IntegrityError("CREATE TABLE studies", {}, Exception("duplicate key"))
        return real(*given, **more)

    monkeypatch.setattr(optuna.storages, "RDBStorage", beaten)
    monkeypatch.setattr(database, "PAUSES", (0, 0, 0))
    database.open_storage(database.file_url(tmp_path / "study.db"))
    assert len(turns) == 3


def test_the_pruner_compares_at_rungs_and_carries_ended_trials_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "share_for", lambda *given: 1 / 3)
    study = optuna.create_study(direction="maximize")
    distribution = {"fusion": optuna.distributions.CategoricalDistribution(["concat", "text"])}

    def add(values: dict[int, float], state: TrialState = TrialState.COMPLETE, fusion: str = "concat") -> Any:
        value = 0.5 if state is TrialState.COMPLETE else None
        made = optuna.trial.create_trial(
            state=state,
            params={"fusion": fusion},
            distributions=distribution,
            value=value,
            intermediate_values=values,
        )
        if state is TrialState.COMPLETE:
            study.add_trial(made)
        return made

    for i in range(10):
        add({0: 0.1 + i / 100, 1: 0.3 + i / 100, 3: 0.5 + i / 100, FOLD + 3: 0.2 + i / 100})
    add({0: 0.1, 1: 0.1}, TrialState.FAIL)  # its process died
    pruner = SuccessiveHalving(budget=20, trials=200, epochs=20)

    def stops(values: dict[int, float], fusion: str = "concat") -> bool:
        return bool(pruner.prune(study, add(values, TrialState.RUNNING, fusion)))

    assert stops({3: 0.50})
    assert not stops({3: 0.50}, "text")  # the first of its kind
    assert stops({3: 0.555})  # four of eleven go on, and four are better
    assert not stops({3: 0.565})
    assert stops({1: 0.355})
    assert stops({0: 0.155})
    assert not stops({0: 0.165})
    assert not stops({2: 0.0})  # no rung
    assert not stops({20: 0.0})  # nothing is left to save
    assert stops({9: 0.555})  # all others had ended at epoch 3
    assert not stops({3: 0.59, FOLD + 3: 0.0})  # whoever passes the first fold trains all


def test_a_share_follows_from_the_epochs_that_are_left() -> None:
    assert rungs(20) == [0, 1, 3, 9]
    assert rungs(9) == [0, 1, 3]
    assert rungs(1) == [0]
    assert rungs(20, early=False) == [1, 3, 9]
    share = share_for(2, 20)
    assert (1 + 2 * share + 6 * share**2 + 18 * share**3 + 33 * share**4) / 3 == pytest.approx(2, abs=1e-4)
    share = share_for(10, 20, folds=5)
    assert (1 + 2 * share + 6 * share**2 + 18 * share**3 + 273 * share**4) / 3 == pytest.approx(10, abs=1e-3)
    share = share_for(2, 20, early=False)
    assert 1 + 2 * share + 6 * share**2 + 11 * share**3 == pytest.approx(2, abs=1e-4)
    assert share_for(20, 20) == pytest.approx(1)
    assert share_for(-3, 20) < 1e-5  # nothing is left: only the best goes on


@pytest.mark.parametrize("better", [0.0, 0.005])
def test_a_budget_holds_also_where_later_trials_are_better(better: float) -> None:
    study = optuna.create_study(direction="maximize", pruner=SuccessiveHalving(budget=15, trials=100, epochs=20))
    rng, epochs = np.random.default_rng(0), 0.0
    for number in range(100):
        trial, reached = study.ask(), better * number + rng.normal()
        for step in range(21):
            epochs += 2 / 3 if step == 1 else 1 if step else 1 / 3
            trial.report(reached + rng.normal() / 4, step)
            if step < 20 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, reached)
    assert epochs == pytest.approx(15 * 20, rel=0.15)


# --- the whole


def test_there_are_as_many_trials_as_were_asked_for(done: Sweep, runs: Path) -> None:
    assert [one["slot"] for one in done.trials] == list(range(14))
    with (done.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert {row["fusion"] for row in rows} == {"concat", "weighted"}
    assert sum(row["stopped"] == "True" for row in rows) == 14 - len(done.finished)
    assert list_sweeps(runs, Cache.open(Path(done.info["cache"]["path"])))[0].path == done.path
    assert all(0 < one["se"] < 0.2 for one in done.finished)


def test_a_sweep_validates_on_the_rows_of_earlier_runs(cache: Cache, space: Space, tmp_path: Path) -> None:
    """As `fit` does, so that its winners can be compared with runs from before labels were corrected."""
    index, folder = cache.load("train").index, tmp_path / "runs"
    (fresh,) = fit_runs(cache, tmp_path / "elsewhere", [space.settings({})], SPLIT)
    others = [name for name in index.ids if name not in fresh.validation_ids()][: len(fresh.validation_ids())]
    (before,) = fit_runs(cache, folder, [space.settings({})], SPLIT, Training(kept=others))
    assert set(before.validation_ids()) == set(others)
    for name, folds in (("sweep", None), ("folded", 2)):
        found = sweep(cache, folder, space, SPLIT, options(name=name, trials=2, checks=1, folds=folds))
        saved = [open_run(found.run_path(one["run"])) for one in found.winners]
        assert all(set(run.validation_ids()) == set(others) for run in saved)
        assert (found.info["kept"], any("those of earlier runs" in line for line in found.says())) == (not folds,) * 2
    shutil.rmtree(before.path)
    with pytest.raises(UsageError, match="begun with another validation split"):
        sweep(cache, folder, space, SPLIT, options(trials=3, checks=1))


def test_winners_are_runs_with_the_score_of_their_trial(done: Sweep, cache: Cache, runs: Path) -> None:
    assert {one["fit"]["fusion"] for one in done.winners} == {"concat", "weighted"}
    saved = [open_run(done.run_path(one["run"])) for one in done.winners]
    for one, run in zip(done.winners, saved, strict=True):
        if not run.fit.standardize:  # whose mean is summed in another order
            assert run.info["metrics"]["f1_weighted"] == one["score"]
        assert run.info["metrics"]["f1_weighted"] == pytest.approx(one["score"], abs=0.03)
        assert one["score"] == max(t["score"] for t in done.finished if t["params"]["fusion"] == run.fusion)
    assert saved[0].info["sweep"] == {"name": "sweep", "trial": done.best["number"]}
    assert not list_runs(runs)  # no command takes them by itself
    assert len(vote_split(saved, cache, "test").predicted) == 8


def test_the_check_says_how_far_the_best_falls(done: Sweep, cache: Cache) -> None:
    """Recomputed by hand: the winner and the recipe on the two splits of the seeds that follow."""
    features = cache.load("train")
    found = []
    for fit in (done.best["fit"], done.info["baseline"]["fit"]):
        values = []
        for seed in (1, 2):
            shared = cut_rows(cache, features, SPLIT.model_copy(update={"seed": seed}), None, 0)
            settings = FitSettings.model_validate(fit)
            values.append(run_trial(Job(0, settings, (0,)), parts_on(shared, "cpu"), 3, lambda *_: False).value)
        found.append(values)
    check = done.best["check"]
    assert check["values"] == pytest.approx(found[0], abs=0.03)
    assert check["mean"] == pytest.approx(np.mean(check["values"]))
    assert check["se"] == pytest.approx(np.std(check["values"], ddof=1) / math.sqrt(2))
    gain = np.array(check["values"]) - done.info["baseline"]["check"]["values"]
    assert done.info["gain"]["mean"] == pytest.approx(gain.mean())
    said = " ".join(done.says())
    assert f"{done.best['score']:.4f}" in said
    assert f"{check['mean']:.4f}" in said
    assert "2 other splits" in said


def test_a_gain_is_clear_by_as_many_values_as_there_are(done: Sweep) -> None:
    def verdict(values: list[float]) -> str:
        gain = ending._mean(values)
        other = {**done.info["baseline"], "fit": {}}
        return Sweep(done.path, {**done.info, "gain": gain, "baseline": other}).says()[-1]

    assert "within the noise" in verdict([0.010, 0.014])  # six standard errors, but of two values
    assert "clearly more" in verdict([0.010, 0.014, 0.012, 0.009, 0.013])
    assert "clearly less" in verdict([-0.010, -0.014, -0.012, -0.009, -0.013])
    assert verdict([0.01, 0.014]).startswith(
        "Against the recipe paper with the same fusion on the same splits: +0.0120 ±"
    )
    assert "clearly less: keep the recipe (`mmsent fit --recipe " in verdict([-0.010, -0.014, -0.012, -0.009, -0.013])
    assert "within the noise" in verdict([0.010, -0.014, 0.012, 0.009, 0.013])


def test_settings_that_contradict_each_other_are_told_in_plain_words() -> None:
    with pytest.raises(UsageError) as told:
        settings(SweepSettings, prune=False, budget=3.0)
    assert str(told.value) == "--budget says how many trials --prune stops; leave one of --budget and --no-prune out"
    with pytest.raises(UsageError, match=r"^budget: got 0\.0; Input should be greater than 0$"):
        settings(SweepSettings, budget=0.0)


def test_a_sweep_says_that_its_best_is_the_recipe(done: Sweep) -> None:
    same = Sweep(done.path, {**done.info, "baseline": {**done.info["baseline"], "fit": done.best["fit"]}})
    assert same.says()[-1] == "It is the recipe paper itself: the search found nothing better."


def test_the_same_again_does_nothing_and_more_trials_go_on(
    done: Sweep, cache: Cache, runs: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_runs(done.path / WINNERS)
    with monkeypatch.context() as patch:
        patch.setattr(ending, "fit", None)
        patch.setattr(search, "_executor", None)
        assert sweep(cache, runs, space, SPLIT, options()).info == done.info
    with pytest.raises(UsageError, match="another number of folds"):
        sweep(cache, runs, space, SPLIT, options(folds=2, checks=0))
    with pytest.raises(UsageError, match="another split"):
        sweep(cache, runs, space, SplitSettings(val_size=0.3), options())
    seen: list[Any] = []
    more = sweep(cache, runs, space, SPLIT, options(trials=16), watch=seen.append)
    assert next(p.done for p in seen if p.what == "searching") == 14
    assert more.trials[:14] == done.trials
    assert len(more.trials) == 16
    same = {one["run"] for one in more.winners} & {one["run"] for one in done.winners}
    assert len(list_runs(done.path / WINNERS)) == len(before) + 2 - len(same)


@pytest.mark.slow
def test_random_trials_are_the_same_whoever_computes_them(cache: Cache, space: Space, tmp_path: Path) -> None:
    """In this process and in stacks: the same settings, the same scores but for rounding."""
    wide = Space(space.varied, {**space.fixed, "precision": "fp32"}, "paper")
    given: dict[str, Any] = {"sampler": "random", "trials": 5, "checks": 0, "prune": False}
    plain = sweep(cache, tmp_path / "a", wide, SPLIT, options(**given))
    stacked = sweep(cache, tmp_path / "b", wide, SPLIT, options(**given, engine="stacked"))
    assert plain.best["check"] is None
    assert plain.info["gain"] is None
    for one, other in zip(plain.trials, stacked.trials, strict=True):
        assert one["params"] == other["params"]
        assert one["score"] == pytest.approx(other["score"], abs=0.03)  # one validation row in 18 may tip


def test_validation_rows_of_the_data_set_leave_no_others_to_repeat_on(
    cache: Cache, space: Space, tmp_path: Path
) -> None:
    ids = cache.index("train").ids
    own = replace(cache, provenance={**cache.provenance, "validation": ids[::5]})
    given: dict[str, Any] = {"sampler": "random", "trials": 2, "prune": False}
    done = sweep(own, tmp_path, space, SPLIT, options(**given))
    assert (done.info["checks"], done.info["gain"], done.best["check"]) == (0, None, None)
    winner = open_run(done.run_path(done.best["run"]))
    assert set(winner.validation_ids()) <= set(ids[::5])
    assert len(winner.validation_ids()) > 10


def test_cross_validation_scores_are_those_of_fit_folds(cache: Cache) -> None:
    split = SplitSettings(group="near", near_image=0.99999, near_text=0.99, val_size=0.2)
    settings = FitSettings(fusion=Fusion.concat, epochs=3, hidden=8, lr=1e-2, precision="fp32", batch_size=16)
    shared = cut_rows(cache, cache.load("train"), split, 3, 1)
    assert shared.search == (0, 1, 2)
    assert shared.checks == ((3, 4, 5),)
    assert shared.scored == 70
    seen: list[int] = []
    sides = parts_on(shared, "cpu")
    found = run_trial(Job(0, settings, shared.search), sides, 3, lambda step, _: bool(seen.append(step)))
    wanted = cross_validate(plan_folds(cache, split, 3), settings)
    assert list(found.values) == [head.scores["f1_weighted"] for head in wanted.heads]
    assert found.value == pytest.approx(wanted.summary["f1_weighted"]["mean"])
    assert found.se == pytest.approx(wanted.summary["f1_weighted"]["se"])
    assert seen == [0, *(fold * FOLD + epoch for fold in range(3) for epoch in (1, 2, 3))]
    stacked = compute(Stacked(shared, "cpu"), [Job(7, settings, shared.search)])
    assert stacked[7].values == pytest.approx(found.values, abs=0.05)


def test_stopped_trials_say_so(cache: Cache) -> None:
    shared = cut_rows(cache, cache.load("train"), SPLIT, None, 0)
    settings = FitSettings(epochs=5, hidden=8, precision="fp32", batch_size=16)
    for end, epochs in ((0, 1 / 3), (2, 2)):
        found = run_trial(Job(0, settings, (0,)), parts_on(shared, "cpu"), 3, lambda step, _, end=end: step == end)
        assert found.stopped
        assert found.epochs == epochs
    assert Outcome.from_json(json.loads(json.dumps(found.to_json()))).stopped


@pytest.mark.slow
def test_a_trial_that_no_head_can_be_made_of_fails_alone(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 heads do not divide the width 8; 2 do."""
    file = tmp_path / "space.toml"
    text = SPACE.replace("heads = 2", "heads = [2, 3]").replace('["concat", "weighted"]', '"attention"')
    where = ["--cache", str(cache.path), "--runs", str(tmp_path), "--space", str(file), "--sampler", "grid"]
    small = ["--workers", "1", "--checks", "2", "--val-size", "0.25", "--recipe", "paper", "--trials", "6"]
    for engine in ("local", "stacked"):
        file.write_text(text, encoding="utf-8")
        assert run("sweep", *where, *small, "--engine", engine, "--name", engine) == 0
        told = capsys.readouterr().out
        done = open_sweep(tmp_path / engine)
        failed = [one for one in done.trials if one["params"]["heads"] == 3]
        assert 0 < len(failed) < 6
        assert all(one["problem"] == "3 attention heads do not divide the width 8" for one in failed)
        assert all(one["score"] is not None for one in done.trials if one["params"]["heads"] == 2)
        assert f"{len(failed)} failed (3 attention heads do not divide the width 8)" in told
        assert "3 attention heads" in (done.path / "trials.csv").read_text()
    file.write_text(text.replace("[2, 3]", "3"), encoding="utf-8")
    assert run("sweep", *where, *small, "--name", "none") == 2
    assert "no trial of 6 could be made; the first: 3 attention heads do not divide" in capsys.readouterr().err


def test_a_shared_ground_is_the_same_and_cannot_be_written(cache: Cache, tmp_path: Path) -> None:
    shared = cut_rows(cache, cache.load("train"), SPLIT, 2, 1)
    mapped = map_shared(write_shared(shared, tmp_path))
    assert np.array_equal(mapped.image, shared.image)
    assert mapped.search == shared.search
    assert mapped.checks == shared.checks
    assert all(np.array_equal(a.out, b.out) for a, b in zip(mapped.parts, shared.parts, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        mapped.image[0] = 0
    assert isinstance(mapped.image, np.memmap)


def test_test_rows_are_not_read(cache: Cache, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is there a way to the data set, or to its test labels, from the package."""
    group = Cache._group

    def guarded(self: Cache, split: str) -> Any:
        assert split == "train", f"a sweep reads {split}"
        return group(self, split)

    monkeypatch.setattr(Cache, "_group", guarded)
    found = sweep(cache, tmp_path, space, SPLIT, options(trials=2, checks=2))
    assert len(found.trials) == 2
    for file in Path(search.__file__).parent.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "mmsent.data.dataset" not in text, file.name
        assert "mmsent.evaluation.openings" not in text, file.name


# --- the command


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_the_report_shows_it(
    done: Sweep, cache: Cache, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscape, "umap_points", lambda *_: None)  # it compiles for many seconds
    study = open_study([open_run(done.run_path(one["run"])) for one in done.winners], cache, None)
    names = [name for name, _, _ in figure_set.FIGURES]
    written = write_report(study, tmp_path / "report", skip=names)
    assert "sweep-trials" in {one.name for one in written.figures if one.png}
    text = written.page.read_text(encoding="utf-8")
    assert 'id="sweep"' in text
    assert f"{done.best['score']:.4f}" in text
    assert "on other splits" in text
    lonely = open_study([copy_run(done.run_path(done.best["run"]), tmp_path / "elsewhere")], cache, None)
    assert figure_set.figures_of(lonely) == figure_set.FIGURES
    assert sweeps.section(lonely) is None


def copy_run(path: Path, folder: Path) -> Run:
    shutil.copytree(path, folder / path.name)
    return open_run(folder / path.name)


def test_the_figures_name_their_axes(done: Sweep) -> None:
    importances = {"lr": 0.7, "hidden": 0.3}
    found = sweep_figures({**done.info, "importances": importances})
    assert list(found) == ["parallel", "importance"]
    parallel = found["parallel"].axes[0]
    named = [t.get_text().replace(" ", "_") for t in parallel.get_yticklabels()]
    assert named == [*done.info["varied"], "weighted_F1"]
    lines = parallel.collections[0].get_segments()
    assert len(lines) == len(done.trials)
    ends = sorted(len(done.info["varied"]) == line[-1][1] for line in lines)
    assert sum(ends) == len(done.finished)  # only these reach the score
    assert [t.get_text() for t in found["importance"].axes[0].get_yticklabels()] == ["hidden", "lr"]
    assert sweep_figures({**done.info, "trials": done.trials[:1], "importances": {}}) == {}


def test_other_commands_take_winners_where_they_are_named_or_promoted(
    done: Sweep, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs")]
    assert run("fit", *where, "--fusion", "vote", "--epochs", "2", "--hidden", "8", "--common-width", "8") == 0
    shutil.copytree(done.path, tmp_path / "runs" / "sweep")
    capsys.readouterr()

    def votes(*names: str) -> tuple[list[str], str]:
        out = tmp_path / "p.txt"
        assert run("vote", *names, *where, "--out", str(out), "--json") == 0
        told = capsys.readouterr()
        return json.loads(told.out)["runs"], told.err

    winners = {str(tmp_path / "runs" / "sweep" / WINNERS / one["run"]) for one in done.winners}
    before, told = votes()
    assert not winners & set(before)
    assert all(Path(path).name in told for path in before)
    assert "the newest concat, weighted, attention on this cache" in told
    assert "(recipe offline with " in told
    assert "epochs 2" in told
    assert set(votes("sweep")[0]) == winners
    assert votes(f"sweep/{WINNERS}/{done.best['run']}")[0][0] in winners
    assert votes()[0] == before
    assert run("sweep", "promote", *where, "--fusion", done.best["fit"]["fusion"]) == 0
    assert done.best["run"] in capsys.readouterr().out
    after, told = votes()
    (new,) = set(after) - set(before)
    assert Path(new).parent == tmp_path / "runs"
    assert Path(new).name.startswith(done.best["run"])
    assert f"trial {done.best['number']} of the sweep sweep, fitted " in told
    assert run("sweep", "promote", *where) == 0
    capsys.readouterr()
    assert len(set(votes()[0]) - set(before)) == len(winners)
    assert len(list_runs(tmp_path / "runs")) == 3 + len(winners)  # the first was promoted twice, and is there once
    capsys.readouterr()
    assert run("sweep", "promote", *where, "--name", "other") == 1
    assert "other is not a finished sweep" in capsys.readouterr().err
    assert run("sweep", "demote", *where) == 2


def test_winners_that_a_version_before_kept_beside_the_sweep(done: Sweep, tmp_path: Path) -> None:
    shutil.copytree(done.path, tmp_path / "runs" / "sweep")
    for path in (tmp_path / "runs" / "sweep" / WINNERS).iterdir():
        path.rename(tmp_path / "runs" / path.name)
    old = open_sweep(tmp_path / "runs" / "sweep")
    assert old.run_path(old.best["run"]).is_dir()
    newest = promote(old)[0]
    assert list_runs(tmp_path / "runs")[0].name == newest.name == old.best["run"]
    assert len(list_runs(tmp_path / "runs")) == len(old.winners)


@pytest.mark.slow
def test_the_command(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs"), "--space", str(tmp_path / "space.toml")]
    small = ["--trials", "12", "--workers", "1", "--checks", "2", "--val-size", "0.25", "--no-prune"]
    assert run("sweep", *where, *small, "--recipe", "paper", "--sampler", "random") == 0
    told = capsys.readouterr()
    assert "12 trials, 12 finished, 0 stopped early" in told.out
    assert "Trained again on 2 other splits" in told.out
    assert "What mattered most" in told.out
    assert "12 of 12 trials, best " in told.err
    folder = tmp_path / "runs" / "sweep"
    names = {path.name for path in folder.iterdir()}
    assert {"parallel.png", "parallel.svg", "importance.png", "study.db", "sweep.json", "trials.csv"} <= names
    assert not [name for name in names if name.startswith("shared-")]
    assert run("sweep", *where, *small, "--recipe", "paper", "--sampler", "random", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["trials"]) == 12
    assert abs(sum(found["importances"].values()) - 1) < 1e-6
    out = ["--out", str(tmp_path / "p.txt")]
    assert run("vote", *(one["run"] for one in found["winners"]), *where[:4], *out) == 0
    assert run("vote", "sweep", *where[:4], *out) == 0
    assert run("vote", *where[:4], *out) == 1  # nothing was fitted but the sweep's winners
    (folder / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        open_sweep(folder)


def test_a_grid_that_is_not_done_says_so(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs"), "--space", str(tmp_path / "space.toml")]
    small = ["--workers", "1", "--checks", "0", "--val-size", "0.25", "--sampler", "grid"]
    assert run("sweep", *where, *small, "--trials", "2") == 0
    assert "run the same command again" not in capsys.readouterr().err
    assert run("sweep", *where, *small, "--trials", "1000", "--timeout", "1e-9") == 0
    assert f"2 of {2 * 3 * 2 * 3 * 2} trials are done; run the same command again" in capsys.readouterr().err


def test_a_password_is_neither_told_nor_written(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://me:secret@host/name"
    words = ["mmsent", "sweep", f"--storage={url}", "--cache", str(cache.path), "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    command = provenance.environment()["command"]
    assert command == [*words[:2], "--storage=postgresql://me:***@host/name", *words[3:]]

    def interrupted(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "sweep", interrupted)
    assert run(*words[1:]) == 130
    told = capsys.readouterr().err
    assert "kept in postgresql://me:***@host/name" in told


def test_the_space_is_shown_as_a_file_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep", "--show-space") == 0
    (tmp_path / "space.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert run("sweep", "--show-space", "--space", str(tmp_path / "space.toml"), "--fusion", "text") == 0
    shown = capsys.readouterr().out
    assert 'fusion = "text"' in shown
    assert "log = true" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "magic"], "sampler: got 'magic'"),
        (["--folds", "1"], "folds: got 1"),
        (["--name", "../up"], "name"),
        (["--address", "here"], "--engine ray"),
        (["--fusion", "conct"], "unknown fusion"),
        (["--recipe", "best-of-all"], "unknown recipe"),
        (["--storage", "nonsense"], "not a database URL"),
    ],
)
def test_wrong_options(
    cache: Cache, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert run("sweep", *where, *arguments) == 2
    assert message in capsys.readouterr().err


# --- heads that tune blocks


@pytest.mark.slow
@pytest.mark.parametrize("folds", [None, 3])
def test_trials_tune_blocks(cache: Cache, tmp_path: Path, folds: int | None) -> None:
    """Some trials tune, some do not; two processes find what one does, and a winner is its trial's head again."""
    store_states(cache, "text:1")
    file = tmp_path / "space.toml"
    text = SPACE + 'tune = ["", "text:1"]\ntune_lr = { low = 1e-3, high = 1e-1, log = true }\n'
    file.write_text(text.replace("standardize = [true, false]", "standardize = true"), encoding="utf-8")
    space = make_space("paper", file=file, seed=0, fusions=["concat"])
    given: dict[str, Any] = {"sampler": "random", "trials": 6, "prune": False, "folds": folds, "checks": 1}
    blocks = FreshTinyBlocks()
    here = sweep(cache, tmp_path / "a", space, SPLIT, options(**given), blocks=blocks)
    there = sweep(cache, tmp_path / "b", space, SPLIT, options(**given, workers=2), blocks=blocks)
    assert [one["score"] for one in here.trials] == [one["score"] for one in there.trials]
    assert {one["params"]["tune"] for one in here.trials} == {"", "text:1"}
    assert here.best["check"] == there.best["check"]
    tuned = max((one for one in here.trials if one["params"]["tune"]), key=lambda one: one["score"])
    if folds is None:
        fixed = settings(SplitSettings, **SPLIT.model_dump())
        again = fit_settings("paper", **(space.fixed | tuned["params"]), precision=here.winners[0]["fit"]["precision"])
        (run,) = fit_runs(cache, tmp_path / "runs", [again], fixed, Training(blocks=blocks))
        assert run.tune == "text:1"
        assert run.info["metrics"]["f1_weighted"] == pytest.approx(tuned["score"], abs=1e-6)


def test_a_winner_that_tunes_is_promoted_with_its_blocks(cache: Cache, tmp_path: Path) -> None:
    store_states(cache, "text:1")
    file = tmp_path / "space.toml"
    file.write_text(SPACE + 'tune = "text:1"\n', encoding="utf-8")
    space = make_space("paper", file=file, seed=0, fusions=["concat"])
    done = sweep(cache, tmp_path, space, SPLIT, options(trials=2, checks=0), blocks=FreshTinyBlocks())
    (run,) = promote(done)
    assert run.tune == "text:1"
    assert run.blocks().keys() == {"layer.weight", "layer.bias"}
    assert run.info["metrics"]["f1_weighted"] == pytest.approx(done.winners[0]["score"])


def test_a_recipe_that_tunes_has_a_space_of_its_own() -> None:
    found = make_space("tuned")
    assert set(found.varied) == set(TUNED)
    assert found.tunes() == {fit_settings("tuned").tune}
    assert [start["fusion"] for start in found.starts()] == ["concat", "weighted", "attention"]
