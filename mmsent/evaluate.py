"""Evaluating runs: probabilities of heads on cached features, scores on a split, and the vote as one more row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.cache import NO_LABEL, Cache, Features
from mmsent.config import VOTING_FUSIONS
from mmsent.errors import RunError
from mmsent.inference import head_probabilities, require
from mmsent.metrics import scores
from mmsent.runs import Run
from mmsent.vote import default_tie, majority


@dataclass(frozen=True)
class Evaluation:
    """One row of the comparison: a run's name, its fusion and its scores (see mmsent.metrics.scores)."""

    name: str
    fusion: str
    scores: dict[str, Any]


def evaluate_validation(runs: Sequence[Run], cache: Cache, features: Features | None = None) -> list[Evaluation]:
    """Score runs on their own validation rows. Where all of them share one split, the majority vote is added, of
    those among them that `mmsent vote` takes (concat, weighted, attention) if there are several, else of all.

    Raises RunError where a run was trained on other features or labels.
    """
    for run in runs:
        require(run, cache)
    features = features or cache.load("train")
    where = {row_id: i for i, row_id in enumerate(features.index.ids) if features.index.good[i]}
    positions = []
    for run in runs:
        ids = run.validation_ids()
        if absent := [row_id for row_id in ids if row_id not in where]:
            raise RunError(f"{len(absent)} validation rows of {run.name} are not in {cache.path} ({absent[0]} first)")
        positions.append(np.array([where[row_id] for row_id in ids], np.int64))
    return _evaluate(runs, cache, features, positions, features.index.labels)


def evaluate_labelled(
    runs: Sequence[Run], cache: Cache, features: Features, truth: NDArray[np.int64]
) -> list[Evaluation]:
    """Score runs on all good rows of a split whose label indices `truth` (N,) are known (NO_LABEL: left out)."""
    known = np.flatnonzero(features.index.good & (truth != NO_LABEL))
    if not len(known):
        raise RunError("no row of this split has both halves and a label to compare with")
    return _evaluate(runs, cache, features, [known] * len(runs), truth)


def _evaluate(
    runs: Sequence[Run],
    cache: Cache,
    features: Features,
    positions: Sequence[NDArray[np.int64]],
    truth: NDArray[np.int64],
) -> list[Evaluation]:
    found, votes = [], []
    for run, rows in zip(runs, positions, strict=True):
        require(run, cache)
        probabilities = head_probabilities(run, features.image[rows, 0], features.text[rows])
        predicted = probabilities.argmax(axis=1).astype(np.int64)
        votes.append(probabilities)
        found.append(Evaluation(run.name, run.fusion.value, scores(truth[rows], predicted, len(cache.labels))))
    voters = [i for i, run in enumerate(runs) if run.fusion in VOTING_FUSIONS]
    if len(voters) < 2:
        voters = list(range(len(runs)))
    alike = all(np.array_equal(rows, positions[0]) for rows in positions)
    if len(runs) > 1 and alike:
        stacked = np.stack([votes[i] for i in voters])
        counted = majority(stacked, default_tie(cache.labels))
        found.append(
            Evaluation(
                f"vote of {len(voters)}", "vote", scores(truth[positions[0]], counted.winners, len(cache.labels))
            )
        )
        soft = stacked.mean(axis=0).argmax(axis=1).astype(np.int64)
        found.append(
            Evaluation(
                f"vote of {len(voters)}, --soft", "soft vote", scores(truth[positions[0]], soft, len(cache.labels))
            )
        )
    return found


COLUMNS = (
    ("accuracy", "accuracy"),
    ("F1 weighted", "f1_weighted"),
    ("F1 macro", "f1_macro"),
    ("precision", "precision_weighted"),
    ("recall", "recall_weighted"),
)


def comparison(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> list[list[str]]:
    """The comparison table as rows of text, header first: weighted and macro scores, and F1 per class."""
    rows = [["run", "head", "rows", *(title for title, _ in COLUMNS), *(f"F1 {label}" for label in labels)]]
    for e in evaluations:
        values = [e.scores[key] for _, key in COLUMNS] + e.scores["f1_per_class"]
        rows.append([e.name, e.fusion, str(e.scores["n"]), *(f"{v:.4f}" for v in values)])
    return rows
