"""Extracting again: where a cache of the data set exists, options that are not given are those of that cache."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, Settings, ViewSettings
from mmsent.encoders.specs import encoder_label, named_apart
from mmsent.errors import CacheError
from mmsent.features.cache import Cache
from mmsent.features.cache.finding import list_caches, slug

S = TypeVar("S", bound=Settings)
Options = tuple[DataSettings, EncoderSettings, ViewSettings, ExtractSettings]

# Of these a cache has one value; another one given means another cache.
_OF_THE_PAIR = {"encoder", "image_encoder", "text_encoder"}
_FIXED = {"clean", "text_encoding", "normalize", "precision", "runtime", "count", "seed", "storage"}


def _continued(folder: Path, data_name: str, given: Options) -> tuple[Options, str]:
    try:
        there = list_caches(folder)
    except CacheError:  # extraction says what is wrong with the folder
        return given, ""
    found = [cache for cache in there if cache.data_name == data_name and _agrees(cache, given)]
    if not found or not all(one.encoder == found[0].encoder and found[0].settings.alike(one.settings) for one in found):
        return given, ""
    cache = found[0]
    data, pair, views, extraction = given
    stored = _stored(cache)
    kept = (_over(stored[0], data), _pair(stored[1], pair), _over(stored[2], views), _over(stored[3], extraction))
    if kept == given:
        return given, ""
    return kept, f"{cache.path.name} is continued: options that were not given are those that it was made with"


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


def _stored(cache: Cache) -> Options:
    shared = {"storage": cache.settings.storage}
    if (share := cache.provenance.get("max_bad")) is not None:
        shared["max_bad"] = share
    return cache.data_settings, cache.encoder_settings, cache.settings.views, ExtractSettings.model_validate(shared)


def _agrees(cache: Cache, given: Options) -> bool:
    pair = given[1]
    if pair.model_fields_set & _OF_THE_PAIR:
        alone = pair.model_fields_set & _OF_THE_PAIR == {"encoder"}
        if cache.encoder != encoder_label(pair) and not (
            alone and pair.encoder in (cache.encoder, slug(cache.encoder))
        ):
            return False
    return all(
        getattr(one, name) == getattr(stored, name)
        for one, stored in zip(given, _stored(cache), strict=True)
        for name in one.model_fields_set & _FIXED
    )


def _over(stored: S, given: S) -> S:
    """The stored settings under those that were given."""
    return stored.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def _pair(stored: EncoderSettings, given: EncoderSettings) -> EncoderSettings:
    """The cache's pair, which the given one names in its own way, on the device that was asked for."""
    own = {name: getattr(given, name) for name in given.model_fields_set - _OF_THE_PAIR}
    return stored.model_copy(update={"device": given.device} | own)
