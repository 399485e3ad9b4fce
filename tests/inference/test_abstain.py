"""Abstention: bounds by hand, what is promised held by made-up heads, and the commands that write `uncertain`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.config import Fusion, SplitSettings
from mmsent.errors import RunError, UsageError
from mmsent.features.cache import Cache
from mmsent.inference.abstain import NEVER, UNCERTAIN, Abstention, least_confidence, least_probability, share_bounds
from mmsent.inference.held_out import HeldOut, held_out
from mmsent.inference.predict import Prediction, abstaining, predictions_table
from mmsent.inference.tally import Way
from mmsent.serve.review import read_table
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.inference.test_vote import LABELS, QUICK, make_cache


def test_the_confidence_bound_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    wrong = np.array([False, False, False, True, False])
    # none wrong of 3: the share p with (1 - p)^3 = 0.2; 1 of 4 and 1 of 5: (1 - p)^n + n p (1 - p)^(n - 1) = 0.2
    bounds = [0.8, 1 - 0.2**0.5, 1 - 0.2 ** (1 / 3), 0.5825, 0.4902]
    assert share_bounds(wrong) == pytest.approx(np.array(bounds), abs=1e-4)
    assert least_confidence(confidence, wrong, 0.42) == 0.7
    assert least_confidence(confidence, wrong, 0.5) == 0.5
    assert least_confidence(confidence, wrong, 0.41) == NEVER
    assert least_confidence(confidence[::-1], wrong[::-1], 0.42) == 0.7
    assert share_bounds(np.array([True, True])).tolist() == [1.0, 1.0]
    n = np.arange(1, 200)
    for errors in (0, 1, 5, 50):
        few = np.arange(199) < errors
        assert (share_bounds(few) >= (np.cumsum(few) + 1) / (n + 1))[errors:].all()
    assert least_confidence(np.zeros(0), np.zeros(0, bool), 0.5) == NEVER
    # rows of one confidence are all answered or none
    assert least_confidence(np.array([0.9, 0.9, 0.9, 0.9]), np.array([False, False, False, True]), 0.5) == NEVER
    assert least_confidence(np.array([0.9, 0.9, 0.9, 0.9]), np.array([False, False, False, True]), 0.6) == 0.9


def test_the_bound_of_sets_by_hand() -> None:
    of_truth = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # 9 rows: at 0.2 two of ten may miss
    assert least_probability(of_truth, 0.1) == 0.1
    assert least_probability(of_truth, 0.2) == 0.2
    assert least_probability(of_truth, 0.09) == 0.0


def made(seed: int, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities (1, n, 3) of a head that is too sure of itself, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.2, 0.1, 0.7])
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[truth]
    shares = np.exp(3 * logits)
    return (shares / shares.sum(axis=1, keepdims=True))[None], truth


def rows_of(probabilities: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> HeldOut:
    return HeldOut(list(map(str, range(len(truth)))), truth, probabilities, np.ones(probabilities.shape[:2], bool))


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_over_many_splits_the_promise_is_kept(level: float) -> None:
    shares, missed, in_class = [], 0, np.zeros((2, 3))
    for seed in range(100):
        held = rows_of(*made(seed, 200))
        when = Abstention.of(held, LABELS, Way(soft=True), level)
        sets = Abstention.of(held, LABELS, Way(soft=True), level, sets=True)
        probabilities, truth = made(1000 + seed, 200)
        best = probabilities[0].argmax(axis=1)
        answers = errors = 0
        for row, said, right in zip(probabilities[0].tolist(), best, truth, strict=True):
            answer = when.answer(LABELS[said], row)
            answers += answer != UNCERTAIN
            errors += answer not in (UNCERTAIN, LABELS[right])
            miss = LABELS[right] not in sets.answer(LABELS[said], row).split("|")
            missed += miss
            in_class[:, right] += [1, miss]
        shares.append((errors / 200 * 201 / (1 + when.answered), errors / max(1, answers)))
    expected, own = np.mean(shares, axis=0)
    assert 0.3 * level < expected <= level  # wrong answers among those that the validation rows lead one to expect
    assert 0.3 * level < own <= level  # and among those that were given
    assert missed / 20_000 <= level * 1.1
    for n, miss in in_class.T[[0, 2]]:  # the rare class shares a bound at 0.05
        assert miss / n <= level * 1.1


def test_heads_with_other_validation_rows_have_no_say_on_those_they_trained_on() -> None:
    sure_and_wrong, right = [0.98, 0.01, 0.01], [0.1, 0.1, 0.8]
    probabilities = np.array([[right, sure_and_wrong], [sure_and_wrong, right]])
    held = HeldOut(["a", "b"], np.array([2, 2]), probabilities, np.array([[True, False], [False, True]]))
    when = Abstention.of(held, LABELS, Way(soft=True), 0.6)
    assert (when.least, when.answered, when.wrong, when.whole) == (0.8, 2, 0, False)
    assert "each voted on by the heads that held it out" in when.in_words()
    assert held.by_all().ids == []


def test_labels_with_few_rows_share_a_bound() -> None:
    probabilities = np.array([[[0.5, 0.2, 0.3]] * 20 + [[0.3, 0.6, 0.1]]])
    held = rows_of(probabilities, np.array([0] * 20 + [1]))
    when = Abstention.of(held, LABELS, Way(soft=True), 0.05, sets=True)
    assert when.shared == ("neutral", "positive")
    assert when.bounds == (0.5, 0.5, 0.5)
    assert when.answer("negative", [0.5, 0.2, 0.3]) == "negative"
    assert when.answer("neutral", [0.6, 0.3, 0.1]) == "negative|neutral"  # the vote's own label is always in
    assert when.answer(None, [1 / 3] * 3) == UNCERTAIN
    assert "neutral, positive, which have too few rows" in when.in_words()
    assert Abstention.from_json(json.loads(json.dumps(when.to_json()))) == when


def test_what_cannot_be_promised_says_what_can() -> None:
    held = rows_of(np.array([[[0.9, 0.05, 0.05]] * 4]), np.zeros(4, int))
    when = Abstention.of(held, LABELS, Way(soft=True), 0.1)
    assert when.least == NEVER
    assert when.answer("negative", [1.0, 0.0, 0.0]) == UNCERTAIN
    assert when.in_words().startswith("no post is labelled: by the 4 validation rows no confidence leaves at most 10")
    assert when.in_words().endswith("from --abstain 0.332 on some get one")  # 1 - 0.2 ** (1 / 4)
    assert Abstention.of(held, LABELS, Way(soft=True), 0.332).answered == 4
    with pytest.raises(UsageError, match="between 0 and 1"):
        Abstention.of(held, LABELS, Way(), 1.0)
    with pytest.raises(UsageError, match="is one of the labels"):
        Abstention.of(held, ["a", "b", "uncertain"], Way(), 0.1)
    with pytest.raises(UsageError, match=r"joins labels by \\|, and the label 'a|b' holds one"):
        Abstention.of(held, ["a|b", "b", "c"], Way(), 0.1, sets=True)
    with pytest.raises(RunError, match="no validation rows"):
        Abstention.of(rows_of(np.zeros((1, 0, 3)), np.zeros(0, int)), LABELS, Way(), 0.1)


def test_predictions_keep_what_was_voted(tmp_path: Path) -> None:
    when = Abstention(0.05, tuple(LABELS), 0.7, (), 100, 50, 2, 0.01, True)
    sure = Prediction("a", "positive", {"negative": 0.1, "neutral": 0.1, "positive": 0.8}, {"r": "positive"}, 1)
    unsure = Prediction("b", "neutral", {"negative": 0.5, "neutral": 0.2, "positive": 0.3}, {"r": "neutral"}, 1)
    none = Prediction("c", None, {}, {}, 0, "no image")
    found = abstaining([sure, unsure, none], when)
    assert [(p.label, p.voted) for p in found] == [("positive", "positive"), (UNCERTAIN, "neutral"), (None, None)]
    assert found[1].decision == unsure.decision != ""
    assert abstaining([sure], None) == [sure]
    table = predictions_table(found, LABELS)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["predicted"] for row in rows] == ["positive", UNCERTAIN, ""]
    assert [row["voted"] for row in rows] == ["positive", "neutral", ""]
    assert [row["confidence"] for row in rows] == ["0.800000", "0.200000", ""]
    assert "voted" not in predictions_table([sure], LABELS)
    path = tmp_path / "t.csv"
    path.write_text(table, encoding="utf-8")
    assert [row.predicted for row in read_table(path, LABELS)] == ["positive", "neutral"]  # a review shows the vote


# --- runs and commands


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("abstain"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    from mmsent.config import FitSettings

    wanted = [FitSettings(**QUICK, fusion=fusion) for fusion in (Fusion.concat, Fusion.text)]
    return fit(cache, tmp_path_factory.mktemp("runs"), wanted, SplitSettings(val_size=0.4))


def test_held_out_rows_are_those_of_the_tables(runs: list[Run], tmp_path: Path) -> None:
    found = held_out(runs)
    assert found.ids == runs[0].validation_ids() == runs[1].validation_ids()
    with (runs[1].path / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [LABELS[k] for k in found.truth] == [row["label"] for row in rows]
    assert found.probabilities[1, :, 2].tolist() == [float(row["p_positive"]) for row in rows]
    assert found.held.all()
    bare = Run(tmp_path, runs[0].info)
    with pytest.raises(RunError, match=r"keeps no validation\.csv, as exported folders do not"):
        held_out([bare])
    (tmp_path / "validation.csv").write_text("id\n1\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"validation\.csv cannot be read"):
        held_out([bare])
    with pytest.raises(RunError, match="have different labels"):
        held_out([runs[0], Run(tmp_path, runs[0].info | {"labels": ["a", "b", "c"]})])


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from mmsent.cli.main import main

    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_vote_writes_uncertain_and_sets(
    cache: Cache, runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--cache", str(cache.path), "--out", str(tmp_path / "out.txt")]
    names = [str(run.path) for run in runs]
    code, out, _ = command(capsys, "vote", *names, *where, "--abstain", "0.6")
    when = Abstention.of(held_out(runs), LABELS, Way(1), 0.6)
    assert code == 0
    assert when.in_words() in " ".join(out.split())
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        sure = float(row["confidence"]) >= when.least and not row["decision"].startswith("no head")
        assert row["predicted"] == (row["voted"] if sure else UNCERTAIN)
    listed = [line.split(",")[1] for line in (tmp_path / "out.txt").read_text().splitlines()[1:]]
    assert listed == [row["predicted"] for row in rows]
    assert f"{UNCERTAIN}: {listed.count(UNCERTAIN)}" in out
    code, out, _ = command(capsys, "vote", *names, *where, "--abstain", "0.6", "--sets", "--json")
    said = json.loads(out)
    assert said["abstain"]["bounds"]
    assert sum(said["predicted"].values()) == 10
    code, _, err = command(capsys, "vote", *names, *where, "--sets")
    assert (code, "--sets goes with --abstain" in err) == (2, True)
    code, _, err = command(capsys, "vote", *names, *where, "--abstain", "0.1", "--twins")
    assert (code, "not with --twins" in err) == (2, True)
    code, out, _ = command(capsys, "vote", *names, *where, "--json")
    assert json.loads(out)["abstain"] is None
