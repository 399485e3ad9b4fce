"""The weather of a mood: rain, an overcast sky, sunshine."""

from __future__ import annotations

import math
from random import Random

from mmsent.data.synthetic.canvas import (
    INK,
    WHITE,
    Canvas,
    Colour,
    ImageMood,
    Palette,
    cloud,
    flower,
    hill,
    mix,
    rgb,
    translucent,
)


def draw_weather(c: Canvas, mood: ImageMood, palette: Palette, rng: Random) -> None:
    """Rain for down, an overcast sky for flat, sunshine for up."""
    {"down": _rain, "flat": _overcast, "up": _sunshine}[mood](c, palette, rng)


def _sunshine(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, r = rng.uniform(0.34, 0.66), rng.uniform(0.3, 0.42), rng.uniform(0.11, 0.16)
    if rng.random() < 0.3:
        for i, band in enumerate(("#F25F5C", "#FF9F1C", "#FFE066", "#70C1B3", "#5B8DEF")):
            c.curve(0.5, 0.86, 0.5 - i * 0.028, 0.46 - i * 0.028, (180, 360), 0.03, translucent(rgb(band), 0.9))
    sun: Colour = rgb("#FFC61A")
    c.disc(x, y, r * 2.3, translucent((255, 244, 170), 0.45))
    rays, turn = rng.randint(9, 14), rng.random()
    for i in range(rays):
        a = 2 * math.pi * (i + turn) / rays
        near, far = r * 1.25, r * rng.uniform(1.7, 2.0)
        ends = [(x + d * math.cos(a), y + d * math.sin(a)) for d in (near, far)]
        c.stroke(ends, r * 0.17, rgb("#FFB300"))
    c.disc(x, y, r, sun)
    if rng.random() < 0.35:  # a smiling sun
        for side in (-1, 1):
            c.disc(x + side * r * 0.35, y - r * 0.15, r * 0.09, INK)
        c.curve(x, y + r * 0.1, r * 0.42, r * 0.36, (15, 165), r * 0.09, INK)
    for _ in range(rng.randint(0, 2)):
        cloud(c, rng.choice((0.16, 0.84)) + rng.uniform(-0.05, 0.05), rng.uniform(0.14, 0.5), 0.2, WHITE)
    land: Colour = rgb(palette.land)
    hill(c, rng, 0.68, mix(land, WHITE, 0.25))
    hill(c, rng, 0.78, land)
    for _ in range(rng.randint(8, 18)):
        flower(c, rng.random(), rng.uniform(0.84, 0.97), rng.uniform(0.014, 0.024), rng, palette)


def _rain(c: Canvas, palette: Palette, rng: Random) -> None:
    land: Colour = rgb(palette.land)
    x, y = rng.uniform(0.42, 0.58), rng.uniform(0.3, 0.38)
    hill(c, rng, 0.74, mix(land, rgb(palette.main), 0.3))
    hill(c, rng, 0.83, land)
    lean, length = rng.uniform(-0.06, 0.06), rng.uniform(0.06, 0.1)
    for _ in range(rng.randint(35, 60)):
        left, top = rng.uniform(0.05, 0.95), rng.uniform(y, 0.9)
        c.stroke([(left, top), (left + lean * 0.8, top + length)], 0.009, translucent((150, 185, 225), 0.8))
    if rng.random() < 0.45:
        s = rng.uniform(0.9, 1.2)
        bolt = ((0.02, 0.05), (-0.06, 0.23), (0.0, 0.23), (-0.04, 0.38), (0.09, 0.18), (0.03, 0.18), (0.08, 0.05))
        c.polygon([(x + dx * s, y + dy * s) for dx, dy in bolt], (240, 225, 120))
    for _ in range(rng.randint(1, 2)):
        cloud(c, rng.choice((0.1, 0.9)), y - rng.uniform(0.02, 0.16), 0.3, mix(rgb(palette.main), INK, 0.45))
    cloud(c, x, y, rng.uniform(0.5, 0.66), mix(rgb(palette.main), INK, 0.15))
    for _ in range(rng.randint(1, 3)):
        c.oval(rng.uniform(0.15, 0.85), rng.uniform(0.91, 0.97), rng.uniform(0.06, 0.12), 0.012, rgb(palette.main))


def _overcast(c: Canvas, palette: Palette, rng: Random) -> None:
    grey: Colour = mix(rgb(palette.bottom), WHITE, 0.4)
    for i in range(rng.randint(3, 5)):
        shade = mix(grey, rgb(palette.accent), rng.uniform(0.0, 0.45))
        cloud(c, rng.uniform(0.15, 0.85), 0.16 + 0.11 * i, rng.uniform(0.45, 0.8), shade)
    horizon = rng.uniform(0.66, 0.74)
    land: Colour = rgb(palette.land)
    c.box(0, horizon, 1, 1 - horizon, land)
    c.box(0, horizon, 1, 0.012, mix(land, INK, 0.15))
    dark: Colour = mix(land, INK, 0.4)
    kind = rng.choice(("road", "fence", "poles", "field"))
    if kind == "road":
        mid = rng.uniform(0.4, 0.6)
        c.polygon(
            [(mid - 0.03, horizon), (mid + 0.03, horizon), (mid + 0.28, 1), (mid - 0.28, 1)], mix(land, INK, 0.25)
        )
        for i in range(3):
            top = horizon + (1 - horizon) * (0.15 + 0.3 * i)
            c.box(mid - 0.006, top, 0.012, 0.04, mix(land, WHITE, 0.5))
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
            c.box(0, horizon + (1 - horizon) * i / 5, 1, 0.008, mix(land, INK, 0.15))
