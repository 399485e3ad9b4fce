"""Synthetic images of a mood: a face, the weather or an abstract pattern. All else is up to the random generator."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from mmsent.data.synthetic.canvas import PALETTES, Canvas, ImageMood, Palette, rgb
from mmsent.data.synthetic.faces import draw_face
from mmsent.data.synthetic.patterns import draw_pattern
from mmsent.data.synthetic.weather import draw_weather

OVERSAMPLING = 2  # images are drawn this many times larger, then averaged down


def draw_image(mood: ImageMood, rng: Random, size: int) -> Image.Image:
    """One post's image, (size, size) RGB: a face, the weather, or an abstract pattern of the mood."""
    palette = rng.choice(PALETTES[mood])
    image = _gradient(palette, size * OVERSAMPLING)
    canvas = Canvas(image, ImageDraw.Draw(image, "RGBA"))
    family: Callable[[Canvas, ImageMood, Palette, Random], None] = rng.choice((draw_face, draw_weather, draw_pattern))
    family(canvas, mood, palette, rng)
    return image.reduce(OVERSAMPLING)


def _gradient(palette: Palette, side: int) -> Image.Image:
    ends = Image.new("RGB", (1, 2))
    ends.putpixel((0, 0), rgb(palette.top))
    ends.putpixel((0, 1), rgb(palette.bottom))
    return ends.resize((1, side), Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.NEAREST)
