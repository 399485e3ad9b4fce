"""Extracting again: where a cache of the data set exists, options that are not given are those of that cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, Settings, ViewSettings
from mmsent.encoders.specs import encoder_label, named_apart
from mmsent.errors import CacheError
from mmsent.features.cache import Cache
from mmsent.features.cache.finding import list_caches, slug
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import begun_with

S = TypeVar("S", bound=Settings)
Options = tuple[DataSettings, EncoderSettings, ViewSettings, ExtractSettings]

# Of these a cache has one value; another one given means another cache.
_OF_THE_PAIR = {"encoder", "image_encoder", "text_encoder"}
_FIXED = {"clean", "text_encoding", "normalize", "precision", "runtime", "count", "seed", "storage"}


@dataclass(frozen=True)
class _There:
    """A cache, or one that was begun: its file, data set, encoder, settings, and the options that it was made with."""

    name: str
    data_name: str
    encoder: str
    settings: FeatureSettings
    options: Options


def _continued(folder: Path, data_name: str, given: Options) -> tuple[Options, str]:
    try:
        caches = [_of(cache) for cache in list_caches(folder)]
    except CacheError:  # extraction says what is wrong with the folder
        return given, ""
    found: list[_There] = []
    for there in (caches, _begun(folder)):  # one that is not finished only where no cache agrees
        found = found or [one for one in there if one.data_name == data_name and _agrees(one, given)]
    if not found or not all(one.encoder == found[0].encoder and found[0].settings.alike(one.settings) for one in found):
        return given, ""
    data, pair, views, extraction = given
    stored = found[0].options
    kept = (_over(stored[0], data), _pair(stored[1], pair), _over(stored[2], views), _over(stored[3], extraction))
    if kept == given:
        return given, ""
    return kept, f"{found[0].name} is continued: options that were not given are those that it was made with"


def continued(folder: Path, data_name: str, given: Options) -> tuple[Options, str]:
    """Extraction's settings, and a note where a cache gave some of them. What was given, that is what stands in
    `model_fields_set`, stays; the rest is that of the one cache of this data set that agrees with it. A text encoder's
    own folder goes by its name, unless a cache of an earlier version has its path."""
    kept = _continued(folder, data_name, given)
    data, pair, views, extraction = given
    apart = named_apart(pair)
    if kept[1] or apart == pair:
        return kept
    return _continued(folder, data_name, (data, apart, views, extraction))


def _of(cache: Cache) -> _There:
    options = (
        cache.data_settings,
        cache.encoder_settings,
        cache.settings.views,
        _shared(cache.settings, cache.provenance),
    )
    return _There(cache.path.name, cache.data_name, cache.encoder, cache.settings, options)


def _begun(folder: Path) -> list[_There]:
    """Caches of which there is a journal alone, and that say what they were begun with."""
    found = []
    for path in sorted(folder.glob("*.h5.journal")):
        about = {} if path.with_suffix("").exists() else begun_with(path)
        if about:
            settings = FeatureSettings.model_validate(about["features"])
            pair = EncoderSettings.model_validate(about["encoder_settings"])
            data = DataSettings.model_validate(about["data_settings"])
            options = data, pair, settings.views, _shared(settings, about)
            found.append(_There(path.stem, about["data_name"], encoder_label(pair), settings, options))
    return found


def _shared(settings: FeatureSettings, about: Mapping[str, Any]) -> ExtractSettings:
    own = {"max_bad": share} if (share := about.get("max_bad")) is not None else {}
    return ExtractSettings.model_validate({"storage": settings.storage, **own})


def _agrees(there: _There, given: Options) -> bool:
    pair = given[1]
    if pair.model_fields_set & _OF_THE_PAIR:
        alone = pair.model_fields_set & _OF_THE_PAIR == {"encoder"}
        if there.encoder != encoder_label(pair) and not (
            alone and pair.encoder in (there.encoder, slug(there.encoder))
        ):
            return False
    return all(
        getattr(one, name) == getattr(stored, name)
        for one, stored in zip(given, there.options, strict=True)
        for name in one.model_fields_set & _FIXED
    )


def _over(stored: S, given: S) -> S:
    """The stored settings under those that were given."""
    return stored.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def _pair(stored: EncoderSettings, given: EncoderSettings) -> EncoderSettings:
    """The cache's pair, which the given one names in its own way, on the device that was asked for."""
    own = {name: getattr(given, name) for name in given.model_fields_set - _OF_THE_PAIR}
    return stored.model_copy(update={"device": given.device} | own)
