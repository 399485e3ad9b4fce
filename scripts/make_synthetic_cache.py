"""Write a cache of made-up features, as large as wanted: two Gaussian halves that each tell part of the label.

python scripts/make_synthetic_cache.py --rows 10000000 --image 128 --text 128 --out cache/synthetic.h5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsent.config import DataSettings, EncoderSettings, ViewSettings
from mmsent.data import views
from mmsent.data.preprocess import Preprocess
from mmsent.encoders.base import ImageCard, TextCard
from mmsent.features.cache import Cache, write_cache
from mmsent.features.cache.fingerprint import FeatureSettings

SHARES = (0.3, 0.1, 0.6)
BLOCK = 65536


def make(out: Path, rows: int, image: int, text: int, seed: int = 0, signal: float = 0.12) -> Cache:
    """A cache of `rows` rows in float16, one view each. The same arguments give the same bytes."""
    rng = np.random.default_rng(seed)
    labels = ("negative", "neutral", "positive")
    means = [rng.standard_normal((3, width)).astype(np.float32) * signal for width in (image, text)]

    def blocks() -> Iterator[tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.int64]]]:
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            truth = rng.choice(3, n, p=SHARES)
            halves = [rng.standard_normal((n, m.shape[1]), np.float32) + m[truth] for m in means]
            yield halves[0][:, None].astype(np.float16), halves[1].astype(np.float16), truth

    common = {"library": "synthetic", "weights_sha256": "0" * 64, "precision": "fp32", "libraries": {}}
    pre = Preprocess(size=1, resize_to=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    settings = FeatureSettings(
        image=ImageCard(name="gauss", width=image, preprocess=pre, **common),
        text=TextCard(name="gauss", width=text, max_tokens=1, **common),
        normalize=False,
        views=ViewSettings(count=0),
        views_version=views.VERSION,
        clean=(),
        text_encoding="utf-8",
        storage="float16",
    )
    provenance = {
        "data": "synthetic",
        "data_settings": DataSettings().model_dump(mode="json"),
        "encoder_settings": EncoderSettings().model_dump(mode="json"),
    }
    attributes = {"labels": list(labels), "data_name": "synthetic", "encoder": "synthetic", "provenance": provenance}
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_cache(out, settings, attributes, rows, blocks())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--image", type=int, default=128)
    parser.add_argument("--text", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("cache/synthetic.h5"))
    given = parser.parse_args()
    started = time.monotonic()
    cache = make(given.out, given.rows, given.image, given.text, given.seed)
    print(f"{cache.path}: {cache.path.stat().st_size / 1e9:.2f} GB, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
