"""Caches of what fake encoders make of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import Dataset, Split
from mmsent.encoders.base import Encoders
from mmsent.features.cache import Cache
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from tests.helpers.fake import fake_encoders

PAIR = EncoderSettings(encoder="offline")


def fake_cache(
    data: Dataset,
    folder: Path,
    splits: Sequence[Split] = (),
    *,
    views: int = 0,
    encoder: EncoderSettings = PAIR,
    encoders: Encoders | None = None,
    **options: Any,
) -> Cache:
    """The cache of a data set, made in a folder. splits: by default all; options: of ExtractSettings."""
    return extract(
        data,
        splits or data.splits,
        folder,
        encoder=encoder,
        views=ViewSettings(count=views),
        options=ExtractSettings(**options),
        engine=LocalEngine(encoders or fake_encoders()),
        show=False,
    ).cache
