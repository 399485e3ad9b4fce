"""Sweeps in several processes, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from mmsent.config import FitSettings
from mmsent.features.cache import Cache
from mmsent.sweep import database
from mmsent.sweep.results import open_sweep
from mmsent.sweep.search import sweep
from mmsent.sweep.shared_rows import cut_rows
from mmsent.sweep.trial import Job, Outcome
from mmsent.sweep.workers import compute
from mmsent.training.runs import WINNERS, list_runs
from tests.helpers.sweeping import SPACE, SPLIT, make_cache, options, small_space

pytestmark = pytest.mark.slow
TRIALS = 16


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("sweep"))


def begin(cache: Cache, runs: Path, workers: int) -> subprocess.Popen[str]:
    """`mmsent sweep` in a process of its own."""
    runs.mkdir(exist_ok=True)
    (runs / "space.toml").write_text(
        SPACE.replace("epochs = 4", "epochs = 40").replace("patience = 4", "patience = 40")
    )
    words = ["sweep", "--cache", str(cache.path), "--runs", str(runs), "--space", str(runs / "space.toml")]
    words += ["--trials", str(TRIALS), "--workers", str(workers), "--checks", "2", "--val-size", "0.25", "--no-prune"]
    return subprocess.Popen(
        [sys.executable, "-c", "from mmsent.cli.main import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def trials(runs: Path) -> list[Any]:
    """All trials of the study, as Optuna has them."""
    file = runs / "sweep" / "study.db"
    try:
        study = optuna.load_study(study_name="sweep", storage=database.file_url(file)) if file.exists() else None
    except Exception:  # its tables are being made
        return []
    return study.get_trials(deepcopy=False) if study else []


def counted(runs: Path) -> Counter[int]:
    """How many trials of each slot count."""
    return Counter(t.user_attrs["slot"] for t in trials(runs) if t.state.name in ("COMPLETE", "PRUNED"))


def test_killed_at_random_it_ends_with_the_trials_that_were_asked_for(cache: Cache, tmp_path: Path) -> None:
    runs, rng = tmp_path / "runs", np.random.default_rng()
    kills = 0
    while kills < 3:
        process = begin(cache, runs, 2)
        before, ends = len(trials(runs)), time.monotonic() + 120
        while time.monotonic() < ends and process.poll() is None:
            begun = [t for t in trials(runs) if t.state.name == "RUNNING" and "owner" in t.user_attrs]
            if len(trials(runs)) > before and any(t.user_attrs["owner"]["process"] == process.pid for t in begun):
                break
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0, 0.8)))
        done = process.poll() is not None
        process.kill()
        process.communicate()
        if done:
            break  # the machine was faster than the test
        kills += 1
    assert kills, "nothing was killed"
    lost = sum(t.state.name == "RUNNING" for t in trials(runs))
    process = begin(cache, runs, 2)
    said, _ = process.communicate(timeout=550)
    assert process.returncode == 0, said
    assert counted(runs) == Counter(range(TRIALS))
    assert f"{TRIALS} trials, {TRIALS} finished" in said
    assert len(open_sweep(runs / "sweep").trials) == TRIALS
    states = Counter(t.state.name for t in trials(runs))
    assert states["COMPLETE"] == TRIALS
    assert states["FAIL"] >= lost
    assert set(states) <= {"COMPLETE", "FAIL"}
    assert not list((runs / "sweep").glob("shared-*"))


def test_two_at_once_share_the_trials(cache: Cache, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    both = [begin(cache, runs, 1) for _ in range(2)]
    said = [process.communicate(timeout=550)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert counted(runs) == Counter(range(TRIALS))
    owners = {t.user_attrs["owner"]["process"] for t in trials(runs) if t.state.name == "COMPLETE"}
    assert owners == {process.pid for process in both}
    winners = open_sweep(runs / "sweep").winners
    assert (
        len(list_runs(runs / "sweep" / WINNERS)) == len(winners) == 2
    )  # one of the two refitted them, and both say which
    assert all(winner["run"] in text for winner in winners for text in said)


CLAIM = """
import sys, time
from pathlib import Path
from mmsent.sweep.database import file_url
from mmsent.sweep.ledger import Ledger
from mmsent.sweep.sampling import Sampling
from mmsent.sweep.space import make_space
space, folder = make_space("paper"), Path(sys.argv[1])
sampling = Sampling(space, trials=8, sampler="tpe", seed=0)
print("ready", flush=True)
sys.stdin.read()
print(Ledger(file_url(folder / "study.db"), "s", {}, sampling, pruner=None, precision="fp32").claim()[0])
"""


def test_a_database_that_several_begin_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CLAIM, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    several = [subprocess.Popen(words, text=True, **pipes) for _ in range(4)]
    for process in several:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in several:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    said = [process.communicate(timeout=60) for process in several]
    assert sorted(out for out, _ in said) == ["0\n", "1\n", "2\n", "3\n"], said


def test_interrupted_it_says_how_to_go_on(cache: Cache, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = begin(cache, runs, 2)
    while not any(t.state.name == "RUNNING" for t in trials(runs)):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "run the same command again to go on" in said
    assert not any(t.state.name == "RUNNING" for t in trials(runs))  # put off, not left behind
    assert not list((runs / "sweep").glob("shared-*"))


def test_ctrl_c_while_workers_start_says_one_line(cache: Cache, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = begin(cache, runs, 2)
    while not list((runs / "sweep").glob("shared-*/rows.json")):
        time.sleep(0.05)
    time.sleep(0.3)  # they import
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again to go on" in said
    assert "Traceback" not in said


def test_a_worker_that_is_killed_costs_its_trial_alone(cache: Cache, tmp_path: Path) -> None:
    killed: list[int] = []

    def watch(progress: Any) -> None:
        if progress.done == 2 and not killed:
            killed.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    runs = tmp_path / "runs"
    runs.mkdir()
    done = sweep(cache, runs, small_space(runs), SPLIT, options(trials=8, workers=2, checks=0), watch=watch)
    assert killed
    assert len(done.trials) == 8
    assert counted(runs) == Counter(range(8))
    assert not multiprocessing.active_children()


def test_workers_find_what_one_process_finds(cache: Cache, tmp_path: Path) -> None:
    """To the bit: one thread each, and random trials do not depend on each other."""
    given: dict[str, Any] = {"sampler": "random", "trials": 8, "prune": False}
    (tmp_path / "a").mkdir()
    space = small_space(tmp_path)
    here = sweep(cache, tmp_path / "a", space, SPLIT, options(**given))
    there = sweep(cache, tmp_path / "b", space, SPLIT, options(**given, workers=2))
    assert [one["score"] for one in here.trials] == [one["score"] for one in there.trials]
    assert here.best["check"]["values"] == there.best["check"]["values"]


def test_trials_on_ray_survive_the_loss_of_a_node(cache: Cache, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    given: dict[str, Any] = {"sampler": "random", "trials": 10, "prune": False}
    space = small_space(tmp_path)
    here = sweep(cache, tmp_path / "a", space, SPLIT, options(**given))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        removed = []

        def watch(progress: Any) -> None:
            if progress.what == "searching" and progress.done == 3 and not removed:
                removed.append(second)
                cluster.remove_node(second, allow_graceful=False)

        there = sweep(cache, tmp_path / "b", space, SPLIT, options(**given, engine="ray", workers=None), watch=watch)
        assert removed
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [one["params"] for one in here.trials] == [one["params"] for one in there.trials]
    assert [one["score"] for one in here.trials] == [one["score"] for one in there.trials]


def test_a_check_on_ray_does_not_stop_for_a_trial_that_did(cache: Cache) -> None:
    """A trial's number comes again as the key of a check."""
    pytest.importorskip("ray")
    from mmsent.sweep.ray_tasks import RayTasks

    class Stopping:
        found: Outcome | None = None

        def report(self, number: int, step: int, value: float) -> bool:
            return True

        def finish(self, number: int, outcome: Outcome) -> None:
            self.found = outcome

        def lost(self, number: int, why: str) -> None:
            raise AssertionError(why)

    shared = cut_rows(cache, cache.load("train"), SPLIT, None, 1)
    long = FitSettings(epochs=2000, patience=2000, hidden=8, precision="fp32")
    tasks, book = RayTasks(shared, None, 1), Stopping()
    try:
        tasks.submit(Job(5, long, shared.search))
        while book.found is None:
            tasks.step(book, 1.0)
        assert book.found.stopped
        checked = compute(tasks, [Job(5, long.model_copy(update={"epochs": 3}), shared.checks[0])])
    finally:
        tasks.close()
    assert not checked[5].stopped
    assert checked[5].epochs == 3
