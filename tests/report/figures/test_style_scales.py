"""Figures can be compared and read: one scale side by side, and no empty panel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmsent.report.figures import projections, results, sweeps, training

LABELS = ["negative", "neutral", "positive"]
RNG = np.random.default_rng(0)
SHARES = RNG.dirichlet(np.ones(3), 60)
TRUTH, GUESS = RNG.integers(0, 3, 60), SHARES.argmax(axis=1)
HISTORY = [{"epoch": i, "image_share": 0.5 - i / 1000, "text_share": 0.5 + i / 1000} for i in (1, 2, 3)]


def test_splits_without_labels_have_no_panel_and_the_others_one_scale() -> None:
    balance = {"train": {"negative": 90, "neutral": 5, "positive": 5}, "dev": {"negative": 1, "positive": 3}}
    figure = results.labels_figure({**balance, "test": {"no label": 40}}, LABELS)
    assert [ax.get_title().split(":")[0] for ax in figure.axes] == ["train", "dev"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[0].get_ylim()[1] > 0.9


def test_metrics_share_a_scale() -> None:
    keys = [key for key, _ in training.METRICS]
    history = [{"epoch": e, **{key: (k + e) / 8 for k, key in enumerate(keys)}} for e in (1, 2)]
    figure = training.metrics_figure({"a": history}, {"a": 1}, {"a": "concat"})
    assert len({ax.get_ylim() for ax in figure.axes}) == 1


def test_what_moves_little_looks_so() -> None:
    figure = training.shares_figure(HISTORY, "x", 2)
    assert figure.axes[0].get_ylim() == (0, 1)


def test_attention_is_drawn_as_lengths_on_one_scale() -> None:
    figure = training.attention_figure(RNG.dirichlet(np.ones(2), (20, 2, 2)).astype(np.float32), HISTORY, "x", 1)
    assert not any(ax.images for ax in figure.axes)
    bars, spread, course = figure.axes
    assert bars.get_xlim() == spread.get_ylim() == course.get_ylim() == (0, 1)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_the_legend_of_the_confidences_lies_above_the_curves(classes: int) -> None:
    shares = RNG.dirichlet(np.ones(classes), 300)
    guess = shares.argmax(axis=1)
    names = [f"label {i}" for i in range(classes)]
    figure = results.confidence_figure(shares, guess, guess * 0, names, "x", calibrated=True)
    figure.draw_without_rendering()
    for ax in figure.axes:
        legend: Any = ax.get_legend()
        low = ax.transData.inverted().transform(legend.get_window_extent())[0, 1]
        assert low > max(max(line.get_ydata()) for line in ax.get_lines())


def test_the_pattern_names_its_axes() -> None:
    figure = results.pattern_figure(SHARES, TRUTH, LABELS, "x")
    assert figure.axes[1].get_ylabel() == "probability of"


def test_agreement_and_reliability_share_their_scales() -> None:
    left, right = results.agreement_figure(TRUTH + 1, TRUTH == GUESS, LABELS).axes
    assert left.get_ylim() == right.get_ylim()
    from mmsent.metrics import reliability

    found = reliability(TRUTH, SHARES)
    axes = results.reliability_figure(found, reliability(TRUTH[:9], SHARES[:9]), "x", 1.0).axes
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[2].get_ylim() == axes[3].get_ylim()


def test_a_method_without_points_has_no_panel() -> None:
    figure = projections.projection_figure({"PCA": SHARES[:, :2], "UMAP": None}, TRUTH, LABELS, "x")
    assert [ax.get_title() for ax in figure.axes] == ["PCA"]


def test_the_axes_of_a_sweep_lie_one_under_the_other() -> None:
    names = [f"setting_{i}" for i in range(14)]
    trials = [
        {"params": {name: float(k + i) for i, name in enumerate(names)}, "score": 0.6 + k / 100} for k in range(9)
    ]
    figure = sweeps.parallel_figure(trials, names, {})
    shown = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert shown == [*(name.replace("_", " ") for name in names), "weighted F1"]
    assert figure.get_figwidth() < 9
