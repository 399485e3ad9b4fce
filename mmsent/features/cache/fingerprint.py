"""The settings that determine the numbers in a cache, their digest (the fingerprint), and the digest of what a head
relies on (the contract)."""

from __future__ import annotations

from typing import Any

from mmsent.config import Clean, Settings, ViewSettings
from mmsent.encoders.base import ImageCard, TextCard
from mmsent.system.hashing import json_sha256


class FeatureSettings(Settings):
    """Everything that determines the numbers in a cache. Its digest is the fingerprint."""

    image: ImageCard
    text: TextCard
    normalize: bool
    views: ViewSettings
    views_version: int
    clean: tuple[Clean, ...]
    text_encoding: str
    storage: str

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values without settings that have no effect (those of views if there are none)."""
        values = self.model_dump(mode="json")
        if not self.views.count:
            values["views"] = {"count": 0}
        return values

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all settings, hex."""
        return json_sha256(self.canonical())

    @property
    def contract(self) -> str:
        """SHA-256 of what a head relies on: encoders, weights, preprocessing, cleaning and normalisation.

        Precision (but for int8), library versions and views are not included: they change embeddings only by rounding,
        or not at all.
        """
        return json_sha256(
            _without_rounding(self.model_dump(mode="json", include={"image", "text", "normalize", "clean"}))
        )

    def alike(self, other: FeatureSettings) -> bool:
        """Whether two caches' numbers differ by rounding alone: by library versions or precision."""
        return _without_rounding(self.canonical()) == _without_rounding(other.canonical())


def _without_rounding(values: dict[str, Any]) -> dict[str, Any]:
    """Settings without what changes embeddings only by rounding: library versions and precision, but for int8."""
    halves = {
        half: {k: v for k, v in values[half].items() if k not in {"precision", "libraries"} or v == "int8"}
        for half in ("image", "text")
    }
    return values | halves


def differences(old: FeatureSettings, new: FeatureSettings) -> list[str]:
    """The settings in which two caches differ, as `name: old -> new` lines."""
    a, b = _flat(old.canonical()), _flat(new.canonical())
    return [f"{k}: {a.get(k)} -> {b.get(k)}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
