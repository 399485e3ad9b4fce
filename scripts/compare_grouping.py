"""How much a leaking split flatters: cross-validation with plain folds beside folds that keep duplicates together.

    python scripts/compare_grouping.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --seeds 5

Prints one row a grouping: weighted F1 of all folds (mean and standard deviation over folds and seeds), the difference
to the near-grouped folds with its standard error over the seeds, and the accuracy on rows that have a duplicate, exact
or near, beside that on all other rows. Reads training rows only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mmsent.config import Fusion, Group, SplitSettings, fit_settings, recipe_for
from mmsent.evaluation.cross_validation import cross_validate
from mmsent.features.cache import Cache
from mmsent.features.cache.groups import row_groups, with_thresholds
from mmsent.system.tables import columns
from mmsent.training.folds import plan_folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--fusion", type=Fusion, default=Fusion.concat)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5, help="each seed cuts other folds and starts other heads")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    recipe = recipe_for(cache.encoder)
    ways = (Group.near, Group.exact, Group.none)
    per_fold: dict[Group, list[list[float]]] = {way: [] for way in ways}  # a list of folds for each seed
    hits: dict[Group, list[np.ndarray]] = {way: [] for way in ways}
    twins = None
    for seed in range(arguments.seeds):
        settings = fit_settings(recipe, fusion=arguments.fusion, seed=seed)
        for way in ways:
            split = with_thresholds(SplitSettings(group=way, seed=seed), cache.encoder)
            plan = plan_folds(cache, split, arguments.folds, features=features)
            if twins is None and plan.groups is not None:
                groups = row_groups(plan.index, plan.rows, split, features)
                twins = np.bincount(groups)[groups] > 1
                print(f"{int(twins.sum())} of {len(twins)} rows have a duplicate", flush=True)
            done = cross_validate(plan, settings)
            per_fold[way].append([head.scores["f1_weighted"] for head in done.heads])
            hits[way].append(done.probabilities.argmax(axis=1) == plan.labels)
            mean = float(np.mean(per_fold[way][-1]))
            print(f"seed {seed}, {way}: weighted F1 {mean:.4f}, {done.seconds:.0f} s", flush=True)
    assert twins is not None
    rows = [["folds", "weighted F1", "to near", "accuracy, rows with duplicates", "difference", "other rows"]]
    base = np.array(per_fold[Group.near]).mean(axis=1)
    base_twins = np.array([hit[twins].mean() for hit in hits[Group.near]])
    for way in ways:
        found = np.array(per_fold[way])
        with_twins = np.array([hit[twins].mean() for hit in hits[way]])
        others = np.mean([hit[~twins].mean() for hit in hits[way]])
        spread = f"{found.mean():.4f} ± {found.std(ddof=1):.4f}"
        cells = [_gain(found.mean(axis=1), base), f"{with_twins.mean():.4f}", _gain(with_twins, base_twins)]
        rows.append([{"none": "plain"}.get(way, f"{way} groups"), spread, *cells, f"{others:.4f}"])
    print("\n" + columns(rows))


def _gain(values: np.ndarray, base: np.ndarray) -> str:
    """The mean difference over the seeds with its standard error."""
    gain = values - base
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return f"{gain.mean():+.4f} ± {error:.4f}" if gain.any() else "–"


if __name__ == "__main__":
    main()
