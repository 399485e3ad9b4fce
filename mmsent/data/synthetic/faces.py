"""Faces of a mood."""

from __future__ import annotations

from random import Random

from mmsent.data.synthetic.canvas import INK, WHITE, Canvas, Colour, ImageMood, Palette, drop, mix, rgb, translucent

SKIN = ("#FFDE59", "#FFD34E", "#F6C9A0", "#E0A878", "#C58557", "#9A6240", "#774A31")
HAIR = ("#2B1D14", "#5A3A22", "#8C5A2B", "#C8963E", "#3C3C44", "#A6472B")


def draw_face(c: Canvas, mood: ImageMood, palette: Palette, rng: Random) -> None:
    """A face on a quiet backdrop: mouth, brows and tears show the mood."""
    _backdrop(c, palette, rng)
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.48, 0.56), rng.uniform(0.25, 0.31)
    tall = rng.uniform(0.95, 1.1)
    skin: Colour = rgb(rng.choice(SKIN))
    if mood == "down":
        skin = mix(skin, rgb(palette.accent), 0.5)
    elif mood == "flat":
        skin = mix(skin, rgb(palette.bottom), 0.5)
    hair: Colour = mix(rgb(rng.choice(HAIR)), rgb(palette.main), 0.0 if mood == "up" else 0.25)
    style = rng.choice(("none", "none", "cap", "bun", "long"))
    if style == "long":
        c.oval(x, y + r * 0.05, r * 1.16, r * tall * 1.12, hair)
        c.box(x - r * 1.16, y, r * 2.32, r * 1.05, hair, r * 0.3)
    if style == "bun":
        c.disc(x, y - r * tall * 1.12, r * 0.34, hair)
    if style in {"cap", "bun"}:
        c.oval(x, y - r * 0.08, r * 1.06, r * tall * 1.04, hair)
    for side in (-1, 1):
        c.disc(x + side * r * 0.98, y + r * 0.06, r * 0.16, mix(skin, INK, 0.12))
    c.oval(x, y, r, r * tall, skin)
    if style != "none":
        c.chord(x, y, r * 1.01, r * tall * 1.01, (208, 332), hair)
    _eyes(c, mood, x, y - r * 0.12, r, rng)
    _mouth(c, mood, x, y + r * 0.42, r, rng)
    if mood == "up" and rng.random() < 0.8:
        for side in (-1, 1):
            c.oval(x + side * r * 0.62, y + r * 0.24, r * 0.17, r * 0.11, translucent((255, 90, 95), 0.45))
    if mood == "down" and rng.random() < 0.75:
        for side in rng.choice(((-1,), (1,), (-1, 1))):
            drop(c, x + side * r * 0.42, y + r * rng.uniform(0.2, 0.4), r * 0.11, (140, 200, 245))


def _eyes(c: Canvas, mood: ImageMood, x: float, y: float, r: float, rng: Random) -> None:
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


def _mouth(c: Canvas, mood: ImageMood, x: float, y: float, r: float, rng: Random) -> None:
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
    tints: tuple[Colour, Colour] = (translucent(rgb(palette.main), 0.35), translucent(rgb(palette.accent), 0.3))
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
