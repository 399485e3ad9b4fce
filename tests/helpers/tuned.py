"""Heads that tune blocks of a tiny open_clip model: made once per process, in a second or two."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsent.config import EncoderSettings, FitSettings, Fusion, SplitSettings
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.encoders.base import Encoders
from mmsent.features.cache import Cache
from mmsent.features.token_states import extract_states
from mmsent.inference.tuned import blocks_from
from mmsent.training.fit import Training, fit
from mmsent.training.runs import Run
from tests.encoders.test_clip import CONFIG, make_tiny
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4, "batch_size": 16}
TUNED: dict[str, Any] = {**QUICK, "tune": "text:1", "tune_lr": 2e-2}


@dataclass(frozen=True)
class World:
    """A data set, its cache with states, and runs: two that tune the last text block, the second by low-rank
    updates, and one that tunes none; `image` tunes the last image block."""

    data: Dataset
    cache: Cache
    encoders: Encoders
    runs: list[Run]
    image: Run


@functools.cache
def tuned_world() -> World:
    folder = Path(tempfile.mkdtemp(prefix="mmsent-tuned-"))
    tiny = make_tiny(folder, "mmsent-tuned", CONFIG)
    encoders = tiny.open()
    data = load_dataset(make_guid(folder / "posts", n_train=40, n_test=12, size=40))
    encoder = EncoderSettings(encoder=f"open_clip:{tiny.arch}", weights=str(tiny.file), device="cpu", precision="fp32")
    cache = fake_cache(data, folder / "cache", encoder=encoder, encoders=encoders)
    for tune in ("text:1", "image:1"):
        extract_states(data, ["train", "test"], cache, encoders, tune, show=False)
    wanted = [
        FitSettings(**TUNED, fusion=Fusion.concat),
        FitSettings(**TUNED | {"tune_lr": 2e-3, "lora": 4}, fusion=Fusion.weighted),
        FitSettings(**QUICK, fusion=Fusion.attention),
        FitSettings(**TUNED | {"tune": "image:1"}, fusion=Fusion.concat),
    ]
    *runs, image = fit(cache, folder / "runs", wanted, SplitSettings(), Training(blocks=blocks_from(cache)))
    return World(data, cache, encoders, runs, image)
