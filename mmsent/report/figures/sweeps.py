"""Figures of a sweep: one line per trial through all settings (parallel coordinates); how much each setting matters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmsent.report.figures.style import INK, SLATE, VERMILLION, WIDE, in_style, label_text, new_figure
from mmsent.report.language import say

GREYS = 0.9, 0.5  # of trials that were stopped early, which have no score: from the first to the last that stopped
LEAST = 2  # finished trials that a figure needs


def sweep_figures(info: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a finished sweep, by file name; info: what its sweep.json says. One that would show nothing is
    left out."""
    found = {}
    finished = [one for one in info["trials"] if one["score"] is not None]
    if len(finished) >= LEAST:
        found["parallel"] = parallel_figure(info["trials"], info["varied"], info["ranges"])
    if info["importances"]:
        found["importance"] = importance_figure(info["importances"])
    return found


@in_style
def parallel_figure(trials: Sequence[Mapping[str, Any]], names: Sequence[str], logs: Mapping[str, bool]) -> Figure:
    """Parallel coordinates: one axis per setting, from top to bottom, and one for the score; one line per trial,
    coloured by its score. Trials that were stopped early are grey, the later the darker, and end before the score. The
    best is drawn over all others.
    names: the settings that vary; logs: those on a logarithmic axis.
    """
    finished = [one for one in trials if one["score"] is not None]
    scores = np.array([one["score"] for one in finished])
    # Poor trials lie far below; what is of interest is the upper part.
    low, high = float(np.quantile(scores, 0.1)), float(scores.max())
    norm = Normalize(low, high if high > low else low + 1e-6)
    colours = mpl.colormaps["viridis"]
    last = len(names)
    fig = new_figure(WIDE, 1.6 + 0.52 * (last + 1))
    ax = fig.subplots()
    ax.grid(False)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(last + 0.45, -0.3)
    ax.set_xticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    places = []
    scored = [(0.0, f"≤ {low:.3f}"), (0.5, f"{(low + high) / 2:.3f}"), (1.0, f"{high:.3f}")]
    for at, name in enumerate([*names, ""]):
        place, ticks = _axis([one["params"][name] for one in trials], name in logs) if name else ([], scored)
        if name:
            places.append(place)
        ax.plot([0, 1], [at, at], color=INK, lw=0.8, zorder=3)
        for along, text in ticks:
            ax.plot([along, along], [at - 0.05, at + 0.05], color=INK, lw=0.8, zorder=3)
            side = "left" if along == 0 else "right" if along == 1 else "center"
            ax.text(
                along, at + 0.1, label_text(text, 14), ha=side, va="top", fontsize=8.5, zorder=5,
                bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.8},
            )  # fmt: skip
    lines = np.array(places).T  # (trials, settings)
    # Trials with the same choice would lie on one another: those of a kind are spread a little, always alike.
    lines = lines + np.random.default_rng(0).uniform(-0.012, 0.012, lines.shape)
    ends = [0.0 if one["score"] is not None else math.log1p(one["epochs"]) for one in trials]
    greys = np.interp(ends, (0, max(max(ends), 1e-6)), GREYS)
    heights = [end - 100 if one["score"] is None else one["score"] for one, end in zip(trials, ends, strict=True)]
    order = np.argsort(heights, kind="stable")
    paths, shades, widths = [], [], []
    for i in order:
        score = trials[i]["score"]
        points = [(float(at), float(along)) for at, along in enumerate(lines[i])]
        if score is not None:
            points.append((float(last), float(np.clip(norm(score), 0, 1))))
        paths.append(_curved(points)[:, ::-1])
        shades.append((*[float(greys[i])] * 3, 0.6) if score is None else (*colours(norm(score))[:3], 0.75))
        widths.append(0.5 if score is None else 0.9)
    widths[-1], shades[-1] = 2.4, mpl.colors.to_rgba(VERMILLION)
    ax.add_collection(LineCollection(paths, colors=shades, linewidths=widths, zorder=2))
    ax.set_yticks(range(last + 1), [*(label_text(name).replace("_", " ") for name in names), say("weighted F1")])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel(say("setting, and the score at the bottom"))
    bar = fig.colorbar(ScalarMappable(norm, colours), ax=ax, pad=0.01, extend="min", shrink=0.6)
    bar.set_label(say("weighted F1 of finished trials"))
    pruned = len(trials) - len(finished)
    ax.set_title(
        say(
            "{n} finished trials, {pruned} stopped early (the later the darker grey); the best is the thick line",
            n=len(finished),
            pruned=pruned,
        )
    )
    return fig


def _axis(values: Sequence[Any], log: bool) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Where values stand on an axis of height 1, and its ticks."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) and len(set(values)) > 6:
        numbers = np.array(values, np.float64)
        scaled = np.log(numbers) if log else numbers
        low, high = float(scaled.min()), float(scaled.max())
        place = (scaled - low) / max(high - low, 1e-12)
        ends = [low, (low + high) / 2, high]
        return place, [(h, f"{np.exp(v) if log else v:.2g}") for h, v in zip((0.0, 0.5, 1.0), ends, strict=True)]
    kinds = list(dict.fromkeys(values))
    if not any(isinstance(v, str) for v in kinds):
        kinds.sort()
    heights = {repr(v): (i / (len(kinds) - 1) if len(kinds) > 1 else 0.5) for i, v in enumerate(kinds)}
    return np.array([heights[repr(v)] for v in values]), [(heights[repr(v)], _word(v)) for v in kinds]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _curved(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """A smooth path through points, level at each, so that lines can be followed through an axis."""
    steps = np.linspace(0, 1, 12)
    ease = steps * steps * (3 - 2 * steps)
    parts = [
        np.stack([x0 + (x1 - x0) * steps, y0 + (y1 - y0) * ease], axis=1)
        for (x0, y0), (x1, y1) in itertools.pairwise(points)
    ]
    return np.concatenate(parts)


@in_style
def importance_figure(importances: Mapping[str, float]) -> Figure:
    """How much each setting matters for the score: shares that sum to 1, the largest on top."""
    names = sorted(importances, key=lambda name: importances[name])
    fig = new_figure(6, max(2.2, 0.9 + 0.28 * len(names)))
    ax = fig.subplots()
    shares = [importances[name] for name in names]
    bars = ax.barh([label_text(name) for name in names], shares, color=SLATE)
    ax.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize=8.5)
    ax.set_xlim(0, max(shares) * 1.15)
    ax.set_xlabel(say("share of what the settings explain (PED-ANOVA)"))
    ax.set_ylabel(say("setting"))
    ax.set_title(say("Which settings matter for the weighted F1"))
    return fig
