"""What all figures share: fonts that have CJK and emoji, colour-blind safe colours, and saving as PNG and SVG.

Figures are made with matplotlib's object interface: no global state, no window, any thread.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.style
from matplotlib import font_manager
from matplotlib.figure import Figure

from mmsent.system.files import write_together

DPI = 200  # of PNG files
WIDE = 8.4  # inches of the widest figures: at the width of a README, 830 pixels, 8 points are then 11 pixels
OWN_FONT = Path(__file__).parent.parent / "fonts" / "NotoEmoji-Regular.ttf"

# Okabe and Ito's palette (2008), which stays apart under the common forms of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY, INK = "#56B4E9", "#CC79A7", "#F0E442", "#7F7F7F", "#222222"
BROWN, SLATE = "#8C5A2B", "#44546A"
KNOWN = {"negative": VERMILLION, "neutral": GREY, "positive": BLUE}
# For other names Paul Tol's muted colours, then what KNOWN leaves: no head, half, or right-and-wrong has any of these.
OTHERS = ("#332288", "#CC6677", "#999933", "#882255", "#DDCC77", BLUE, GREY, VERMILLION)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
IMAGE_COLOUR, TEXT_COLOUR = GREEN, PURPLE  # the two halves of a post, in every figure
# Heads take none of the classes' colours, and the one-half heads those of their half.
SUPPORT, OPPOSE = "#5B21B6", YELLOW  # of evidence for and against a label; nothing else has these
FUSION_COLOURS = {
    "concat": INK,
    "weighted": ORANGE,
    "attention": SKY,
    "attention_alt": BROWN,
    "image": IMAGE_COLOUR,
    "text": TEXT_COLOUR,
}

P = ParamSpec("P")
R = TypeVar("R")


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour per label: negative, neutral and positive have their own, other names take the rest in order."""
    free = iter([c for c in OTHERS if c not in {KNOWN[name] for name in labels if name in KNOWN}] * len(labels))
    return {name: KNOWN.get(name) or next(free) for name in labels}


STROKES = ("-", "--", "-.", ":")


def run_styles(fusions: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and opacity per head, by name: the colour is the fusion's; further heads of one fusion (other
    seeds) take other strokes and get paler."""
    out: dict[str, dict[str, Any]] = {}
    for name, fusion in fusions.items():
        place = sum(fusions[before] == fusion for before in out)
        first = {"attention_alt": 1, "image": 3, "text": 3}.get(fusion, 0)
        stroke = STROKES[(first + place) % len(STROKES)]
        out[name] = {"color": FUSION_COLOURS.get(fusion, INK), "ls": stroke, "alpha": max(0.4, 1 - 0.2 * place)}
    return out


def label_markers(labels: Sequence[str]) -> dict[str, str]:
    """A marker per label, so that scatter plots can be read without colour."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(labels)}


@functools.cache
def font_families() -> tuple[str, ...]:
    """Font families in order of preference; together they hold Latin, Cyrillic, Greek, Arabic, CJK and emoji."""
    found = ["DejaVu Sans"]  # comes with matplotlib
    for path in font_files()[1:]:
        font_manager.fontManager.addfont(path)
        found.append(font_manager.FontProperties(fname=str(path)).get_name())
    return tuple(found)


@functools.cache
def font_files() -> tuple[Path, ...]:
    """The files behind `font_families`: DejaVu Sans, Noto Sans CJK where its package is installed, Noto Emoji."""
    found = [Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"]
    package = importlib.util.find_spec("notojp_matplotlib")  # found, not imported: importing it sets global defaults
    if package is not None and package.origin is not None:
        found += sorted((Path(package.origin).parent / "fonts").glob("*.otf"))
    return (*found, OWN_FONT)


@functools.cache
def _glyphs() -> frozenset[int]:
    from fontTools.ttLib import TTFont

    return frozenset().union(*(TTFont(path, lazy=True).getBestCmap() for path in font_files()))


def printable(text: str, limit: int | None = None) -> str:
    """Text for a figure: one line, no controls, `·` for what no font here can draw, cut at `limit` characters.

    Dollar signs are escaped, for matplotlib reads what stands between two as mathematics.
    """
    line = " ".join(text.split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    drawn = "".join(
        c if ord(c) in _glyphs() or ord(c) in _JOINERS else "·" for c in line if c.isprintable() or ord(c) in _JOINERS
    )
    return drawn.replace("$", r"\$")


_NONE: Mapping[str, str] = MappingProxyType({})
_IN_PLACE: ContextVar[Mapping[str, str]] = ContextVar("_IN_PLACE", default=_NONE)


def in_place_of(labels: Sequence[str]) -> dict[str, str]:
    """What figures call the labels that no font here can draw: their numbers. Drawn as dots they would look alike."""
    return {name: f"label {i}" for i, name in enumerate(labels, 1) if not drawable(name)}


@contextmanager
def numbering(labels: Sequence[str]) -> Iterator[None]:
    """Within it `label_text` numbers the labels that no font can draw."""
    token = _IN_PLACE.set(in_place_of(labels))
    try:
        yield
    finally:
        _IN_PLACE.reset(token)


def drawable(text: str) -> bool:
    """Whether a font here has every character."""
    return all(ord(c) in _glyphs() or ord(c) in _JOINERS for c in text if c.isprintable() and not c.isspace())


def label_text(name: str, limit: int | None = None) -> str:
    """A label's, head's or run's name for ticks, legends and titles: `printable`, numbered within `numbering`, and
    never hidden, as matplotlib hides from legends what starts with an underscore."""
    shown = printable(_IN_PLACE.get().get(name, name), limit)
    return f"\u200b{shown}" if shown.startswith("_") else shown


_JOINERS = {0x200D, 0xFE0F, 0xFE0E}  # parts of emoji sequences, drawn as nothing by themselves


def wrapped(text: str, width: int, lines: int) -> str:
    """`printable` text broken into at most `lines` lines of about `width` Latin letters; wide characters count two."""
    out, line, used = [], "", 0
    for word in _pieces(printable(text).replace(r"\$", "$")):
        size = sum(2 if ord(c) > 0x2E7F else 1 for c in word)
        if used and used + size > width:
            out.append(line.strip())
            line, used = "", 0
        line, used = line + word, used + size
    out.append(line.strip())
    if len(out) > lines:
        out = [*out[: lines - 1], out[lines - 1][: max(1, width - 1)].rstrip() + "…"]
    return "\n".join(out).replace("$", r"\$")


def _pieces(text: str) -> Iterator[str]:
    """Words with the space after them; long words in pieces; every wide character by itself."""
    word = ""
    for c in text:
        if ord(c) > 0x2E7F or len(word) >= 24:
            if word:
                yield word
            word = c
            if ord(c) > 0x2E7F:
                yield word
                word = ""
        else:
            word += c
            if c == " ":
                yield word
                word = ""
    if word:
        yield word


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's settings for the figures of this package; the caller's come back afterwards."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns that the fonts for emoji and CJK have no bold; regular does there
    # From matplotlib's own defaults: what somebody's matplotlibrc says, such as text.usetex, is for their figures.
    own: list[Any] = [
        "default",
        {
            "font.family": list(font_families()),
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "figure.titlesize": 12,
            "figure.titleweight": "bold",
            "lines.linewidth": 1.8,
            "svg.fonttype": "path",  # the glyphs travel with the file
            "svg.hashsalt": "mmsent",  # the same figure, the same bytes
            "savefig.dpi": DPI,
        },
    ]
    with mpl.style.context(own):
        try:
            yield
        finally:
            log.setLevel(level)


def in_style(function: Callable[P, R]) -> Callable[P, R]:
    """Run a figure function under `styled`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with styled():
            return function(*args, **kwargs)

    return run


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of this size in inches, laid out so that no label is cut."""
    return Figure(figsize=(width, height), layout="constrained", **options)


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name`.png (200 dpi) and `name`.svg into a folder; the same figure gives the same bytes."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    drawing = io.BytesIO()
    pixels = png_bytes(figure)
    with styled():
        figure.savefig(
            drawing, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.08
        )
    write_together({png: pixels, svg: drawing.getvalue()})
    return png, svg


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG in memory."""
    out = io.BytesIO()
    with styled():
        figure.savefig(out, dpi=dpi, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
    return out.getvalue()


def legend_columns(names: Iterable[str], most: int = 6) -> int:
    """Columns of a legend below a wide figure: as many as long names leave room for."""
    return max(1, min(most, 110 // (8 + max(len(name) for name in names))))


def legend_of(axes: Any, colours: Mapping[str, str], **options: Any) -> None:
    """A legend of coloured patches, in the order given."""
    from matplotlib.patches import Patch

    axes.legend(handles=[Patch(color=c, label=label_text(name)) for name, c in colours.items()], **options)
