"""Twins: posts to label whose picture or text is a near-duplicate of a training post's. Collections of posts are full
of them, and a twin's label says a lot. This is knowledge of the collection, not of sentiment: it helps where such a
collection is labelled, and no cross-validation that keeps duplicates together can see it.

Shapes: N training rows, M rows to label, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.cache import Features
from mmsent.metrics import Labels, Probabilities

_TILE = 2048
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """Labelled rows to find twins among: image (N, D_image) on the clean view, text (N, D_text), labels (N,), and the
    cosines from which pictures, and texts, count as near-duplicates."""

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    labels: Labels
    near_image: float
    near_text: float


def known_rows(features: Features, rows: NDArray[np.int64], near_image: float, near_text: float) -> Known:
    """The labelled rows at these positions of a split."""
    return Known(features.image[rows, 0], features.text[rows], features.index.labels[rows], near_image, near_text)


def twin_shares(known: Known, image: NDArray[np.float32], text: NDArray[np.float32], classes: int) -> Floats:
    """(M, C): of the twins that each row of image (M, D_image), text (M, D_text) has, the share with each label; zeros
    where it has none. A half of zeros is like nothing."""
    counts = np.zeros((len(image), classes))
    for start, like in _likeness(known, image, text):
        counts[start : start + len(like)] += like @ np.eye(classes)[known.labels]
    return _shares(counts)


def twin_table(known: Known, classes: int) -> Floats:
    """(C, C): how often twins of a post with the row's label have the column's label, counted among the known rows
    themselves, every post once; rows sum to 1. One is added to every count, so that nothing is impossible."""
    counts = np.ones((classes, classes))
    one_hot = np.eye(classes)[known.labels]
    for start, like in _likeness(known, known.image, known.text):
        own = np.arange(len(like))
        like[own, start + own] = 0
        shares = _shares(like @ one_hot)
        counts += one_hot[start : start + len(like)].T @ shares
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def lean(probabilities: Probabilities, shares: Floats, table: Floats) -> Probabilities:
    """Probabilities (M, C) after Bayes' rule with what the twins' labels say; rows without twins stay as they are.

    The twins of one post are much alike, so all of them together count as one observation.
    """
    likelihood = np.exp(shares @ np.log(table).T)  # (M, C): of the twins' labels, given each own label
    found = probabilities * likelihood
    has_twins = shares.sum(axis=1, keepdims=True) > 0
    out: Probabilities = np.where(has_twins, found / found.sum(axis=1, keepdims=True), probabilities)
    return out


def _shares(counts: Floats) -> Floats:
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _likeness(known: Known, image: NDArray[np.float32], text: NDArray[np.float32]) -> Iterator[tuple[int, Floats]]:
    """(start, (m, N) 0 or 1) tiles: which known rows are like the rows from `start` on, by picture or by text."""
    halves = [(_unit(known.image), _unit(image), known.near_image), (_unit(known.text), _unit(text), known.near_text)]
    for start in range(0, len(image), _TILE):
        part = slice(start, start + _TILE)
        like = [rows[part] @ mine.T >= least for mine, rows, least in halves]
        yield start, (like[0] | like[1]).astype(np.float64)


def _unit(vectors: NDArray[np.float32]) -> NDArray[Any]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: NDArray[Any] = vectors / np.maximum(lengths, np.float32(1e-12))
    return out
