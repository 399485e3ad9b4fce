"""Abstract patterns of a mood."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from mmsent.data.synthetic.canvas import (
    INK,
    WHITE,
    Canvas,
    Colour,
    ImageMood,
    Palette,
    drop,
    heart,
    mix,
    rgb,
    star,
    translucent,
)


def draw_pattern(c: Canvas, mood: ImageMood, palette: Palette, rng: Random) -> None:
    """One of three abstract patterns of the mood."""
    patterns: dict[ImageMood, tuple[Callable[[Canvas, Palette, Random], None], ...]] = {
        ImageMood.down: (_shards, _drips, _abyss),
        ImageMood.flat: (_tiles, _stripes, _dots),
        ImageMood.up: (_burst, _confetti, _balloons),
    }
    rng.choice(patterns[mood])(c, palette, rng)


def _shards(c: Canvas, palette: Palette, rng: Random) -> None:
    shades: list[Colour] = [rgb(palette.main), rgb(palette.land), mix(rgb(palette.land), rgb(palette.accent), 0.3)]
    for _ in range(rng.randint(14, 22)):
        x, y, reach = rng.random(), rng.random(), rng.uniform(0.12, 0.34)
        a = rng.uniform(0, 2 * math.pi)
        corners = [(a, reach), (a + 2.7, reach * 0.5), (a + 3.6, reach * 0.5)]
        c.polygon(
            [(x + d * math.cos(t), y + d * math.sin(t)) for t, d in corners], translucent(rng.choice(shades), 0.85)
        )
    crack = [(rng.uniform(0.3, 0.7), 0.0)]
    while crack[-1][1] < 1:
        crack.append((crack[-1][0] + rng.uniform(-0.12, 0.12), crack[-1][1] + rng.uniform(0.08, 0.16)))
    c.stroke(crack, 0.014, (8, 8, 14))


def _drips(c: Canvas, palette: Palette, rng: Random) -> None:
    ink: Colour = rgb(palette.land)
    c.box(0, 0, 1, rng.uniform(0.14, 0.24), ink)
    left = -0.02
    while left < 1:
        width, length = rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.85)
        shade = mix(ink, rgb(palette.main), rng.choice((0.0, 0.0, 0.35)))
        c.box(left, -0.1, width, length, shade, width / 2)
        left += width + rng.uniform(0.01, 0.06)
    for _ in range(rng.randint(3, 7)):
        drop(c, rng.uniform(0.1, 0.9), rng.uniform(0.75, 0.93), rng.uniform(0.018, 0.035), ink)


def _abyss(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, rings = rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), rng.randint(6, 9)
    for i in range(rings):
        share = i / (rings - 1)
        r = 0.62 * (1 - share) + 0.07
        drift = 0.03 * math.sin(i * 1.7 + x * 40)
        c.oval(x + drift, y + drift * 0.6, r, r * 0.94, mix(rgb(palette.main), (4, 4, 10), 0.15 + 0.85 * share))


def _tiles(c: Canvas, palette: Palette, rng: Random) -> None:
    cells, gap = rng.randint(4, 7), rng.uniform(0.008, 0.02)
    side = 1 / cells
    for i in range(cells * cells):
        shade = mix(rgb(palette.main), rgb(palette.top), rng.uniform(0.0, 0.7))
        c.box(i % cells * side + gap, i // cells * side + gap, side - 2 * gap, side - 2 * gap, shade, 0.01)


def _stripes(c: Canvas, palette: Palette, rng: Random) -> None:
    upright, edge = rng.random() < 0.4, 0.0
    while edge < 1:
        width = rng.uniform(0.05, 0.14)
        shade = mix(rgb(palette.accent), rgb(palette.top), rng.uniform(0.1, 0.9))
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
        c.disc((column + 0.5 - stagger * (row % 2)) / cells, (row + 0.5) / cells, r, rgb(shade))


def _burst(c: Canvas, palette: Palette, rng: Random) -> None:
    x, y, wedges = rng.uniform(0.4, 0.6), rng.uniform(0.42, 0.6), rng.randint(9, 14)
    turn = rng.random()
    for i in range(wedges):
        a, b = (2 * math.pi * (i + turn + d) / wedges for d in (0.0, 0.5))
        rim = [(x + 1.5 * math.cos(t), y + 1.5 * math.sin(t)) for t in (a, b)]
        c.polygon([(x, y), *rim], rgb(palette.main))
    r = rng.uniform(0.15, 0.22)
    c.disc(x, y, r * 1.18, WHITE)
    c.disc(x, y, r, rgb(palette.accent))
    rng.choice((heart, star))(c, x, y, r * 0.62, WHITE)


def _confetti(c: Canvas, palette: Palette, rng: Random) -> None:
    bright: list[Colour] = [
        rgb(n) for n in (palette.main, palette.accent, palette.land, "#2EC4F1", "#B388FF", "#FFFFFF")
    ]
    for _ in range(rng.randint(28, 44)):
        x, y, r = rng.random(), rng.random(), rng.uniform(0.02, 0.055)
        rng.choice((heart, star, Canvas.disc))(c, x, y, r, rng.choice(bright))
    heart(c, rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), rng.uniform(0.15, 0.2), rgb(palette.accent))


def _balloons(c: Canvas, palette: Palette, rng: Random) -> None:
    bright: list[Colour] = [rgb(n) for n in (palette.main, palette.accent, "#3FB8F0", "#A97BFF", "#5CCB5F", "#FF4F5E")]
    rng.shuffle(bright)
    knot = (rng.uniform(0.44, 0.56), 0.96)
    count = rng.randint(4, 6)
    for i in range(count):
        x = 0.5 + (i - (count - 1) / 2) * rng.uniform(0.11, 0.15)
        y, r = rng.uniform(0.26, 0.46), rng.uniform(0.085, 0.115)
        c.stroke([(x, y + r), knot], 0.006, translucent(INK, 0.7))
        c.polygon([(x, y + r * 1.1), (x - r * 0.22, y + r * 1.48), (x + r * 0.22, y + r * 1.48)], bright[i])
        c.oval(x, y, r, r * 1.25, bright[i])
        c.oval(x - r * 0.35, y - r * 0.5, r * 0.16, r * 0.26, translucent(WHITE, 0.7))
