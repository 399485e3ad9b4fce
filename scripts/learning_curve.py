"""How many labelled posts are worth having: weighted F1 of one head by the number of posts that it learned from.

    python scripts/learning_curve.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --seeds 5

Each seed holds out a fifth of the labelled training rows, with near-duplicates on one side, and draws the posts to
learn from out of the rest; larger parts contain the smaller ones. A part's own validation rows, which stop training and
fit the temperature, are cut from the part. Prints a row per size: mean and standard deviation over the seeds. Reads
training rows only.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

import mmsent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 400, 800, 1600, 3200])
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--fusion", default="concat")
    arguments = parser.parse_args()
    cache = mmsent.open_cache(arguments.cache)
    rows, groups = cache.arrays("train"), cache.groups("train", near=True)
    X, y = rows.X, np.asarray(rows.y)
    print("| labelled posts | weighted F1 | macro F1 |\n|---|---|---|")
    found: dict[int, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        pool, held = next(iter(folds.split(X, y, groups)))
        pool = np.random.default_rng(seed).permutation(pool)
        for size in [s for s in arguments.sizes if s <= len(pool)]:
            part = pool[:size]
            head = mmsent.FusionClassifier.from_recipe(
                arguments.recipe, cache.image_width, fusion=arguments.fusion, random_state=seed
            )
            guessed = head.fit(X[part], y[part], groups=groups[part]).predict(X[held])
            scores = [float(f1_score(y[held], guessed, average=kind)) for kind in ("weighted", "macro")]
            found.setdefault(size, []).append((scores[0], scores[1]))
    for size, values in found.items():
        mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(mean, deviation, strict=True)]
        print(f"| {size:,} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
