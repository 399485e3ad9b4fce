"""Evaluation: a run scores as it was recorded, and the vote is one more row where all share their rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import fake_encoders
from made import make_guid

from mmsent.cache import NO_LABEL, Cache
from mmsent.config import (
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    ViewSettings,
    settings,
)
from mmsent.dataset import load_dataset
from mmsent.errors import RunError
from mmsent.evaluate import Evaluation, comparison, evaluate_labelled, evaluate_validation
from mmsent.extract import extract
from mmsent.fit import fit
from mmsent.metrics import scores
from mmsent.runs import Run

QUICK: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
LABELS = ("negative", "neutral", "positive")
SPLIT = SplitSettings(val_size=30)


def make_cache(folder: Path, n_train: int = 70, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Cache:
    root = make_guid(folder / "posts", n_train=n_train, n_test=10, size=24)
    (root / "data" / f"{n_train + 3}.jpg").write_bytes(b"no picture")  # the third test row
    return extract(
        load_dataset(root, DataSettings(labels=labels)),
        ["train", "test"],
        folder / "cache",
        encoder=EncoderSettings(encoder="offline"),
        views=settings(ViewSettings, count=2),
        options=ExtractSettings(max_bad=0.2),
        encoders=fake_encoders(seed),
        show=False,
    ).cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    wanted = [FitSettings(**QUICK, fusion=fusion, seed=i) for i, fusion in enumerate(Fusion)]
    return fit(cache, tmp_path_factory.mktemp("runs"), wanted, SPLIT)


def validation(run: Run) -> list[dict[str, str]]:
    return list(csv.DictReader((run.path / "validation.csv").open(encoding="utf-8")))


def test_a_run_scores_as_recorded_and_the_vote_by_hand(cache: Cache, runs: list[Run]) -> None:
    found = evaluate_validation(runs, cache)
    assert [(e.name, e.fusion) for e in found[:6]] == [(r.name, r.fusion.value) for r in runs]
    for evaluation, run in zip(found[:6], runs, strict=True):
        assert evaluation.scores == run.info["metrics"]
    assert len({e.scores["accuracy"] for e in found[:6]}) > 1  # else one head could stand for another
    assert [(e.name, e.fusion) for e in found[6:]] == [("vote of 3", "vote"), ("vote of 3, --soft", "soft vote")]
    assert [run.fusion.value for run in runs[:3]] == ["concat", "weighted", "attention"]  # those that vote
    tables = [validation(run) for run in runs[:3]]
    truth = np.array([LABELS.index(row["label"]) for row in tables[0]])
    winners, soft = [], []
    for rows in zip(*tables, strict=True):
        counts = [sum(row["predicted"] == label for row in rows) for label in LABELS]
        winners.append(counts.index(max(counts)) if counts.count(max(counts)) == 1 else 1)
        means = [sum(float(row[f"p_{label}"]) for row in rows) for label in LABELS]
        soft.append(means.index(max(means)))
    assert found[6].scores == scores(truth, np.array(winners), 3)
    assert found[7].scores == scores(truth, np.array(soft), 3)
    assert found[6].scores["n"] == 30


def test_a_vote_needs_one_split_and_two_runs(cache: Cache, runs: list[Run], tmp_path: Path) -> None:
    def names(chosen: list[Run]) -> list[str]:
        return [e.name for e in evaluate_validation(chosen, cache)]

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
    (evaluation,) = evaluate_validation([other], cache)
    assert evaluation.scores == other.info["metrics"]  # each on its own split


def test_other_features_or_labels_are_refused(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was trained on features of offline \(contract"):
        evaluate_validation(runs, make_cache(tmp_path / "a", seed=1))
    # too small for the runs' split of 30 rows: that they do not belong together must be said first
    with pytest.raises(RunError, match=r"was trained on features of offline \(contract"):
        evaluate_validation(runs, make_cache(tmp_path / "b", n_train=20, seed=1))
    other = make_cache(tmp_path / "c", labels=LABELS[::-1])
    with pytest.raises(RunError, match="knows the labels negative, neutral, positive; the cache has positive"):
        evaluate_validation(runs, other)
    with pytest.raises(RunError, match="knows the labels"):
        evaluate_labelled(runs, other, other.load("test"), np.zeros(10, np.int64))


def test_labelled_rows(cache: Cache, runs: list[Run]) -> None:
    features = cache.load("test")
    truth = np.array([0, 1, 2, 2, 1, 0, 2, 2, NO_LABEL, NO_LABEL])
    found = evaluate_labelled(runs[:2], cache, features, truth)
    # of ten rows two have no label and the third has no picture
    assert [e.scores["n"] for e in found] == [7] * 4
    assert found[0].scores["support"] == [2, 2, 3]
    assert [e.name for e in found] == [runs[0].name, runs[1].name, "vote of 2", "vote of 2, --soft"]
    import torch

    kept = [0, 1, 3, 4, 5, 6, 7]
    with torch.no_grad():
        logits = runs[0].head()(torch.from_numpy(features.image[kept, 0]), torch.from_numpy(features.text[kept]))
    assert found[0].scores == scores(truth[kept], logits.argmax(dim=1).numpy(), 3)
    with pytest.raises(RunError, match="no row of this split has both halves and a label"):
        evaluate_labelled(runs, cache, features, np.where(np.arange(10) == 2, 1, NO_LABEL))


def test_comparison_table() -> None:
    found = scores(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 0]), 3)
    table = comparison([Evaluation("run-1", "concat", found), Evaluation("vote", "vote", found)], ["a", "b", "c"])
    assert [" | ".join(row) for row in table] == [
        "run | head | rows | accuracy | F1 weighted | F1 macro | precision | recall | F1 a | F1 b | F1 c",
        "run-1 | concat | 5 | 0.6000 | 0.5333 | 0.4444 | 0.5000 | 0.6000 | 0.6667 | 0.6667 | 0.0000",
        "vote | vote | 5 | 0.6000 | 0.5333 | 0.4444 | 0.5000 | 0.6000 | 0.6667 | 0.6667 | 0.0000",
    ]
