"""A study: a set of runs on one cache, with everything that figures and a report need of them, computed once.

Shapes: N validation rows, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import VOTING_FUSIONS, Fusion
from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import as_pixels, open_rgb, read_image, shrunk
from mmsent.errors import DataError, MmsentError, RunError
from mmsent.evaluation.evaluate import Evaluation, evaluate_validation
from mmsent.evaluation.repeats import other_seeds
from mmsent.features.cache import NO_LABEL, Cache, Features
from mmsent.features.cache.groups import row_groups
from mmsent.inference.tuned import blocks_from, cached_texts, features_for
from mmsent.metrics import Labels
from mmsent.report.certainty import Interval, mean_interval
from mmsent.report.figures.posts import PostCase
from mmsent.report.language import say
from mmsent.training.runs import Run

FRACTIONS = (0.1, 0.2, 0.4, 0.7, 1.0)


class Unavailable(MmsentError):
    """A figure that cannot be made of this study; the message says what is missing."""


@dataclass(frozen=True)
class Traced:
    """What a head computes on its validation rows: fused (N, D), hidden (N, H) or None, attention (N, heads, 2, 2) or
    None, logits (N, C)."""

    fused: NDArray[np.float32]
    hidden: NDArray[np.float32] | None
    attention: NDArray[np.float32] | None
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Study:
    """Runs on one cache with their validation results. `evaluations` starts with one per run, in order; the votes
    follow. dataset: None where the posts are not available; texts and images are then missing. repeats: those of other
    seeds, by name (see mmsent.evaluation.repeats.other_seeds). head: the run that single-head figures show, by name;
    empty for the best."""

    cache: Cache
    features: Features
    runs: list[Run]
    evaluations: list[Evaluation]
    dataset: Dataset | None
    repeats: dict[str, list[Evaluation]] = field(default_factory=dict)
    head: str = ""

    @property
    def labels(self) -> list[str]:
        """The label set."""
        return list(self.cache.labels)

    @property
    def main(self) -> Run:
        """The run that all single-head figures show: the one asked for, else the best."""
        return next((run for run in self.runs if run.name == self.head), self.runs[self.best])

    @functools.cached_property
    def splits(self) -> list[list[Run]]:
        """The runs by the validation rows that they share: most runs first, at a tie those with the newest run."""
        found: list[list[Run]] = []
        for run, e in zip(self.runs, self.evaluations, strict=False):
            like = (g for g in found if np.array_equal(self.evaluation(g[0]).positions, e.positions))
            group = next(like, None)
            if group is None:
                found.append([run])
            else:
                group.append(run)
        return sorted(found, key=lambda g: (len(g), max(run.since for run in g)), reverse=True)

    @property
    def shared(self) -> list[Run]:
        """The runs on the validation rows that most share; only these can be ranked."""
        return self.splits[0]

    @property
    def best(self) -> int:
        """Position of the run with the best validation weighted F1 among `shared`, the mean over its seeds."""
        ranked = [i for i, run in enumerate(self.runs) if run in self.shared]
        return max(ranked, key=lambda i: self.mean_f1(self.evaluations[i]))

    def seeds(self, found: Evaluation) -> list[Evaluation]:
        """An evaluation of this study, and those of the same head's other seeds."""
        return [found, *self.repeats.get(found.name, ())]

    def mean_f1(self, found: Evaluation) -> float:
        """The weighted F1, the mean over the seeds."""
        return float(np.mean([e.scores["f1_weighted"] for e in self.seeds(found)]))

    @functools.cached_property
    def curve(self) -> tuple[list[int], NDArray[np.float64]]:
        """The main run's `learning_curve`, which takes minutes."""
        return learning_curve(self, self.main)

    def of(self, fusion: Fusion) -> Run | None:
        """The first run with a fusion, if there is one."""
        return next((run for run in self.runs if run.fusion is fusion), None)

    def evaluation(self, run: Run) -> Evaluation:
        """A run's validation result."""
        return self.evaluations[self.runs.index(run)]

    def vote(self) -> Evaluation | None:
        """The majority vote's validation result, where the runs share a split."""
        return next((e for e in self.evaluations[len(self.runs) :] if e.fusion == "vote"), None)

    def voters(self) -> list[Run]:
        """The runs that `vote` counts."""
        chosen = [run for run in self.runs if run.fusion in VOTING_FUSIONS]
        return chosen if len(chosen) > 1 else self.runs

    def history(self, run: Run) -> list[dict[str, Any]]:
        """A run's record of each epoch. Raises RunError where the file cannot be read."""
        from mmsent.training.fit import read_history

        return read_history(run)

    def trace(self, run: Run) -> Traced:
        """The intermediate results of a run's head on its validation rows."""
        import torch

        rows = self.evaluation(run).positions
        texts = cached_texts([run], self.cache, "train", self.features.text)[rows]
        image, text = map(torch.from_numpy, features_for(run, self.features.image[rows, 0], texts))
        head = run.head()
        with torch.no_grad():
            found = head.trace(image, text)
            looks = run.fusion in {Fusion.attention, Fusion.attention_alt}
            attention = head.attention_map(image, text).numpy() if looks else None
        hidden = found.hidden.numpy() if found.hidden is not None else None
        return Traced(found.fused.numpy(), hidden, attention, found.logits.numpy())

    @functools.cached_property
    def _posts(self) -> dict[str, Post]:
        return {post.id: post for post in self.dataset.of("train")} if self.dataset else {}

    def post(self, row_id: str) -> Post | None:
        """The training post with an id, where the data set is available."""
        return self._posts.get(row_id)

    def text(self, row_id: str) -> str | None:
        """A post's text as it was encoded; None where it is not available."""
        post = self.post(row_id)
        if post is None or self.dataset is None:
            return None
        try:
            return self.dataset.text_of(post)
        except DataError:
            return None

    def picture(self, row_id: str, side: int) -> NDArray[np.uint8] | None:
        """A post's picture, (h, w, 3) with its longer side at most `side` pixels; None where it is not available."""
        post = self.post(row_id)
        try:
            image = open_rgb(read_image(post.image)) if post else None
        except DataError:
            return None
        if image is None:
            return None
        return as_pixels(shrunk(image, side))

    def case(self, found: Evaluation, i: int, side: int = 400) -> PostCase:
        """Row i of an evaluation as a post to show."""
        row_id = self.features.index.ids[int(found.positions[i])]
        said = int(found.predicted[i])
        return PostCase(
            row_id,
            self.picture(row_id, side),
            self.text(row_id) or "",
            self.labels[int(found.truth[i])],
            self.labels[said],
            float(found.probabilities[i, said]),
        )

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the texts at these positions, before any cut."""
        found: NDArray[np.int64] = self.features.index.tokens[rows]
        return found


def open_study(runs: Sequence[Run], cache: Cache, dataset: Dataset | None, head: str | None = None) -> Study:
    """Evaluate runs on their validation rows. head: the run that single-head figures show, by its fusion or its name.
    Raises RunError where a run does not fit the cache, or none is that head."""
    if not runs:
        raise RunError("a report needs at least one run; train some with `mmsent fit --fusion all`")
    shown = next((run.name for run in runs if head in (run.name, run.fusion.value)), "")
    if head and not shown:
        raise RunError(
            f"--head {head}: no such run here; there are {', '.join(f'{r.fusion} ({r.name})' for r in runs)}"
        )
    features = cache.load("train")
    found = evaluate_validation(runs, cache, features)
    return Study(cache, features, list(runs), found, dataset, other_seeds(runs, found, cache, features), shown)


def training_rows(study: Study, run: Run) -> NDArray[np.int64]:
    """Positions of the good, labelled rows that a run does not validate on; where its split is grouped, without those
    that share a picture or a text with its validation rows."""
    index = study.features.index
    held = np.zeros(len(index.ids), np.bool_)
    held[study.evaluation(run).positions] = True
    usable = np.flatnonzero((index.good & (index.labels != NO_LABEL)) | held)
    out = held[usable]
    groups = row_groups(index, usable, run.split, study.features)
    if groups is not None:
        out = np.isin(groups, groups[out])
    rows: NDArray[np.int64] = usable[~out]
    return rows


def learning_curve(
    study: Study,
    run: Run,
    *,
    fractions: Sequence[float] = FRACTIONS,
    repeats: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> tuple[list[int], NDArray[np.float64]]:
    """Weighted F1 on a run's validation rows after training on parts of the cache's other rows, which are the run's
    training rows unless the cache has changed; where its split is grouped, no duplicate of a validation row is among
    them.

    Each repeat draws its own rows and seed; its parts grow by adding rows. repeats: None means three, and one where the
    run tunes blocks, which takes minutes per head. Returns the sizes and the scores (sizes, repeats). Every part holds
    each class at least once. Raises Unavailable where no row is left to train on.
    """
    from mmsent.training.loaders import to_tensors
    from mmsent.training.sides import tuned
    from mmsent.training.train import train_head

    index: Labels = study.features.index.labels
    held, pool = study.evaluation(run).positions, training_rows(study, run)
    if not len(pool):
        raise Unavailable(say("no row is left to train on beside the validation rows of run {name}", name=run.name))
    repeats = repeats or (1 if run.tune else 3)
    blocks = blocks_from(study.cache) if run.tune else None
    image, text = study.features.image, study.features.text
    val = to_tensors(image[held, :1], text[held], index[held], "cpu")
    classes = len(study.labels)
    least = max(classes, 8)
    sizes = sorted({max(least, round(f * len(pool))) for f in fractions if f * len(pool) >= least})
    sizes = sizes or [len(pool)]
    scores = np.zeros((len(sizes), repeats))
    for r in range(repeats):
        order = np.random.default_rng(r).permutation(pool)
        firsts = [int(np.flatnonzero(index[order] == c)[0]) for c in range(classes) if (index[order] == c).any()]
        order = np.concatenate([order[firsts], np.delete(order, firsts)])  # each class comes first
        settings = run.fit.model_copy(update={"seed": run.fit.seed + r})
        for s, size in enumerate(sizes):
            part = order[:size]
            rows = [(to_tensors(image[part], text[part], index[part], "cpu"), part), (val, held)]
            train, kept = tuned(study.cache, run.tune, rows, blocks)
            trained = train_head(train, kept, settings, classes)
            best = trained.history[trained.best_epoch - 1]
            scores[s, r] = best["val_f1_weighted"]
            if on_step:
                on_step(1)
    return sizes, scores


def growth(sizes: Sequence[int], scores: NDArray[np.float64]) -> tuple[int, int, Interval] | None:
    """What more posts bring by a `learning_curve`: from at most half of them to all, the gain and its interval; None
    where the curve is a point."""
    if len(sizes) < 2:
        return None
    start = max((i for i, n in enumerate(sizes) if 2 * n <= sizes[-1]), default=len(sizes) - 2)
    return sizes[start], sizes[-1], mean_interval(scores[-1] - scores[start])  # paired: repeats grow by adding rows


def label_counts(cache: Cache) -> dict[str, dict[str, int]]:
    """Rows per split and label as the cache holds them; rows without a label count under "no label"."""
    out: dict[str, dict[str, int]] = {}
    for split in sorted(cache.rows, reverse=True):  # train first
        labels = cache.index(split).labels
        counts = {name: int((labels == k).sum()) for k, name in enumerate(cache.labels)}
        if missing := int((labels == NO_LABEL).sum()):
            counts = {name: n for name, n in counts.items() if n} | {"no label": missing}
        out[split] = counts
    return out
