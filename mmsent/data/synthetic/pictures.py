"""Drawing pictures of a mood: faces, the weather, abstract patterns. Pillow only; a function of the generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageColor, ImageDraw

OVERSAMPLING = 2  # pictures are drawn this many times as large, then averaged down


class PictureMood(StrEnum):
    """What the picture looks like."""

    down = "down"
    flat = "flat"
    up = "up"


Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, ...]  # RGB, or RGBA to let what lies below shine through


class Palette(NamedTuple):
    """The background's top and bottom, two colours for shapes, and one for land."""

    top: str
    bottom: str
    main: str
    accent: str
    land: str


PALETTES: dict[PictureMood, tuple[Palette, ...]] = {
    PictureMood.down: (
        Palette("#1B2238", "#3D4A6B", "#56658C", "#7D8DB3", "#141B2B"),
        Palette("#23202F", "#4B4660", "#605B7C", "#8A84A8", "#17151F"),
        Palette("#13262F", "#33515C", "#41636F", "#6F939E", "#0E1A20"),
        Palette("#20262C", "#454F59", "#5A6672", "#8592A0", "#15191D"),
        Palette("#1A1A2E", "#2F3E5C", "#4A4E78", "#6C7AA5", "#10101E"),
    ),
    PictureMood.flat: (
        Palette("#D5D7D6", "#B4B8B9", "#A3A8AA", "#8D9294", "#A6A89F"),
        Palette("#DAD6CC", "#BDB8AC", "#ADA79A", "#979083", "#A9A595"),
        Palette("#CBD0D3", "#AEB5BA", "#9BA3A9", "#868E94", "#9AA09C"),
        Palette("#D8D3D2", "#BAB4B3", "#A9A2A1", "#938C8B", "#A39D97"),
    ),
    PictureMood.up: (
        Palette("#7FD1FF", "#FFF6D0", "#FFC928", "#FF7A59", "#7BC950"),
        Palette("#FFF2B8", "#FFB86B", "#FFD23F", "#FF5D73", "#8BC34A"),
        Palette("#9BE7E0", "#FFF9DB", "#FFB627", "#FF6F91", "#62C370"),
        Palette("#FFD6E0", "#FFEFB5", "#FF9F1C", "#F15BB5", "#9AD14B"),
        Palette("#5BC0F8", "#D6F6FF", "#FFE14D", "#FF8552", "#59B94C"),
    ),
}
SKIN = ("#FFDE59", "#FFD34E", "#F6C9A0", "#E0A878", "#C58557", "#9A6240", "#774A31")
HAIR = ("#2B1D14", "#5A3A22", "#8C5A2B", "#C8963E", "#3C3C44", "#A6472B")
INK = (43, 33, 33)
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Canvas:
    """Shapes on a square picture; lengths and places are fractions of its side, y runs downwards."""

    image: Image.Image
    pen: ImageDraw.ImageDraw

    def px(self, *lengths: float) -> list[float]:
        return [length * self.image.width for length in lengths]

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self.pen.ellipse(self.px(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def disc(self, x: float, y: float, r: float, fill: Colour) -> None:
        self.oval(x, y, r, r, fill)

    def box(self, x: float, y: float, width: float, height: float, fill: Colour, radius: float = 0.0) -> None:
        self.pen.rounded_rectangle(self.px(x, y, x + width, y + height), self.px(radius)[0], fill=fill)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self.pen.polygon(self.px(*(value for point in points for value in point)), fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A line with round ends through the points."""
        self.pen.line(self.px(*(v for point in points for v in point)), fill, round(self.px(width)[0]), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, fill)

    def curve(
        self, x: float, y: float, rx: float, ry: float, angles: tuple[int, int], width: float, fill: Colour
    ) -> None:
        """Part of an ellipse's outline; angles in degrees, clockwise from three o'clock."""
        start, end = angles
        turns = [math.radians(start + (end - start) * i / 32) for i in range(33)]
        self.stroke([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in turns], width, fill)

    def chord(self, x: float, y: float, rx: float, ry: float, angles: tuple[int, int], fill: Colour) -> None:
        self.pen.chord(self.px(x - rx, y - ry, x + rx, y + ry), *angles, fill=fill)


def draw_picture(mood: PictureMood, rng: Random, size: int) -> Image.Image:
    """One post's picture, (size, size) RGB: a face, the weather, or an abstract pattern of the mood."""
    palette = rng.choice(PALETTES[mood])
    image = _gradient(palette, size * OVERSAMPLING)
    canvas = Canvas(image, ImageDraw.Draw(image, "RGBA"))
    family: Callable[[Canvas, PictureMood, Palette, Random], None] = rng.choice((_face, _weather, _abstract))
    family(canvas, mood, palette, rng)
    return image.reduce(OVERSAMPLING)


def _gradient(palette: Palette, side: int) -> Image.Image:
    ends = Image.new("RGB", (1, 2))
    ends.putpixel((0, 0), _rgb(palette.top))
    ends.putpixel((0, 1), _rgb(palette.bottom))
    return ends.resize((1, side), Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.NEAREST)


def _rgb(name: str) -> tuple[int, int, int]:
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share of the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))


def _clear(colour: Colour, opacity: float) -> Colour:
    return (*colour[:3], round(255 * opacity))


def _face(c: Canvas, mood: PictureMood, palette: Palette, rng: Random) -> None:
    _backdrop(c, palette, rng)
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.48, 0.56), rng.uniform(0.25, 0.31)
    tall = rng.uniform(0.95, 1.1)
    skin: Colour = _rgb(rng.choice(SKIN))
    if mood == "down":
        skin = _mix(skin, _rgb(palette.accent), 0.5)
    elif mood == "flat":
        skin = _mix(skin, _rgb(palette.bottom), 0.5)
    hair: Colour = _mix(_rgb(rng.choice(HAIR)), _rgb(palette.main), 0.0 if mood == "up" else 0.25)
    style = rng.choice(("none", "none", "cap", "bun", "long"))
    if style == "long":
        c.oval(x, y + r * 0.05, r * 1.16, r * tall * 1.12, hair)
        c.box(x - r * 1.16, y, r * 2.32, r * 1.05, hair, r * 0.3)
    if style == "bun":
        c.disc(x, y - r * tall * 1.12, r * 0.34, hair)
    if style in {"cap", "bun"}:
        c.oval(x, y - r * 0.08, r * 1.06, r * tall * 1.04, hair)
    for side in (-1, 1):
        c.disc(x + side * r * 0.98, y + r * 0.06, r * 0.16, _mix(skin, INK, 0.12))
    c.oval(x, y, r, r * tall, skin)
    if style != "none":
        c.chord(x, y, r * 1.01, r * tall * 1.01, (208, 332), hair)
    _eyes(c, mood, x, y - r * 0.12, r, rng)
    _mouth(c, mood, x, y + r * 0.42, r, rng)
    if mood == "up" and rng.random() < 0.8:
        for side in (-1, 1):
            c.oval(x + side * r * 0.62, y + r * 0.24, r * 0.17, r * 0.11, _clear((255, 90, 95), 0.45))
    if mood == "down" and rng.random() < 0.75:
        for side in rng.choice(((-1,), (1,), (-1, 1))):
            _drop(c, x + side * r * 0.42, y + r * rng.uniform(0.2, 0.4), r * 0.11, (140, 200, 245))


def _eyes(c: Canvas, mood: PictureMood, x: float, y: float, r: float, rng: Random) -> None:
    gap, kind, pupil = r * rng.uniform(0.34, 0.42), rng.choice(("dot", "round")), r * rng.uniform(0.08, 0.11)
    laughing = mood == "up" and rng.random() < 0.3
    for side in (-1, 1):
        eye = x + side * gap
        if laughing:
            c.curve(eye, y + r * 0.06, r * 0.15, r * 0.16, (190, 350), r * 0.07, INK)
            continue
        if kind == "round":
            c.oval(eye, y, pupil * 1.9, pupil * 2.0, WHITE)
        low = {"down": 0.5, "flat": 0.0, "up": 0.0}[mood] * pupil
        c.oval(eye, y + low, pupil, pupil * 1.2, INK)
        c.disc(eye + pupil * 0.3, y + low - pupil * 0.4, pupil * 0.35, WHITE)
        # The brow's inner end rises in sorrow and stays level otherwise; a happy brow is an arch.
        brow = y - r * 0.32
        if mood == "up":
            c.curve(eye, brow + r * 0.06, r * 0.17, r * 0.12, (205, 335), r * 0.055, INK)
        else:
            tilt = r * (0.11 if mood == "down" else 0.0)
            c.stroke([(eye - side * r * 0.16, brow - tilt), (eye + side * r * 0.16, brow + tilt)], r * 0.055, INK)


def _mouth(c: Canvas, mood: PictureMood, x: float, y: float, r: float, rng: Random) -> None:
    wide = r * rng.uniform(0.4, 0.52)
    if mood == "flat":
        c.stroke([(x - wide, y), (x + wide, y + r * rng.uniform(-0.03, 0.03))], r * 0.075, INK)
    elif mood == "down":
        c.curve(x, y + r * 0.26, wide, r * rng.uniform(0.3, 0.42), (195, 345), r * 0.085, INK)
    elif rng.random() < 0.65:
        c.chord(x, y - r * 0.14, wide, r * 0.5, (0, 180), (122, 30, 40))
        c.box(x - wide * 0.8, y - r * 0.14, wide * 1.6, r * 0.11, WHITE, r * 0.04)
        c.oval(x, y + r * 0.24, wide * 0.45, r * 0.1, (240, 100, 110))
    else:
        c.curve(x, y - r * 0.18, wide, r * rng.uniform(0.32, 0.42), (15, 165), r * 0.085, INK)


def _backdrop(c: Canvas, palette: Palette, rng: Random) -> None:
    """Quiet shapes behind a subject: soft discs, slanted bands, a halo, or nothing."""
    kind = rng.choice(("discs", "bands", "halo", "plain"))
    tints: tuple[Colour, Colour] = (_clear(_rgb(palette.main), 0.35), _clear(_rgb(palette.accent), 0.3))
    if kind == "discs":
        for _ in range(rng.randint(6, 11)):
            c.disc(rng.random(), rng.random(), rng.uniform(0.03, 0.14), rng.choice(tints))
    elif kind == "bands":
        lean, step = rng.uniform(-0.4, 0.4), rng.uniform(0.16, 0.26)
        for i in range(-3, 9):
            left = i * step
            c.polygon([(left, 0), (left + step / 2, 0), (left + step / 2 + lean, 1), (left + lean, 1)], tints[i % 2])
    elif kind == "halo":
        c.disc(0.5, 0.52, rng.uniform(0.4, 0.46), tints[0])


def _weather(c: Canvas, mood: PictureMood, palette: Palette, rng: Random) -> None:
    {"down": _rain, "flat": _overcast, "up": _sunshine}[mood](c, palette, rng)


def _sunshine(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, r = rng.uniform(0.34, 0.66), rng.uniform(0.3, 0.42), rng.uniform(0.11, 0.16)
    if rng.random() < 0.3:
        for i, band in enumerate(("#F25F5C", "#FF9F1C", "#FFE066", "#70C1B3", "#5B8DEF")):
            c.curve(0.5, 0.86, 0.5 - i * 0.028, 0.46 - i * 0.028, (180, 360), 0.03, _clear(_rgb(band), 0.9))
    sun: Colour = _rgb("#FFC61A")
    c.disc(x, y, r * 2.3, _clear((255, 244, 170), 0.45))
    rays, turn = rng.randint(9, 14), rng.random()
    for i in range(rays):
        a = 2 * math.pi * (i + turn) / rays
        near, far = r * 1.25, r * rng.uniform(1.7, 2.0)
        ends = [(x + d * math.cos(a), y + d * math.sin(a)) for d in (near, far)]
        c.stroke(ends, r * 0.17, _rgb("#FFB300"))
    c.disc(x, y, r, sun)
    if rng.random() < 0.35:  # a smiling sun
        for side in (-1, 1):
            c.disc(x + side * r * 0.35, y - r * 0.15, r * 0.09, INK)
        c.curve(x, y + r * 0.1, r * 0.42, r * 0.36, (15, 165), r * 0.09, INK)
    for _ in range(rng.randint(0, 2)):
        _cloud(c, rng.choice((0.16, 0.84)) + rng.uniform(-0.05, 0.05), rng.uniform(0.14, 0.5), 0.2, WHITE)
    land: Colour = _rgb(palette.land)
    _hill(c, rng, 0.68, _mix(land, WHITE, 0.25))
    _hill(c, rng, 0.78, land)
    for _ in range(rng.randint(8, 18)):
        _flower(c, rng.random(), rng.uniform(0.84, 0.97), rng.uniform(0.014, 0.024), rng, palette)


def _rain(c: Canvas, palette: Palette, rng: Random) -> None:
    land: Colour = _rgb(palette.land)
    x, y = rng.uniform(0.42, 0.58), rng.uniform(0.3, 0.38)
    _hill(c, rng, 0.74, _mix(land, _rgb(palette.main), 0.3))
    _hill(c, rng, 0.83, land)
    lean, length = rng.uniform(-0.06, 0.06), rng.uniform(0.06, 0.1)
    for _ in range(rng.randint(35, 60)):
        left, top = rng.uniform(0.05, 0.95), rng.uniform(y, 0.9)
        c.stroke([(left, top), (left + lean * 0.8, top + length)], 0.009, _clear((150, 185, 225), 0.8))
    if rng.random() < 0.45:
        s = rng.uniform(0.9, 1.2)
        bolt = ((0.02, 0.05), (-0.06, 0.23), (0.0, 0.23), (-0.04, 0.38), (0.09, 0.18), (0.03, 0.18), (0.08, 0.05))
        c.polygon([(x + dx * s, y + dy * s) for dx, dy in bolt], (240, 225, 120))
    for _ in range(rng.randint(1, 2)):
        _cloud(c, rng.choice((0.1, 0.9)), y - rng.uniform(0.02, 0.16), 0.3, _mix(_rgb(palette.main), INK, 0.45))
    _cloud(c, x, y, rng.uniform(0.5, 0.66), _mix(_rgb(palette.main), INK, 0.15))
    for _ in range(rng.randint(1, 3)):
        c.oval(rng.uniform(0.15, 0.85), rng.uniform(0.91, 0.97), rng.uniform(0.06, 0.12), 0.012, _rgb(palette.main))


def _overcast(c: Canvas, palette: Palette, rng: Random) -> None:
    cloud: Colour = _mix(_rgb(palette.bottom), WHITE, 0.4)
    for i in range(rng.randint(3, 5)):
        shade = _mix(cloud, _rgb(palette.accent), rng.uniform(0.0, 0.45))
        _cloud(c, rng.uniform(0.15, 0.85), 0.16 + 0.11 * i, rng.uniform(0.45, 0.8), shade)
    horizon = rng.uniform(0.66, 0.74)
    land: Colour = _rgb(palette.land)
    c.box(0, horizon, 1, 1 - horizon, land)
    c.box(0, horizon, 1, 0.012, _mix(land, INK, 0.15))
    dark: Colour = _mix(land, INK, 0.4)
    kind = rng.choice(("road", "fence", "poles", "field"))
    if kind == "road":
        mid = rng.uniform(0.4, 0.6)
        c.polygon(
            [(mid - 0.03, horizon), (mid + 0.03, horizon), (mid + 0.28, 1), (mid - 0.28, 1)], _mix(land, INK, 0.25)
        )
        for i in range(3):
            top = horizon + (1 - horizon) * (0.15 + 0.3 * i)
            c.box(mid - 0.006, top, 0.012, 0.04, _mix(land, WHITE, 0.5))
    elif kind == "fence":
        for i in range(10):
            c.box(0.03 + i * 0.1, horizon - 0.07, 0.022, 0.15, dark)
        for lift in (0.05, 0.0):
            c.box(0, horizon - lift, 1, 0.016, dark)
    elif kind == "poles":
        left, step = rng.uniform(0.05, 0.2), rng.uniform(0.24, 0.32)
        for i in range(4):
            c.box(left + i * step, horizon - 0.3, 0.014, 0.36, dark)
            c.box(left + i * step - 0.04, horizon - 0.27, 0.094, 0.012, dark)
        for lift in (0.29, 0.25):
            c.stroke([(0, horizon - lift), (1, horizon - lift)], 0.005, dark)
    else:
        for i in range(1, 5):
            c.box(0, horizon + (1 - horizon) * i / 5, 1, 0.008, _mix(land, INK, 0.15))


def _abstract(c: Canvas, mood: PictureMood, palette: Palette, rng: Random) -> None:
    patterns: dict[PictureMood, tuple[Callable[[Canvas, Palette, Random], None], ...]] = {
        PictureMood.down: (_shards, _drips, _abyss),
        PictureMood.flat: (_tiles, _stripes, _dots),
        PictureMood.up: (_burst, _confetti, _balloons),
    }
    rng.choice(patterns[mood])(c, palette, rng)


def _shards(c: Canvas, palette: Palette, rng: Random) -> None:
    shades: list[Colour] = [_rgb(palette.main), _rgb(palette.land), _mix(_rgb(palette.land), _rgb(palette.accent), 0.3)]
    for _ in range(rng.randint(14, 22)):
        x, y, reach = rng.random(), rng.random(), rng.uniform(0.12, 0.34)
        a = rng.uniform(0, 2 * math.pi)
        corners = [(a, reach), (a + 2.7, reach * 0.5), (a + 3.6, reach * 0.5)]
        c.polygon([(x + d * math.cos(t), y + d * math.sin(t)) for t, d in corners], _clear(rng.choice(shades), 0.85))
    crack = [(rng.uniform(0.3, 0.7), 0.0)]
    while crack[-1][1] < 1:
        crack.append((crack[-1][0] + rng.uniform(-0.12, 0.12), crack[-1][1] + rng.uniform(0.08, 0.16)))
    c.stroke(crack, 0.014, (8, 8, 14))


def _drips(c: Canvas, palette: Palette, rng: Random) -> None:
    ink: Colour = _rgb(palette.land)
    c.box(0, 0, 1, rng.uniform(0.14, 0.24), ink)
    left = -0.02
    while left < 1:
        width, length = rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.85)
        shade = _mix(ink, _rgb(palette.main), rng.choice((0.0, 0.0, 0.35)))
        c.box(left, -0.1, width, length, shade, width / 2)
        left += width + rng.uniform(0.01, 0.06)
    for _ in range(rng.randint(3, 7)):
        _drop(c, rng.uniform(0.1, 0.9), rng.uniform(0.75, 0.93), rng.uniform(0.018, 0.035), ink)


def _abyss(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, rings = rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), rng.randint(6, 9)
    for i in range(rings):
        share = i / (rings - 1)
        r = 0.62 * (1 - share) + 0.07
        drift = 0.03 * math.sin(i * 1.7 + x * 40)
        c.oval(x + drift, y + drift * 0.6, r, r * 0.94, _mix(_rgb(palette.main), (4, 4, 10), 0.15 + 0.85 * share))


def _tiles(c: Canvas, palette: Palette, rng: Random) -> None:
    cells, gap = rng.randint(4, 7), rng.uniform(0.008, 0.02)
    side = 1 / cells
    for i in range(cells * cells):
        shade = _mix(_rgb(palette.main), _rgb(palette.top), rng.uniform(0.0, 0.7))
        c.box(i % cells * side + gap, i // cells * side + gap, side - 2 * gap, side - 2 * gap, shade, 0.01)


def _stripes(c: Canvas, palette: Palette, rng: Random) -> None:
    upright, edge = rng.random() < 0.4, 0.0
    while edge < 1:
        width = rng.uniform(0.05, 0.14)
        shade = _mix(_rgb(palette.accent), _rgb(palette.top), rng.uniform(0.1, 0.9))
        if upright:
            c.box(edge, 0, width, 1, shade)
        else:
            c.box(0, edge, 1, width, shade)
        edge += width


def _dots(c: Canvas, palette: Palette, rng: Random) -> None:
    cells = rng.randint(4, 7)
    r, stagger = rng.uniform(0.2, 0.38) / cells, rng.choice((0.0, 0.5))
    for i in range((cells + 1) * (cells + 1)):
        row, column = divmod(i, cells + 1)
        shade = rng.choice((palette.main, palette.main, palette.accent))
        c.disc((column + 0.5 - stagger * (row % 2)) / cells, (row + 0.5) / cells, r, _rgb(shade))


def _burst(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, wedges = rng.uniform(0.4, 0.6), rng.uniform(0.42, 0.6), rng.randint(9, 14)
    turn = rng.random()
    for i in range(wedges):
        a, b = (2 * math.pi * (i + turn + d) / wedges for d in (0.0, 0.5))
        rim = [(x + 1.5 * math.cos(t), y + 1.5 * math.sin(t)) for t in (a, b)]
        c.polygon([(x, y), *rim], _rgb(palette.main))
    r = rng.uniform(0.15, 0.22)
    c.disc(x, y, r * 1.18, WHITE)
    c.disc(x, y, r, _rgb(palette.accent))
    rng.choice((_heart, _star))(c, x, y, r * 0.62, WHITE)


def _confetti(c: Canvas, palette: Palette, rng: Random) -> None:
    bright: list[Colour] = [
        _rgb(n) for n in (palette.main, palette.accent, palette.land, "#2EC4F1", "#B388FF", "#FFFFFF")
    ]
    for _ in range(rng.randint(28, 44)):
        x, y, r = rng.random(), rng.random(), rng.uniform(0.02, 0.055)
        rng.choice((_heart, _star, Canvas.disc))(c, x, y, r, rng.choice(bright))
    _heart(c, rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), rng.uniform(0.15, 0.2), _rgb(palette.accent))


def _balloons(c: Canvas, palette: Palette, rng: Random) -> None:
    bright: list[Colour] = [_rgb(n) for n in (palette.main, palette.accent, "#3FB8F0", "#A97BFF", "#5CCB5F", "#FF4F5E")]
    rng.shuffle(bright)
    knot = (rng.uniform(0.44, 0.56), 0.96)
    count = rng.randint(4, 6)
    for i in range(count):
        x = 0.5 + (i - (count - 1) / 2) * rng.uniform(0.11, 0.15)
        y, r = rng.uniform(0.26, 0.46), rng.uniform(0.085, 0.115)
        c.stroke([(x, y + r), knot], 0.006, _clear(INK, 0.7))
        c.polygon([(x, y + r * 1.1), (x - r * 0.22, y + r * 1.48), (x + r * 0.22, y + r * 1.48)], bright[i])
        c.oval(x, y, r, r * 1.25, bright[i])
        c.oval(x - r * 0.35, y - r * 0.5, r * 0.16, r * 0.26, _clear(WHITE, 0.7))


def _cloud(c: Canvas, x: float, y: float, width: float, fill: Colour) -> None:
    puffs = ((-0.3, 0.02, 0.17), (-0.1, -0.1, 0.22), (0.13, -0.06, 0.2), (0.31, 0.03, 0.15))
    for dx, dy, r in puffs:
        c.disc(x + dx * width, y + dy * width, r * width, fill)
    c.box(x - 0.44 * width, y, 0.88 * width, 0.19 * width, fill, 0.09 * width)


def _hill(c: Canvas, rng: Random, level: float, fill: Colour) -> None:
    height, waves, phase = rng.uniform(0.02, 0.06), rng.uniform(0.7, 1.6), rng.uniform(0, 2 * math.pi)
    ridge = [(i / 24, level + height * math.sin(2 * math.pi * waves * i / 24 + phase)) for i in range(25)]
    c.polygon([*ridge, (1.0, 1.01), (0.0, 1.01)], fill)


def _flower(c: Canvas, x: float, y: float, r: float, rng: Random, palette: Palette) -> None:
    petal: Colour = rng.choice((_rgb(palette.accent), WHITE, _rgb("#FF6FB5"), _rgb("#FFE14D")))
    for i in range(5):
        a = 2 * math.pi * i / 5
        c.disc(x + r * math.cos(a), y + r * math.sin(a), r * 0.62, petal)
    c.disc(x, y, r * 0.6, _rgb("#F59E0B"))


def _drop(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    c.polygon([(x, y - r * 2.1), (x - r * 0.92, y - r * 0.3), (x + r * 0.92, y - r * 0.3)], fill)
    c.disc(x, y, r, fill)


def _heart(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    turns = [2 * math.pi * i / 40 for i in range(40)]
    # The usual heart curve, 34 units wide.
    lift = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    c.polygon([(x + r * math.sin(t) ** 3, y - r * h / 16) for t, h in zip(turns, lift, strict=True)], fill)


def _star(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    reach = [(r if i % 2 == 0 else r * 0.45, math.pi * (i / 5 - 0.5)) for i in range(10)]
    c.polygon([(x + d * math.cos(a), y + d * math.sin(a)) for d, a in reach], fill)
