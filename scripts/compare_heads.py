"""The six heads and their vote by grouped cross-validation, over several seeds.

    python scripts/compare_heads.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --seeds 5

Each seed cuts other folds, with near-duplicates together, and starts other heads. In each fold every head is fitted on
the other rows as `mmsent fit` fits it, with a validation split of its own inside, and labels the fold; concat, weighted
and attention vote. A seed's score is the mean over its folds. Prints a row per head: mean and standard deviation over
the seeds, and the standard deviation over all folds. Reads training rows only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from compare_accuracy import Candidate, probabilities

from mmsent.config import VOTING_FUSIONS, Fusion, Group, SplitSettings
from mmsent.features.cache import Cache
from mmsent.inference.tally import Way, default_tie, tally
from mmsent.metrics import scores
from mmsent.training.folds import plan_folds

MEASURES = ("accuracy", "f1_weighted", "f1_macro")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--recipe", default="offline")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    fusions = tuple(Fusion)
    voting = [fusions.index(fusion) for fusion in VOTING_FUSIONS]
    reached: dict[str, list[list[list[float]]]] = {}  # by head: seeds, folds, measures
    for seed in range(arguments.seeds):
        plan = plan_folds(cache, SplitSettings(group=Group.near, seed=seed), arguments.folds, features=features)
        found = probabilities(plan, features, cache, Candidate(arguments.recipe, fusions=fusions), seed)
        said = {fusion.value: found[f].argmax(axis=1) for f, fusion in enumerate(fusions)}
        said["vote of three"] = tally(found[voting], Way(default_tie(cache.labels))).labels
        for name, labels in said.items():
            folds = [plan.fold == k for k in range(plan.folds)]
            per_fold = [scores(plan.labels[rows], labels[rows], len(cache.labels)) for rows in folds]
            reached.setdefault(name, []).append([[one[measure] for measure in MEASURES] for one in per_fold])
        print(
            f"seed {seed}: {', '.join(f'{n} {np.mean(v[-1], axis=0)[1]:.4f}' for n, v in reached.items())}", flush=True
        )
    print("\n| head | accuracy | weighted F1 | macro F1 | weighted F1, deviation over folds |\n|---|---|---|---|---|")
    for name, values in reached.items():
        table = np.array(values)
        means = table.mean(axis=1)
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(means.mean(axis=0), means.std(axis=0, ddof=1), strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {table[..., 1].std(ddof=1):.3f} |")


if __name__ == "__main__":
    main()
