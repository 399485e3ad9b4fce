"""Figures of features with their captions: what lies in the fusion and in the hidden layer, in two dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Fusion
from mmsent.metrics import Labels
from mmsent.report.certainty import mean_interval, shown
from mmsent.report.figures import projections
from mmsent.report.language import listed, say
from mmsent.report.naming import title_of
from mmsent.report.source import Made, Source, need
from mmsent.report.study import Unavailable


def projection(fusion: Fusion, hidden: bool) -> Callable[[Source], Made]:
    """Figures 12 to 14."""

    def make(source: Source) -> Made:
        study = source.study
        run = need(study, fusion)
        traced = study.trace(run)
        features = traced.hidden if hidden else traced.fused
        if features is None:
            raise Unavailable(say("a {fusion} head has no hidden layer", fusion=fusion))
        truth = study.evaluation(run).truth
        what = (
            say("Hidden features, {name}", name=title_of(run))
            if hidden
            else say("Fused features, {name}", name=title_of(run))
        )
        words = say("{n} dimensions, projected to two.", n=features.shape[1]) + say(" ")
        words += _separation(features, traced.fused if hidden else None, truth, study.labels)
        if run.tune:
            words += say(" ") + say(
                "The features come from the encoders with this run's own last blocks ({blocks}).",
                blocks=run.tune,
            )
        points = projections.project(features)
        if missing := [method for method, found in points.items() if found is None]:
            words += say(" ") + say("Not drawn: {methods}; UMAP needs pip install 'mmsent[umap]', both need five rows.",
                                    methods=listed(missing))  # fmt: skip
        return projections.projection_figure(points, truth, study.labels, what), words

    return make


def _separation(features: NDArray[Any], before: NDArray[Any] | None, truth: Labels, names_: list[str]) -> str:
    """How far classes lie apart in the full width: the silhouette of the true classes, of the worst class, and what the
    layer adds to the features before it."""
    from sklearn.metrics import silhouette_samples

    if len(np.unique(truth)) < 2 or len(np.unique(truth)) >= len(truth):
        return say("There is only one class.")
    each = silhouette_samples(features, truth, metric="cosine")
    words = say(
        "The mean silhouette of the true classes by cosine is {mean} (0: mixed, 1: well separated).",
        mean=shown(mean_interval(each), "+.2f"),
    )
    if before is not None:
        gain = mean_interval(each - silhouette_samples(before, truth, metric="cosine"))
        words += say(" ") + (
            say(
                "The hidden layer separates the classes beyond chance better than the fused features: {gain}.",
                gain=shown(gain, "+.2f"),
            )
            if gain[1] > 0
            else say("That is no better than the fused features beyond chance: {gain}.", gain=shown(gain, "+.2f"))
        )
    means = {k: mean_interval(each[truth == c]) for c, k in enumerate(names_) if (truth == c).sum() > 1}
    worst = min(means, key=lambda k: means[k][0])
    if means[worst][2] < 0:
        words += say(" ") + say(
            "{label} posts lie nearer to another class than to their own: {mean}.",
            label=worst,
            mean=shown(means[worst], "+.2f"),
        )
    return words
