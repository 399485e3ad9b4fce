"""Abstention: which posts a vote leaves to a person so that few of its other labels are wrong, and label sets that hold
the right label. Both are split-conformal: bounds come from posts that the heads were not trained on.

N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import RunError, UsageError
from mmsent.inference.held_out import HeldOut
from mmsent.inference.tally import Tally, Way, tally
from mmsent.metrics import Labels, Probabilities

UNCERTAIN, OR = "uncertain", "|"
NEVER = 2.0  # a bound that no probability reaches
CERTAINTY = 0.8  # see docs/decisions.md


def share_bounds(wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the first 1, 2, ... N rows, how large the share of wrong ones may be: the upper end of the one-sided binomial
    interval at CERTAINTY (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    errors, rows = np.cumsum(wrong), np.arange(1, len(wrong) + 1)
    with np.errstate(invalid="ignore"):  # all are wrong: 1
        found: NDArray[np.float64] = np.where(errors < rows, beta.ppf(CERTAINTY, errors + 1, rows - errors), 1.0)
    return found


def least_confidence(confidence: NDArray[np.float64], wrong: NDArray[np.bool_], level: float) -> float:
    """The confidence from which on a vote answers: the lowest at which, of the rows (N,) at or above it, the share of
    wrong ones is at most `level`, by `share_bounds`. NEVER where there is none.

    Such a bound is never below (wrong + 1) / (answered + 1). So of new posts like these, the expected number of wrong
    answers is at most `level` of the answers that these rows lead one to expect, (1 + answered) / (1 + N) of the posts,
    whatever the heads are: the error control of conformal selection (Jin and Candès 2023) with answers counted here.
    """
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    last = np.append(falling[1:] < falling[:-1], True) if len(falling) else np.zeros(0, np.bool_)  # of its confidence
    enough = last & (share_bounds(wrong[order]) <= level)
    return float(falling[np.flatnonzero(enough)[-1]]) if enough.any() else NEVER


def least_probability(of_truth: NDArray[np.float64], level: float) -> float:
    """The probability from which on a label is in the set: of new posts, at most `level` have a true label below it.
    of_truth (N,): the probabilities of the rows' own labels. 0 where the rows are too few to say (Vovk et al. 2005)."""
    below = math.floor(level * (len(of_truth) + 1) + 1e-9)  # of N + 1 rows, so many may miss
    return float(np.sort(of_truth)[below - 1]) if below else 0.0


@dataclass(frozen=True)
class Abstention:
    """When a vote leaves a post to a person. level: the promised share of errors; least: the confidence from which on a
    post is answered; bounds: per label, the probability from which on it is in a set; empty: no sets are given. rows:
    those that it comes from; answered, wrong: of these, as they would be; lowest: the smallest level at which
    any row is answered; whole: whether every head voted on each of
    them; shared: labels with too few rows for a bound of their own."""

    level: float
    labels: tuple[str, ...]
    least: float
    bounds: tuple[float, ...]
    rows: int
    answered: int
    wrong: int
    lowest: float
    whole: bool
    shared: tuple[str, ...] = ()

    @classmethod
    def of(cls, held: HeldOut, labels: Sequence[str], way: Way, level: float, *, sets: bool = False) -> Self:
        """The bounds that the validation rows of the voting heads give. Where heads validated on different rows, each
        row is voted on by those that did. Raises UsageError on a level that is no share, or labels that no set can
        name; RunError without rows."""
        if not 0 < level < 1:
            raise UsageError(f"--abstain {level:g}: give a share of errors between 0 and 1, such as 0.05")
        if sets and (odd := next((label for label in labels if OR in label), None)):
            raise UsageError(f"--sets joins labels by {OR}, and the label {odd!r} holds one")
        if UNCERTAIN in labels:
            raise UsageError(f"--abstain writes {UNCERTAIN!r}, which is one of the labels")
        if not held.ids:
            raise RunError("the runs have no validation rows to say how sure they must be; run `mmsent fit` again")
        voted = tally(held.probabilities, way, held.held)
        wrong, confidence = voted.labels != held.truth, confidence_of(voted)
        least = least_confidence(confidence, wrong, level)
        bounds, shared = _bounds(voted.probabilities, held.truth, labels, level) if sets else ((), ())
        answered = confidence >= least
        lowest = float(share_bounds(wrong[np.argsort(-confidence, kind="stable")]).min())
        n, missed, whole = int(answered.sum()), int(wrong[answered].sum()), bool(held.held.all())
        return cls(level, tuple(labels), least, bounds, len(held.ids), n, missed, lowest, whole, shared)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def answer(self, label: str | None, probabilities: Sequence[float]) -> str:
        """What is told of a post that the vote gives a label, with its probabilities (C,): the label, `uncertain`, or
        with sets the labels that can be it. None: no head could label the post."""
        if label is None:
            return UNCERTAIN
        if not self.bounds:
            return label if probabilities[self.labels.index(label)] >= self.least else UNCERTAIN
        kept = zip(self.labels, probabilities, self.bounds, strict=True)
        return OR.join(name for name, p, bound in kept if p >= bound or name == label)

    def in_words(self) -> str:
        """What is promised, and what it comes from."""
        rows = f"{self.rows} validation rows" + ("" if self.whole else ", each voted on by the heads that held it out")
        if self.bounds:
            own = f"; one bound for {', '.join(self.shared)}, which have too few rows" if self.shared else ""
            return f"each set holds the right label in at least {1 - self.level:.1%} of posts (from {rows}{own})"
        if self.least == NEVER:
            return (
                f"no post is labelled: by the {rows} no confidence leaves at most {self.level:.1%} wrong labels; "
                f"from --abstain {math.ceil(1000 * self.lowest) / 1000:g} on some get one"
            )
        return (
            f"labelled from a confidence of {self.least:.3f} on, so that at most {self.level:.1%} of the labels are "
            f"wrong on average (from {rows}: {self.answered} labelled, {self.wrong} of them wrong)"
        )


def confidence_of(voted: Tally) -> NDArray[np.float64]:
    """(N,) the probability of each row's label; 0 where it has none."""
    own = np.take_along_axis(voted.probabilities, np.maximum(voted.labels, 0)[:, None], axis=1)[:, 0]
    return np.where(voted.labelled, own, 0.0)


def _bounds(
    probabilities: Probabilities, truth: Labels, labels: Sequence[str], level: float
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """A bound per label from its own rows where they are enough for one, else from all; and which labels share."""
    of_truth = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    shared = [c for c in range(len(labels)) if level * ((truth == c).sum() + 1) < 1 - 1e-9]
    bounds = [least_probability(of_truth if c in shared else of_truth[truth == c], level) for c in range(len(labels))]
    return tuple(bounds), tuple(labels[c] for c in shared)
