"""How many labels are needed if the most useful posts are labelled first, beside labelling at random.

    python scripts/label_order.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --seeds 10

Each seed holds out a fifth of the labelled training rows, with near-duplicates on one side, and labels the rest step by
step: 100 posts drawn at random, then 100 and later 200 more at a time in the order of a strategy. It sees the model
fitted on the labels so far. The model is a logistic regression on 150 principal components of the features, which
scores as a head does (weighted F1 0.69 with all labels) and is fitted in a fraction of a second. Prints per strategy
how many labels it takes to come within 0.01 of the weighted F1 with all labels, how many fewer than at random in the
same seed, and the score by the number of labels. Reads training rows only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

import mmsent
from mmsent.inference.useful import useful_order

STEPS = [100, *range(200, 3001, 200)]
SHOWN = (100, 200, 400, 800, 1200, 1600, 2000)
NEAR = 0.01


def unit(half: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12)


def at_random(probabilities: np.ndarray, _: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows in any order."""
    return np.random.default_rng(seed).permutation(len(probabilities))[:count]


def by_margin(probabilities: np.ndarray, _: np.ndarray, count: int, __: int) -> np.ndarray:
    """Rows with the smallest margins between their two likeliest labels."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")[:count]


STRATEGIES: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "at random": at_random,
    "smallest margin": by_margin,
    "useful_order (BADGE)": useful_order,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    cache = mmsent.open_cache(arguments.cache)
    rows, groups = cache.arrays("train"), cache.groups("train", near=True)
    y = np.asarray(rows.y)
    halves = np.concatenate([unit(rows.image), unit(rows.text)], axis=1).astype(np.float32)
    values = PCA(150, random_state=0).fit_transform(StandardScaler().fit_transform(rows.X))
    values /= values.std()
    needed: dict[str, list[int]] = {name: [] for name in STRATEGIES}
    curves: dict[str, list[list[float]]] = {name: [] for name in STRATEGIES}
    for seed in range(arguments.seeds):
        pool, held = next(iter(StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(values, y, groups)))
        pool = np.random.default_rng(seed).permutation(pool)

        def fitted(part: np.ndarray) -> LogisticRegression:
            return LogisticRegression(C=0.01, max_iter=200).fit(values[part], y[part])

        def score(model: LogisticRegression, held: np.ndarray = held) -> float:
            return float(f1_score(y[held], model.predict(values[held]), average="weighted", zero_division=0))

        full = score(fitted(pool))
        for name, choose in STRATEGIES.items():
            part, reached = pool[:100], []
            for k, size in enumerate(STEPS):
                model = fitted(part)
                reached.append(score(model))
                if k + 1 < len(STEPS):
                    rest = np.setdiff1d(pool, part)
                    chosen = choose(model.predict_proba(values[rest]), halves[rest], STEPS[k + 1] - size, seed)
                    part = np.concatenate([part, rest[chosen]])
            need = next((n for n, one in zip(STEPS, reached, strict=True) if one >= full - NEAR), len(pool))
            needed[name].append(need)
            curves[name].append(reached)
        print(f"seed {seed}: all {full:.4f}; {', '.join(f'{n} {v[-1]}' for n, v in needed.items())}", flush=True)
    print(f"\n| order | labels needed | fewer than at random | {' | '.join(f'F1 at {n:,}' for n in SHOWN)} |")
    print("|---" * (3 + len(SHOWN)) + "|")
    first = np.array(needed["at random"])
    for name, values_ in needed.items():
        found, fewer = np.array(values_), first - np.array(values_)
        gain = f"{fewer.mean():+.0f} ± {fewer.std(ddof=1) / np.sqrt(len(fewer)):.0f}" if fewer.any() else ""
        mean = np.mean(curves[name], axis=0)
        cells = [f"{mean[STEPS.index(n)]:.3f}" for n in SHOWN]
        print(f"| {name} | {found.mean():,.0f} ± {found.std(ddof=1):.0f} | {gain} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
