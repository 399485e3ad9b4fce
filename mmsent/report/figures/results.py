"""Figures of predictions: labels (report, Figure 3), confusion (9), confidence (10), pattern (11), and beyond it
reliability, accuracy by text length and by agreement of the heads.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mmsent.metrics import Labels, Probabilities, Reliability, confusion, wilson
from mmsent.report.figures.style import (
    GREEN,
    INK,
    ORANGE,
    SLATE,
    WIDE,
    in_style,
    label_colours,
    label_text,
    legend_columns,
    legend_of,
    new_figure,
    printable,
    run_styles,
    wrapped,
)
from mmsent.report.language import say

CALIBRATED = "calibrated confidence (probability)"
UNCALIBRATED = "confidence (probability, not calibrated)"
NAME = 22  # characters of a label at a tick
FEW = 5  # rows below which a density would show the kernel alone


def _ticks(labels: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Labels for an x axis, and how to set them: slanted where many or long names would run into one another."""
    names = [label_text(label, NAME) for label in labels]
    if len(names) <= 4 and max(map(len, names)) <= 10:
        return names, {}
    return names, {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}


@in_style
def labels_figure(balance: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> Figure:
    """Figure 3: the share of each label, one panel per split with labels, all on one scale."""
    colours = label_colours(labels)
    known = {split: [counts.get(label, 0) for label in labels] for split, counts in balance.items()}
    known = {split: counts for split, counts in known.items() if sum(counts)}
    names, turned = _ticks(labels)
    longest = max(map(len, names)) if turned else 0
    width = max(5.0, max(2.7, 0.62 * len(labels)) * len(known) + 0.6)
    fig = new_figure(width, 3.4 + 0.06 * longest)
    if not known:
        empty = fig.subplots()
        empty.axis("off")
        empty.text(0.5, 0.5, say("no split has labels"), ha="center", va="center")
        return fig
    axes = fig.subplots(1, len(known), squeeze=False, sharey=True)[0]
    top = 1.0
    for ax, (split, counts) in zip(axes, known.items(), strict=True):
        total = sum(counts)
        shares = [n / total for n in counts]
        ax.bar(range(len(labels)), shares, color=[colours[label] for label in labels])
        ax.set_xticks(range(len(labels)), names, **turned)
        for at, (n, share) in enumerate(zip(counts, shares, strict=True)):
            ax.text(at, share, f"{share:.1%}\n{n:,}", ha="center", va="bottom", fontsize=8.5 if len(labels) < 5 else 8)
        top = max(shares) * 1.22
        ax.set_title(say("{split}: {rows:,} rows with a label", split=label_text(split), rows=total))
        ax.set_xlabel(say("label"))
        ax.grid(False, axis="x")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_ylim(0, max([top, *(ax.get_ylim()[1] for ax in axes)]))
    axes[0].set_ylabel(say("share of the rows"))
    fig.suptitle(say("Label distribution"))
    return fig


@in_style
def confusion_figure(truth: Labels, predicted: Labels, labels: Sequence[str], name: str) -> Figure:
    """Figure 9: the confusion matrix as counts, and as rates of each true class (its diagonal is the recall)."""
    counts = confusion(truth, predicted, len(labels))
    totals = counts.sum(axis=1, keepdims=True)
    rates = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names, turned = _ticks(labels)
    many, longest = len(labels) > 4, max(map(len, names))
    side = max(3.0, 0.55 * len(labels)) + (0.05 * longest if turned else 0)
    fig = new_figure(2 * (side + 1.1 + 0.06 * longest), side + 0.9)
    left, right = fig.subplots(1, 2)
    shares = ".0%" if many else ".1%"
    for ax, values, form, unit in (
        (left, counts, "d", say("rows")),
        (right, rates, shares, say("share of the true class")),
    ):
        top = {"vmax": 1.0} if ax is right else {}
        sns.heatmap(
            values,
            annot=True,
            fmt=form,
            cmap="Blues",
            vmin=0,
            square=True,
            linewidths=1,
            xticklabels=names,
            yticklabels=names,
            annot_kws={"fontsize": 8 if many else 10},
            cbar_kws={"label": unit, "shrink": 0.85},
            ax=ax,
            **top,
        )
        ax.set_xlabel(say("predicted label"))
        ax.set_ylabel(say("true label"))
        ax.set_xticklabels(names, **(turned or {"rotation": 0}))
        ax.tick_params(axis="y", rotation=0)
    left.set_title(say("counts"))
    right.set_title(say("rates (diagonal: recall)"))
    fig.suptitle(say("Confusion matrix, {name}, {n} validation rows", name=label_text(name), n=len(truth)))
    return fig


@in_style
def confidence_figure(
    probabilities: Probabilities,
    predicted: Labels,
    truth: Labels,
    labels: Sequence[str],
    name: str,
    *,
    calibrated: bool,
) -> Figure:
    """Figure 10: kernel density of the confidence per predicted class, all rows and right against wrong; classes of few
    rows as strokes."""
    colours = label_colours(labels)
    confidence = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    named = {k: f"{label_text(label, NAME)} (n = {(predicted == k).sum()})" for k, label in enumerate(labels)}
    lines = max(2, -(-len(named) // (columns := legend_columns(named.values(), 2))))
    fig = new_figure(WIDE, 3.4 + 0.2 * lines)
    left, right = fig.subplots(1, 2, sharey=True)
    for k, label in enumerate(labels):
        chosen = confidence[predicted == k]
        _density(left, chosen, colours[label], named[k])
    for name_of, ok, colour in ((say("correct"), True, GREEN), (say("wrong"), False, ORANGE)):
        chosen = confidence[(predicted == truth) == ok]
        _density(right, chosen, colour, f"{name_of} (n = {len(chosen)})")
    for ax, title in ((left, say("by predicted label")), (right, say("correct and wrong predictions"))):
        ax.set_xlim(1 / len(labels) - 0.02, 1.0)
        ax.set_xlabel(say(CALIBRATED) if calibrated else say(UNCALIBRATED))
        ax.set_title(title)
        ax.legend(loc="upper left", ncols=columns, fontsize=8.5)
        ax.set_ylim(0, 1.05 * (2.4 + 0.2 * lines) / 2.2)  # the legend lies above the curves, never on them
    left.set_ylabel(say("density (each scaled to its peak)"))
    left.set_yticks(np.linspace(0, 1, 6))
    fig.suptitle(say("Confidence of the predictions, {name}", name=label_text(name)))
    return fig


def _density(ax: Any, values: NDArray[np.float64], colour: str, label: str) -> None:
    from scipy.stats import gaussian_kde

    if len(values) < FEW or np.ptp(values) < 1e-9:  # too few for a density; show where they are
        ax.plot(values, np.full(len(values), 0.06), "|", color=colour, ms=14, mew=1.8, label=label)
        return
    grid = np.linspace(values.min(), values.max(), 200)
    found = gaussian_kde(values)(grid)
    # Each to its own peak: the spike of a small class would flatten all others.
    ax.fill_between(grid, found / found.max(), color=colour, alpha=0.25, lw=0)
    ax.plot(grid, found / found.max(), color=colour, lw=1.8, label=label)
    sns.rugplot(x=values, ax=ax, color=colour, height=0.03, alpha=0.4)


@in_style
def pattern_figure(probabilities: Probabilities, truth: Labels, labels: Sequence[str], name: str) -> Figure:
    """Figure 11: the probabilities of a batch of validation posts, sorted by true class and then by the probability
    of that class. (N, C), N about 64."""
    own = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    order = np.lexsort((-own, truth))
    colours = label_colours(labels)
    fig = new_figure(WIDE, 2.8 + 0.3 * len(labels))
    top, main = fig.subplots(2, 1, height_ratios=[0.12, 1], sharex=True)
    sns.heatmap(
        probabilities[order].T,
        cmap="viridis",
        vmin=0,
        vmax=1,
        yticklabels=[label_text(label, NAME) for label in labels],
        xticklabels=False,
        cbar_kws={"label": say("probability")},
        ax=main,
    )
    main.tick_params(axis="y", rotation=0)
    main.set_ylabel(say("probability of"))
    main.set_xlabel(say("validation posts, sorted by true class, then by its probability"))
    for i, k in enumerate(truth[order]):
        top.axvspan(i, i + 1, color=colours[labels[k]], lw=0)
    edges = np.flatnonzero(np.diff(truth[order])) + 1
    for ax in (top, main):
        for edge in edges:
            ax.axvline(edge, color="white", lw=1.5)
    top.set_yticks([])
    top.set_ylabel(say("true class"), rotation=0, ha="right", va="center")
    top.tick_params(axis="both", length=0, labelbottom=False)
    top.grid(False)
    for side in top.spines.values():
        side.set_visible(False)
    legend_of(top, colours, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=legend_columns(labels, 8))
    fig.suptitle(say("Prediction pattern of {n} validation posts, {name}", n=len(truth), name=label_text(name)))
    return fig


@in_style
def reliability_figure(before: Reliability, after: Reliability, name: str, temperature: float) -> Figure:
    """Reliability diagram: accuracy over confidence in bins, before and after cross-fitted temperature scaling, with
    the rows in each bin. A calibrated head lies on the diagonal. temperature: the run's own, for the title."""
    fig = new_figure(WIDE, 5.0)
    axes = fig.subplots(2, 2, height_ratios=[3, 1], sharex=True, sharey="row")
    crossed = say("calibrated, cross-fitted\n(stored temperature {temperature:.2f})", temperature=temperature)
    for column, found, title in ((0, before, say("as trained")), (1, after, crossed)):
        ax, below = axes[0, column], axes[1, column]
        filled = found.count > 0
        width = np.diff(found.edges)
        ax.plot([0, 1], [0, 1], color=INK, lw=0.9, ls="--", label=say("perfectly calibrated"))
        ax.bar(
            found.edges[:-1][filled],
            found.accuracy[filled],
            width[filled],
            align="edge",
            color=SLATE,
            alpha=0.55,
            edgecolor="white",
            label=say("accuracy in the bin"),
        )
        ax.plot(
            found.confidence[filled],
            found.accuracy[filled],
            "o",
            color=ORANGE,
            ms=4,
            label=say("mean confidence in the bin"),
        )
        share = found.count / max(1, found.count.sum())
        ece = float((share * np.abs(found.accuracy - found.confidence))[filled].sum())
        ax.set_title(f"{title}: ECE {ece:.3f}")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        below.bar(found.edges[:-1], found.count, width, align="edge", color=SLATE, edgecolor="white")
        below.set_xlabel(say("confidence (probability)"))
    axes[0, 0].set_ylabel(say("accuracy (share of correct labels)"))
    axes[1, 0].set_ylabel(say("rows"))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.suptitle(say("Reliability on validation rows, {name}", name=label_text(name)))
    return fig


@in_style
def length_figure(
    lengths: Sequence[int],
    right: Mapping[str, NDArray[np.bool_]],
    fusions: Mapping[str, str],
    unit: str,
    shaded: str,
) -> Figure:
    """Accuracy by text length: rows in quantile groups of similar size, one line per head.

    lengths: N lengths in `unit`; right: per head, by name, (N,) whether each prediction is right; fusions: the heads'
    fusions; shaded: the head whose 95% Wilson interval is drawn.
    """
    styles = run_styles(fusions)
    values = np.asarray(lengths)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 6)).astype(int))
    group = np.clip(np.searchsorted(edges[1:-1], values, side="right"), 0, max(0, len(edges) - 2))
    groups = [g for g in range(max(1, len(edges) - 1)) if (group == g).any()]
    names = [f"{values[group == g].min()}–{values[group == g].max()}\nn = {(group == g).sum()}" for g in groups]
    fig = new_figure(7, 4.2)
    ax = fig.subplots()
    for head, hits in right.items():
        share = np.array([hits[group == g].mean() for g in groups])
        if head == shaded:
            low, high = np.array([wilson(int(hits[group == g].sum()), int((group == g).sum())) for g in groups]).T
            ax.fill_between(
                range(len(groups)),
                low,
                high,
                color=SLATE,
                alpha=0.15,
                lw=0,
                label=say("95% interval, {head}", head=printable(head)),
            )
        ax.plot(range(len(groups)), share, **styles[head], marker="o", ms=4, lw=1.5, label=label_text(head))
    ax.set_xticks(range(len(groups)), names)
    ax.set_xlabel(say("text length ({unit})", unit=unit))
    ax.set_ylabel(say("accuracy (share of correct labels)"))
    ax.set_title(say("Accuracy by text length, validation rows"))
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns(right, 4))
    return fig


@in_style
def agreement_figure(agreeing: NDArray[np.int64], right: NDArray[np.bool_], heads: Sequence[str]) -> Figure:
    """Accuracy of the vote by how many heads agree with it, and how often that happens. agreeing (N,), right (N,)."""
    kinds = sorted(set(agreeing.tolist()), reverse=True)
    count = np.array([(agreeing == k).sum() for k in kinds])
    hits = np.array([right[agreeing == k].sum() for k in kinds])
    fig = new_figure(8, 3.7)
    left, other = fig.subplots(1, 2, sharey=True)
    names = [say("{k} of {n}", k=k, n=len(heads)) for k in kinds]
    left.bar(names, count / count.sum(), color=SLATE)
    for i, n in enumerate(count):
        left.text(
            i,
            n / count.sum(),
            say("{n} rows\n{share:.1%}", n=n, share=n / count.sum()),
            ha="center",
            va="bottom",
            fontsize=8.5,
        )
    left.set_ylabel(say("share"))
    left.set_title(say("share of the validation rows"))
    share = hits / count
    low, high = np.array([wilson(int(h), int(n)) for h, n in zip(hits, count, strict=True)]).T
    bars = np.maximum(0, np.stack([share - low, high - share]))
    other.bar(names, share, color=SLATE, alpha=0.6, yerr=bars, capsize=4, ecolor=INK)
    for i, (s, top) in enumerate(zip(share, high, strict=True)):
        other.text(i, top + 0.01, f"{s:.1%}", ha="center", va="bottom", fontsize=8.5)
    other.set_ylim(0, 1.16)
    other.set_title(say("accuracy of the vote (95% interval)"))
    for ax in (left, other):
        ax.set_xlabel(say("heads that chose the vote's label"))
        ax.grid(False, axis="x")
    fig.suptitle(wrapped(say("Agreement of {heads}", heads=say(", ").join(heads)), 70, 4))
    return fig
