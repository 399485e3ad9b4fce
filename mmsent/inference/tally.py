"""The vote itself: the label that several heads together give each row. Whatever names a winner asks `tally`.

Shapes: R heads, N rows, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import UsageError
from mmsent.metrics import Probabilities


@dataclass(frozen=True)
class Way:
    """How a vote is decided. soft: the label with the highest mean probability wins; else the label that more heads
    chose than any other. tie: the label index for rows where several labels share the most votes; None: whichever of
    these has the highest mean probability."""

    tie: int | None = None
    soft: bool = False

    @classmethod
    def of(cls, labels: Sequence[str], tie: str | None, soft: bool) -> Self:
        """The way behind a user's choices; see `tie_label`. Raises UsageError on an unknown tie label."""
        return cls(tie_label(tie, labels), soft)


@dataclass(frozen=True, eq=False)
class Tally:
    """The outcome for N rows. labels (N,): label indices, -1 where no head serves the row; agreeing (N,): how many
    heads chose that label; tied (N,) bool: several labels share the most votes; probabilities (N, C): the mean over the
    heads that serve the row, uniform where none does; choices (R, N): each head's label, -1 where it does not serve the
    row."""

    labels: NDArray[np.int64]
    agreeing: NDArray[np.int64]
    tied: NDArray[np.bool_]
    probabilities: Probabilities
    choices: NDArray[np.int64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether any head serves the row."""
        return self.labels >= 0

    def decided_by(self, probabilities: Probabilities) -> Tally:
        """The same heads, with the label that other probabilities (N, C) find likeliest."""
        labels = np.where(self.labelled, probabilities.argmax(axis=1), -1)
        agreeing = ((self.choices == labels) & (self.choices >= 0)).sum(axis=0)
        return replace(self, labels=labels, agreeing=agreeing, probabilities=probabilities)


def tally(probabilities: Probabilities, way: Way, served: NDArray[np.bool_] | None = None) -> Tally:
    """Decide the label of each row. probabilities: (R, N, C); served: (R, N), which heads label which rows; None: all
    of them."""
    if served is None:
        served = np.ones(probabilities.shape[:2], np.bool_)
    choices = np.where(served, probabilities.argmax(axis=2), -1)
    return Tally(*decide(np, np.asarray(probabilities, np.float64), served, way), choices)


def decide(xp: Any, probabilities: Any, served: Any, way: Way) -> tuple[Any, Any, Any, Any]:
    """labels, agreeing, tied and mean probabilities as `Tally` has them, for NumPy arrays or torch tensors. xp: numpy
    or torch; their functions used here have the same names and arguments."""
    classes = probabilities.shape[2]
    choices = probabilities.argmax(axis=2)  # (R, N)
    votes = (choices[:, :, None] == xp.arange(classes)) & served[:, :, None]
    counts = votes.sum(axis=0)  # (N, C)
    summed = xp.where(served[:, :, None], probabilities, 0.0).sum(axis=0)  # (N, C)
    serving = served.sum(axis=0)  # (N,)
    some = serving > 0
    mean = xp.where(some[:, None], summed / xp.where(some, serving, 1)[:, None], 1 / classes)
    leading = counts == xp.amax(counts, axis=1, keepdims=True)
    tied = leading.sum(axis=1) > 1
    if way.soft:
        labels = mean.argmax(axis=1)
    elif way.tie is None:
        labels = xp.where(leading, summed, -1.0).argmax(axis=1)
    else:
        labels = xp.where(tied, way.tie, counts.argmax(axis=1))
    labels = xp.where(some, labels, -1)
    agreeing = ((choices == labels) & served).sum(axis=0)
    return labels, agreeing, tied, mean


def decision(label: str, choices: Collection[str], probabilities: Mapping[str, float]) -> str:
    """Why a vote gave a label that is not the one with the highest mean probability, in words; empty where it is, for
    then the probability speaks for itself. choices: the labels of the heads."""
    likeliest = max(probabilities, key=lambda name: probabilities[name])
    if probabilities[label] >= probabilities[likeliest] - 1e-6:  # tables hold six digits
        return ""
    votes = Counter(choices)
    if not votes:
        return f"by vote; {likeliest} has the highest mean probability"
    if votes[label] < max(votes.values()) or list(votes.values()).count(votes[label]) > 1:
        return f"no majority: {label} by rule"
    return f"{votes[label]} of {len(choices)} heads chose {label}; {likeliest} has the highest mean probability"


def agreement(agreeing: int, heads: int, label: str) -> str:
    """How many heads are behind a label, in words."""
    if heads == 1:
        return "one head" if agreeing else f"its one head did not choose {label}"
    if agreeing == heads:
        return f"all {heads} heads agree"
    return f"{agreeing or 'none'} of {heads} heads chose {label}"


def default_tie(labels: Sequence[str]) -> int | None:
    """What a row without a majority gets: neutral where there is such a label (report, section 5), else None: the tied
    label with the highest mean probability."""
    return list(labels).index("neutral") if "neutral" in labels else None


def tie_label(choice: str | None, labels: Sequence[str]) -> int | None:
    """The index behind `--tie`: a label, `soft` (the highest mean probability), or None for the default."""
    if choice is None:
        return default_tie(labels)
    if choice == "soft":
        return None
    if choice not in labels:
        raise UsageError(f"--tie {choice!r} is neither a label ({', '.join(labels)}) nor 'soft'")
    return list(labels).index(choice)
