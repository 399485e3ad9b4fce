"""Twins: posts to label whose image or text is a near-duplicate of a training post's. Collections of posts are full
of them, and the label of a twin is strong evidence. This is knowledge of the collection, not of sentiment: it helps
where such a collection is labelled, and no cross-validation that keeps duplicates together can see it.

Shapes: N training rows, M rows to label, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsent.data.vectors import unit_length
from mmsent.features.cache import Features
from mmsent.metrics import Labels, Probabilities

_TILE = 2048  # rows compared at a time with as many
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledRows:
    """Labelled rows to find twins among: image (N, D_image) on the clean view, text (N, D_text), labels (N,), and the
    cosines from which pictures, and texts, count as near-duplicates."""

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    labels: Labels
    near_image: float
    near_text: float


def labelled_rows(features: Features, rows: NDArray[np.int64], near_image: float, near_text: float) -> LabelledRows:
    """The labelled rows at these positions of a split."""
    image, text = compared(features)
    return LabelledRows(image[rows], text[rows], features.index.labels[rows], near_image, near_text)


def compared(features: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is compared of N rows: image (N, D_image) on the clean view and text (N, D_text), zeros where a half says
    nothing."""
    image, text = features.image[:, 0], features.text
    empty = features.index.empty
    return np.where(empty[:, :1], np.float32(0), image), np.where(empty[:, 1:], np.float32(0), text)


def twin_shares(known: LabelledRows, image: NDArray[np.float32], text: NDArray[np.float32], classes: int) -> Floats:
    """(M, C): of the twins that each row of image (M, D_image), text (M, D_text) has, the share with each label; zeros
    where it has none. A half of zeros is like nothing."""
    return _shares(_counts(known, image, text, classes))


def twin_table(known: LabelledRows, classes: int) -> Floats:
    """(C, C): how often twins of a post with the row's label have the column's label, counted among the known rows
    themselves, every post once; rows sum to 1. One is added to every count, so that nothing is impossible."""
    one_hot = np.eye(classes)[known.labels]
    shares = _shares(_counts(known, known.image, known.text, classes, itself=True))
    counts = 1 + one_hot.T @ shares
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def posterior(probabilities: Probabilities, shares: Floats, table: Floats) -> Probabilities:
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


def _counts(
    known: LabelledRows, image: NDArray[np.float32], text: NDArray[np.float32], classes: int, *, itself: bool = False
) -> Floats:
    """(M, C): how many twins of each label each row has. itself: the rows are the known ones, none its own twin."""
    counts = np.zeros((len(image), classes))
    one_hot = np.eye(classes)[known.labels]
    for rows, theirs, like in _likeness(known, image, text):
        if itself and rows == theirs:
            np.fill_diagonal(like, False)
        counts[rows] += like.astype(np.float64) @ one_hot[theirs]
    return counts


def _likeness(
    known: LabelledRows, image: NDArray[np.float32], text: NDArray[np.float32]
) -> Iterator[tuple[slice, slice, NDArray[np.bool_]]]:
    """Tiles (m, n) of (M, N): which rows, which known rows, and which of them are alike, by picture or by text."""
    halves = [
        (unit_length(known.image), unit_length(image), known.near_image),
        (unit_length(known.text), unit_length(text), known.near_text),
    ]
    for start in range(0, len(image), _TILE):
        part = slice(start, start + _TILE)
        for other in range(0, len(known.labels), _TILE):
            theirs = slice(other, other + _TILE)
            like = [rows[part] @ mine[theirs].T >= least for mine, rows, least in halves]
            yield part, theirs, like[0] | like[1]
