"""The K augmented views: view v of a row is a pure function of (seed, id, v).

As in the coursework report (section 2), rotation, horizontal flip, colour change and an affine transform are applied on
top of the encoder's own resizing. Neither the order of rows, the batch nor a restart changes a view. Pillow and
NumPy only.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from mmsent.config import ViewSettings
from mmsent.data.images import Pixels, as_pixels
from mmsent.data.preprocess import Preprocess, fit_square

VERSION = 1  # part of the fingerprint; raise it when the pixels of a view change


@dataclass(frozen=True)
class ViewParams:
    """The parameters of one view: angles in degrees, shifts as a fraction of the side, colour factors around 1."""

    flip: bool
    angle: float
    shear: float
    scale: float
    shift: tuple[float, float]
    brightness: float
    contrast: float
    saturation: float
    hue: float  # turn of the hue circle, in -0.5..0.5


def view_params(settings: ViewSettings, row_id: str, view: int) -> ViewParams:
    """Draw the parameters of view `view` (1..K) of a row from (seed, id, view) alone."""
    digest = hashlib.sha256(f"{settings.seed}\0{view}\0{row_id}".encode("utf-8", "surrogatepass")).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))

    def around(spread: float, centre: float = 0.0) -> float:
        return float(rng.uniform(centre - spread, centre + spread))

    return ViewParams(
        flip=bool(rng.random() < settings.flip),
        angle=around(settings.rotation),
        shear=around(settings.shear),
        scale=float(rng.uniform(*settings.scale)),
        shift=(around(settings.translate), around(settings.translate)),
        brightness=around(settings.brightness, 1.0),
        contrast=around(settings.contrast, 1.0),
        saturation=around(settings.saturation, 1.0),
        hue=around(settings.hue),
    )


def _affine(image: Image.Image, p: ViewParams, fill: tuple[int, int, int]) -> Image.Image:
    """Rotate, shear, scale, shift and flip about the centre in one bilinear resampling."""
    centre = np.array([0.5, 0.5]) * image.width  # Pillow counts from the corner of the first pixel
    angle, shear = math.radians(p.angle), math.tan(math.radians(p.shear))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = turn @ np.array([[1.0, shear], [0.0, 1.0]]) * p.scale
    if p.flip:
        forward = forward @ np.array([[-1.0, 0.0], [0.0, 1.0]])
    inverse = np.linalg.inv(forward)  # Pillow maps output pixels back to input pixels
    offset = centre - inverse @ (centre + np.array(p.shift) * image.width)
    a, b, d, e = inverse.ravel()
    coefficients = (a, b, offset[0], d, e, offset[1])
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _recolour(image: Image.Image, p: ViewParams) -> Image.Image:
    image = ImageEnhance.Brightness(image).enhance(p.brightness)
    image = ImageEnhance.Contrast(image).enhance(p.contrast)
    image = ImageEnhance.Color(image).enhance(p.saturation)
    if p.hue:
        hue, saturation, value = image.convert("HSV").split()
        turned = (np.asarray(hue).astype(np.int16) + round(p.hue * 255)).astype(np.uint8)  # wraps at 256
        image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    return image


def make_views(image: Image.Image, row_id: str, how: Preprocess, settings: ViewSettings) -> Pixels:
    """The clean image and its K augmented views, (K + 1, size, size, 3) bytes, from an RGB image.

    Uncovered corners are filled with the encoder's mean colour, which is zero after normalisation.
    """
    clean = fit_square(image, how)
    red, green, blue = (round(255 * m) for m in how.mean)
    out = np.empty((settings.count + 1, how.size, how.size, 3), dtype=np.uint8)
    out[0] = as_pixels(clean)
    for view in range(1, settings.count + 1):
        params = view_params(settings, row_id, view)
        out[view] = as_pixels(_recolour(_affine(clean, params, (red, green, blue)), params))
    return out
