"""Panels of posts: error cases (report, Figure 6) and the most confident errors, where label noise is likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmsent.report.figures.style import in_style, label_colours, label_text, new_figure, printable, wrapped
from mmsent.report.language import say


@dataclass(frozen=True)
class PostCase:
    """One post to show. picture: (h, w, 3) bytes or None where it is not available; confidence of `predicted`."""

    id: str
    picture: NDArray[np.uint8] | None
    text: str
    truth: str
    predicted: str
    confidence: float


@in_style
def posts_figure(cases: Sequence[PostCase], labels: Sequence[str], title: str, columns: int = 3) -> Figure:
    """Posts in a grid: picture, text, true label, predicted label and confidence."""
    colours = label_colours(labels)
    rows = max(1, -(-len(cases) // columns))
    fig = new_figure(2.75 * columns, 3.55 * rows + 0.5)
    grid = fig.subplots(rows, columns, squeeze=False)
    for ax in grid.flat[len(cases) :]:
        ax.axis("off")
    for ax, case in zip(grid.flat, cases, strict=False):
        if case.picture is None:
            ax.set_facecolor("#F4F4F4")
            ax.text(
                0.5, 0.5, say("image not available"), ha="center", va="center", transform=ax.transAxes, color="#666666"
            )
        else:
            ax.imshow(_square(case.picture), aspect="equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        for side in ax.spines.values():
            side.set_visible(True)
            side.set_color(colours[case.truth])
            side.set_linewidth(2.5)
        head = say("{id}   true: {label}", id=printable(case.id, 18), label=label_text(case.truth, 14))
        ax.set_title(head, fontsize=9, color=colours[case.truth], pad=4)
        said = say("predicted {label}, {share:.0%}", label=label_text(case.predicted, 14), share=case.confidence)
        ax.set_xlabel(f"{said}\n{wrapped(case.text, 38, 4)}", fontsize=8.5, labelpad=4)
    fig.suptitle(label_text(title))
    return fig


def _square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture in the middle of a light square, so that all panels are alike."""
    h, w, _ = picture.shape
    side = max(h, w)
    out = np.full((side, side, 3), 244, np.uint8)
    top, left = (side - h) // 2, (side - w) // 2
    out[top : top + h, left : left + w] = picture
    return out
