"""The vote by hand, and over a cached split that holds bad rows."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
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
from mmsent.data.lists import ListForm
from mmsent.errors import RunError, UsageError
from mmsent.features.cache import Cache
from mmsent.inference.logits import head_probabilities, served
from mmsent.inference.tally import Way, agreement, decision, default_tie, tally, tie_label
from mmsent.inference.vote import Vote, require_distinct, vote_split, voting_runs, write_vote
from mmsent.metrics import Probabilities
from mmsent.training.fit import fit
from mmsent.training.halves import missing_halves
from mmsent.training.runs import Run
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
LABELS = ["negative", "neutral", "positive"]
NO_PICTURE, NO_HALVES = 2, 5  # positions in the test list


def make_cache(folder: Path, seed: int = 0, labels: tuple[str, ...] = tuple(LABELS), name: str = "posts") -> Cache:
    """40 and 10 rows; of the test rows one has no picture and one has neither half."""
    root = make_guid(folder / name, n_train=40, n_test=10, size=24)
    (root / "data" / f"{41 + NO_PICTURE}.jpg").write_bytes(b"no picture")
    (root / "data" / f"{41 + NO_HALVES}.jpg").unlink()
    (root / "data" / f"{41 + NO_HALVES}.txt").unlink()
    return extracted(root, folder, seed, labels)


def extracted(root: Path, folder: Path, seed: int, labels: tuple[str, ...] = tuple(LABELS)) -> Cache:
    return fake_cache(
        load_dataset(root, DataSettings(labels=labels)),
        folder / "cache",
        views=2,
        encoders=fake_encoders(seed),
        max_bad=0.3,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("vote"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One run of each fusion by its name, and `dropout`, a concat head with modality dropout."""
    wanted = [FitSettings(**QUICK, fusion=fusion, seed=i) for i, fusion in enumerate(Fusion)]
    wanted.append(FitSettings(**QUICK, modality_dropout=0.3))
    done = fit(cache, tmp_path_factory.mktemp("runs"), wanted, SplitSettings())
    return dict(zip([*(f.value for f in Fusion), "dropout"], done, strict=True))


# --- counting


def one_hot(*choices: list[int]) -> Probabilities:
    """(R, N, C) probabilities of heads that are sure of their labels."""
    votes: Probabilities = np.eye(3)[np.array(choices)]
    return votes


def test_majority_by_hand() -> None:
    #                     2:1  3:0  1:1:1  1:2 against the tie label
    counted = tally(one_hot([0, 2, 0, 1], [0, 2, 1, 2], [2, 2, 2, 2]), Way(1))
    assert counted.labels.tolist() == [0, 2, 1, 2]
    assert counted.agreeing.tolist() == [2, 3, 1, 2]
    assert counted.tied.tolist() == [False, False, True, False]
    assert counted.labels.dtype == np.int64


def test_the_probabilities_do_not_matter_to_a_majority() -> None:
    sure_but_alone = np.array([[[0.0, 0.0, 1.0]], [[0.34, 0.33, 0.33]], [[0.34, 0.33, 0.33]]])
    assert tally(sure_but_alone, Way()).labels.tolist() == [0]


def test_a_soft_tie_goes_to_the_likeliest_of_those_tied() -> None:
    # votes 0, 0, 2, 2 and nearly 1 throughout: label 1 has the highest mean, 0.45, yet no vote
    four = np.array([[[0.5, 0.45, 0.05]], [[0.5, 0.45, 0.05]], [[0.04, 0.45, 0.51]], [[0.01, 0.45, 0.54]]])
    assert four.mean(axis=0).argmax() == 1
    counted = tally(four, Way())
    assert (counted.labels.tolist(), counted.agreeing.tolist(), counted.tied.tolist()) == ([2], [2], [True])
    assert tally(four, Way(1)).labels.tolist() == [1]
    assert tally(four, Way(1)).agreeing.tolist() == [0]
    three = np.array([[[0.6, 0.3, 0.1]], [[0.2, 0.5, 0.3]], [[0.0, 0.2, 0.8]]])  # sums 0.8, 1.0, 1.2
    assert tally(three, Way()).labels.tolist() == [2]


def test_a_label_that_is_not_the_likeliest_says_why() -> None:
    p = {"negative": 0.34, "neutral": 0.24, "positive": 0.42}
    every = ["negative", "neutral", "positive"]
    assert decision("neutral", every, p) == "no majority: neutral by rule"
    assert decision("positive", every, p) == ""
    assert decision("neutral", ["positive", "negative"], p) == "no majority: neutral by rule"
    assert decision("negative", ["negative", "positive", "positive", "negative"], p) == "no majority: negative by rule"
    two = "2 of 3 heads chose negative; positive has the highest mean probability"
    assert decision("negative", ["negative", "positive", "negative"], p) == two
    assert decision("negative", [], p) == "by vote; positive has the highest mean probability"
    even = {"negative": 0.3333333, "neutral": 0.3333334, "positive": 0.3333333}
    assert decision("negative", every, even) == ""  # tables hold six digits


def test_agreement_in_words() -> None:
    assert agreement(3, 3, "neutral") == "all 3 heads agree"
    assert agreement(2, 3, "neutral") == "2 of 3 heads chose neutral"
    assert agreement(0, 3, "neutral") == "none of 3 heads chose neutral"
    assert agreement(1, 1, "neutral") == "one head"


def test_two_heads_and_one() -> None:
    two = tally(one_hot([0, 1], [2, 1]), Way(1))
    assert two.labels.tolist() == [1, 1]
    assert two.agreeing.tolist() == [0, 2]
    assert two.tied.tolist() == [True, False]
    one = tally(one_hot([2, 0]), Way(1))
    assert (one.labels.tolist(), one.agreeing.tolist(), one.tied.tolist()) == ([2, 0], [1, 1], [False, False])


def test_heads_that_do_not_serve_a_row_have_no_vote() -> None:
    votes = one_hot([0, 0, 0, 0], [0, 0, 0, 2], [2, 2, 2, 1])
    serving = np.array([[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]], bool)
    counted = tally(votes, Way(1), serving)
    assert counted.labels.tolist() == [0, 2, 1, 1]
    assert counted.agreeing.tolist() == [2, 1, 0, 0]
    assert counted.tied.tolist() == [False, False, True, True]
    # the soft tie looks at serving heads alone: without the last head label 2 would win the last row
    probabilities = np.array([[[0.6, 0.0, 0.4]], [[0.3, 0.0, 0.7]], [[1.0, 0.0, 0.0]]])
    assert tally(probabilities, Way(), np.array([[True], [True], [False]])).labels.tolist() == [2]
    assert tally(probabilities, Way()).labels.tolist() == [0]


def test_mean_probabilities_by_hand() -> None:
    probabilities = np.array([[[0.6, 0.2, 0.2], [1, 0, 0]], [[0.2, 0.6, 0.2], [0, 1, 0]]])
    assert tally(probabilities, Way()).probabilities == pytest.approx(np.array([[0.4, 0.4, 0.2], [0.5, 0.5, 0]]))
    serving = np.array([[True, False], [False, False]])
    found = tally(probabilities, Way(), serving)
    assert found.probabilities == pytest.approx(np.array([[0.6, 0.2, 0.2], [1 / 3, 1 / 3, 1 / 3]]))
    assert found.labels.tolist() == [0, -1]
    assert found.labelled.tolist() == [True, False]
    assert found.choices.tolist() == [[0, -1], [-1, -1]]
    assert found.agreeing.tolist() == [1, 0]


def test_a_soft_vote_by_hand() -> None:
    probabilities = np.array([[[0.5, 0.4, 0.1]], [[0.5, 0.4, 0.1]], [[0.0, 0.6, 0.4]]])  # sums 1.0, 1.4, 0.6
    found = tally(probabilities, Way(tie=2, soft=True))
    assert (found.labels.tolist(), found.agreeing.tolist(), found.tied.tolist()) == ([1], [1], [False])
    assert tally(probabilities, Way(tie=2)).labels.tolist() == [0]


def test_other_probabilities_decide_the_same_votes() -> None:
    votes = one_hot([0, 0, 0], [2, 1, 0])
    serving = np.array([[True, True, False], [True, True, False]])
    found = tally(votes, Way(tie=1), serving).decided_by(np.array([[0.1, 0.2, 0.7], [0.9, 0.1, 0.0], [0.3, 0.4, 0.3]]))
    assert found.labels.tolist() == [2, 0, -1]
    assert found.agreeing.tolist() == [1, 1, 0]
    assert found.tied.tolist()[:2] == [True, True]
    assert found.probabilities[0].tolist() == [0.1, 0.2, 0.7]


def test_tie_labels() -> None:
    assert default_tie(LABELS) == 1
    assert default_tie(["bad", "good"]) is None
    assert tie_label(None, LABELS) == 1
    assert tie_label(None, ["bad", "good"]) is None
    assert tie_label("soft", LABELS) is None
    assert tie_label("positive", LABELS) == 2
    with pytest.raises(UsageError, match=r"--tie 'happy' is neither a label \(negative, neutral, positive\) nor"):
        tie_label("happy", LABELS)


# --- who serves what


def test_served(runs: dict[str, Run]) -> None:
    missing = np.array([[False, False], [True, False], [False, True], [True, True]])
    assert np.array_equal(missing_halves(np.array([0, 1, 2, 3], np.uint8)), missing)
    wanted = {
        "concat": [True, False, False, False],
        "attention": [True, False, False, False],
        "dropout": [True, True, True, False],
        "image": [True, False, True, False],
        "text": [True, True, False, False],
    }
    assert {name: served(runs[name], missing).tolist() for name in wanted} == wanted


def without_temperature(run: Run) -> Run:
    """A run as mmsent 0.1 wrote it."""
    return replace(run, info={k: v for k, v in run.info.items() if k != "temperature"})


def test_head_probabilities_are_the_heads_own(cache: Cache, runs: dict[str, Run]) -> None:
    import torch

    features = cache.load("train")
    found = head_probabilities(runs["attention"], features.image[:, 0], features.text)
    head = runs["attention"].head()
    with torch.no_grad():
        logits = head(torch.from_numpy(features.image[:, 0]), torch.from_numpy(features.text))
    assert runs["attention"].temperature != 1
    assert found == pytest.approx((logits / runs["attention"].temperature).softmax(dim=1).numpy(), abs=1e-6)
    old = without_temperature(runs["attention"])
    found = head_probabilities(old, features.image[:, 0], features.text)
    assert found == pytest.approx(logits.softmax(dim=1).numpy(), abs=1e-6)
    with pytest.raises(RunError, match=r"takes features of widths \(48, 32\), got \(32, 48\)"):
        head_probabilities(runs["concat"], features.text, features.image[:, 0])


# --- a split


THREE = ("concat", "weighted", "attention")


def test_vote_over_a_split(cache: Cache, runs: dict[str, Run]) -> None:
    chosen = [runs[name] for name in THREE]
    vote = vote_split(chosen, cache, "test")
    assert vote.ids == [str(n) for n in range(41, 51)]
    assert vote.fallback == [NO_PICTURE, NO_HALVES]
    # 50% of the training rows are positive; a row without a vote would otherwise be neutral
    assert vote.fallback_label == "positive"
    features = cache.load("test")
    each = np.stack([head_probabilities(r, features.image[:, 0], features.text) for r in chosen])
    for i in range(10):
        if i in vote.fallback:
            assert vote.predicted[i] == "positive"
            assert vote.agreeing[i] == 0
            assert [choices[i] for choices in vote.choices] == ["", "", ""]
            assert vote.probabilities[i].tolist() == [1 / 3] * 3
            continue
        choices = [LABELS[int(p[i].argmax())] for p in each]
        assert [c[i] for c in vote.choices] == choices
        common = [label for label in LABELS if choices.count(label) >= 2]
        assert vote.predicted[i] == (common[0] if common else "neutral")
        assert vote.agreeing[i] == choices.count(vote.predicted[i])
        assert vote.probabilities[i] == pytest.approx(each[:, i].mean(axis=0), abs=1e-9)
    assert vote.agreement() == {n: vote.agreeing.tolist().count(n) for n in sorted({*vote.agreeing.tolist()})[::-1]}
    assert list(vote.agreement())[-1] == 0


def test_the_soft_vote_and_the_tie(cache: Cache, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "concat": [0.4, 0.5, 0.1],
        "weighted": [0.4, 0.5, 0.1],
        "attention": [0.95, 0.0, 0.05],
        "image": [0.1, 0.2, 0.7],
    }

    def made_up(run: Run, image: Any, *_: Any) -> Probabilities:
        return np.tile(answers[run.fusion.value], (len(image), 1))

    monkeypatch.setattr("mmsent.inference.vote.head_probabilities", made_up)
    chosen = [runs[name] for name in THREE]
    counted = vote_split(chosen, cache, "test")
    assert counted.predicted[0] == "neutral"
    assert counted.decisions[0] == "2 of 3 heads chose neutral; negative has the highest mean probability"
    assert counted.agreement_words() == "2 of 3 heads chose the label of 8 posts (80.0%)"
    assert counted.not_likeliest == 8
    soft = vote_split(chosen, cache, "test", soft=True)
    assert soft.predicted[0] == "negative"
    assert soft.agreeing[0] == 1
    assert soft.not_likeliest == 0
    assert soft.agreement_words() == "1 of 3 heads chose the label of 8 posts (80.0%)"
    tied = [runs["attention"], runs["image"]]  # negative against positive
    assert vote_split(tied, cache, "test").predicted[0] == "neutral"
    assert vote_split(tied, cache, "test").tied[0]
    assert vote_split(tied, cache, "test").decisions[0] == "no majority: neutral by rule"
    assert vote_split(tied, cache, "test").agreement_words() == "8 posts (80.0%) have no majority: neutral by rule"
    assert vote_split(tied, cache, "test", tie="positive").predicted[0] == "positive"
    assert vote_split(tied, cache, "test", tie="soft").predicted[0] == "negative"
    with pytest.raises(UsageError, match="--tie"):
        vote_split(tied, cache, "test", tie="x")


def test_heads_that_need_less_label_more(cache: Cache, runs: dict[str, Run]) -> None:
    vote = vote_split([runs["concat"], runs["text"]], cache, "test")
    assert vote.fallback == [NO_HALVES]
    assert vote.choices[0][NO_PICTURE] == ""
    assert vote.predicted[NO_PICTURE] == vote.choices[1][NO_PICTURE]
    assert vote.agreeing[NO_PICTURE] == 1
    alone = vote_split([runs["text"]], cache, "test")
    assert vote.probabilities[NO_PICTURE] == pytest.approx(alone.probabilities[NO_PICTURE])
    assert vote_split([runs["dropout"]], cache, "test").fallback == [NO_HALVES]


def test_the_temperature_moves_no_head_and_no_majority(cache: Cache, runs: dict[str, Run]) -> None:
    chosen = [runs[name] for name in THREE]
    vote, old = vote_split(chosen, cache, "test"), vote_split(list(map(without_temperature, chosen)), cache, "test")
    assert (vote.calibrated, old.calibrated) == (True, False)
    assert not vote_split([chosen[0], without_temperature(chosen[1])], cache, "test").calibrated
    assert vote.choices == old.choices
    assert vote.predicted == old.predicted
    assert not np.allclose(vote.probabilities, old.probabilities)


def test_the_command_says_whether_probabilities_are_calibrated(
    cache: Cache, runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(runs["concat"].path, old)
    (old / "run.json").write_text(json.dumps(without_temperature(runs["concat"]).info), encoding="utf-8")

    def say(*names: Path, more: tuple[str, ...] = ()) -> str:
        arguments = ["vote", *map(str, names), "--cache", str(cache.path), "--out", str(tmp_path / "out.txt"), *more]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code in (None, 0)
        return capsys.readouterr().out

    new = runs["weighted"].path
    assert say(new).endswith("probabilities are calibrated by temperature scaling on the validation rows\n")
    assert re.search(r"probabilities are not calibrated; a new `mmsent fit .*` calibrates them", say(old))
    assert "not calibrated throughout: 1 of 2 runs have no temperature" in say(old, new)
    assert json.loads(say(new, more=("--json",)))["calibrated"] is True
    assert json.loads(say(old, new, more=("--json",)))["calibrated"] is False


def test_runs_must_fit_the_cache(cache: Cache, runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was trained on features of offline \(contract"):
        vote_split([runs["concat"]], make_cache(tmp_path / "a", seed=1), "test")
    with pytest.raises(RunError, match="has the labels negative, neutral, positive; the cache has positive"):
        vote_split([runs["concat"]], make_cache(tmp_path / "b", labels=tuple(LABELS[::-1])), "test")


# --- choosing runs


def test_voting_runs_are_the_newest_of_three(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with pytest.raises(RunError, match=r"no runs of posts\.offline.*--fusion concat --fusion weighted"):
        voting_runs(folder, cache)
    quick = {**QUICK, "epochs": 1}

    def add(fusion: Fusion, where: Cache = cache) -> Run:
        return fit(where, folder, [FitSettings(**quick, fusion=fusion)], SplitSettings())[0]

    add(Fusion.image)
    with pytest.raises(RunError, match="no runs"):
        voting_runs(folder, cache)
    attention = add(Fusion.attention)
    assert voting_runs(folder, cache) == [attention]
    old, new = add(Fusion.concat), add(Fusion.concat)
    weighted = add(Fusion.weighted)
    add(Fusion.attention_alt)
    other = add(Fusion.concat, make_cache(tmp_path / "other", seed=1))
    third = add(Fusion.concat, make_cache(tmp_path / "third", name="third"))
    assert old.path != new.path
    assert other.info["cache"]["data_name"] == "posts"
    assert third.info["cache"]["fingerprint"] == cache.fingerprint
    assert voting_runs(folder, cache) == [new, weighted, attention]


# --- writing


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (ListForm(), b"guid,tag\nb,positive\na,neutral\n"),
        (ListForm(None, "\r\n"), b"b,positive\r\na,neutral\r\n"),
        (ListForm(("id", "label"), "\r\n"), b"id,label\r\nb,positive\r\na,neutral\r\n"),
    ],
)
def test_write_vote(form: ListForm, wanted: bytes, runs: dict[str, Run], tmp_path: Path) -> None:
    chosen = [runs["concat"], replace(runs["text"], path=Path("two"))]
    vote = Vote(
        ids=["b", "a"],
        labels=LABELS,
        runs=chosen,
        predicted=["positive", "neutral"],
        probabilities=np.array([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]),
        choices=[["positive", ""], ["positive", ""]],
        agreeing=np.array([2, 0]),
        tied=np.array([False, True]),
        fallback=[1],
        fallback_label="neutral",
    )
    out, table = write_vote(vote, tmp_path / "deep" / "test.txt", form)
    assert out.read_bytes() == wanted
    assert table == tmp_path / "deep" / "test.csv"
    rows = list(csv.reader(table.open(encoding="utf-8")))
    probabilities = ["p_negative", "p_neutral", "p_positive"]
    assert rows == [
        ["id", "predicted", "confidence", *probabilities, "decision", "agreeing", chosen[0].name, "two"],
        ["b", "positive", "0.700000", "0.100000", "0.200000", "0.700000", "", "2", "positive", "positive"],
        ["a", "neutral", *["0.333333"] * 4, "no head could label it: neutral, the commonest label", "0", "", ""],
    ]
    out, table = write_vote(vote, tmp_path / "test.csv", form)
    assert (out.name, table.name) == ("test.csv", "test.probabilities.csv")
    assert out.read_bytes() == wanted


# --- edges that a mutation run found untested (see docs/notes.md)


def test_a_soft_tie_looks_at_the_tied_labels_and_the_voting_heads_alone() -> None:
    heads = np.array([[[0.5, 0.1, 0.4]], [[0.0, 0.55, 0.45]], [[0.0, 0.9, 0.1]]])
    # Of the two that vote, one is for each of the first two labels; the third label has the highest mean.
    counted = tally(heads, Way(), np.array([[True], [True], [False]]))
    assert counted.labels.tolist() == [1]
    assert counted.tied.tolist() == [True]
    assert counted.agreeing.tolist() == [1]
    # Were the third head counted too, its weight of nought must not turn into an infinite one.
    heads[2, 0] = [0.9, 0.05, 0.05]
    heads[0, 0] = [0.5, 0.2, 0.3]
    assert tally(heads, Way(), np.array([[True], [True], [False]])).labels.tolist() == [1]


def test_heads_that_serve_no_half_row_have_no_say_in_it(
    cache: Cache, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two heads that need both halves would outvote the text's head on the row without a picture."""
    answers = {"concat": [0.9, 0.1, 0.0], "weighted": [0.9, 0.1, 0.0], "text": [0.1, 0.1, 0.8]}
    seen: list[Any] = []

    def made_up(run: Run, image: Any, text: Any, missing: Any = None) -> Probabilities:
        seen.append(missing)
        return np.tile(answers[run.fusion.value], (len(image), 1))

    monkeypatch.setattr("mmsent.inference.vote.head_probabilities", made_up)
    vote = vote_split([runs["concat"], runs["weighted"], runs["text"]], cache, "test")
    assert vote.predicted[0] == "negative"
    assert vote.predicted[NO_PICTURE] == "positive"
    assert vote.agreeing[NO_PICTURE] == 1
    for missing in seen:  # heads learn which halves are not there, and put their mean in its place
        assert missing[NO_PICTURE].tolist() == [True, False]
        assert missing[NO_HALVES].tolist() == [True, True]
        assert missing[0].tolist() == [False, False]


def test_the_soft_vote_decides_row_by_row(cache: Cache, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(run: Run, image: Any, *_: Any) -> Probabilities:
        table: Probabilities = np.eye(3)[np.arange(len(image)) % 3] * 0.4 + 0.2
        return table

    monkeypatch.setattr("mmsent.inference.vote.head_probabilities", made_up)
    vote = vote_split([runs["concat"], runs["weighted"]], cache, "test", soft=True)
    good = [i for i in range(10) if i not in vote.fallback]
    assert [vote.predicted[i] for i in good] == [LABELS[i % 3] for i in good]
    assert [vote.agreeing[i] for i in good] == [2] * len(good)


def test_a_cache_without_labels_falls_back_on_neutral(tmp_path: Path, cache: Cache, runs: dict[str, Run]) -> None:
    root = make_guid(tmp_path / "posts", n_train=0, n_test=8, size=24)
    (root / "data" / "1.jpg").unlink()
    (root / "data" / "1.txt").unlink()
    bare = fake_cache(
        load_dataset(root, DataSettings()),
        tmp_path / "cache",
        ["test"],
        views=2,
        encoders=fake_encoders(0),
        max_bad=0.3,
    )
    vote = vote_split([runs["concat"]], bare, "test")
    assert vote.fallback == [0]
    assert vote.fallback_label == "neutral"
    assert vote.predicted[0] == "neutral"


def test_a_head_has_one_vote(runs: dict[str, Run]) -> None:
    with pytest.raises(RunError, match="there are no runs to vote; train some with `mmsent fit`, or name them"):
        require_distinct([])
    with pytest.raises(
        RunError, match=f"two of the runs are called {runs['concat'].name}; each run can vote only once"
    ):
        require_distinct([runs["text"], runs["concat"], runs["concat"]])
    require_distinct([runs["text"], runs["concat"]])


# --- heads on several caches


def test_heads_on_several_caches_vote_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = make_cache(tmp_path)
    two = extracted(tmp_path / "posts", tmp_path, seed=1)
    assert one.settings.contract != two.settings.contract
    settings_ = [FitSettings(**QUICK, fusion=fusion) for fusion in (Fusion.concat, Fusion.weighted)]
    ours, theirs = (fit(cache, tmp_path / "runs", settings_, SplitSettings()) for cache in (one, two))
    runs = [ours[0], theirs[0], ours[1], theirs[1]]
    together = vote_split(runs, one, "test", soft=True, others=[two])
    apart = {cache.path: vote_split(of, cache, "test", soft=True) for cache, of in ((one, ours), (two, theirs))}
    good = [i for i in range(10) if i not in together.fallback]
    mean = (apart[one.path].probabilities + apart[two.path].probabilities) / 2
    assert together.probabilities[good] == pytest.approx(mean[good], abs=1e-12)
    assert together.choices[1] == apart[two.path].choices[0]
    with pytest.raises(RunError, match="was trained on"):
        vote_split(runs, one, "test")

    words = ["vote", *(run.name for run in runs), "--soft", "--data", str(tmp_path / "posts")]
    for more in ([], ["--cache", str(one.path)]):
        assert run_main(*words, *more) == 0, capsys.readouterr()
        with open("predictions.csv", newline="", encoding="utf-8") as file:
            assert [row["predicted"] for row in csv.DictReader(file)] == together.predicted
    capsys.readouterr()
    assert run_main("replay", *words[1:]) == 0
    assert "vote of 4 heads: 10 of 10 test labels are the same" in capsys.readouterr().out
    two.path.unlink()
    capsys.readouterr()
    assert run_main(*words) == 1
    assert "was trained on" in capsys.readouterr().err


def test_another_cache_must_list_the_same_posts(tmp_path: Path) -> None:
    one = make_cache(tmp_path)
    other = make_guid(tmp_path / "others", n_train=40, n_test=12, size=24)
    two = extracted(other, tmp_path / "second", seed=1)
    settings_ = [FitSettings(**QUICK, fusion=Fusion.concat)]
    runs = [fit(cache, tmp_path / "runs", settings_, SplitSettings())[0] for cache in (one, two)]
    with pytest.raises(RunError, match="does not list the same test posts"):
        vote_split(runs, one, "test", others=[two])


def test_another_cache_must_have_the_same_labels(tmp_path: Path) -> None:
    """In another order, the probability of one label would count for another."""
    one = make_cache(tmp_path)
    two = extracted(tmp_path / "posts", tmp_path, seed=1, labels=("positive", "neutral", "negative"))
    settings_ = [FitSettings(**QUICK, fusion=Fusion.concat)]
    runs = [fit(cache, tmp_path / "runs", settings_, SplitSettings())[0] for cache in (one, two)]
    with pytest.raises(RunError, match=r"\.h5 has the labels positive, .* with the same --labels for both"):
        vote_split(runs, one, "test", others=[two])


def run_main(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)
