"""How far people who label the same posts agree, and what most of them say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

LabelsOf = Mapping[str, Mapping[str, str]]  # by person, then by post id


class Pair(NamedTuple):
    """Two people and their kappa; None without a post that both have labelled."""

    a: str
    b: str
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """posts: how many all people have labelled; cohen: Cohen's kappa (1960) of each two on the posts that both have;
    fleiss: Fleiss' kappa (1971) of all on the posts that all have; None without such a post. conflicts: the labels of
    posts that got several."""

    people: list[str]
    posts: int
    cohen: list[Pair]
    fleiss: float | None
    conflicts: dict[str, dict[str, str]]


def agreement(labels: LabelsOf) -> Agreement:
    """How far people agree."""
    people = sorted(labels)
    pairs = [Pair(a, b, cohen_kappa(labels[a], labels[b])) for a, b in combinations(people, 2)]
    common = sorted(set.intersection(*(set(labels[one]) for one in people))) if people else []
    every = {name: said for name, said in _by_post(labels).items() if len(set(said.values())) > 1}
    fleiss = fleiss_kappa([[labels[one][name] for one in people] for name in common])
    return Agreement(people, len(common), pairs, fleiss, every)


def majority(labels: LabelsOf) -> dict[str, str]:
    """The label that more people gave than any other, by post id; posts without one are left out."""
    out = {}
    for name, said in _by_post(labels).items():
        (first, most), *rest = Counter(said.values()).most_common(2)
        if not rest or rest[0][1] < most:
            out[name] = first
    return out


def _by_post(labels: LabelsOf) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for person in sorted(labels):
        for name, label in labels[person].items():
            found.setdefault(name, {})[person] = label
    return found


def cohen_kappa(a: Mapping[str, str], b: Mapping[str, str]) -> float | None:
    """Cohen's kappa of two people on the posts that both have labelled; None where there are none."""
    from sklearn.metrics import cohen_kappa_score

    common = sorted(a.keys() & b.keys())
    x, y = [a[name] for name in common], [b[name] for name in common]
    if not common:
        return None
    return 1.0 if x == y else float(cohen_kappa_score(x, y))  # undefined where both know one label alone


def fleiss_kappa(said: list[list[str]]) -> float | None:
    """Fleiss' kappa of at least two people who all labelled the same posts: the labels of each post. None without a
    post."""
    if not said or len(said[0]) < 2:
        return None
    labels = sorted({label for post in said for label in post})
    counts = np.array([[post.count(label) for label in labels] for post in said], np.float64)  # (N, C)
    n = len(said[0])
    agree = ((counts**2).sum(axis=1) - n).mean() / (n * (n - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return 1.0 if chance == 1 else float((agree - chance) / (1 - chance))
