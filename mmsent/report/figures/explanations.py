"""Figures of explanations: Grad-CAM over the image (report, Figure 15), word by word (Figure 16), one page per post.

The protocols name what the figures read of an explanation (mmsent.inference.explain makes them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mmsent.inference.attribution import strongest
from mmsent.report.figures.style import (
    GREY,
    INK,
    OPPOSE,
    SUPPORT,
    WIDE,
    drawable,
    in_style,
    label_colours,
    label_text,
    new_figure,
    numbering,
    printable,
)
from mmsent.report.figures.style import wrapped as wrap
from mmsent.report.language import say

MOST_WORDS = 25
COLOURS = "inferno"  # perceptually uniform, and dark where nothing is
COVER = 0.6  # of the colour over the picture
METHODS = {
    "grad_cam": "Grad-CAM, embedding",
    "integrated": "integrated gradients",
    "occlusion": "occlusion of the word",
}


class MapData(Protocol):
    """A Grad-CAM map: values (h, w), shares of its maximum."""

    @property
    def layer(self) -> str: ...
    @property
    def values(self) -> NDArray[np.float32]: ...
    @property
    def correlation(self) -> float | None: ...


class PictureData(Protocol):
    """The picture (size, size, 3), its maps, and, if taken, the loss of logit (n, n) where a window covers a place."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...
    @property
    def maps(self) -> Sequence[MapData]: ...
    @property
    def occlusion(self) -> NDArray[np.float32] | None: ...
    @property
    def window(self) -> int: ...


class WordData(Protocol):
    """A word and its value by each method, in units of the logit."""

    @property
    def word(self) -> str: ...
    @property
    def grad_cam(self) -> float: ...
    @property
    def integrated(self) -> float: ...
    @property
    def occlusion(self) -> float: ...


class TextData(Protocol):
    """A text and its words in order."""

    @property
    def text(self) -> str: ...
    @property
    def words(self) -> Sequence[WordData]: ...


class ModalityData(Protocol):
    """Loss of logit without the image, and without the text."""

    @property
    def image(self) -> float: ...
    @property
    def text(self) -> float: ...


class ExplanationData(Protocol):
    """What the figures read of an explanation."""

    @property
    def id(self) -> str: ...
    @property
    def fusion(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def probabilities(self) -> Mapping[str, float]: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def modality(self) -> ModalityData: ...
    @property
    def missing(self) -> Sequence[str]: ...
    @property
    def picture(self) -> PictureData | None: ...
    @property
    def text(self) -> TextData | None: ...


@in_style
def grad_cam_figure(explanations: Sequence[ExplanationData], title: str = "") -> Figure:
    """One row per post: the image as the encoder sees it, Grad-CAM at each layer, occlusion. Posts whose image is not
    explained are left out; raises ValueError where none is left."""
    shown = [(e, e.picture) for e in explanations if e.picture is not None]
    if not shown:
        raise ValueError("none of these explanations has an image")
    columns = max(len(picture.maps) for _, picture in shown) + 2
    figure = new_figure(WIDE, (WIDE / columns + 0.5) * len(shown) + 0.4)
    axes = figure.subplots(len(shown), columns, squeeze=False)
    for row, (explanation, picture) in zip(axes, shown, strict=True):
        name = say("{id}, for “{label}”", id=printable(explanation.id, 24), label=label_text(explanation.target, 16))
        _draw_maps(row, picture, name)
    _colour_bar(figure, axes)
    figure.suptitle(title or say("What in an image supports its label"))
    return figure


@in_style
def word_figure(explanation: ExplanationData) -> Figure:
    """Bars per word and method, in the order of the text; of more than 25 words the strongest 24 and the mean of the
    rest. Raises ValueError where the text is not explained or has no words."""
    if explanation.text is None or not explanation.text.words:
        raise ValueError("this explanation has no words")
    figure = new_figure(WIDE, 2.1 + 0.24 * len(_rows(explanation.text.words)))
    _draw_words(figure, explanation.text, explanation.target)
    figure.suptitle(say("How much each word supports “{label}”", label=label_text(explanation.target, 24)))
    return figure


def explanation_figure(explanation: ExplanationData) -> Figure:
    """One page for a post; labels that no font can draw are numbered."""
    with numbering(list(explanation.probabilities)):
        return _explanation_figure(explanation)


@in_style
def _explanation_figure(explanation: ExplanationData) -> Figure:
    """One page for a post: its text, picture and maps, words, probabilities, and the shares of the two halves."""
    words = explanation.text.words if explanation.text is not None else ()
    picture = explanation.picture
    title = wrap(explanation.text.text, 105, 3) if explanation.text is not None else "image only"
    heights = [2.75] if picture is not None else []
    heights.append(max(2.7, 1.0 + 0.24 * len(_rows(words))))
    figure = new_figure(11.5, sum(heights) + 0.45 + 0.2 * title.count("\n"))
    head = f"{printable(explanation.id, 60)} — {label_text(explanation.fusion)} head, explained for “"
    figure.suptitle(f"{head}{label_text(explanation.target, 24)}”\n{title}", fontsize=10, fontweight="normal")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if picture is not None:
        axes = parts[0].subplots(1, len(picture.maps) + 2)
        _draw_maps(axes, picture, "image, as encoded")
        _colour_bar(parts[0], axes)
    left, right = parts[-1].subfigures(1, 2, width_ratios=[2.6, 1])
    if words and explanation.text is not None:
        _draw_words(left, explanation.text, explanation.target)
    else:
        empty = left.subplots()
        empty.set_axis_off()
        reason = "the text has no words" if explanation.text is not None else "this head reads no text"
        empty.text(0.5, 0.5, reason, ha="center", va="center", color=GREY)
    above, below = right.subplots(2, 1, height_ratios=[max(2, len(explanation.probabilities)), 1.2])
    _draw_probabilities(above, explanation)
    _draw_halves(below, explanation.modality, explanation.missing)
    return figure


def _draw_maps(row: Sequence[Any], picture: PictureData, name: str) -> None:
    """Fill a row of axes; those that are left over stay empty."""
    for axes in row:
        axes.set_axis_off()
    row[0].imshow(picture.pixels)
    row[0].set_title(wrap(name, 20, 3), fontsize=8.5)
    panels: list[tuple[NDArray[np.floating[Any]], str]] = []
    for one in picture.maps:
        h, w = one.values.shape
        panels.append((one.values, f"{_short(one.layer)}\nGrad-CAM\n{h} × {w}"))
    if picture.occlusion is not None:
        losses = np.maximum(picture.occlusion, 0)
        strongest = float(losses.max())
        shares = losses / strongest if strongest > 0 else losses
        panels.append(
            (
                shares,
                say(
                    "occlusion\nwindow {side} px\n{h} × {w}", side=picture.window, h=shares.shape[0], w=shares.shape[1]
                ),
            )
        )
    for axes, (values, title) in zip(row[1:], panels, strict=False):
        axes.imshow(_overlay(picture.pixels, values))
        axes.set_title(title, fontsize=8.5)


def _overlay(pixels: NDArray[np.uint8], shares: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """A map (h, w) of shares in colour over the grey picture (size, size, 3). Mixed here, for matplotlib's own mixing
    of a transparent, interpolated image shifts the brightest colours to green."""
    side = len(pixels)
    spread = Image.fromarray(shares.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    coloured: NDArray[np.float64] = colormaps[COLOURS](np.clip(np.asarray(spread), 0, 1))[..., :3]
    grey: NDArray[np.float64] = pixels.mean(axis=2, keepdims=True) / 255
    return (1 - COVER) * grey + COVER * coloured


def _short(layer: str) -> str:
    """A layer's name in at most 20 characters, its end kept."""
    plain = printable(layer)
    return plain if len(plain) <= 20 else f"…{plain[-19:]}"


def _colour_bar(figure: Any, axes: Any) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=axes, fraction=0.025, pad=0.01)
    bar.set_label(say("support for the target\n(share of the maximum)"), fontsize=8.5)
    bar.outline.set_visible(False)


def _rows(words: Sequence[WordData]) -> list[tuple[str, dict[str, float]]]:
    """(name, value by method) of each bar: all words, or the strongest by each method and then by occlusion, and the
    mean of the rest."""
    order = sorted(range(len(words)), key=lambda i: -abs(words[i].occlusion))
    kept = set(order)
    if len(words) > MOST_WORDS:
        told = {id(word) for method in METHODS for sign in (1, -1) for word in strongest(words, method, sign)}
        kept = set(sorted(order, key=lambda i: id(words[i]) not in told)[: MOST_WORDS - 1])
    rows = [
        (
            printable(word.word, 20) if drawable(word.word) else f"word {i + 1}",  # dots would look alike
            {m: float(getattr(word, m)) for m in METHODS},
        )
        for i, word in enumerate(words)
        if i in kept
    ]
    if rest := [word for i, word in enumerate(words) if i not in kept]:
        means = {m: sum(float(getattr(w, m)) for w in rest) / len(rest) for m in METHODS}
        rows.append((say("(mean of {n} others)", n=len(rest)), means))
    return rows


def _draw_words(figure: Any, text: TextData, target: str) -> None:
    rows = _rows(text.words)
    places = np.arange(len(rows))
    opposed = any(value < 0 for _, row in rows for value in row.values())
    for number, (axes, (method, title)) in enumerate(
        zip(figure.subplots(1, 3, sharey=True), METHODS.items(), strict=True)
    ):
        values = [row[method] for _, row in rows]
        reach = max(map(abs, values)) or 1.0  # the methods' sizes differ tenfold: each is drawn by its strongest word
        axes.barh(places, [value / reach for value in values], height=0.72, **_signs(values))
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(-1.1 if opposed else -0.05, 1.1)
        axes.set_title(f"{say(title)}\n" + say("(1 is {reach:.2g} logit units)", reach=reach), fontsize=9)
        if number == 0:
            axes.set_ylabel(say("word, in the order of the text"), fontsize=8.5)
        axes.set_xticks([-1, 0, 1] if opposed else [0, 0.5, 1])
        axes.set_xlabel(say("share of the strongest word"), fontsize=8.5)
        axes.tick_params(axis="x", labelsize=8.5)
        axes.grid(axis="y", visible=False)
        if number == 0:
            axes.set_yticks(places, [name for name, _ in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
        else:
            axes.tick_params(axis="y", length=0)
    figure.supxlabel(
        say(
            "change in the logit of “{label}”: violet supports it, yellow opposes it",
            label=label_text(target, 24),
        ),
        fontsize=8.5,
    )


def _draw_probabilities(axes: Any, explanation: ExplanationData) -> None:
    names = list(explanation.probabilities)
    values = [explanation.probabilities[name] for name in names]
    colours = label_colours(names)
    axes.barh(range(len(names)), values, color=[colours[name] for name in names], height=0.66)
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        weight = "bold" if name == explanation.label else "normal"
        axes.text(value + 0.02, place, f"{value:.1%}", va="center", fontsize=8, fontweight=weight)
    axes.set_yticks(range(len(names)), [label_text(name, 16) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.22)
    axes.set_xticks([0, 0.5, 1])
    axes.grid(axis="y", visible=False)
    axes.set_title(
        "probability, " + ("calibrated" if explanation.temperature is not None else "not calibrated"), fontsize=9
    )


def _draw_halves(axes: Any, modality: ModalityData, missing: Sequence[str]) -> None:
    halves = {"image": ("picture", modality.image), "text": ("text", modality.text)}
    values = [value for _, value in halves.values()]
    axes.set_title("what each half adds to the logit", fontsize=9)
    axes.barh([0, 1], values, height=0.62, **_signs(values))
    axes.axvline(0, color=INK, linewidth=0.8)
    reach = max(map(abs, values)) or 1.0
    axes.set_xlim(-1.7 * reach, 1.7 * reach)
    for place, (half, value) in enumerate(halves.values()):
        words = "missing" if half in missing else f"{value:+.2f}"
        side = "left" if value >= 0 else "right"
        axes.text(value + (0.06 if value >= 0 else -0.06) * reach, place, words, ha=side, va="center", fontsize=8)
    axes.set_yticks([0, 1], list(halves))
    axes.set_ylim(1.5, -0.5)
    axes.set_xticks([0])
    axes.tick_params(axis="x", labelsize=7.5)
    axes.grid(visible=False)


def _signs(values: Sequence[float]) -> dict[str, Any]:
    """How bars are filled: what supports the label, what opposes it."""
    return {"color": [SUPPORT if v >= 0 else OPPOSE for v in values], "edgecolor": INK, "linewidth": 0.5}
