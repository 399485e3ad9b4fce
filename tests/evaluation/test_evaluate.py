"""Evaluation: a run scores as it was recorded, the vote is one more row where all share their rows, and pairs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.cli.main import main
from mmsent.config import (
    DataSettings,
    FitSettings,
    Fusion,
    SplitSettings,
)
from mmsent.data.dataset import load_dataset
from mmsent.errors import RunError
from mmsent.evaluation.evaluate import (
    Evaluation,
    Pair,
    comparison,
    evaluate_labelled,
    evaluate_validation,
    paired,
    paired_table,
)
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.inference.logits import head_logits, head_probabilities
from mmsent.metrics import (
    bootstrap_intervals,
    brier_score,
    expected_calibration_error,
    mcnemar,
    negative_log_likelihood,
    scores,
)
from mmsent.training.calibration import cross_fitted
from mmsent.training.fit import fit
from mmsent.training.runs import Run, open_run
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
LABELS = ("negative", "neutral", "positive")
SPLIT = SplitSettings(val_size=30)


def make_cache(folder: Path, n_train: int = 70, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Cache:
    root = make_guid(folder / "posts", n_train=n_train, n_test=10, size=24)
    (root / "data" / f"{n_train + 3}.jpg").write_bytes(b"no picture")  # the third test row
    return fake_cache(
        load_dataset(root, DataSettings(labels=labels)),
        folder / "cache",
        views=2,
        encoders=fake_encoders(seed),
        max_bad=0.2,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    wanted = [FitSettings(**QUICK, fusion=fusion, seed=i) for i, fusion in enumerate(Fusion)]
    return fit(cache, tmp_path_factory.mktemp("runs"), wanted, SPLIT)


def labels_alone(evaluation: Evaluation) -> dict[str, Any]:
    """Its scores but for those of probabilities."""
    found = dict(evaluation.scores)
    for name in ("nll", "brier", "ece", "ece_uncalibrated", "temperature"):
        del found[name]
    return found


def validation_rows(run: Run, cache: Cache) -> np.ndarray[Any, Any]:
    ids = cache.index("train").ids
    return np.array([ids.index(row_id) for row_id in run.validation_ids()])


def validation_logits(run: Run, cache: Cache) -> np.ndarray[Any, Any]:
    features, rows = cache.load("train"), validation_rows(run, cache)
    return head_logits(run, features.image[rows, 0], features.text[rows])


def uncalibrated(run: Run, folder: Path) -> Run:
    """A copy of a run as mmsent 0.1 wrote it, without a temperature."""
    shutil.copytree(run.path, folder / run.name)
    info = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    del info["temperature"]
    (folder / run.name / "run.json").write_text(json.dumps(info), encoding="utf-8")
    return open_run(folder / run.name)


def validation(run: Run) -> list[dict[str, str]]:
    return list(csv.DictReader((run.path / "validation.csv").open(encoding="utf-8")))


def test_a_run_scores_as_recorded_and_the_vote_by_hand(cache: Cache, runs: list[Run]) -> None:
    found = evaluate_validation(runs, cache)
    assert [(e.name, e.fusion) for e in found[:6]] == [(r.name, r.fusion.value) for r in runs]
    for evaluation, run in zip(found[:6], runs, strict=True):
        assert labels_alone(evaluation) == run.info["metrics"]
    assert len({e.scores["accuracy"] for e in found[:6]}) > 1  # else one head could stand for another
    assert [(e.name, e.fusion) for e in found[6:]] == [
        ("vote of 3", "vote"),
        ("vote of 3, --soft", "soft vote"),
        ("majority class", "majority"),
    ]
    assert [run.fusion.value for run in runs[:3]] == ["concat", "weighted", "attention"]  # those that vote
    tables = [validation(run) for run in runs[:3]]
    truth = np.array([LABELS.index(row["label"]) for row in tables[0]])
    winners = []
    for rows in zip(*tables, strict=True):
        counts = [sum(row["predicted"] == label for row in rows) for label in LABELS]
        winners.append(counts.index(max(counts)) if counts.count(max(counts)) == 1 else 1)
    assert labels_alone(found[6]) == scores(truth, np.array(winners), 3)
    soft = sum(cross_fitted(validation_logits(run, cache), truth) for run in runs[:3]).argmax(axis=1)
    assert labels_alone(found[7]) == scores(truth, soft, 3)
    assert found[6].scores["n"] == 30


def test_scores_of_probabilities_and_intervals(cache: Cache, runs: list[Run]) -> None:
    found = evaluate_validation(runs, cache)
    truth = np.array([LABELS.index(row["label"]) for row in validation(runs[0])])
    for e, run in zip(found[:6], runs, strict=True):
        assert e.positions.dtype == np.int64
        assert e.positions.tolist() == validation_rows(run, cache).tolist()
        assert e.truth.tolist() == truth.tolist()
        logits = validation_logits(run, cache)
        assert e.probabilities == pytest.approx(cross_fitted(logits, truth), abs=1e-6)
        assert e.predicted.tolist() == logits.argmax(axis=1).tolist() == e.probabilities.argmax(axis=1).tolist()
        assert e.scores["temperature"] == run.temperature == run.info["temperature"]
        plain = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
        assert e.scores["ece_uncalibrated"] == pytest.approx(expected_calibration_error(truth, plain), abs=1e-6)
    for vote in found[6:8]:
        assert vote.probabilities == pytest.approx(np.mean([e.probabilities for e in found[:3]], axis=0))
        assert vote.scores["temperature"] is None
        assert vote.positions.tolist() == found[0].positions.tolist()
    for e in found:
        assert e.scores["nll"] == negative_log_likelihood(truth, e.probabilities)
        assert e.scores["brier"] == brier_score(truth, e.probabilities)
        assert e.scores["ece"] == expected_calibration_error(truth, e.probabilities)
        assert e.intervals == bootstrap_intervals(truth, e.predicted, 3)


def test_json_holds_no_arrays(cache: Cache, runs: list[Run]) -> None:
    for e in evaluate_validation(runs[:2], cache):
        shown = json.loads(json.dumps(e.to_json()))
        assert set(shown) == {"name", "fusion", "scores", "intervals", "coverage"}
        assert shown["scores"] == e.scores
        assert shown["intervals"]["f1_weighted"] == list(e.intervals["f1_weighted"])


def test_a_run_without_a_temperature_is_shown_as_it_is(cache: Cache, runs: list[Run], tmp_path: Path) -> None:
    old = uncalibrated(runs[0], tmp_path)
    found, _ = evaluate_validation([old], cache)
    new, _ = evaluate_validation([runs[0]], cache)
    logits = validation_logits(old, cache).astype(float)
    assert found.probabilities == pytest.approx(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    assert found.scores["ece"] == found.scores["ece_uncalibrated"] == new.scores["ece_uncalibrated"]
    assert found.scores["temperature"] is None
    assert found.scores["nll"] != new.scores["nll"]
    assert labels_alone(found) == labels_alone(new)


def test_a_vote_needs_one_split_and_two_runs(cache: Cache, runs: list[Run], tmp_path: Path) -> None:
    def names(chosen: list[Run]) -> list[str]:
        *found, majority = evaluate_validation(chosen, cache)
        assert majority.name == "majority class"
        return [e.name for e in found]

    quick = FitSettings(**QUICK)
    (same,) = fit(cache, tmp_path, [quick], SplitSettings(val_size=30))
    (other,) = fit(cache, tmp_path, [quick], SplitSettings(val_size=30, seed=1))
    (smaller,) = fit(cache, tmp_path, [quick], SplitSettings(val_size=20))
    assert names([runs[0]]) == [runs[0].name]
    assert names([runs[0], same]) == [runs[0].name, same.name, "vote of 2", "vote of 2, --soft"]
    ablations = [run for run in runs if run.fusion.value in ("image", "text")]
    assert names([runs[0], *ablations])[-2:] == ["vote of 3", "vote of 3, --soft"]  # one voter: all of them count
    assert names([runs[0], other]) == [runs[0].name, other.name]
    assert names([runs[0], same, smaller]) == [runs[0].name, same.name, smaller.name]
    evaluation, _ = evaluate_validation([other], cache)
    assert labels_alone(evaluation) == other.info["metrics"]  # each on its own split


def test_the_majority_class_is_that_of_the_other_training_rows(cache: Cache, runs: list[Run], tmp_path: Path) -> None:
    (other,) = fit(cache, tmp_path, [FitSettings(**QUICK)], SplitSettings(val_size=30, seed=1))
    index = cache.index("train")
    for chosen in ([runs[0]], [runs[0], other]):
        *found, majority = evaluate_validation(chosen, cache)
        rows = np.unique(np.concatenate([e.positions for e in found[: len(chosen)]]))
        assert sorted(majority.positions.tolist()) == rows.tolist()
        counts = np.bincount(np.delete(index.labels, rows), minlength=3)
        assert majority.predicted.tolist() == [counts.argmax()] * len(rows)
        assert majority.probabilities == pytest.approx(np.tile(counts / counts.sum(), (len(rows), 1)))
        shown = np.full(len(rows), counts.argmax())
        assert labels_alone(majority) == scores(index.labels[majority.positions], shown, 3)
        assert comparison([*found, majority], LABELS)[1][0] == "majority class"


def test_other_features_or_labels_are_refused(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was trained on features of offline \(contract"):
        evaluate_validation(runs, make_cache(tmp_path / "a", seed=1))
    # too small for the runs' split of 30 rows: that they do not belong together must be said first
    with pytest.raises(RunError, match=r"was trained on features of offline \(contract"):
        evaluate_validation(runs, make_cache(tmp_path / "b", n_train=20, seed=1))
    other = make_cache(tmp_path / "c", labels=LABELS[::-1])
    with pytest.raises(RunError, match="has the labels negative, neutral, positive; the cache has positive"):
        evaluate_validation(runs, other)
    with pytest.raises(RunError, match="has the labels"):
        evaluate_labelled(runs, other, other.load("test"), np.zeros(10, np.int64))


def test_labelled_rows(cache: Cache, runs: list[Run]) -> None:
    features = cache.load("test")
    truth = np.array([0, 1, 2, 2, 1, 0, 2, 2, NO_LABEL, NO_LABEL])
    found = evaluate_labelled(runs[:2], cache, features, truth)
    # of ten rows two have no label and the third has no picture
    assert [e.scores["n"] for e in found] == [7] * 5
    assert found[0].scores["support"] == [2, 2, 3]
    assert [e.name for e in found] == [runs[0].name, runs[1].name, "vote of 2", "vote of 2, --soft", "majority class"]
    train = cache.index("train").labels  # of every training row, for none of them is scored here
    assert found[-1].probabilities == pytest.approx(np.tile(np.bincount(train) / len(train), (7, 1)))
    import torch

    kept = [0, 1, 3, 4, 5, 6, 7]
    with torch.no_grad():
        logits = runs[0].head()(torch.from_numpy(features.image[kept, 0]), torch.from_numpy(features.text[kept]))
    assert labels_alone(found[0]) == scores(truth[kept], logits.argmax(dim=1).numpy(), 3)
    # not cross-fitted: no temperature comes from these rows
    served = head_probabilities(runs[0], features.image[kept, 0], features.text[kept])
    assert found[0].probabilities == pytest.approx(served, abs=1e-6)
    assert found[0].positions.tolist() == kept
    assert found[0].truth.tolist() == truth[kept].tolist()
    with pytest.raises(RunError, match="no row of this split has a label and the halves that the heads need"):
        evaluate_labelled(runs, cache, features, np.where(np.arange(10) == 2, 1, NO_LABEL))


# --- pairs and tables


def made(name: str, predicted: list[int], fusion: str = "concat", positions: list[int] | None = None) -> Evaluation:
    """An evaluation of rows whose truth is 0, 0, 0, 1, 2."""
    truth, guess = np.array([0, 0, 0, 1, 2]), np.array(predicted)
    found = {**scores(truth, guess, 3), "nll": 0.7518, "brier": 0.4, "ece": 0.0456}
    found |= {"ece_uncalibrated": 0.1, "temperature": 1.5}
    intervals = {"f1_weighted": (0.12345, 0.98765)}
    where = np.array(positions or range(5), np.int64)
    return Evaluation(name, fusion, found, intervals, np.full((5, 3), 1 / 3), guess, truth, where)


def test_comparison_table() -> None:
    guess = [0, 0, 1, 1, 0]
    table = comparison([made("run-1", guess), made("vote", guess, "vote")], ["a", "b", "c"])
    assert [" | ".join(row) for row in table] == [
        "run | head | rows | accuracy | F1 weighted | F1 macro | NLL | ECE | F1 a | F1 b | F1 c",
        "run-1 | concat | 5 | 0.600 | 0.533 [0.123, 0.988] | 0.444 | 0.752 | 0.046 | 0.667 | 0.667 | 0.000",
        "vote | vote | 5 | 0.600 | 0.533 [0.123, 0.988] | 0.444 | 0.752 | 0.046 | 0.667 | 0.667 | 0.000",
    ]


def test_pairs_by_hand() -> None:
    right, one, none = made("a", [0, 0, 0, 1, 2]), made("b", [0, 1, 1, 2, 1]), made("c", [1, 1, 1, 2, 0])
    # a has four rows right that b has wrong: 2 / 2^4; five that c has wrong: 2 / 2^5; b one that c has wrong
    assert paired([right, one, none]) == [
        Pair("a", "b", 5, pytest.approx(0.8), 4, 0, pytest.approx(0.125)),
        Pair("a", "c", 5, pytest.approx(1.0), 5, 0, pytest.approx(0.0625)),
        Pair("b", "c", 5, pytest.approx(0.2), 1, 0, pytest.approx(1.0)),
    ]
    assert [" | ".join(row) for row in paired_table(paired([one, right]))] == [
        "a | b | accuracy a - b | only a right | only b right | p",
        "b | a | -0.800 | 0 | 4 | 0.1250",
    ]
    tiny = Pair("a", "b", 100, 0.5, 50, 0, 1e-15)
    assert paired_table([tiny])[1][-1] == "<0.0001"


def test_only_the_same_rows_make_a_pair() -> None:
    right, vote, soft = made("a", [0] * 5), made("vote", [0] * 5, "vote"), made("soft", [0] * 5, "soft vote")
    elsewhere, more = made("b", [0] * 5, positions=[0, 1, 2, 3, 5]), made("c", [1] * 5)
    more = replace(
        more, truth=np.append(right.truth, 0), predicted=np.ones(6, int), positions=np.array([0, 1, 2, 3, 4, 9])
    )
    assert [(p.a, p.b) for p in paired([right, elsewhere, vote, soft])] == [("a", "vote")]
    # a head of one half is scored on more rows: those of the other count
    assert [(p.n, p.only_a) for p in paired([right, more])] == [(5, int((right.truth == 0).sum()))]
    assert paired([right]) == []


def test_pairs_of_runs_and_their_vote(cache: Cache, runs: list[Run]) -> None:
    found = evaluate_validation(runs[:3], cache)
    pairs = paired(found)
    names = [run.name for run in runs[:3]]
    assert [(p.a, p.b) for p in pairs] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[0], "vote of 3"),
        (names[1], names[2]),
        (names[1], "vote of 3"),
        (names[2], "vote of 3"),
    ]
    for p, (a, b) in zip(pairs, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], strict=True):
        assert p.p_value == mcnemar(found[0].truth, found[a].predicted, found[b].predicted).p_value
        assert p.accuracy_difference == pytest.approx(found[a].scores["accuracy"] - found[b].scores["accuracy"])


# --- the command


def evaluate_command(cache: Cache, runs: list[Run], *more: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *(str(run.path) for run in runs), "--cache", str(cache.path), *more])
    assert stop.value.code in (None, 0)


def test_the_command_prints_tables(cache: Cache, runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_command(cache, runs)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 150
    found = evaluate_validation(runs, cache)
    assert lines[1].startswith("majority class ")
    low, high = found[0].intervals["f1_weighted"]
    assert f"{found[0].scores['f1_weighted']:.3f} [{low:.3f}, {high:.3f}]" in lines[2]
    assert "95% interval from 2000 bootstrap resamples" in shown
    assert "probabilities are calibrated by temperature scaling on the validation rows" in shown
    assert "cross-fitted" in shown
    at = lines.index("Accuracy of the surest posts, by how many of all they are:")
    assert lines[at + 1].split() == ["run", "head", "100%", "80%", "60%", "40%", "20%"]
    assert lines[at + 2].split()[-5:] == [f"{found[0].coverage[i]['accuracy']:.3f}" for i in (0, 2, 4, 6, 8)]
    pairs = paired(found)
    heads = {e.name: e.fusion for e in found}  # as many as there are: they stand for the names
    assert len(pairs) == 21  # none with the majority class
    header = next(i for i, line in enumerate(lines) if line.startswith("a ") and line.endswith(" p"))
    for line, p in zip(lines[header + 1 :], pairs, strict=False):
        assert line.split()[:1] == heads[p.a].split()[:1]
        assert line.split()[-4:] == [f"{p.accuracy_difference:+.3f}", str(p.only_a), str(p.only_b), f"{p.p_value:.4f}"]
    assert "21 pairs were tested, so by chance alone about 1.05 would" in lines[-1]


def test_accuracy_over_coverage_is_drawn(cache: Cache, runs: list[Run], tmp_path: Path) -> None:
    from PIL import Image

    evaluate_command(cache, runs[:2], "--figure", str(tmp_path / "curve.png"))
    with Image.open(tmp_path / "curve.png") as drawn:
        assert drawn.format == "PNG"
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(runs[0].path), "--cache", str(cache.path), "--figure", str(tmp_path / "curve.txt")])
    assert stop.value.code == 2


def test_the_command_with_one_run_and_with_old_ones(
    cache: Cache, runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = uncalibrated(runs[0], tmp_path)
    evaluate_command(cache, [old])
    shown = capsys.readouterr().out
    assert "McNemar" not in shown
    assert "probabilities are not calibrated; a new `mmsent fit " in shown
    assert "cross-fitted" not in shown
    evaluate_command(cache, [old, runs[1]])
    assert "not calibrated throughout: 1 of 2 runs have no temperature" in capsys.readouterr().out


def test_the_command_gives_all_as_json(
    cache: Cache, runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_command(cache, runs[:2], "--json")
    shown = json.loads(capsys.readouterr().out)
    found = evaluate_validation(runs[:2], cache)
    assert shown["calibrated"] is True
    assert shown["evaluations"] == json.loads(json.dumps([e.to_json() for e in found]))
    assert shown["paired"] == [asdict(pair) for pair in paired(found)]
    assert all(e["coverage"][0]["accuracy"] == e["scores"]["accuracy"] for e in shown["evaluations"] if e["coverage"])
    assert [e["coverage"] == [] for e in shown["evaluations"]] == [
        e["fusion"] == "majority" for e in shown["evaluations"]
    ]
    evaluate_command(cache, [uncalibrated(runs[0], tmp_path)], "--json")
    assert json.loads(capsys.readouterr().out)["calibrated"] is False
