"""Posts that lack a half: what training on them is worth, by grouped cross-validation.

    python scripts/compare_missing.py cache/mvsa-single.offline.1234abcd.h5

Takes the image away from a share of the training posts and the text from as many others, at random, and cross-validates
a head that trains on all of them, with the modality dropout that `mmsent fit` then switches on, beside one that trains
on the posts with both halves alone and gives all others the commonest label. Writes weighted F1 for each kind of post,
mean ± standard error over the folds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmsent.config import HALF_DROPOUT, FitSettings, Fusion, Group, SplitSettings, fit_settings
from mmsent.evaluation.cross_validation import cross_validate
from mmsent.features.cache import IMAGE_BAD, TEXT_BAD, Cache
from mmsent.metrics import scores
from mmsent.training.folds import FoldPlan, plan_folds
from mmsent.training.halves import KINDS, LACKS
from mmsent.training.recipes import recipe_of


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--fusion", type=Fusion, default=Fusion.concat, help="of the heads")
    parser.add_argument("--share", type=float, default=0.3, help="of the posts that lose their image, and their text")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the posts that lose a half")
    arguments = parser.parse_args()
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    index = features.index
    order = np.random.default_rng(arguments.seed).permutation(len(index))
    cut = round(arguments.share * len(index))
    outcome = index.outcome.copy()
    outcome[order[:cut]] |= IMAGE_BAD
    outcome[order[cut : 2 * cut]] |= TEXT_BAD
    features = replace(features, index=replace(index, outcome=outcome))
    split = SplitSettings(group=Group.near)
    plan = plan_folds(cache, split, arguments.folds, features=features, lacking=tuple(LACKS))
    counts = [int((outcome[plan.rows] == bits).sum()) for bits in KINDS]
    print(
        f"| trained on | {' | '.join(f'{kind} ({n})' for kind, n in zip(KINDS.values(), counts, strict=True))} | all |"
    )
    print("|---" * (len(KINDS) + 2) + "|")
    recipe, _ = recipe_of(cache, "auto")
    for name, dropout in ((f"all, modality dropout {HALF_DROPOUT:g}", HALF_DROPOUT), ("both halves alone", 0.0)):
        settings = fit_settings(recipe, fusion=arguments.fusion, modality_dropout=dropout)
        print(f"| {name} | {' | '.join(by_kind(plan, settings))} |", flush=True)


def by_kind(plan: FoldPlan, settings: FitSettings) -> list[str]:
    """Weighted F1 of each kind of post and of all, mean ± standard error over the folds. Posts that the head cannot
    label get the commonest label."""
    done = cross_validate(plan, settings)
    classes = len(plan.cache.labels)
    predicted = np.full(len(plan.rows), np.bincount(plan.labels, minlength=classes).argmax())
    predicted[np.isin(plan.rows, done.plan.rows)] = done.probabilities.argmax(axis=1)
    outcome, cells = plan.index.outcome[plan.rows], []
    for here in (*(outcome == bits for bits in KINDS), np.ones(len(outcome), np.bool_)):
        held = [here & (plan.fold == number) for number in range(plan.folds)]
        reached = [scores(plan.labels[one], predicted[one], classes)["f1_weighted"] for one in held]
        cells.append(f"{np.mean(reached):.3f} ± {np.std(reached, ddof=1) / len(reached) ** 0.5:.3f}")
    return cells


if __name__ == "__main__":
    main()
