"""Evaluating runs: scores on a split with their uncertainty, the vote as one more row, and paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import VOTING_FUSIONS
from mmsent.errors import RunError
from mmsent.features.cache import NO_LABEL, Cache, Features
from mmsent.inference.logits import head_logits, require, served
from mmsent.inference.tally import Way, default_tie, tally
from mmsent.inference.tuned import cached_texts
from mmsent.inference.zero_shot import ZeroShot, stored
from mmsent.metrics import (
    COVERAGES,
    Labels,
    Probabilities,
    accuracy_by_coverage,
    bootstrap_intervals,
    brier_score,
    expected_calibration_error,
    mcnemar,
    negative_log_likelihood,
    scores,
)
from mmsent.training.calibration import apply_temperature, cross_fitted
from mmsent.training.halves import KINDS, missing_halves
from mmsent.training.runs import Run

# These stand where a run has its fusion.
VOTE, SOFT_VOTE = "vote", "soft vote"
MAJORITY, ZERO_SHOT = "majority", "zero-shot"
BASELINES = (MAJORITY, ZERO_SHOT)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One row of the comparison: a run, a vote of several, or a baseline, on N rows of C classes.

    scores: those of mmsent.metrics.scores and, from `probabilities`, nll (nats), brier (0..2) and ece (0..1);
    ece_uncalibrated, the same at temperature 1; temperature, None for all but runs that have one.
    intervals: see mmsent.metrics.bootstrap_intervals. probabilities (N, C): calibrated; on validation rows each row's
    temperature comes from the other rows, so that these scores are honest (see
    mmsent.training.calibration.cross_fitted); of a vote, counted or soft, the mean of its voters'. predicted, truth:
    (N,) label indices. positions: (N,) int64 into the split's rows.
    """

    name: str
    fusion: str
    scores: dict[str, Any]
    intervals: dict[str, Any]
    probabilities: Probabilities
    predicted: Labels
    truth: Labels
    positions: NDArray[np.int64]
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)  # see `by_kind`

    @property
    def coverage(self) -> list[dict[str, float]]:
        """Accuracy of the surest rows, see mmsent.metrics.accuracy_by_coverage; empty for the majority class, which is
        as sure of every row."""
        if self.fusion == MAJORITY:
            return []
        sure = np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]
        return accuracy_by_coverage(self.predicted == self.truth, sure)

    def to_json(self) -> dict[str, Any]:
        """What `--json` shows: all but the arrays."""
        found = {"name": self.name, "fusion": self.fusion, "scores": self.scores, "intervals": self.intervals}
        return found | ({"kinds": self.kinds} if self.kinds else {}) | {"coverage": self.coverage}


def by_kind(found: Sequence[Evaluation], outcome: NDArray[np.uint8]) -> list[Evaluation]:
    """The same, each with the scores of its posts with both halves, image only and text only, where not all have both
    halves. outcome (N,): of the split's rows."""
    out = []
    for e in found:
        here = outcome[e.positions]
        kinds = {
            kind: scores(e.truth[here == bits], e.predicted[here == bits], e.probabilities.shape[1])
            for bits, kind in (KINDS.items() if here.any() else ())
            if (here == bits).any()
        }
        out.append(replace(e, kinds=kinds))
    return out


def kinds_table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Weighted F1 for each kind of post as rows of text, header first; empty where all are of one kind."""
    kinds = [kind for kind in KINDS.values() if any(kind in e.kinds for e in evaluations)]
    if len(kinds) < 2:
        return []
    rows = [["run", "head", *(f"{kind}: {what}" for kind in kinds for what in ("rows", "F1 weighted"))]]
    for e in baselines_first(evaluations):
        scored = (e.kinds.get(kind) for kind in kinds)
        cells = [[str(one["n"]), f"{one['f1_weighted']:.3f}"] if one else ["", ""] for one in scored]
        rows.append([e.name, e.fusion, *(cell for pair in cells for cell in pair)])
    return rows


def coverage_table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Accuracy of the surest rows by their share, as rows of text, header first."""
    found = [(e, e.coverage) for e in evaluations if e.coverage]
    shown = [i for i, share in enumerate(COVERAGES) if round(10 * share) % 2 == 0]
    rows = [["run", "head", *(f"{COVERAGES[i]:.0%}" for i in shown)]]
    return rows + [[e.name, e.fusion, *(f"{curve[i]['accuracy']:.3f}" for i in shown)] for e, curve in found]


def evaluate_validation(runs: Sequence[Run], cache: Cache, features: Features | None = None) -> list[Evaluation]:
    """Score runs on their own validation rows. Where all of them share one split, the majority vote is added, of
    those among them that `mmsent vote` takes (concat, weighted, attention) if there are several, else of all. Baselines
    follow: see `baselines`.

    The stored temperatures were fitted on these rows; here they are cross-fitted. The heads themselves stopped at their
    best validation epoch, so every score of these rows is a little optimistic. Raises RunError where a run was trained
    on other features or labels.
    """
    for run in runs:
        require(run, cache)
    features = features or cache.load("train")
    missing = missing_halves(features.index.outcome)
    positions = []
    for run in runs:
        usable = served(run, missing)
        where = {row_id: i for i, row_id in enumerate(features.index.ids) if usable[i]}
        ids = run.validation_ids()
        if absent := [row_id for row_id in ids if row_id not in where]:
            raise RunError(f"{len(absent)} validation rows of {run.name} are not in {cache.path} ({absent[0]} first)")
        positions.append(np.array([where[row_id] for row_id in ids], np.int64))
    return _evaluate(runs, cache, features, positions, features.index.labels, split="train")


def evaluate_labelled(
    runs: Sequence[Run], cache: Cache, features: Features, truth: NDArray[np.int64]
) -> list[Evaluation]:
    """Score runs, at their stored temperatures, on the rows of a split that they can label and whose label indices
    `truth` (N,) are known (NO_LABEL: left out). Raises RunError where there are none, or a run was trained on other
    features or labels."""
    missing = missing_halves(features.index.outcome)
    known = [np.flatnonzero(served(run, missing) & (truth != NO_LABEL)) for run in runs]
    if not all(map(len, known)):
        raise RunError("no row of this split has a label and the halves that the heads need")
    return _evaluate(runs, cache, features, known, truth, split="test")


def _evaluate(
    runs: Sequence[Run],
    cache: Cache,
    features: Features,
    positions: Sequence[NDArray[np.int64]],
    labels: NDArray[np.int64],
    *,
    split: str,
) -> list[Evaluation]:
    given, missing = [], missing_halves(features.index.outcome)
    text = cached_texts(runs, cache, split, features.text)
    for run, rows in zip(runs, positions, strict=True):
        require(run, cache)
        given.append(head_logits(run, features.image[rows, 0], text[rows], missing[rows]))
    found = evaluate_logits(runs, given, positions, labels, cache.labels, crossed=split == "train")
    rows = positions[0] if _alike(positions) else np.unique(np.concatenate(positions))
    if split == "train":
        usable = np.any([served(run, missing) for run in runs], axis=0)
        train = labels[usable & ~np.isin(np.arange(len(labels)), rows)]
    else:
        train = cache.index("train").labels if "train" in cache.rows else np.zeros(0, np.int64)
    zero_shot = stored(dict.fromkeys(run.path.parent for run in runs), cache)
    found += baselines(features, rows, labels, len(cache.labels), train=train, zero_shot=zero_shot)
    return by_kind(found, features.index.outcome)


def baselines(
    features: Features,
    positions: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: int,
    *,
    train: NDArray[np.int64],
    zero_shot: ZeroShot | None,
) -> list[Evaluation]:
    """What is not trained, to compare runs with, on rows at `positions` (n,) of a split with label indices `labels`
    (N,): the commonest label of the training rows, whose label indices are `train`, with the labels' shares there as
    probabilities; and the labels of `mmsent zero-shot`, where it was called. Each is left out where it is not known."""
    found = []
    counts = np.bincount(train[train != NO_LABEL], minlength=classes)
    if counts.any():
        shares = np.tile(counts / counts.sum(), (len(positions), 1))
        predicted = shares.argmax(axis=1).astype(np.int64)
        found.append(_row("majority class", MAJORITY, labels, positions, predicted, shares, shares, None))
    if zero_shot is not None:
        done = zero_shot.label(features)
        shares = done.probabilities[positions]
        found.append(_row(zero_shot.name, ZERO_SHOT, labels, positions, done.labels[positions], shares, shares, None))
    return found


def _alike(positions: Sequence[NDArray[np.int64]]) -> bool:
    return all(np.array_equal(rows, positions[0]) for rows in positions)


def evaluate_logits(
    runs: Sequence[Run],
    given: Sequence[NDArray[np.float32]],
    positions: Sequence[NDArray[np.int64]],
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    crossed: bool,
) -> list[Evaluation]:
    """Score runs from their logits (n, C) on rows at `positions` (n,) of a split with label indices `labels` (N,).

    names: the label set. crossed: cross-fit the temperatures, for these are the rows that they were fitted on.
    """
    found, plain = [], []
    for run, logits, rows in zip(runs, given, positions, strict=True):
        plain.append(apply_temperature(logits, 1.0))
        if crossed and run.calibrated:
            calibrated = cross_fitted(logits, labels[rows])
        else:
            calibrated = apply_temperature(logits, run.temperature)
        heat = run.temperature if run.calibrated else None
        predicted = calibrated.argmax(axis=1).astype(np.int64)
        found.append(_row(run.name, run.fusion.value, labels, rows, predicted, calibrated, plain[-1], heat))
    alike = _alike(positions)
    if len(runs) < 2 or (crossed and not alike):  # a row that one head validates on may have trained another
        return found
    voters = [i for i, run in enumerate(runs) if run.fusion in VOTING_FUSIONS]
    if len(voters) < 2:
        voters = list(range(len(runs)))
    rows = positions[0] if alike else np.unique(np.concatenate([positions[i] for i in voters]))
    serving = np.stack([np.isin(rows, positions[i]) for i in voters])
    stacked, plain_stacked = np.zeros((2, *serving.shape, len(names)))
    for at, i in enumerate(voters):
        stacked[at, serving[at]], plain_stacked[at, serving[at]] = found[i].probabilities, plain[i]
    counted, averaged = (tally(stacked, way, serving) for way in (Way(default_tie(names)), Way(soft=True)))
    mean, plain_mean = averaged.probabilities, tally(plain_stacked, Way(soft=True), serving).probabilities
    name = f"vote of {len(voters)}"
    found.append(_row(name, VOTE, labels, rows, counted.labels, mean, plain_mean, None))
    found.append(_row(f"{name}, --soft", SOFT_VOTE, labels, rows, averaged.labels, mean, plain_mean, None))
    return found


def _row(
    name: str,
    fusion: str,
    labels: Labels,
    positions: NDArray[np.int64],
    predicted: Labels,
    probabilities: Probabilities,
    plain: Probabilities,
    temperature: float | None,
) -> Evaluation:
    truth = labels[positions]
    classes = probabilities.shape[1]
    return Evaluation(
        name,
        fusion,
        {
            **scores(truth, predicted, classes),
            "nll": negative_log_likelihood(truth, probabilities),
            "brier": brier_score(truth, probabilities),
            "ece": expected_calibration_error(truth, probabilities),
            "ece_uncalibrated": expected_calibration_error(truth, plain),
            "temperature": temperature,
        },
        bootstrap_intervals(truth, predicted, classes),
        probabilities,
        predicted,
        truth,
        positions,
    )


@dataclass(frozen=True)
class Pair:
    """Two evaluations on the same n rows: accuracy of a minus that of b, the rows that one alone has right, and the
    p-value of McNemar's exact test."""

    a: str
    b: str
    n: int
    accuracy_difference: float
    only_a: int
    only_b: int
    p_value: float


def paired(evaluations: Sequence[Evaluation]) -> list[Pair]:
    """McNemar's test for each two runs on the same rows, and for each run against the vote. Where one was also scored
    on rows that lack a half, the rows of the other count.

    Evaluations on other rows make no pair. The soft vote is left out, for it is the counted one but for a few rows, and
    so are baselines: every pair more makes a chance find likelier.
    """
    found = []
    for a, b in combinations([e for e in evaluations if e.fusion not in (SOFT_VOTE, *BASELINES)], 2):
        of_a, of_b = np.isin(a.positions, b.positions), np.isin(b.positions, a.positions)
        if not (of_a.all() or of_b.all()):
            continue
        test = mcnemar(a.truth[of_a], a.predicted[of_a], b.predicted[of_b])
        n = int(of_a.sum())
        difference = (test.only_a - test.only_b) / n
        found.append(Pair(a.name, b.name, n, difference, test.only_a, test.only_b, test.p_value))
    return found


def baselines_first(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Evaluations in the order in which tables show them."""
    return sorted(evaluations, key=lambda e: e.fusion not in BASELINES)


def comparison(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> list[list[str]]:
    """The comparison table as rows of text, header first, baselines before runs: scores, the weighted F1 with its 95%
    interval, and F1 per class. Precision and recall are only in `--json`, so that a line fits a wide terminal."""
    header = ["run", "head", "rows", "accuracy", "F1 weighted", "F1 macro", "NLL", "ECE"]
    rows = [[*header, *(f"F1 {label}" for label in labels)]]
    for e in baselines_first(evaluations):
        low, high = e.intervals["f1_weighted"]
        weighted = f"{e.scores['f1_weighted']:.3f} [{low:.3f}, {high:.3f}]"
        others = [e.scores["f1_macro"], e.scores["nll"], e.scores["ece"], *e.scores["f1_per_class"]]
        cells = [e.name, e.fusion, str(e.scores["n"]), f"{e.scores['accuracy']:.3f}", weighted]
        rows.append([*cells, *(f"{value:.3f}" for value in others)])
    return rows


def paired_table(pairs: Sequence[Pair]) -> list[list[str]]:
    """The paired tests as rows of text, header first."""
    rows = [["a", "b", "accuracy a - b", "only a right", "only b right", "p"]]
    for pair in pairs:
        p = f"{pair.p_value:.4f}" if pair.p_value >= 1e-4 else "<0.0001"
        rows.append([pair.a, pair.b, f"{pair.accuracy_difference:+.3f}", str(pair.only_a), str(pair.only_b), p])
    return rows
