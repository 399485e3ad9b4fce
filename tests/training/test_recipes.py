"""Which recipe suits a cache's features."""

from __future__ import annotations

import numpy as np
import pytest

from mmsent.errors import UsageError
from mmsent.features.cache import Cache
from mmsent.training import recipes
from mmsent.training.recipes import recipe_of
from tests.helpers.sweeping import make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("recipes"))


def test_a_preset_has_its_own_and_a_name_is_followed(cache: Cache) -> None:
    assert recipe_of(cache) == ("offline", "the one of the preset offline")
    assert recipe_of(cache, "small")[0] == "small"
    with pytest.raises(UsageError, match="unknown recipe 'stew'"):
        recipe_of(cache, "stew")


@pytest.mark.parametrize(
    ("scales", "recipe"),
    [((0.38, 0.05), "offline"), ((0.05, 0.38), "offline"), ((0.4, 0.3), "paper"), ((1, 0), "paper")],
)
def test_another_pairs_is_by_the_scale_of_its_halves(
    cache: Cache, scales: tuple[float, float], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half of the preset offline replaced: the other half's features are as they were."""
    monkeypatch.setattr(recipes, "PRESETS", {})
    monkeypatch.setattr("mmsent.config.PRESETS", {})
    monkeypatch.setattr(recipes, "_scales", lambda _: scales)
    found, why = recipe_of(cache)
    assert found == recipe
    assert f"{scales[0]:.2g}" in why


def test_scales_are_of_rows_that_are_there(cache: Cache) -> None:
    features = cache.load("train")
    image, text = recipes._scales(cache)
    assert image == pytest.approx(float(np.sqrt(np.square(features.image[:, 0], dtype=np.float64).mean())), rel=1e-4)
    assert text > 0
    assert recipes._scale(np.array([[3.0, 3.0], [0.0, 0.0]])) == 3.0
    assert recipes._scale(np.zeros((2, 2))) == 0.0
