"""Accuracy against coverage: what is gained where unsure posts are left to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mmsent.report.figures.style import in_style, label_text, new_figure, run_styles

Curve = Sequence[Mapping[str, float]]  # see mmsent.metrics.accuracy_by_coverage


@in_style
def coverage_figure(curves: Mapping[str, Curve], fusions: Mapping[str, str], what: str) -> Figure:
    """A line per head or vote. fusions: their heads, for the colours; what: names the rows."""
    fig = new_figure(6.4, 4)
    ax = fig.subplots()
    styles = run_styles(fusions)
    for name, curve in curves.items():
        shares, heights = ([100 * point[key] for point in curve] for key in ("coverage", "accuracy"))
        ax.plot(shares, heights, **styles[name], label=label_text(name, 40))
    ax.set_xlim(0, 102)
    ax.set_xlabel("labelled posts, the surest first (% of all)")
    ax.set_ylabel("of these labelled correctly (%)")
    ax.legend(loc="lower left", fontsize=8)
    fig.suptitle(label_text(what))
    return fig
