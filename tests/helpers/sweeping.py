"""A small made-up cache and a small search space, for the tests of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsent.config import SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.features.cache import Cache
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.space import Space, make_space
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

SPACE = """
fusion = ["concat", "weighted"]
lr = { low = 1e-3, high = 1e-1, log = true }
hidden = [8, 16]
depth = 1
dropout = { low = 0.1, high = 0.5 }
weight_decay = 0.01
label_smoothing = 0.1
class_weight_power = 0.3
batch_size = 32
views = true
standardize = [true, false]
rms = false
modality_dropout = 0.0
common_width = 8
heads = 2
epochs = 4
patience = 4
"""
SPLIT = SplitSettings(val_size=0.25)


def make_cache(folder: Path, **more: Any) -> Cache:
    """70 rows of the fakes' features, one view beside the clean one."""
    root = make_guid(folder / "posts", n_train=70, n_test=8, size=24, **more)
    listed = root / "train.txt"
    head, *lines = listed.read_text().splitlines()
    for i in range(0, len(lines), 4):  # some labels are wrong, so that scores differ
        lines[i] = f"{lines[i].partition(',')[0]},neutral"
    listed.write_text("\n".join([head, *lines]) + "\n")
    return fake_cache(load_dataset(root), folder / "cache", views=1)


def small_space(folder: Path, **more: Any) -> Space:
    """The space above."""
    file = folder / "space.toml"
    file.write_text(SPACE, encoding="utf-8")
    return make_space("paper", file=file, seed=0, **more)


def options(**more: Any) -> SweepSettings:
    """Few trials, one after the other, in this process."""
    return SweepSettings(**{"trials": 14, "workers": 1, "checks": 2, **more})
