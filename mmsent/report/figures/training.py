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
    in_style,
    label_text,
    legend_columns,
    new_figure,
    run_styles,
)

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
    fig = new_figure(9, max(3.2, 1.5 + 0.3 * len(epochs)))
    for ax, what, unit in zip(fig.subplots(1, 2), ("weights", "outputs"), ("weight", "output"), strict=True):
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
        ax.set_yticks(range(len(epochs)), ["before" if e == 0 else str(e) for e in epochs])
        ax.set_ylim(-0.1, len(epochs) + 1.3)
        ax.set_xlabel(f"{unit} value (no unit); std {found[0]['std']:.3f} before, {found[-1]['std']:.3f} at the end")
        ax.set_ylabel("epoch (density above each line)")
        ax.set_title(f"{layer}: {what}")
    fig.suptitle(f"First linear layer through training, {label_text(name)} (dashed: normal, same mean and std)")
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
    ax.plot(epochs, [r["train_loss"] for r in history], color=ORANGE, marker="o", ms=4, label="training (with dropout)")
    ax.plot(epochs, [r["val_loss"] for r in history], color=SLATE, marker="s", ms=4, label="validation")
    ax.axvline(best_epoch, color=INK, lw=1, ls=":", label=f"kept: epoch {best_epoch}")
    ax.set_xlabel("epoch")
    ax.set_ylabel("cross-entropy loss (nats, class-weighted)")
    ax.set_title(f"Loss, {label_text(name)}")
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
    """Figure 5: validation metrics per epoch of all variants, side by side. Keys are names, fusions their fusions; dots
    mark kept epochs."""
    styles = run_styles(fusions)
    fig = new_figure(10, 6.4)
    axes = fig.subplots(2, 2, sharex=True)
    for ax, (key, title) in zip(axes.flat, METRICS, strict=True):
        for name, history in histories.items():
            epochs = [r["epoch"] for r in history]
            values = [r[key] for r in history]
            ax.plot(epochs, values, **styles[name], label=label_text(name), lw=1.6)
            kept = best[name]
            ax.plot([kept], [values[epochs.index(kept)]], "o", color=styles[name]["color"], ms=6, mec="white")
        ax.set_title(title)
        ax.set_ylabel("share of validation rows" if "accuracy" in key else "score (0 to 1)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns(histories))
    fig.suptitle("Validation metrics per epoch (dot: the epoch kept)")
    return fig


@in_style
def shares_figure(history: History, name: str, best_epoch: int, what: str = "fusion weight") -> Figure:
    """Figure 7: the shares of image and text through training (weighted fusion: the two weights)."""
    epochs = [r["epoch"] for r in history]
    fig = new_figure(6, 3.6)
    ax = fig.subplots()
    ax.plot(epochs, [r["image_share"] for r in history], color=IMAGE_COLOUR, marker="o", ms=4, label="image")
    ax.plot(epochs, [r["text_share"] for r in history], color=TEXT_COLOUR, marker="s", ms=4, label="text")
    ax.axhline(0.5, color=INK, lw=0.8, ls="--", label="equal")
    ax.axvline(best_epoch, color=INK, lw=1, ls=":", label=f"kept: epoch {best_epoch}")
    values = [r[k] for r in history for k in ("image_share", "text_share")]
    reach = max(0.02, *(abs(v - 0.5) for v in values)) * 1.3
    ax.set_ylim(0.5 - reach, 0.5 + reach)
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{what} (the two sum to 1)")
    ax.set_title(f"{what.capitalize()} through training, {label_text(name)}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(ncols=2)
    return fig


@in_style
def attention_figure(attention: NDArray[np.float32], history: History, name: str) -> Figure:
    """Figure 8: attention (N, heads, 2, 2) of validation rows: the mean map, its spread over rows, and its course.

    Rows of the map are the asking half, columns the half attended to.
    """
    halves = ("image", "text")
    mean = attention.mean(axis=(0, 1))
    fig = new_figure(11, 3.5)
    left, middle, right = fig.subplots(1, 3, width_ratios=[1, 1.3, 1.3])
    shown = left.imshow(mean, vmin=0, vmax=1, cmap="cividis")
    for i in range(2):
        for j in range(2):
            ink = "black" if mean[i, j] > 0.55 else "white"
            left.text(j, i, f"{mean[i, j]:.3f}", ha="center", va="center", color=ink, fontsize=12)
    left.set_xticks([0, 1], halves)
    left.set_yticks([0, 1], halves)
    left.set_xlabel("attended to")
    left.set_ylabel("from")
    left.grid(False)
    left.set_title("mean attention")
    fig.colorbar(shown, ax=left, label="attention (share)", shrink=0.8)
    received = attention.mean(axis=2)[:, :, 0]  # (N, heads): the share that the image receives
    order = [received[:, h] for h in range(received.shape[1])]
    parts = middle.violinplot(order, showmedians=True, widths=0.8)
    for body in parts["bodies"]:
        body.set_facecolor(IMAGE_COLOUR)
        body.set_alpha(0.6)
    for line in ("cbars", "cmins", "cmaxes", "cmedians"):
        parts[line].set_color(INK)
    middle.axhline(0.5, color=INK, lw=0.8, ls="--")
    middle.set_xticks(range(1, len(order) + 1), [str(h + 1) for h in range(len(order))])
    middle.set_ylim(0, 1)
    middle.set_xlabel("attention head")
    middle.set_ylabel("share that the image receives")
    middle.set_title(f"over {len(attention)} validation rows")
    epochs = [r["epoch"] for r in history]
    right.plot(epochs, [r["image_share"] for r in history], color=IMAGE_COLOUR, marker="o", ms=4, label="image")
    right.plot(epochs, [r["text_share"] for r in history], color=TEXT_COLOUR, marker="s", ms=4, label="text")
    right.axhline(0.5, color=INK, lw=0.8, ls="--")
    right.set_ylim(0, 1)
    right.set_xlabel("epoch")
    right.set_ylabel("mean attention received (share)")
    right.set_title("through training")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    fig.suptitle(f"Attention between image and text, {label_text(name)}")
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
        ax.fill_between(sizes, scores.min(axis=1), scores.max(axis=1), color=SLATE, alpha=0.18, lw=0, label="range")
    mean = f"mean of {repeats} repeats" if repeats > 1 else "one head per size"
    ax.plot(sizes, scores.mean(axis=1), color=SLATE, marker="o", ms=4, label=mean)
    ax.axhline(final, color=INK, lw=0.8, ls="--", label=f"this run: {final:.3f}")
    ax.set_xscale("log")
    ax.set_xticks(list(sizes), [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("training rows (log scale)")
    ax.set_ylabel("weighted F1 on validation (0 to 1)")
    ax.set_title(f"Learning curve, {label_text(name)}")
    ax.legend()
    return fig
