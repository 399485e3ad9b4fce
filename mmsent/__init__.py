"""mmsent: sentiment of posts from frozen encoders and light fusion heads.

The Python API, see docs/reference/python.md and mmsent.api:

    encode, open_cache     posts to a cache; a cache as NumPy arrays, a torch Dataset, a pandas table
    train_heads, load      heads, fitted or opened, that predict
    FusionClassifier       the heads as a scikit-learn estimator
    MmsentError            what every error is

`import mmsent` loads neither torch nor any encoder library: each name is imported at first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmsent.errors import MmsentError

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ imports them
    from mmsent.api import Arrays, FeatureCache, Model, encode, load, open_cache, train_heads
    from mmsent.inference.predict import Prediction
    from mmsent.training.estimator import FusionClassifier

from mmsent.version import __version__

# Nothing is reported to anyone: libraries read these when they are imported, and later is too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_LAZY = {
    "Arrays": "mmsent.api",
    "FeatureCache": "mmsent.api",
    "FusionClassifier": "mmsent.training.estimator",
    "Model": "mmsent.api",
    "Prediction": "mmsent.inference.predict",
    "encode": "mmsent.api",
    "load": "mmsent.api",
    "open_cache": "mmsent.api",
    "train_heads": "mmsent.api",
}
__all__ = [
    "Arrays",
    "FeatureCache",
    "FusionClassifier",
    "MmsentError",
    "Model",
    "Prediction",
    "__version__",
    "encode",
    "load",
    "open_cache",
    "train_heads",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mmsent' has no attribute {name!r}")
    found = getattr(import_module(_LAZY[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
