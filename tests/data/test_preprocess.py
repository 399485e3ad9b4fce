"""Preprocessing equals open_clip's own transform bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsent.data.images import as_pixels
from mmsent.data.preprocess import Preprocess, fit_square
from tests.data.test_images import noise, smooth

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def test_fit_square_by_hand() -> None:
    image = Image.fromarray(np.arange(4 * 2 * 3, dtype=np.uint8).reshape(2, 4, 3))  # 4 wide, 2 high
    how = Preprocess(size=2, resize_to=2, mean=MEAN, std=STD)
    np.testing.assert_array_equal(as_pixels(fit_square(image, how)), as_pixels(image)[:, 1:3])
    padded = as_pixels(fit_square(image, how.model_copy(update={"size": 4, "resize_to": 4, "resize": "longest"})))
    np.testing.assert_array_equal(padded[1:3], as_pixels(image))
    assert not padded[[0, 3]].any()


def test_a_padding_of_one_pixel_has_the_fill_colour() -> None:
    how = Preprocess(size=4, resize_to=4, resize="longest", mean=MEAN, std=STD, fill=9)
    fitted = as_pixels(fit_square(Image.new("RGB", (4, 3), (200, 200, 200)), how))
    np.testing.assert_array_equal(fitted[:, 0, 0], [200, 200, 200, 9])


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
def test_a_strip_neither_fails_nor_fills_the_memory(size: tuple[int, int], resize: str) -> None:
    how = Preprocess(size=32, resize_to=32, resize=resize, mean=MEAN, std=STD)  # type: ignore[arg-type]
    assert fit_square(Image.new("RGB", size, (255, 0, 0)), how).size == (32, 32)


def test_a_strip_is_cut_to_sixteen_to_one() -> None:
    how = Preprocess(size=32, resize_to=32, resize="longest", mean=MEAN, std=STD)
    fitted = as_pixels(fit_square(Image.new("RGB", (1, 20_000), (255, 0, 0)), how))
    assert fitted[16, :, 0].tolist() == [0] * 15 + [255] * 2 + [0] * 15


def test_a_strip_keeps_its_middle() -> None:
    pixels = np.zeros((1, 1001, 3), dtype=np.uint8)
    pixels[:, 490:511] = 255
    how = Preprocess(size=8, resize_to=8, mean=MEAN, std=STD)
    assert as_pixels(fit_square(Image.fromarray(pixels), how)).min() == 255


SIZES = [
    (640, 330),
    (330, 640),
    (352, 99),
    (48, 64),
    (64, 48),
    (47, 48),
    (100, 98),
    (224, 224),
    (5, 3),
    (31, 480),
    (333, 250),
]


@pytest.fixture(scope="module")
def reference() -> Callable[[Preprocess], Callable[[Image.Image], np.ndarray]]:
    """open_clip's transform for a preprocessing, picture → (3, H, W) floats. Imported here: it takes seconds."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    def build(how: Preprocess) -> Callable[[Image.Image], np.ndarray]:
        config = PreprocessCfg(
            size=how.size,
            mean=how.mean,
            std=how.std,
            interpolation=how.interpolation,
            resize_mode=how.resize,
            fill_color=how.fill,
        )
        transform = image_transform_v2(config, is_train=False)
        return lambda image: np.asarray(transform(image).numpy())

    return build


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_equals_open_clip(reference: Any, resize: str, interpolation: str) -> None:
    for side, fill in ((48, 0), (224, 77)):
        how = Preprocess(
            size=side,
            resize_to=side,
            resize=resize,  # type: ignore[arg-type]
            interpolation=interpolation,  # type: ignore[arg-type]
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            fill=fill,
        )
        transform = reference(how)
        for width, height in SIZES:
            for image in (noise(width, height), smooth(width, height)):
                ours = as_pixels(fit_square(image, how)).transpose(2, 0, 1)
                theirs = transform(image)  # to_tensor divides by 255 in float32
                np.testing.assert_array_equal(
                    ours.astype(np.float32) / np.float32(255), theirs, err_msg=f"{width}x{height} to {side}"
                )
