"""The audit: training rows ranked by how likely their labels are wrong, by cleanlab's label quality from out-of-fold
probabilities, with an estimate of how many labels are wrong down to each row. N rows, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import VOTING_FUSIONS, Fusion, Group
from mmsent.data.lists import write_text
from mmsent.errors import RunError, UsageError
from mmsent.evaluation.cross_validation import Folds, OutOfFold
from mmsent.features.cache import RowIndex
from mmsent.inference.tally import Way, tally
from mmsent.metrics import Labels, Probabilities
from mmsent.system.safe_csv import csv_text

METHOD = "self_confidence"  # see docs/results.md for how it compares
SHARE, REPEATS = 0.05, 100  # of the labels that are changed to estimate the precision, and how often
LEAST = 0.5  # estimated precision down to which labels are marked: more often wrong than right


@dataclass(frozen=True)
class Suspect:
    """One row. quality: 0 (the label is surely wrong) to 1; precision: see `estimated_precision`; likely_wrong: whether
    it is LEAST or more here or further down; p_given, p_suggested: out-of-fold probabilities of the label it has and of
    the likeliest one."""

    rank: int
    id: str
    given: str
    suggested: str
    quality: float
    likely_wrong: bool
    p_given: float
    p_suggested: float
    precision: float


@dataclass(frozen=True)
class Audit:
    """All rows, the most suspect first. sources: the cross-validations that the probabilities come from."""

    suspects: list[Suspect]
    labels: list[str]
    sources: list[str]

    @property
    def likely_wrong(self) -> int:
        """How many labels are marked."""
        return sum(one.likely_wrong for one in self.suspects)

    def in_words(self) -> str:
        """What is marked, and how far that can be trusted."""
        n, marked = len(self.suspects), self.likely_wrong
        how = f"estimated by changing {SHARE:.0%} of all labels at random"
        if not marked:
            return f"no label is marked: fewer than {LEAST:.0%} are wrong at every rank, {how}; the list is a ranking"
        share = self.suspects[marked - 1].precision
        return f"{marked} of {n} labels are marked: {share:.0%} of them or more are wrong, {how}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [asdict(one) for one in self.suspects]
        return {"sources": self.sources, "labels": self.labels, "likely_wrong": self.likely_wrong, "rows": rows}


def label_quality(given: Labels, probabilities: Probabilities, method: str = METHOD) -> NDArray[np.float64]:
    """(N,) how far each label can be trusted, 0 to 1, by cleanlab. method: self_confidence, normalized_margin or
    confidence_weighted_entropy."""
    from cleanlab.rank import get_label_quality_scores

    found: NDArray[np.float64] = np.asarray(get_label_quality_scores(given, probabilities, method=method), np.float64)
    return found


def estimated_precision(given: Labels, probabilities: Probabilities, seed: int = 0) -> NDArray[np.float64]:
    """(N,) what share of the labels at least as suspicious as a row's would be wrong if SHARE of all were wrong.

    Labels are changed at random, many times, and counted among the rows down to each row's quality. Labels that are
    wrong from the start count as right, and the heads are not trained again on the changed ones, which a held-out row
    does not notice (see docs/results.md for how close it comes).
    """
    rng = np.random.default_rng(seed)
    n, classes = probabilities.shape
    k = max(1, round(SHARE * n))
    wrong, every = np.zeros(n), np.zeros(n)
    quality = label_quality(given, probabilities)
    for _ in range(REPEATS):
        rows = rng.choice(n, k, replace=False)
        changed = given.copy()
        changed[rows] = (given[rows] + rng.integers(1, classes, k)) % classes
        now = label_quality(changed, probabilities)
        every += np.searchsorted(np.sort(now), quality, side="right")
        wrong += np.searchsorted(np.sort(now[rows]), quality, side="right")
    return np.asarray(wrong / np.maximum(every, 1))


def audit_labels(
    ids: Sequence[str], given: Labels, probabilities: Probabilities, labels: Sequence[str], sources: Sequence[str] = ()
) -> Audit:
    """Rank rows by how likely their labels (N,) are wrong, given out-of-fold probabilities (N, C).

    Rows of the same quality stand in the order of their ids. Raises UsageError where a class has no row: cleanlab needs
    one of each.
    """
    if missing := [labels[c] for c in range(len(labels)) if not (given == c).any()]:
        raise UsageError(f"an audit needs rows of every label; no row is labelled {', '.join(missing)}")
    quality = label_quality(given, probabilities)
    precision = estimated_precision(given, probabilities)
    best = probabilities.argmax(axis=1)
    order = sorted(range(len(ids)), key=lambda i: (round(float(quality[i]), 9), ids[i]))
    last = max((rank for rank, i in enumerate(order, 1) if precision[i] >= LEAST), default=0)
    suspects = [
        Suspect(
            rank,
            ids[i],
            labels[int(given[i])],
            labels[int(best[i])],
            round(float(quality[i]), 6),
            rank <= last,
            round(float(probabilities[i, given[i]]), 6),
            round(float(probabilities[i, best[i]]), 6),
            round(float(precision[i]), 4),
        )
        for rank, i in enumerate(order, 1)
    ]
    return Audit(suspects, list(labels), list(sources))


def audit_folds(found: Sequence[Folds], index: RowIndex) -> Audit:
    """Audit the labels of a cache with the mean probabilities of one or several cross-validations of the same rows.

    Raises RunError where they are of different rows, or the labels have changed since.
    """
    if not found:
        raise RunError("an audit needs a cross-validation; `mmsent fit --folds 10` makes one")
    read = [one.predictions() for one in found]
    first = read[0]
    for one, rows in zip(found[1:], read[1:], strict=True):
        if rows.ids != first.ids or not np.array_equal(rows.given, first.given):
            raise RunError(
                f"{one.name} and {found[0].name} have different rows or labels; name cross-validations of one data set"
            )
    if reason := outdated(found[0], first, index):
        raise RunError(f"{found[0].name} does not fit: {reason}; run `mmsent fit --folds {found[0].info['folds']}`")
    mean = tally(np.stack([rows.probabilities for rows in read]), Way(soft=True)).probabilities
    return audit_labels(first.ids, first.given, mean, found[0].info["labels"], [one.name for one in found])


def outdated(one: Folds, rows: OutOfFold, index: RowIndex) -> str:
    """Why a cross-validation does not describe a cache's labelled rows; empty where it does."""
    if len(set(rows.ids)) < len(rows.ids):
        return "its folds share rows"
    now = {index.ids[i]: int(index.labels[i]) for i in np.flatnonzero(index.good & (index.labels >= 0))}
    then = dict(zip(rows.ids, rows.given.tolist(), strict=True))
    moved = sum(now.get(k) != then.get(k) for k in now.keys() | then.keys())
    return f"{moved} rows were added, removed or relabelled" if moved else ""


def usable_folds(found: Sequence[Folds], index: RowIndex) -> list[Folds]:
    """Of cross-validations (newest first) those that an audit takes: the newest that still fits the labels, with those
    of the other voting heads on the same folds. A fusion that does not vote is taken only if there is nothing else, and
    plain or published folds never: there a duplicate of a post with a wrong label supports that label."""
    fresh: list[Folds] = []
    for one in found:
        if one.split.group is Group.none or one.info.get("published"):
            continue
        try:
            if not outdated(one, one.predictions(), index):
                fresh.append(one)
        except RunError:
            continue  # named outright, it says what is wrong with it
    fresh = [one for one in fresh if one.fusion in VOTING_FUSIONS] or fresh[:1]
    if not fresh:
        return []
    alike: dict[Fusion, Folds] = {}
    for one in fresh:
        if one.split == fresh[0].split and one.info["folds"] == fresh[0].info["folds"]:
            alike.setdefault(one.fusion, one)
    return [alike[fusion] for fusion in Fusion if fusion in alike]


def write_audit(audit: Audit, out: Path) -> tuple[Path, Path]:
    """Write `out`/audit.csv and `out`/audit.json, each whole or not at all."""
    rows = [list(Suspect.__dataclass_fields__), *(list(asdict(one).values()) for one in audit.suspects)]
    table = write_text(out / "audit.csv", csv_text(rows))
    return table, write_text(out / "audit.json", json.dumps(audit.to_json(), indent=1, ensure_ascii=False) + "\n")
