"""The preprocessing that an encoder declares, with Pillow alone. It equals torchvision's and open_clip's transforms."""

from __future__ import annotations

import math
from typing import Literal

from PIL import Image

from mmsent.config import Settings

# Beyond this side ratio the ends are cut before resizing; otherwise a 1x20000 strip would fill the memory.
MAX_ASPECT = 16
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocess(Settings):
    """An encoder's image preprocessing; part of the fingerprint.

    size: side of the square input in pixels. resize_to: length of the side that `resize` names before the centre
    crop ("shortest" crops what sticks out, "longest" pads, "squash" ignores the aspect). mean, std: per channel, on
    values in 0..1. fill: grey level (0..255) of padding.
    """

    size: int
    resize_to: int
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: int = 0


def fit_square(image: Image.Image, how: Preprocess) -> Image.Image:
    """Resize and crop or pad an RGB image to (size, size), as torchvision's and open_clip's transforms do."""
    resample = _FILTERS[how.interpolation]
    if how.resize == "squash":
        return image.resize((how.size, how.size), resample)
    image = _limit_aspect(image)
    width, height = image.size
    if how.resize == "shortest":
        if width <= height:
            target = (how.resize_to, int(how.resize_to * height / width))
        else:
            target = (int(how.resize_to * width / height), how.resize_to)
    else:
        ratio = max(width, height) / how.resize_to  # divide like open_clip, so that halves are rounded in the same way
        target = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    if target != image.size:
        image = image.resize(target, resample)
    left, top = round((image.width - how.size) / 2), round((image.height - how.size) / 2)
    if image.width < how.size or image.height < how.size:
        canvas = Image.new("RGB", (how.size, how.size), (how.fill,) * 3)
        # The same rounding as open_clip's CenterCropOrPad: the smaller pad comes first.
        pad_left, pad_top = (how.size - image.width) // 2, (how.size - image.height) // 2
        canvas.paste(image, (pad_left if pad_left >= 0 else -left, pad_top if pad_top >= 0 else -top))
        return canvas
    return image.crop((left, top, left + how.size, top + how.size))


def _limit_aspect(image: Image.Image) -> Image.Image:
    width, height = image.size
    long = math.ceil(min(width, height) * MAX_ASPECT)
    if max(width, height) <= long:
        return image
    if width > height:
        left = (width - long) // 2
        return image.crop((left, 0, left + long, height))
    top = (height - long) // 2
    return image.crop((0, top, width, top + long))
