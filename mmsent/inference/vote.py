"""The vote (report, section 5): several heads label each post, the majority wins, a full disagreement gives neutral."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsent.config import VOTING_FUSIONS, Fusion, near_cosine
from mmsent.data.lists import ListForm, encoded, list_text
from mmsent.errors import RunError, UsageError
from mmsent.features.cache import NO_LABEL, Cache, Features
from mmsent.inference.abstain import Abstention
from mmsent.inference.logits import head_probabilities, require, served
from mmsent.inference.near_duplicates import compared, labelled_rows, posterior, twin_shares, twin_table
from mmsent.inference.tally import Way, decision, default_tie, tally, tie_label
from mmsent.inference.tuned import cached_texts
from mmsent.metrics import Probabilities
from mmsent.system.files import write_together
from mmsent.training.halves import missing_halves
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import Run, runs_of

_MAJORITY = "majority, else "  # and then what a tie gives


def voting_way(tie: str | None, labels: Sequence[str], *, soft: bool) -> str:
    """How a vote is counted, as a table of predictions records it: `soft`, or `majority, else neutral`."""
    index = tie_label(tie, labels)
    return "soft" if soft else _MAJORITY + ("soft" if index is None else labels[index])


def parse_way(way: str) -> tuple[str | None, bool]:
    """The tie and the soft behind `voting_way`'s words. Raises ValueError on others."""
    if way == "soft":
        return None, True
    if not way.startswith(_MAJORITY):
        raise ValueError(f"{way[:60]!r} is not a known way of voting")
    return way.removeprefix(_MAJORITY), False


def voting_runs(folder: Path, cache: Cache) -> list[Run]:
    """The newest concat, weighted and attention runs of a cache, in this order; those of them that there are. Where the
    newest of these is one of a committee, its whole committee instead.

    Raises RunError where there is none.
    """
    runs = runs_of(folder, cache)
    last = next((run for run in runs if run.fusion in VOTING_FUSIONS or run.committee), None)
    if last is not None and last.committee:
        return [run for run in reversed(runs) if run.committee == last.committee]
    newest: dict[Fusion, Run] = {}
    for run in runs:
        newest.setdefault(run.fusion, run)
    chosen = [newest[fusion] for fusion in VOTING_FUSIONS if fusion in newest]
    if not chosen:
        wanted = " ".join(f"--fusion {fusion}" for fusion in VOTING_FUSIONS)
        raise RunError(f"no runs of {cache.path.name} in {folder}; train them with `mmsent fit {wanted}`, or name runs")
    return chosen


def averages(runs: Sequence[Run], soft: bool) -> bool:
    """Whether these runs are averaged, not counted: where that is asked for, and in a committee, whose many heads agree
    so often that few posts would be decided by more than their mean."""
    return soft or (bool(runs) and all(run.committee is not None for run in runs))


def require_distinct(runs: Sequence[Run]) -> None:
    """Raise RunError where there is no run, or two of one name: a head has one vote."""
    names = Counter(run.name for run in runs)
    if not names:
        raise RunError("there are no runs to vote; train some with `mmsent fit`, or name them")
    if double := [name for name, n in names.items() if n > 1]:
        raise RunError(f"two of the runs are called {double[0]}; each run can vote only once")


@dataclass(frozen=True)
class Vote:
    """Labels for every listed row of a split. predicted: N labels; probabilities (N, C), the mean of the heads'
    calibrated ones; choices: per run, N labels (empty where the head could not label the row); agreeing (N,); fallback:
    positions of rows that no head could label, which got `fallback_label`; how: `voting_way` of the vote, where known.
    """

    ids: list[str]
    labels: list[str]
    runs: list[Run]
    predicted: list[str]
    probabilities: Probabilities
    choices: list[list[str]]
    agreeing: NDArray[np.int64]
    tied: NDArray[np.bool_]
    fallback: list[int]
    fallback_label: str
    how: str = ""
    twins: NDArray[np.bool_] | None = None  # (N,) rows that leaned on near-duplicates among the training posts
    answers: list[str] | None = None  # N: what is told in place of `predicted`, with an abstention

    def abstaining(self, when: Abstention) -> Vote:
        """The same with `answers`: labels, or what stands in their place."""
        bad = set(self.fallback)
        votes = zip(self.predicted, self.probabilities.tolist(), strict=True)
        return replace(self, answers=[when.answer(None if i in bad else k, p) for i, (k, p) in enumerate(votes)])

    @property
    def told(self) -> list[str]:
        """N labels, or what stands in their place."""
        return self.predicted if self.answers is None else self.answers

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities are means of calibrated ones throughout."""
        return all(run.calibrated for run in self.runs)

    def agreement(self) -> dict[int, int]:
        """How many rows had how many heads behind the winning label."""
        return dict(sorted(Counter(self.agreeing.tolist()).items(), reverse=True))

    def agreement_words(self) -> str:
        """The same in a sentence. Rows without a majority count apart, for their label is no head's doing; rows that no
        head could label are left out."""
        n, heads = len(self.ids), len(self.runs)
        labelled = np.isin(np.arange(n), self.fallback, invert=True)
        tied = labelled & self.tied & (self.how != "soft")
        parts = []
        for k, c in sorted(Counter(self.agreeing[labelled & ~tied].tolist()).items(), reverse=True):
            who = f"all {heads} heads agree on" if k == heads else f"{k or 'none'} of {heads} heads chose the label of"
            parts.append(f"{who} {c} posts ({c / n:.1%})")
        if c := int(tied.sum()):
            given = self.how.removeprefix(_MAJORITY)
            rule = "the likeliest of the labels with most votes" if given == "soft" else f"{given} by rule"
            parts.append(f"{c} posts ({c / n:.1%}) have no majority: {rule}")
        return "; ".join(parts)

    @property
    def not_likeliest(self) -> int:
        """How many rows have a label that is not the one with the highest probability, those aside that no head could
        label; `decisions` says why."""
        return sum(map(bool, self.decisions)) - len(self.fallback)

    @functools.cached_property
    def decisions(self) -> list[str]:
        """Per row, why its label is not the one with the highest probability; empty where it is (see `decision`)."""
        bad = set(self.fallback)
        return [
            f"no head could label it: {label}, the commonest label"
            if i in bad
            else decision(
                label, [row[i] for row in self.choices if row[i]], dict(zip(self.labels, probabilities, strict=True))
            )
            for i, (label, probabilities) in enumerate(zip(self.predicted, self.probabilities.tolist(), strict=True))
        ]


def vote_split(
    runs: Sequence[Run],
    cache: Cache,
    split: str,
    *,
    tie: str | None = None,
    soft: bool = False,
    twins: bool = False,
    others: Sequence[Cache] = (),
) -> Vote:
    """Label every row of a cached split with several runs. others: caches of the same posts with other encoders, for
    runs that were trained on these.

    tie: see `tie_label`; soft: average probabilities instead of counting; twins: average, and use the labels of
    training posts that are near-duplicates (see mmsent.inference.near_duplicates), for any split but the training one.
    A row that no head can label, for its picture or text is bad, gets the commonest training label, so that the list
    stays complete. Raises RunError where a run fits no cache, or a cache has other labels or posts.
    """
    labels = list(cache.labels)
    way = Way.of(labels, tie, soft)
    require_distinct(runs)
    features = cache.load(split)
    for one in others:
        if list(one.labels) != labels:
            raise RunError(
                f"{one.path} has the labels {', '.join(one.labels)}, and {cache.path} has {', '.join(labels)}; extract "
                "with the same --labels for both, and fit again"
            )
    by_contract = {one.settings.contract: one for one in (*others, cache)}
    groups: dict[str, list[int]] = {}  # the runs of each cache, by position
    for i, run in enumerate(runs):
        groups.setdefault(run.contract if run.contract in by_contract else cache.settings.contract, []).append(i)
    probabilities = np.zeros((len(runs), len(features.index.ids), len(labels)))
    votes = np.zeros(probabilities.shape[:2], dtype=bool)
    for contract, places in groups.items():
        own = by_contract[contract]
        given = features if own is cache else _same_rows(own, split, features.index.ids)
        probabilities[places], votes[places] = _answers([runs[i] for i in places], own, split, given)
    found = tally(probabilities, way, votes)
    with_twins = None
    if twins:
        mean, with_twins = _after_twins(found.probabilities, cache, features, split)
        found = found.decided_by(mean)
    common = commonest_label(cache)
    return Vote(
        features.index.ids,
        labels,
        list(runs),
        [labels[k] for k in np.where(found.labelled, found.labels, common)],
        found.probabilities,
        [[labels[k] if k >= 0 else "" for k in choices] for choices in found.choices],
        found.agreeing,
        found.tied,
        np.flatnonzero(~found.labelled).tolist(),
        labels[common],
        voting_way(tie, labels, soft=soft),
        with_twins,
    )


def _answers(
    runs: Sequence[Run], cache: Cache, split: str, features: Features
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """What each run says of the rows, (R, N, C), and which of them it can label, (R, N)."""
    for run in runs:
        require(run, cache)
    missing = missing_halves(features.index.outcome)
    text = cached_texts(runs, cache, split, features.text)
    probabilities = np.stack([head_probabilities(r, features.image[:, 0], text, missing) for r in runs])
    return probabilities, np.stack([served(run, missing) for run in runs])


def _same_rows(cache: Cache, split: str, ids: list[str]) -> Features:
    """A split of another cache. Raises RunError unless it lists these posts, in this order."""
    features = cache.load(split)
    if features.index.ids != ids:
        raise RunError(f"{cache.path} does not list the same {split} posts; extract that split into it again")
    return features


def commonest_label(cache: Cache) -> int:
    """The commonest label of the training rows; where none has a label, what a tie gives."""
    known = cache.index("train").labels if "train" in cache.rows else np.array([], np.int64)
    counts = np.bincount(known[known != NO_LABEL], minlength=len(cache.labels))
    return int(counts.argmax()) if counts.any() else default_tie(cache.labels) or 0


def _after_twins(
    mean: Probabilities, cache: Cache, features: Features, split: str
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Probabilities after what near-duplicates among the labelled training rows say, and which rows have such."""
    if split == "train":
        raise UsageError(
            "--twins uses the labels of training posts, so it cannot label the training split; name another split"
        )
    if "train" not in cache.rows:
        raise RunError(f"{cache.path} holds no training posts to compare with; extract the train split")
    train = cache.load("train")
    rows = np.flatnonzero(train.index.good & (train.index.labels != NO_LABEL))
    known = labelled_rows(train, rows, *(near_cosine(cache.encoder, name) for name in ("near_image", "near_text")))
    classes = len(cache.labels)
    shares = twin_shares(known, *compared(features), classes)
    return posterior(mean, shares, twin_table(known, classes)), shares.sum(axis=1) > 0


def table_path(out: Path) -> Path:
    """Where the table with probabilities lies beside a list of labels."""
    return out.with_suffix(".csv") if out.suffix != ".csv" else out.with_suffix(".probabilities.csv")


def write_vote(vote: Vote, out: Path, form: ListForm) -> tuple[Path, Path]:
    """Write the list in the form of the test list, and beside it a table with probabilities (`<out stem>.csv`).

    Both or neither. Returns both paths.
    """
    listed = list_text(list(zip(vote.ids, vote.told, strict=True)), form)
    extra: dict[str, Sequence[object]] = {
        **({"vote": [vote.how] * len(vote.ids)} if vote.how else {}),
        **({"twins": vote.twins.astype(int).tolist()} if vote.twins is not None else {}),
        "decision": vote.decisions,
        "agreeing": vote.agreeing.tolist(),
        **{run.name: choices for run, choices in zip(vote.runs, vote.choices, strict=True)},
    }
    table = table_path(out)
    text = predictions_csv(
        vote.ids, vote.labels, vote.probabilities, predicted=vote.predicted, extra=extra, answers=vote.answers
    )
    write_together({out: encoded(listed), table: encoded(text)})
    return out, table
