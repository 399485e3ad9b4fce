"""Views: pure functions of (seed, id, view), within their bounds, and the picture that they should be."""

from __future__ import annotations

import colorsys
import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsent.config import ViewSettings, settings
from mmsent.data.images import Pixels, as_pixels
from mmsent.data.preprocess import Preprocess, fit_square
from mmsent.data.views import make_views, view_params
from tests.helpers.made import make_picture

HOW = Preprocess(size=32, resize_to=32, mean=(0.2, 0.4, 0.6), std=(0.25, 0.25, 0.25))
STILL: dict[str, Any] = {
    "rotation": 0.0,
    "flip": 0.0,
    "translate": 0.0,
    "scale": (1.0, 1.0),
    "shear": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
}
PINNED: dict[str, Any] = {
    "flip": True,
    "angle": -6.563541825452802,
    "shear": 3.925927778895691,
    "scale": 1.0194922089340637,
    "shift": (-0.020259363757364562, -0.08136265430847521),
    "brightness": 0.9486089993063924,
    "contrast": 0.8754627965258776,
    "saturation": 1.0718747160695603,
    "hue": -0.017310273133398626,
}  # seed 0, id 1234, view 1


def drawing(**values: Any) -> ViewSettings:
    return settings(ViewSettings, **values)


def picture(seed: int = 0) -> Image.Image:
    return make_picture("positive", 40, np.random.default_rng(seed))


def one_view(image: Image.Image, row_id: str = "a", **changes: Any) -> Pixels:
    """View 1 with everything still but `changes`."""
    chosen = drawing(count=1, **(STILL | changes))
    out: Pixels = make_views(image, row_id, HOW, chosen)[1]
    return out


def test_parameters_are_pinned() -> None:
    """Caches on disk depend on these values: if they must change, raise mmsent.data.views.VERSION."""
    found = view_params(drawing(), "1234", 1)
    assert found.flip is PINNED["flip"]
    for name in ("angle", "shear", "scale", "shift", "brightness", "contrast", "saturation", "hue"):
        assert getattr(found, name) == pytest.approx(PINNED[name], abs=1e-12), name


def test_parameters_are_a_pure_function() -> None:
    chosen = drawing(seed=3)
    before = view_params(chosen, "x", 2)
    np.random.default_rng(0).random(10)
    view_params(chosen, "y", 1)
    assert view_params(chosen, "x", 2) == before
    others = [view_params(chosen, "x", 1), view_params(chosen, "y", 2), view_params(drawing(seed=4), "x", 2)]
    assert before not in others
    assert view_params(chosen, "\ud800", 1) != before  # half a surrogate pair is an id too


def test_the_fields_do_not_run_together() -> None:
    """Seed 1 view 12 of id "3" must not be seed 11 view 2, nor view 1 of id "23"."""
    drawn = [view_params(drawing(seed=s), i, v) for s, i, v in ((1, "3", 12), (11, "3", 2), (1, "23", 1))]
    assert len(set(drawn)) == 3


def test_parameters_keep_their_bounds_and_fill_them() -> None:
    chosen = drawing()
    drawn = [view_params(chosen, str(i), v) for i in range(300) for v in (1, 2)]
    bounds = {
        "angle": (-15, 15),
        "shear": (-5, 5),
        "scale": (0.9, 1.1),
        "brightness": (0.8, 1.2),
        "contrast": (0.8, 1.2),
        "saturation": (0.8, 1.2),
        "hue": (-0.05, 0.05),
    }
    for name, (low, high) in bounds.items():
        values = np.array([getattr(p, name) for p in drawn])
        width = high - low
        assert low <= values.min() < low + 0.05 * width, name
        assert high - 0.05 * width < values.max() <= high, name
    shifts = np.array([p.shift for p in drawn])
    assert 0.095 < np.abs(shifts).max() <= 0.1
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.2
    assert 0.4 < np.mean([p.flip for p in drawn]) < 0.6


def test_shape_and_the_clean_view() -> None:
    views = make_views(picture(), "a", HOW, drawing(count=3))
    assert views.shape == (4, 32, 32, 3)
    assert views.dtype == np.uint8
    np.testing.assert_array_equal(views[0], as_pixels(fit_square(picture(), HOW)))
    assert make_views(picture(), "a", HOW, drawing(count=0)).shape == (1, 32, 32, 3)


def test_views_are_deterministic_distinct_and_seeded() -> None:
    chosen = drawing(count=6)
    views = make_views(picture(), "a", HOW, chosen)
    np.testing.assert_array_equal(views, make_views(picture(), "a", HOW, chosen))
    assert len({view.tobytes() for view in views}) == 7
    other_seed = make_views(picture(), "a", HOW, drawing(count=6, seed=1))
    other_id = make_views(picture(), "b", HOW, chosen)
    for view in range(1, 7):
        assert (views[view] != other_seed[view]).any()
        assert (views[view] != other_id[view]).any()


def test_more_views_do_not_change_the_first_ones() -> None:
    few = make_views(picture(), "a", HOW, drawing(count=2))
    many = make_views(picture(), "a", HOW, drawing(count=5))
    np.testing.assert_array_equal(few, many[:3])


def test_nothing_to_do_is_the_clean_picture() -> None:
    np.testing.assert_array_equal(one_view(picture()), as_pixels(fit_square(picture(), HOW)))


def test_flip_mirrors() -> None:
    clean = as_pixels(fit_square(picture(), HOW))
    np.testing.assert_array_equal(one_view(picture(), flip=1.0), clean[:, ::-1])


def spot(x: int, y: int) -> Image.Image:
    """White, with one black square of 4 px around a point."""
    image = Image.new("RGB", (32, 32), (255, 255, 255))
    image.paste((0, 0, 0), (x - 2, y - 2, x + 2, y + 2))
    return image


def centre_of(view: Pixels) -> tuple[float, float]:
    dark = 255.0 - view.astype(float).mean(axis=-1)
    dark[dark < 120] = 0  # the filled corners are brighter than that
    y, x = np.mgrid[0:32, 0:32] + 0.5
    return float((x * dark).sum() / dark.sum()), float((y * dark).sum() / dark.sum())


@pytest.mark.parametrize("row_id", ["a", "b", "c"])
def test_geometry_moves_a_spot_as_the_parameters_say(row_id: str) -> None:
    how = HOW.model_copy(update={"mean": (1.0, 1.0, 1.0)})
    chosen = drawing(**STILL | {"count": 1, "rotation": 40.0, "translate": 0.1, "scale": (0.7, 0.9)})
    p = view_params(chosen, row_id, 1)
    angle = np.radians(p.angle)
    offset = p.scale * np.array([6 * np.cos(angle), 6 * np.sin(angle)])  # the spot lies 6 px right of the centre
    expected = 16 + offset + 32 * np.array(p.shift)
    found = centre_of(make_views(spot(22, 16), row_id, how, chosen)[1])
    np.testing.assert_allclose(found, expected, atol=0.25)


def test_uncovered_corners_take_the_mean_colour() -> None:
    view = one_view(Image.new("RGB", (40, 40), (255, 255, 255)), scale=(0.5, 0.5))
    np.testing.assert_array_equal(view[0, 0], [51, 102, 153])  # 255 times the mean
    np.testing.assert_array_equal(view[16, 16], [255, 255, 255])


def test_brightness_is_a_factor() -> None:
    chosen = drawing(count=1, **(STILL | {"brightness": 0.5}))
    factor = view_params(chosen, "a", 1).brightness
    view = one_view(Image.new("RGB", (32, 32), (100, 60, 20)), brightness=0.5)
    np.testing.assert_allclose(view[5, 5], np.array([100, 60, 20]) * factor, atol=1)


def test_hue_turns_the_circle_both_ways() -> None:
    turned = set()
    for row_id in "abcdefghijklmnop":
        chosen = drawing(count=1, **(STILL | {"hue": 0.3}))
        hue = view_params(chosen, row_id, 1).hue
        red, green, blue = one_view(Image.new("RGB", (32, 32), (255, 0, 0)), row_id, hue=0.3)[9, 9] / 255
        found = colorsys.rgb_to_hsv(red, green, blue)[0]
        assert abs((found - hue + 0.5) % 1 - 0.5) < 0.01
        turned.add(hue > 0)
    assert turned == {True, False}


def test_params_are_plain_values() -> None:
    values = dataclasses.asdict(view_params(drawing(), "a", 1))
    assert {type(v) for v in values.values()} == {bool, float, tuple}
