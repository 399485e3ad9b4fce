"""Published folds: what a file says is what is trained on, validated on and scored, and nothing else."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.config import FitSettings, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.protocols import read_protocol
from mmsent.errors import DataError
from mmsent.evaluation.audit import usable_folds
from mmsent.evaluation.cross_validation import cross_validate, list_folds, save_folds
from mmsent.evaluation.openings import LOG, read_openings
from mmsent.evaluation.protocols import plan_protocol
from mmsent.features.cache import IMAGE_BAD, TEXT_BAD, Cache
from mmsent.inference.logits import head_probabilities
from mmsent.report import validation
from mmsent.report.study import open_study
from mmsent.training.calibration import cross_fitted
from mmsent.training.fit import fit
from mmsent.training.runs import list_runs
from tests.cli.test_cli import fails, run, work  # noqa: F401
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_manifest

QUICK: dict[str, Any] = {"epochs": 4, "patience": 4, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
WORDS = ("--epochs", "2", "--lr", "0.01", "--hidden", "16")
NEVER = SplitSettings(val_size=0.2, group=False)


def encoded(manifest: Path, folder: Path) -> Cache:
    return fake_cache(load_dataset(manifest), folder, views=2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 posts with labels, `post 1` to `post 80`, and two without."""
    return make_manifest(tmp_path_factory.mktemp("published") / "posts", "csv", 80, 2, size=16)


@pytest.fixture(scope="module")
def cache(manifest: Path) -> Cache:
    return encoded(manifest, manifest.parent / "cache")


@pytest.fixture(scope="module")
def parts(manifest: Path) -> Path:
    """Ten folds: each post is tested once, validates in two folds and trains in six; it is not in the tenth."""
    path, order = manifest.parent / "folds.csv", np.random.default_rng(0).permutation(80)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["post", "id", "fold", "part"])
        for fold in range(10):
            for place, number in enumerate(order):
                part = {0: "test", 1: "dev", 2: "validation", 3: ""}.get((place + fold) % 10, "train")
                if part:
                    rows.writerow(["x", f"post {number + 1}", fold + 1, part])
    return path


def test_folds_of_a_file_are_separate_fits_to_the_bit(
    manifest: Path, cache: Cache, parts: Path, tmp_path: Path
) -> None:
    settings = FitSettings(**QUICK)
    done = cross_validate(plan_protocol(cache, NEVER, read_protocol(parts)), settings)
    published = list(csv.DictReader(parts.open()))
    posts = list(csv.DictReader(manifest.open(encoding="utf-8")))
    for number in range(10):
        part_of = {row["id"]: row["part"] for row in published if row["fold"] == str(number + 1)}
        alone = manifest.parent / f"fold-{number}.csv"
        with alone.open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, [*posts[0], "split"])
            rows.writeheader()
            rows.writerows(post | {"split": part_of[post["id"]]} for post in posts if post["id"] in part_of)
        own = encoded(alone, tmp_path / str(number))
        (one,) = fit(own, tmp_path / f"runs-{number}", [settings], NEVER)
        val = {name for name, part in part_of.items() if part in ("dev", "validation")}
        assert set(one.validation_ids()) == val  # exactly the published rows
        test = own.load("test")
        mine = done.plan.fold == number
        assert [done.plan.ids[k] for k in np.flatnonzero(mine)] == list(test.index.ids)
        assert {*test.index.ids} == {name for name, part in part_of.items() if part == "test"}
        again = head_probabilities(one, test.image[:, 0], test.text)
        np.testing.assert_allclose(done.probabilities[mine], again, atol=1e-5)  # torch's answers and NumPy's
        head = done.heads[number]
        assert (head.temperature, head.best_epoch) == (one.temperature, one.info["best_epoch"])
        assert {"train": head.train, "val": head.val} == one.info["rows"]
        assert (head.train, head.val, int(mine.sum())) == (48, 16, 8)
    assert done.pooled["n"] == 80
    mean = np.mean([head.scores["accuracy"] for head in done.heads])
    assert done.summary["accuracy"]["mean"] == pytest.approx(mean)
    assert mean > 0.6  # half of the posts are positive


def test_a_fold_without_validation_rows_has_some_cut(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    # The last eight train in every fold, as scikit-learn's PredefinedSplit has it; a spreadsheet writes 1.0 for 1.
    lines = [f"post {k + 1},{f'{k % 3}.0' if k < 72 else -1}" for k in range(80)]
    path.write_text("\n".join(["ID;Fold ", *(line.replace(",", ";") for line in lines)]) + "\n")
    plan = plan_protocol(cache, NEVER, read_protocol(path))
    assert plan.published is not None
    assert plan.published.names == ("0", "1", "2")
    assert plan.rows.tolist() == list(range(72))
    for fold in range(3):
        sides = plan.sides(fold)
        tested = {k for k in range(72) if k % 3 == fold}
        assert {*sides.train.tolist(), *sides.val.tolist()} == {*range(80)} - tested
        assert (len(sides.train), len(sides.val)) == (45, 11)
    assert plan.published.told() == ["8 labelled posts are scored in no fold of folds.csv"]


def test_what_a_file_names_and_the_cache_lacks_is_counted(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(
        json.dumps(
            [
                {"train": [f"post {k}" for k in range(1, 61)], "test": ["post 61", "post 62", "post 81", "gone"]},
                {"train": [f"post {k}" for k in range(1, 61)], "valid": ["post 63"], "test": ["post 61", "post 64"]},
            ]
        )
    )
    plan = plan_protocol(cache, NEVER, read_protocol(path))
    assert plan.ids == ["post 61", "post 61", "post 62", "post 64"]  # one is tested twice
    assert plan.fold.tolist() == [0, 1, 0, 1]
    assert plan.sides(1).val.tolist() == [62]
    assert plan.published is not None
    assert plan.published.told() == [
        "2 posts of folds.json are no training posts of the cache and are left out",
        "77 labelled posts are scored in no fold of folds.json",
    ]


def test_posts_that_lack_a_half_are_in_the_folds_of_heads_that_can_do_without(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    parts = {0: "test", 1: "val"}
    lines = [f"post {k + 1},{f},{parts.get((k + f) % 4, 'train')}" for f in range(2) for k in range(80)]
    path.write_text("\n".join(["id,fold,part", *lines]) + "\n")
    outcome = cache.index("train").outcome.copy()
    outcome[:8], outcome[8:12] = IMAGE_BAD, TEXT_BAD
    features = cache.load("train")
    features = replace(features, index=replace(features.index, outcome=outcome))
    plan = plan_protocol(cache, NEVER, read_protocol(path), features=features, lacking=(IMAGE_BAD, TEXT_BAD))
    assert (len(plan.rows), len(plan.sides(0).train), len(plan.sides(0).val)) == (40, 40, 20)
    whole = plan_protocol(cache, NEVER, read_protocol(path), features=features)
    assert whole.published is not None
    assert whole.published.told()[0] == "12 posts of folds.csv have no label or lack a half and are left out"
    for lacking, train, val, scored in (((), 34, 17, 34), ((IMAGE_BAD,), 38, 19, 38)):
        part = plan.of(lacking)
        assert (len(part.sides(1).train), len(part.sides(1).val), len(part.rows)) == (train, val, scored)
        done = cross_validate(plan, FitSettings(**QUICK, fusion="text" if lacking else "concat"))
        assert [(one.train, one.val) for one in done.heads] == [(train, val)] * 2


def test_folds_that_only_validate_are_scored_on_those_rows(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "folds.jsonl"
    rows = [
        {"id": f"post {k + 1}", "fold": fold, "part": "val" if k % 4 == fold else "train"}
        for fold in range(4)
        for k in range(80)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_protocol(path)
    assert found.scored == "val"
    done = cross_validate(plan_protocol(cache, NEVER, found), FitSettings(**QUICK))
    assert done.pooled["n"] == 80
    mine = done.plan.fold == 1
    assert mine[1::4].all()
    logits = np.log(done.plain[mine]).astype(np.float32)
    assert done.probabilities[mine] == pytest.approx(cross_fitted(logits, done.plan.labels[mine]), abs=1e-4)


def test_folds_that_do_not_fit_the_cache(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"

    def refused(text: str) -> str:
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            plan_protocol(cache, NEVER, read_protocol(path))
        return str(caught.value)

    said = refused("id,fold\nx,1\ny,2\n")
    assert "no id of " in said
    assert "is a training post of posts: it has 'x', the posts are called 'post 1' or the like" in said
    said = refused("id,fold\npost 1,1\npost 2,2\n")
    assert "fold 1 of " in said
    assert said.endswith(": cannot cut a validation split from 1 labelled rows; at least 2 are needed")
    said = refused(
        "id,fold,part\npost 1,1,train\npost 2,1,val\npost 3,1,test\npost 1,2,train\npost 2,2,val\npost 3,2,test\n"
    )
    assert "fold 1 of " in said
    assert ": no row to train on is labelled " in said
    assert "or leave the label out of --labels" in said
    said = refused("id,fold,part\npost 1,1,train\npost 2,1,val\nx,1,test\npost 1,2,train\npost 2,2,test\n")
    assert said.endswith("no row is left to train on, validate on or score")


def test_the_command_scores_and_logs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert run("extract", "--views", "1") == 0
    (work / "folds.tsv").write_text("\n".join(["guid\trun", *(f"{k + 1}\t{k % 2}" for k in range(40))]) + "\n")
    named = ("fit", "--folds-from", "folds.tsv", "--fold-column", "run", "--group", "none", *WORDS)
    capsys.readouterr()
    assert run(*named, "--fusion", "concat,weighted") == 0
    shown = capsys.readouterr()
    assert "40 test rows in 2 folds of folds.tsv, 20 to 20 per fold; trained on 17 to 17" in shown.out
    assert "\ndata: 40 training posts, read by guid\n" in shown.out
    assert "vote of 2" in shown.out
    assert f"test rows were scored, for the 1st time; noted in {Path('runs') / LOG}" in shown.err
    assert run(*named, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"] == "data: 40 training posts, read by guid"
    assert found["published"]["names"] == ["0", "1"]
    first, second = read_openings([work / "runs"])
    assert second.key == found["opening"]
    assert (first.rows, [one["name"] for one in first.runs]) == (
        40,
        ["concat on 2 folds of folds.tsv", "weighted on 2 folds of folds.tsv"],
    )
    mean = found["runs"][0]["summary"]["f1_weighted"]["mean"]
    assert second.scores == {
        "concat on 2 folds of folds.tsv": {
            "accuracy": found["runs"][0]["summary"]["accuracy"]["mean"],
            "f1_weighted": mean,
        }
    }
    _, error = fails(capsys, *named, "--folds", "3")
    assert "--folds cuts folds and --folds-from reads them from a file; give one of them" in error
    _, error = fails(capsys, *named, "--splits", "3")
    assert "--folds-from cross-validates one head per fusion; it does not go with --splits" in error


def test_folds_of_a_file_in_report_and_audit(cache: Cache, parts: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    fit(cache, runs, [FitSettings(**QUICK)], NEVER)
    parted = tmp_path / "halves.csv"
    lines = [f"post {k + 1},{fold},{'dev' if k % 2 == fold else 'train'}" for fold in range(2) for k in range(80)]
    parted.write_text("\n".join(["id,fold,part", *lines]) + "\n")
    for file in (parts, parted):
        done = cross_validate(plan_protocol(cache, NEVER, read_protocol(file)), FitSettings(**QUICK))
        save_folds(runs, done, recipe="mine")
    found = list_folds(runs, cache)
    assert [one.info["published"]["scored"] for one in found] == ["val", "test"]
    said = validation.folds(open_study(list_runs(runs), cache, None))
    assert said["table"] is not None
    assert [row[2:6] for row in said["table"].rows[1:]] == [
        ["2", "as halves.csv has them", "0", "80"],
        ["10", "as folds.csv has them", "0", "80"],
    ]
    assert f"Only {found[0].name} scored the posts on which the heads stopped" in said["note"]
    assert usable_folds(found, cache.index("train")) == []
