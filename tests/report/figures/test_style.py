"""Figures by themselves: names that matplotlib would read as markup, many labels, several seeds, and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import mmsent.serve
from mmsent.config import Fusion
from mmsent.inference.attribution import METHODS, Explanation, Modality, TextExplanation, WordScore, strongest
from mmsent.metrics import reliability
from mmsent.report.figures import posts, projections, results, training
from mmsent.report.figures.architecture import architecture_figure
from mmsent.report.figures.explanations import _rows, explanation_figure
from mmsent.report.figures.style import (
    FUSION_COLOURS,
    GREEN,
    IMAGE_COLOUR,
    KNOWN,
    OPPOSE,
    ORANGE,
    OTHERS,
    SUPPORT,
    TEXT_COLOUR,
    in_place_of,
    label_colours,
    label_text,
    numbering,
    png_bytes,
    run_styles,
)
from mmsent.training.head_config import HeadConfig
from mmsent.training.heads import Head
from tests.helpers.fake import fake_encoders

NASTY = ["$a_{$", "_b", "c$"]  # broken mathematics, a name that legends drop, a lone dollar
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 60)
PROBABILITIES = RNG.dirichlet(np.ones(3), 60)
GUESS = PROBABILITIES.argmax(axis=1)
POINTS = RNG.normal(size=(60, 2))
RUNS = dict.fromkeys(NASTY, "concat")
HISTORY = [
    {"epoch": i, **dict.fromkeys(("val_accuracy", "val_precision_weighted", "val_f1_weighted", "val_f1_macro"), 0.5)}
    for i in (1, 2)
]
HITS = dict.fromkeys(NASTY, TRUTH == GUESS)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: results.labels_figure({"train": dict.fromkeys(NASTY, 5)}, NASTY),
        lambda: results.confusion_figure(TRUTH, GUESS, NASTY, "x"),
        lambda: results.confidence_figure(PROBABILITIES, GUESS, TRUTH, NASTY, "x", calibrated=True),
        lambda: results.pattern_figure(PROBABILITIES, TRUTH, NASTY, "x"),
        lambda: results.length_figure(list(range(60)), HITS, RUNS, "tokens", NASTY[0]),
        lambda: projections.projection_figure({"PCA": POINTS, "UMAP": None}, TRUTH, NASTY, "x"),
        lambda: training.metrics_figure(dict.fromkeys(NASTY, HISTORY), dict.fromkeys(NASTY, 1), RUNS),
        lambda: posts.posts_figure([posts.PostCase("$_{", None, "$_{", n, n, 0.5) for n in NASTY], NASTY, "x"),
    ],
    ids=["labels", "confusion", "confidence", "pattern", "length", "projection", "metrics", "posts"],
)
def test_names_are_drawn_as_they_are(make: Callable[[], Figure]) -> None:
    figure = make()
    drawn = texts(figure)
    for name in NASTY:
        assert any(label_text(name) in text for text in drawn), name
    assert png_bytes(figure, dpi=40)  # mathematics is read only here


def test_names_in_titles_are_drawn_as_they_are() -> None:
    for name in NASTY:
        assert png_bytes(results.confusion_figure(TRUTH, GUESS, ["a", "b", "c"], name), dpi=40)
    assert png_bytes(results.agreement_figure(TRUTH + 1, TRUTH == GUESS, NASTY), dpi=40)


def test_legends_keep_names_with_an_underscore() -> None:
    figure = projections.projection_figure({"PCA": POINTS, "UMAP": None}, TRUTH, NASTY, "x")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [r"\$a_{\$", "\u200b_b", r"c\$"]


def test_many_labels_turn_the_ticks() -> None:
    labels = [f"label {i}" for i in range(6)]
    truth = RNG.integers(0, 6, 90)
    figure = results.confusion_figure(truth, truth, labels, "x")
    for axes in figure.axes[:2]:
        assert {t.get_rotation() for t in axes.get_xticklabels()} == {35}
        assert {t.get_rotation() for t in axes.get_yticklabels()} == {0}
    assert "100%" in texts(figure)
    few = results.confusion_figure(TRUTH, TRUTH, ["a", "b", "c"], "x")
    assert {t.get_rotation() for t in few.axes[0].get_xticklabels()} == {0}
    assert "100.0%" in texts(few)
    assert figure.get_size_inches()[1] > few.get_size_inches()[1]
    bars = results.labels_figure({"train": dict.fromkeys(labels, 3)}, labels)
    assert {t.get_rotation() for t in bars.axes[0].get_xticklabels()} == {35}


def test_labels_have_colours_of_their_own() -> None:
    taken = {*FUSION_COLOURS.values(), IMAGE_COLOUR, TEXT_COLOUR, GREEN, ORANGE}
    names = [f"label {i}" for i in range(len(OTHERS))]
    colours = label_colours(names)
    assert len(set(colours.values())) == len(names)
    assert not taken & {*colours.values(), *KNOWN.values()}


def test_seeds_of_one_fusion_can_be_told_apart() -> None:
    styles = run_styles({"concat": "concat", "concat (seed 1)": "concat", "concat (seed 2)": "concat", "text": "text"})
    assert len({(s["color"], s["ls"]) for s in styles.values()}) == 4
    assert len({s["color"] for s in styles.values()}) == 2


THAI = ["ลบ", "กล", "good"]  # no font that comes with the package has these letters


def test_labels_that_no_font_has_are_numbered() -> None:
    assert in_place_of([*THAI, "消极", "😀", "_b"]) == {"ลบ": "label 1", "กล": "label 2"}
    with numbering(THAI):
        counts = results.labels_figure({"train": dict.fromkeys(THAI, 5)}, THAI)
        map_ = projections.projection_figure({"PCA": POINTS, "UMAP": None}, TRUTH, THAI, "x")
    assert [t.get_text() for t in counts.axes[0].get_xticklabels()] == ["label 1", "label 2", "good"]
    assert [t.get_text() for t in map_.legends[0].get_texts()] == ["label 1", "label 2", "good"]
    assert label_text("ลบ") == "··"  # outside of it
    made = Explanation(
        "a", "r", "concat", "ลบ", "ลบ", 1.0, {"ลบ": 0.8, "กล": 0.2}, None, 0.0, Modality(-0.4, 1.2), None,
        TextExplanation("ลบ ดี", tuple(WordScore(word, 1, 1, 1, 1, 1) for word in ("ลบ", "ดี")), {}, 0.0, 4, False),
    )  # fmt: skip
    drawn = texts(explanation_figure(made))
    assert {"label 1", "label 2", "word 1", "word 2"} <= {*drawn}
    assert not any("··" in text for text in drawn if "“label" not in text)


def test_figures_have_settings_of_their_own() -> None:
    """Of a researcher's matplotlibrc nothing is left, and it comes back afterwards."""
    theirs = {"text.usetex": True, "font.size": 30.0, "axes.grid": False, "figure.dpi": 33.0, "lines.linewidth": 9.0}
    plain = png_bytes(results.confusion_figure(TRUTH, GUESS, ["a", "b", "c"], "x"), dpi=40)
    with mpl.rc_context(theirs):
        drawn = png_bytes(results.confusion_figure(TRUTH, GUESS, ["a", "b", "c"], "x"), dpi=40)
        assert {name: mpl.rcParams[name] for name in theirs} == theirs
    assert drawn == plain


@pytest.mark.parametrize("n", [3, 5, 14, 20])
def test_the_architecture_names_the_labels(n: int) -> None:
    labels = [f"l{i}" for i in range(n)]
    head = Head(HeadConfig(fusion=Fusion.image, image_width=4, text_width=4, classes=n))
    cards = fake_encoders()
    drawn = "\n".join(texts(architecture_figure(head, cards.image.card, cards.text.card, labels, "x"))).split("\n")
    assert [t for t in drawn if t in labels] == (labels if n < 15 else labels[:13])
    assert ("and 7 more" in drawn) == (n == 20)


def test_a_class_of_two_rows_flattens_no_other() -> None:
    predicted = np.repeat([0, 1, 2], [2, 29, 29])
    shares = np.full((60, 3), 0.0)
    sure = np.concatenate([[0.5, 0.5001], RNG.uniform(0.4, 0.95, 58)])
    shares[np.arange(60), predicted] = sure
    axes = results.confidence_figure(shares, predicted, predicted, ["a", "b", "c"], "x", calibrated=True).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines() if "n =" in str(line.get_label())}
    assert lines["a (n = 2)"].get_marker() == "|"
    assert list(lines["a (n = 2)"].get_xdata()) == [0.5, 0.5001]
    for name in ("b (n = 29)", "c (n = 29)"):
        assert max(lines[name].get_ydata()) == pytest.approx(1)
    assert axes.get_ylim()[1] < 1.4


def test_reliability_says_what_it_draws() -> None:
    bins = reliability(TRUTH, PROBABILITIES)
    titles = [ax.get_title() for ax in results.reliability_figure(bins, bins, "x", 0.98).axes]
    assert any(t.startswith("calibrated, cross-fitted\n(stored temperature 0.98): ECE") for t in titles)


def test_violins_have_the_colours_of_the_page() -> None:
    shares = RNG.dirichlet(np.ones(2), (20, 2, 2)).astype(np.float32)
    history = [{"epoch": 1, "image_share": 0.4, "text_share": 0.6}, {"epoch": 2, "image_share": 0.4, "text_share": 0.6}]
    figure = training.attention_figure(shares, history, "x", 1)
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_hex

    lines = [c for c in figure.axes[1].collections if isinstance(c, LineCollection)]
    assert {to_hex(colour) for line in lines for colour in line.get_color()} == {"#222222"}  # type: ignore[attr-defined]


# Linear RGB as people without one kind of cone see it (Machado, Oliveira and Fernandes 2009), and as most do.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def seen(colour: str, sight: str) -> np.ndarray:
    """CIE Lab of a colour."""
    rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(SIGHT[sight] @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_support_and_opposition_stay_apart_from_each_other_and_from_all_else(sight: str) -> None:
    assert np.linalg.norm(seen(SUPPORT, sight) - seen(OPPOSE, sight)) > 60
    taken = {*FUSION_COLOURS.values(), *KNOWN.values(), *OTHERS, IMAGE_COLOUR, TEXT_COLOUR, GREEN, ORANGE}
    assert not {SUPPORT, OPPOSE} & taken
    for colour in (*KNOWN.values(), IMAGE_COLOUR, TEXT_COLOUR):  # what stands on the same page
        for side in (SUPPORT, OPPOSE):
            assert np.linalg.norm(seen(colour, sight) - seen(side, sight)) > 20, (colour, side)


def test_the_pages_have_the_colours_of_the_figures() -> None:
    style = (Path(mmsent.serve.__file__).parent / "static" / "style.css").read_text(encoding="utf-8")
    wanted = {"for": SUPPORT, "against": OPPOSE, "picture": IMAGE_COLOUR, "words": TEXT_COLOUR}
    for name, colour in wanted.items():
        assert f"--{name}: {colour.lower()};" in style


def test_a_half_that_opposes_the_label_has_its_bar_on_the_other_side() -> None:
    made = Explanation(
        "a", "r", "concat", "positive", "positive", 1.0, {"positive": 0.8, "negative": 0.2}, None, 0.0,
        Modality(-0.4, 1.2), None, None,
    )  # fmt: skip
    axes = next(ax for ax in explanation_figure(made).axes if ax.get_title() == "what each half adds to the logit")
    image, text = axes.patches
    assert [bar.get_width() for bar in (image, text)] == [-0.4, 1.2]
    assert [to_hex(bar.get_facecolor()) for bar in (image, text)] == [OPPOSE.lower(), SUPPORT.lower()]
    assert {t.get_text() for t in axes.texts} == {"-0.40", "+1.20"}
    half = explanation_figure(replace(made, missing=("picture",), modality=Modality(0.0, 1.2)))
    assert "missing" in texts(half)


def test_the_figure_shows_every_word_that_the_summary_names() -> None:
    words = [
        WordScore(f"w{i}", grad_cam=(i % 7) - 3, gradient=0, gradient_norm=0, integrated=float(i - 20), occlusion=-i)
        for i in range(40)
    ]
    shown = {name for name, _ in _rows(words)}
    assert len(shown) == 25
    for method in METHODS:
        for sign in (1, -1):
            named = strongest(words, method, sign)
            assert all(sign * getattr(word, method) > 0 for word in named)
            assert {word.word for word in named} <= shown
    assert strongest(words, "occlusion", 1) == []
    assert [word.word for word in strongest(words, "integrated", 1, 2)] == ["w39", "w38"]
