"""The recipe that suits a cache's features, and why."""

from __future__ import annotations

import numpy as np

from mmsent.config import PRESETS, choose_recipe
from mmsent.features.cache import Cache

APART = 3.0  # from here on the halves' scales differ so much that a recipe is taken that scales each
ROWS = 256  # rows that the scales are read from


def recipe_of(cache: Cache, name: str = "auto") -> tuple[str, str]:
    """The recipe that a name means for a cache, and why. auto: of a preset its own; of any other pair by what its
    features are, whichever encoders made them. Raises UsageError on an unknown name."""
    chosen = choose_recipe(name, cache.encoder)
    if name != "auto":
        return chosen, "it was asked for"
    if cache.encoder in PRESETS or "train" not in cache.rows:
        return chosen, f"the one of the preset {cache.encoder}"
    image, text = _scales(cache)
    if image and text and max(image / text, text / image) >= APART:
        return (
            "offline",
            f"it scales each half, and image features are {image:.2g} in the mean, text features {text:.2g}",
        )
    return "paper", f"image and text features are of like scale, {image:.2g} and {text:.2g} in the mean"


def _scales(cache: Cache) -> tuple[float, float]:
    """Root mean square of the clean images' and the texts' features, over rows that have them; 0 where none has."""
    with cache.reader("train") as read:
        image, text = read(0, min(ROWS, cache.rows["train"]))
    return _scale(image[:, 0].astype(np.float64)), _scale(text.astype(np.float64))


def _scale(values: np.ndarray) -> float:
    there = values[values.any(axis=1)]
    return float(np.sqrt(np.square(there).mean())) if len(there) else 0.0
