"""Figures of training: the first layer (report, Figure 2), losses (4), metrics (5), fusion weights (7), attention (8),
and the learning curve over training-set size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mmsent.report.figures.style import (
    IMAGE_COLOUR,
    INK,
    ORANGE,
    SLATE,
    TEXT_COLOUR,
    WIDE,
    in_style,
    label_text,
    legend_columns,
    new_figure,
    run_styles,
)
from mmsent.report.language import say

History = Sequence[Mapping[str, Any]]
RIDGES = 9  # epochs shown in Figure 2, evenly spaced, beside the state before training


@in_style
def first_layer_figure(history: History, name: str, layer: str) -> Figure:
    """Figure 2: density of the first linear layer's weights and of its outputs on validation rows, epoch over epoch.

    history: a run's records. Each ridge is one epoch, the lowest is before training; the dashed curve over it is the
    normal density with the same mean and standard deviation.
    """
    shown = sorted(set(np.linspace(0, len(history) - 1, RIDGES).round().astype(int).tolist()))
    epochs = [0, *(int(history[i]["epoch"]) for i in shown)]
    states = [history[0]["first_layer_before"], *(history[i]["first_layer"] for i in shown)]
    fig = new_figure(WIDE, max(3.4, 1.7 + 0.3 * len(epochs)))
    titles = {"weights": say("weights"), "outputs": say("outputs")}
    for ax, what in zip(fig.subplots(1, 2), titles, strict=True):
        found = [s[what] for s in states]
        sampled = [_density(f) for f in found]
        # The tails of a distribution are long and empty: show what lies within four standard deviations.
        low = min(f["mean"] - 4 * f["std"] for f in found)
        high = max(f["mean"] + 4 * f["std"] for f in found)
        # Ridges are scaled each to its own peak, so that the shape can be compared while the width grows.
        for i, (f, (x, density)) in enumerate(zip(found, sampled, strict=True)):
            top = max(float(density.max()), 1e-12)
            shade = _blend(i / max(1, len(found) - 1))
            ax.fill_between(x, i, i + 1.6 * density / top, color=shade, alpha=0.75, lw=0, zorder=100 - i)
            grid = np.linspace(low, high, 300)
            spread = max(f["std"], 1e-12)
            normal = np.exp(-0.5 * ((grid - f["mean"]) / spread) ** 2)
            peak = 1.6 * normal / (spread * np.sqrt(2 * np.pi)) / top
            ax.plot(grid, i + peak, color=INK, lw=0.7, ls="--", zorder=100 - i)
        ax.set_xlim(low, high)
        ax.set_yticks(range(len(epochs)), [say("before") if e == 0 else str(e) for e in epochs])
        ax.set_ylim(-0.1, len(epochs) + 1.3)
        stds = {"before": found[0]["std"], "after": found[-1]["std"]}
        ax.set_xlabel(say("value (no unit)\nstd {before:.3f} before, {after:.3f} at the end", **stds))
        ax.set_ylabel(say("epoch (density above each line)"))
        ax.set_title(f"{layer}: {titles[what]}")
    fig.suptitle(
        say("First linear layer through training, {name}\n(dashed: normal, same mean and std)", name=label_text(name))
    )
    return fig


def _density(f: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    counts = np.asarray(f["counts"], np.float64)
    edges = np.linspace(f["low"], f["high"], len(counts) + 1)
    width = max(edges[1] - edges[0], 1e-12)
    return (edges[:-1] + edges[1:]) / 2, counts / max(counts.sum(), 1) / width


def _blend(t: float) -> tuple[float, float, float]:
    start, end = np.array([0.82, 0.86, 0.92]), np.array([0.267, 0.329, 0.416])
    mixed = start + (end - start) * t
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


@in_style
def loss_figure(history: History, name: str, best_epoch: int) -> Figure:
    """Figure 4: training and validation loss per epoch; the kept epoch is marked."""
    epochs = [r["epoch"] for r in history]
    fig = new_figure(6, 3.6)
    ax = fig.subplots()
    ax.plot(
        epochs, [r["train_loss"] for r in history], color=ORANGE, marker="o", ms=4, label=say("training (with dropout)")
    )
    ax.plot(epochs, [r["val_loss"] for r in history], color=SLATE, marker="s", ms=4, label=say("validation"))
    ax.axvline(best_epoch, color=INK, lw=1, ls=":", label=say("kept: epoch {epoch}", epoch=best_epoch))
    ax.set_xlabel(say("epoch"))
    ax.set_ylabel(say("cross-entropy loss (nats, class-weighted)"))
    ax.set_title(say("Loss, {name}", name=label_text(name)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return fig


METRICS = (
    ("val_accuracy", "accuracy (= weighted recall)"),
    ("val_precision_weighted", "weighted precision"),
    ("val_f1_weighted", "weighted F1"),
    ("val_f1_macro", "macro F1"),
)


@in_style
def metrics_figure(histories: Mapping[str, History], best: Mapping[str, int], fusions: Mapping[str, str]) -> Figure:
    """Figure 5: validation metrics per epoch of all variants, side by side on one scale. Keys are names, fusions their
    fusions; dots mark kept epochs."""
    styles = run_styles(fusions)
    fig = new_figure(WIDE, 6.4)
    axes = fig.subplots(2, 2, sharex=True, sharey=True)
    for ax, (key, title) in zip(axes.flat, METRICS, strict=True):
        for name, history in histories.items():
            epochs = [r["epoch"] for r in history]
            values = [r[key] for r in history]
            ax.plot(epochs, values, **styles[name], label=label_text(name), lw=1.6)
            kept = best[name]
            ax.plot([kept], [values[epochs.index(kept)]], "o", color=styles[name]["color"], ms=6, mec="white")
        ax.set_title(say(title))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[1]:
        ax.set_xlabel(say("epoch"))
    for ax in axes[:, 0]:
        ax.set_ylabel(say("score (0 to 1)"))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns(histories))
    fig.suptitle(say("Validation metrics per epoch (dot: the epoch kept)"))
    return fig


def _shares(ax: Any, history: History, best_epoch: int) -> None:
    """The shares of image and text per epoch, on the whole scale: what moves little shall look so."""
    epochs = [r["epoch"] for r in history]
    ax.plot(epochs, [r["image_share"] for r in history], color=IMAGE_COLOUR, marker="o", ms=4, label=say("image"))
    ax.plot(epochs, [r["text_share"] for r in history], color=TEXT_COLOUR, marker="s", ms=4, label=say("text"))
    ax.axhline(0.5, color=INK, lw=0.8, ls="--", label=say("equal"))
    ax.axvline(best_epoch, color=INK, lw=1, ls=":", label=say("kept: epoch {epoch}", epoch=best_epoch))
    ax.set_ylim(0, 1)
    ax.set_xlabel(say("epoch"))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(ncols=2, loc="upper left")


@in_style
def shares_figure(history: History, name: str, best_epoch: int) -> Figure:
    """Figure 7: the weights of image and text in the weighted fusion through training."""
    fig = new_figure(6, 3.6)
    ax = fig.subplots()
    _shares(ax, history, best_epoch)
    ax.set_ylabel(say("fusion weight (the two sum to 1)"))
    ax.set_title(say("Fusion weights through training, {name}", name=label_text(name)))
    return fig


@in_style
def attention_figure(attention: NDArray[np.float32], history: History, name: str, best_epoch: int) -> Figure:
    """Figure 8: attention (N, heads, 2, 2) of validation rows: to which half each half attends, the spread over rows,
    and the course, all on one scale."""
    mean = attention.mean(axis=(0, 1))  # asking half, half attended to
    fig = new_figure(WIDE, 5.6)
    whole, under = fig.subfigures(2, 1, height_ratios=[1, 1.9], squeeze=False)[:, 0]
    bars = whole.subplots()
    halves = (say("image"), say("text"))
    for half, start, colour in ((0, np.zeros(2), IMAGE_COLOUR), (1, mean[:, 0], TEXT_COLOUR)):
        bars.barh([0, 1], mean[:, half], left=start, color=colour, height=0.6, label=halves[half])
        for asking in range(2):
            bars.text(
                start[asking] + mean[asking, half] / 2, asking, f"{mean[asking, half]:.3f}", ha="center", va="center",
                color="white" if half == 0 else INK, fontsize=10,
            )  # fmt: skip
    bars.axvline(0.5, color=INK, lw=0.8, ls="--")
    bars.set_yticks([0, 1], [say("from {half}", half=half) for half in halves])
    bars.set_ylim(1.5, -0.5)
    bars.set_xlim(0, 1)
    bars.grid(visible=False)
    bars.set_xlabel(say("mean attention (share)"))
    bars.set_title(say("to the image (left) and to the text (right)"))
    spread, course = under.subplots(1, 2, sharey=True)
    received = attention.mean(axis=2)[:, :, 0]  # (N, heads): the share that the image receives
    order = [received[:, h] for h in range(received.shape[1])]
    parts = spread.violinplot(order, showmedians=True, widths=0.8)
    for body in parts["bodies"]:
        body.set_facecolor(IMAGE_COLOUR)
        body.set_alpha(0.6)
    for line in ("cbars", "cmins", "cmaxes", "cmedians"):
        parts[line].set_color(INK)
    spread.axhline(0.5, color=INK, lw=0.8, ls="--")
    spread.set_xticks(range(1, len(order) + 1), [str(h + 1) for h in range(len(order))])
    spread.set_xlabel(say("attention head"))
    spread.set_ylabel(say("attention received (share)"))
    spread.set_title(say("by the image, over {n} validation rows", n=len(attention)))
    _shares(course, history, best_epoch)
    course.set_title(say("by both, through training"))
    fig.suptitle(say("Attention between image and text, {name}", name=label_text(name)))
    return fig


@in_style
def learning_curve_figure(sizes: Sequence[int], scores: NDArray[np.float64], name: str, final: float) -> Figure:
    """Weighted F1 on the same validation rows over the number of training rows: scores (sizes, repeats).

    The line is the mean over repeats, the band their range; `final` is the run's own score.
    """
    fig = new_figure(6, 3.6)
    ax = fig.subplots()
    repeats = scores.shape[1]
    if repeats > 1:
        low, high = scores.min(axis=1), scores.max(axis=1)
        ax.fill_between(sizes, low, high, color=SLATE, alpha=0.18, lw=0, label=say("range"))
    mean = say("mean of {n} repeats", n=repeats) if repeats > 1 else say("one head per size")
    ax.plot(sizes, scores.mean(axis=1), color=SLATE, marker="o", ms=4, label=mean)
    ax.axhline(final, color=INK, lw=0.8, ls="--", label=say("this run: {score:.3f}", score=final))
    ax.set_xscale("log")
    ax.set_xticks(list(sizes), [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel(say("training rows (log scale)"))
    ax.set_ylabel(say("weighted F1 on validation (0 to 1)"))
    ax.set_title(say("Learning curve, {name}", name=label_text(name)))
    ax.legend()
    return fig
