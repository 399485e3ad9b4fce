"""Colours and shapes that the synthetic images are made of. Pillow only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageColor, ImageDraw


class ImageMood(StrEnum):
    """The mood that the image shows."""

    down = "down"
    flat = "flat"
    up = "up"


Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, ...]  # RGB, or RGBA to let what lies below shine through
INK = (43, 33, 33)
WHITE = (255, 255, 255)


class Palette(NamedTuple):
    """The background's top and bottom, two colours for shapes, and one for land."""

    top: str
    bottom: str
    main: str
    accent: str
    land: str


PALETTES: dict[ImageMood, tuple[Palette, ...]] = {
    ImageMood.down: (
        Palette("#1B2238", "#3D4A6B", "#56658C", "#7D8DB3", "#141B2B"),
        Palette("#23202F", "#4B4660", "#605B7C", "#8A84A8", "#17151F"),
        Palette("#13262F", "#33515C", "#41636F", "#6F939E", "#0E1A20"),
        Palette("#20262C", "#454F59", "#5A6672", "#8592A0", "#15191D"),
        Palette("#1A1A2E", "#2F3E5C", "#4A4E78", "#6C7AA5", "#10101E"),
    ),
    ImageMood.flat: (
        Palette("#D5D7D6", "#B4B8B9", "#A3A8AA", "#8D9294", "#A6A89F"),
        Palette("#DAD6CC", "#BDB8AC", "#ADA79A", "#979083", "#A9A595"),
        Palette("#CBD0D3", "#AEB5BA", "#9BA3A9", "#868E94", "#9AA09C"),
        Palette("#D8D3D2", "#BAB4B3", "#A9A2A1", "#938C8B", "#A39D97"),
    ),
    ImageMood.up: (
        Palette("#7FD1FF", "#FFF6D0", "#FFC928", "#FF7A59", "#7BC950"),
        Palette("#FFF2B8", "#FFB86B", "#FFD23F", "#FF5D73", "#8BC34A"),
        Palette("#9BE7E0", "#FFF9DB", "#FFB627", "#FF6F91", "#62C370"),
        Palette("#FFD6E0", "#FFEFB5", "#FF9F1C", "#F15BB5", "#9AD14B"),
        Palette("#5BC0F8", "#D6F6FF", "#FFE14D", "#FF8552", "#59B94C"),
    ),
}


def rgb(name: str) -> tuple[int, int, int]:
    """A colour by name or hexadecimal code."""
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share of the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))


def translucent(colour: Colour, opacity: float) -> Colour:
    """The colour with an opacity between 0 and 1."""
    return (*colour[:3], round(255 * opacity))


@dataclass(frozen=True)
class Canvas:
    """Shapes on a square image. Lengths and positions are fractions of its side; y grows downwards."""

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


def cloud(c: Canvas, x: float, y: float, width: float, fill: Colour) -> None:
    """A cloud of three discs on a flat base; (x, y) is the middle of its base."""
    puffs = ((-0.3, 0.02, 0.17), (-0.1, -0.1, 0.22), (0.13, -0.06, 0.2), (0.31, 0.03, 0.15))
    for dx, dy, r in puffs:
        c.disc(x + dx * width, y + dy * width, r * width, fill)
    c.box(x - 0.44 * width, y, 0.88 * width, 0.19 * width, fill, 0.09 * width)


def hill(c: Canvas, rng: Random, level: float, fill: Colour) -> None:
    """A wavy ridge at height `level`, filled to the bottom edge."""
    height, waves, phase = rng.uniform(0.02, 0.06), rng.uniform(0.7, 1.6), rng.uniform(0, 2 * math.pi)
    ridge = [(i / 24, level + height * math.sin(2 * math.pi * waves * i / 24 + phase)) for i in range(25)]
    c.polygon([*ridge, (1.0, 1.01), (0.0, 1.01)], fill)


def flower(c: Canvas, x: float, y: float, r: float, rng: Random, palette: Palette) -> None:
    """Five petals around a disc."""
    petal: Colour = rng.choice((rgb(palette.accent), WHITE, rgb("#FF6FB5"), rgb("#FFE14D")))
    for i in range(5):
        a = 2 * math.pi * i / 5
        c.disc(x + r * math.cos(a), y + r * math.sin(a), r * 0.62, petal)
    c.disc(x, y, r * 0.6, rgb("#F59E0B"))


def drop(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    """A drop of water: a disc with a point at the top."""
    c.polygon([(x, y - r * 2.1), (x - r * 0.92, y - r * 0.3), (x + r * 0.92, y - r * 0.3)], fill)
    c.disc(x, y, r, fill)


def heart(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    """A heart around (x, y), about 2 r wide."""
    turns = [2 * math.pi * i / 40 for i in range(40)]
    # The usual heart curve, 34 units wide.
    lift = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    c.polygon([(x + r * math.sin(t) ** 3, y - r * h / 16) for t, h in zip(turns, lift, strict=True)], fill)


def star(c: Canvas, x: float, y: float, r: float, fill: Colour) -> None:
    """A star with five points around (x, y)."""
    reach = [(r if i % 2 == 0 else r * 0.45, math.pi * (i / 5 - 0.5)) for i in range(10)]
    c.polygon([(x + d * math.cos(a), y + d * math.sin(a)) for d, a in reach], fill)
