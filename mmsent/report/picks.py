"""Which rows of an evaluation figures and cards show. Shapes: N rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsent.evaluation.evaluate import Evaluation


def errors(found: Evaluation) -> NDArray[np.int64]:
    """Positions (within the evaluation) of wrong predictions, the most confident first."""
    said = np.take_along_axis(found.probabilities, found.predicted[:, None], axis=1)[:, 0]
    wrong = np.flatnonzero(found.predicted != found.truth)
    order: NDArray[np.int64] = wrong[np.argsort(-said[wrong], kind="stable")]
    return order


def varied_errors(found: Evaluation, n: int) -> list[int]:
    """Up to n wrong predictions that show every kind of confusion: one of each (truth, prediction) in turn, from the
    middle of its confidences outwards."""
    by_kind: dict[tuple[int, int], list[int]] = {}
    for i in errors(found).tolist():
        by_kind.setdefault((int(found.truth[i]), int(found.predicted[i])), []).append(i)
    queues = []
    for kind in sorted(by_kind):
        rows = by_kind[kind]
        middle = len(rows) // 2
        outwards = np.argsort(np.abs(np.arange(len(rows)) - middle), kind="stable")
        queues.append([rows[at] for at in outwards.tolist()])
    out: list[int] = []
    while len(out) < n and any(queues):
        out += [queue.pop(0) for queue in queues if queue]
    return out[:n]


def batch_of(found: Evaluation, n: int = 64, seed: int = 0) -> NDArray[np.int64]:
    """Positions of a random batch of the rows of an evaluation."""
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(found.truth))[:n]
    return order
