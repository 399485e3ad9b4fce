"""Committees: several heads on several validation splits that vote together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.cli.main import main
from mmsent.config import (
    COMMITTEES,
    VOTING_FUSIONS,
    Committee,
    DataSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    committee_of,
)
from mmsent.data.dataset import load_dataset
from mmsent.errors import UsageError
from mmsent.features.cache import Cache
from mmsent.inference.logits import head_probabilities
from mmsent.inference.vote import averages, vote_split, voting_runs
from mmsent.training.fit import Training, fit, fit_committee
from mmsent.training.runs import Run, list_runs, open_run
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
FLAGS = ["--epochs", "2", "--lr", "1e-2", "--hidden", "16", "--common-width", "16", "--heads", "4", "--val-size", "0.3"]
SPLIT = SplitSettings(val_size=0.3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("committee")
    return fake_cache(
        load_dataset(make_guid(folder / "posts", n_train=40, n_test=10, size=24), DataSettings()), folder / "cache"
    )


@pytest.fixture(scope="module")
def heads(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    wanted = [FitSettings(fusion=fusion, seed=3, **QUICK) for fusion in (Fusion.concat, Fusion.text)]
    return fit_committee(cache, tmp_path_factory.mktemp("runs"), wanted, SPLIT, 3, Training("best"))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_each_split_has_its_own_rows_and_seeds(cache: Cache, heads: list[Run]) -> None:
    assert [(one.fusion.value, one.fit.seed, one.split.seed) for one in heads] == [
        (fusion, 3 + k, k) for k in range(3) for fusion in ("concat", "text")
    ]
    held = [set(one.validation_ids()) for one in heads]
    assert held[0] == held[1]
    assert held[0] != held[2] != held[4]
    assert len(set.union(*held)) > len(held[0])
    assert {one.committee for one in heads} == {(heads[0].info["committee"]["name"], 6)}


def test_a_member_is_a_head_like_any_other(cache: Cache, heads: list[Run], tmp_path: Path) -> None:
    second = heads[2]
    alone = fit(cache, tmp_path, [second.fit], second.split, Training("best"))[0]
    assert alone.info["head_sha256"] == second.info["head_sha256"]
    assert alone.committee is None


def test_the_newest_committee_votes_as_a_whole(cache: Cache, heads: list[Run]) -> None:
    folder = heads[0].path.parent
    chosen = voting_runs(folder, cache)
    assert {one.name for one in chosen} == {one.name for one in heads}
    assert len(list_runs(folder)) == 6
    assert averages(chosen, False)
    assert not averages([], False)


def test_a_newer_head_on_its_own_takes_over(cache: Cache, tmp_path: Path) -> None:
    one = FitSettings(fusion=Fusion.concat, **QUICK)
    fit_committee(cache, tmp_path, [one], SPLIT, 2, Training("best"))
    last = fit(cache, tmp_path, [one], SPLIT)[0]
    assert [r.name for r in voting_runs(tmp_path, cache)] == [last.name]
    assert not averages([last], False)
    assert averages([last], True)


def test_a_committee_gives_the_mean_of_its_heads(cache: Cache, heads: list[Run], tmp_path: Path) -> None:
    out = tmp_path / "labels.txt"
    where = ["--cache", str(cache.path), "--runs", str(heads[0].path.parent)]
    assert run("vote", *where, "--out", str(out)) == 0
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    features = cache.load("test")
    mean = np.mean([head_probabilities(r, features.image[:, 0], features.text) for r in heads], axis=0)
    assert [row["predicted"] for row in rows] == [cache.labels[k] for k in mean.argmax(axis=1)]
    np.testing.assert_allclose([float(row["p_positive"]) for row in rows], mean[:, 2], atol=1e-6)
    counted = vote_split(heads, cache, "test")
    assert counted.predicted != [row["predicted"] for row in rows] or len(set(counted.predicted)) == 1


def test_the_command_fits_and_replays_one(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs")]
    fitted = ["fit", *where, "--recipe", "best", "--splits", "2", "--fusion", "concat", *FLAGS]
    assert run(*fitted, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["committee"]["size"] == 2 == len(found["validation"]["concat"])
    assert [open_run(Path(path)).split.seed for path in found["runs"]] == [0, 1]
    assert run(*fitted) == 0
    assert "2 heads" in capsys.readouterr().out
    assert run("vote", *where, "--out", str(tmp_path / "predictions.txt")) == 0
    assert "mean of the committee" in capsys.readouterr().out
    assert run("replay", *where, "--predictions", str(tmp_path / "predictions.csv")) == 0
    assert "2 of 2 runs repeat" in capsys.readouterr().out


def test_half_a_committee_says_so(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    one = FitSettings(fusion=Fusion.concat, **QUICK)
    done = fit_committee(cache, tmp_path / "runs", [one], SPLIT, 2, Training("best"))
    shutil.rmtree(done[0].path)
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "p.txt")]
    assert run("vote", *where) == 0
    assert "should have 2 heads" in capsys.readouterr().err


def test_which_committee() -> None:
    assert committee_of("offline", None) is None
    assert committee_of("best", None) == COMMITTEES["best"]
    assert committee_of("offline", 4) == Committee(fusions=VOTING_FUSIONS, splits=4)
    changed = committee_of("best", 2)
    assert changed is not None
    assert changed.splits == 2
    assert changed.fusions == COMMITTEES["best"].fusions
    with pytest.raises(UsageError, match="--splits 0"):
        committee_of("best", 0)


@pytest.mark.parametrize(
    "more", [["--folds", "3", "--splits", "2"], ["--tensorboard", "logs", "--splits", "2"], ["--recipe", "none"]]
)
def test_what_does_not_go_together(cache: Cache, more: list[str]) -> None:
    assert run("fit", "--cache", str(cache.path), "--splits", "2", *more) == 2


def test_the_vote_leans_on_twins(cache: Cache, heads: list[Run], tmp_path: Path) -> None:
    """One test post is a training post once more; its label then decides, and replay takes the table as it is."""
    root = make_guid(tmp_path / "posts", n_train=40, n_test=10, size=24)
    for ending in ("jpg", "txt"):
        (root / "data" / f"41.{ending}").write_bytes((root / "data" / f"1.{ending}").read_bytes())
    twinned = fake_cache(load_dataset(root, DataSettings()), tmp_path / "cache")
    plain = vote_split(heads, twinned, "test", soft=True)
    leaning = vote_split(heads, twinned, "test", twins=True)
    assert plain.twins is None
    assert leaning.twins is not None
    assert leaning.twins[0]
    label = int(twinned.index("train").labels[0])
    assert leaning.probabilities[0, label] > plain.probabilities[0, label]
    alone = ~leaning.twins
    np.testing.assert_array_equal(leaning.probabilities[alone], plain.probabilities[alone])
    with pytest.raises(UsageError, match="--twins"):
        vote_split(heads, twinned, "train", twins=True)
    where = ["--cache", str(twinned.path), "--runs", str(heads[0].path.parent)]
    out = tmp_path / "p.txt"
    assert run("vote", *where, "--twins", "--out", str(out), *[one.name for one in heads]) == 0
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["twins"] for row in rows] == [str(int(t)) for t in leaning.twins]
    assert [row["predicted"] for row in rows] == leaning.predicted
