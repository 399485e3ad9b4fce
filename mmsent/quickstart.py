"""The quickstart: draw a small data set, encode it with the wheels' encoders, fit all six heads, vote, and tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import EncoderSettings, ExtractSettings, Fusion, SplitSettings, ViewSettings, fit_settings, settings
from mmsent.data.dataset import load_dataset
from mmsent.data.synthetic.posts import SyntheticDataset, write_dataset
from mmsent.evaluation.evaluate import Evaluation, evaluate_validation
from mmsent.features.extract import extract
from mmsent.inference.vote import Vote, vote_split, voting_runs, write_vote
from mmsent.metrics import scores
from mmsent.training.fit import fit

ENCODER = "offline"
RECIPE = "small"


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart did and where it lies."""

    drawn: SyntheticDataset
    cache: Path
    runs: list[Path]
    validation: list[Evaluation]
    vote: Vote
    out: Path
    test: dict[str, Any]  # scores of the vote on the test rows
    seconds: dict[str, float]


def quickstart(folder: Path, *, n_train: int = 600, n_test: int = 150, seed: int = 0, views: int = 1) -> Quickstart:
    """Run the whole path in `folder` (data/, cache/, runs/, predictions.txt). Raises DataError on a foreign data/."""
    seconds: dict[str, float] = {}
    clock = time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.monotonic()
        seconds[name] = round(now - clock, 1)
        clock = now

    drawn = write_dataset(folder / "data", n_train=n_train, n_test=n_test, seed=seed)
    lap("draw")
    dataset = load_dataset(folder / "data")
    extracted = extract(
        dataset,
        ["train", "test"],
        folder / "cache",
        encoder=EncoderSettings(encoder=ENCODER),
        views=settings(ViewSettings, count=views),
        options=ExtractSettings(),
    )
    lap("extract")
    cache = extracted.cache
    wanted = [fit_settings(RECIPE, fusion=fusion, seed=seed) for fusion in Fusion]
    features = cache.load("train")
    runs = fit(cache, folder / "runs", wanted, settings(SplitSettings, val_size=0.2), recipe=RECIPE, features=features)
    validation = evaluate_validation(runs, cache, features)
    lap("fit")
    vote = vote_split(voting_runs(folder / "runs", cache), cache, "test")
    out, _ = write_vote(vote, folder / "predictions.txt", dataset.forms["test"])
    labels = list(cache.labels)
    truth = np.array([labels.index(drawn.truth[row_id]) for row_id in vote.ids])
    found = scores(truth, np.array([labels.index(label) for label in vote.predicted]), len(labels))
    lap("vote")
    return Quickstart(drawn, cache.path, [r.path for r in runs], validation, vote, out, found, seconds)
