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


def both(truth: np.ndarray, guessed: np.ndarray) -> tuple[float, float]:
    """Weighted and macro F1."""
    weighted, macro = (f1_score(truth, guessed, average=kind, zero_division=0) for kind in ("weighted", "macro"))
    return float(weighted), float(macro)


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
        names, counts = np.unique(y[pool], return_counts=True)
        found.setdefault(0, []).append(both(y[held], np.full(len(held), names[counts.argmax()])))
        for size in [s for s in arguments.sizes if s <= len(pool)]:
            part = pool[:size]
            head = mmsent.FusionClassifier.from_recipe(
                arguments.recipe, cache.image_width, fusion=arguments.fusion, random_state=seed
            )
            guessed = head.fit(X[part], y[part], groups=groups[part]).predict(X[held])
            found.setdefault(size, []).append(both(y[held], guessed))
    for size, values in found.items():
        mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(mean, deviation, strict=True)]
        name = f"{size:,}" if size else "none: always the most frequent label"
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
