"""What recipes and encoders give, by grouped cross-validation on the training rows alone.

    python scripts/compare_accuracy.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 cache/mvsa-single.offline-plus.*.h5

Every cache holds the same posts; folds are cut once, by the first one, with near-duplicates together, so that all
candidates are scored on the same rows. In each fold the heads of a candidate are fitted on the other rows as
`mmsent fit` fits them, with validation splits of their own inside, and label the fold together. Prints a row a
candidate as it is done: mean weighted and macro F1 over the folds of all seeds with their standard errors, and the
difference in weighted F1 to the first row with its standard error.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsent.config import COMMITTEES, VOTING_FUSIONS, Fusion, Group, SplitSettings, fit_settings, near_cosine
from mmsent.features.cache import Cache, Features
from mmsent.inference.near_duplicates import compared, labelled_rows, posterior, twin_shares, twin_table
from mmsent.inference.tally import Way, default_tie, tally
from mmsent.inference.tuned import blocks_from
from mmsent.metrics import scores
from mmsent.system.tables import columns
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.folds import FoldPlan, plan_folds
from mmsent.training.sides import ids_at, rows_at, tuned
from mmsent.training.splits import validation_split
from mmsent.training.train import evaluate_head, train_head


@dataclass(frozen=True)
class Candidate:
    """Heads to fit: a recipe with changes, these fusions, on so many validation splits."""

    recipe: str
    splits: int = 1
    fusions: tuple[Fusion, ...] = VOTING_FUSIONS
    changes: dict[str, Any] = field(default_factory=dict)


CANDIDATES = {
    "paper": Candidate("paper"),
    "offline": Candidate("offline"),
    "best": Candidate("best", COMMITTEES["best"].splits, COMMITTEES["best"].fusions),
    "best, concat alone": Candidate("best", COMMITTEES["best"].splits, (Fusion.concat,)),
    "best, no class weights": Candidate("best", changes={"class_weight_power": 0.0}),
    "best, class weights 0.6": Candidate("best", changes={"class_weight_power": 0.6}),
    "best, modality dropout 0.2": Candidate("best", changes={"modality_dropout": 0.2}),
    "best, standardised": Candidate("best", changes={"standardize": True, "lr": 1e-4}),
    "best, label smoothing 0.2": Candidate("best", changes={"label_smoothing": 0.2}),
    "best, clean view": Candidate("best", changes={"views": False}),
    # Heads that tune blocks take minutes each: name them with --only.
    "tuned": Candidate("tuned", COMMITTEES["tuned"].splits, COMMITTEES["tuned"].fusions),
    "tuned, two splits": Candidate("tuned", 2, COMMITTEES["tuned"].fusions),
    **{f"tuned, {fusion} alone": Candidate("tuned", 1, (fusion,)) for fusion in VOTING_FUSIONS},
    "tuned, one block": Candidate("tuned", 1, (Fusion.concat,), {"tune": "text:1"}),
    "tuned, three blocks": Candidate("tuned", 1, (Fusion.concat,), {"tune": "text:3"}),
    "tuned, 2e-4": Candidate("tuned", 1, (Fusion.concat,), {"tune_lr": 2e-4}),
    "tuned, 5e-5": Candidate("tuned", 1, (Fusion.concat,), {"tune_lr": 5e-5}),
    "tuned, low rank": Candidate("tuned", 1, (Fusion.concat,), {"lora": 16}),
    "tuned, three epochs": Candidate("tuned", 1, (Fusion.concat,), {"epochs": 3}),
}


def probabilities(plan: FoldPlan, features: Features, cache: Cache, one: Candidate, seed: int) -> np.ndarray:
    """Out-of-fold probabilities (R, N, C) of the candidate's R heads; split by split, in each its fusions."""
    found = np.zeros((one.splits * len(one.fusions), len(plan.rows), len(cache.labels)))
    labels, blocks = plan.index.labels, blocks_from(cache)
    for number in range(plan.folds):
        held = plan.fold == number
        rest = plan.rows[~held]
        groups = plan.groups[~held] if plan.groups is not None else None
        for k in range(one.splits):
            split = plan.split.model_copy(update={"seed": plan.split.seed + k})
            inner = validation_split(ids_at(plan.index, rest), labels[rest], groups, split)
            parts = [
                (rows_at(cache, features.index, features, rows, "cpu", None, clean=clean), rows)
                for rows, clean in ((rest[~inner], False), (rest[inner], True), (plan.rows[held], True))
            ]
            for f, fusion in enumerate(one.fusions):
                settings = fit_settings(one.recipe, fusion=fusion, seed=seed + k, **one.changes)
                train, val, out = tuned(cache, settings.tune, parts, blocks)
                trained = train_head(train, val, settings, len(cache.labels))
                if settings.tune:
                    reached = [round(epoch["val_f1_weighted"], 4) for epoch in trained.history]
                    print(f"  fold {number}, split {k}, {fusion}: {reached}, {trained.seconds:.0f} s", flush=True)
                heat = fit_temperature(trained.val_logits, labels[rest[inner]])
                logits = evaluate_head(trained.head, out)[0].numpy()
                found[k * len(one.fusions) + f, held] = apply_temperature(logits, heat)
    return found


def ways(found: np.ndarray, one: Candidate, tie: int | None, plan: FoldPlan) -> dict[str, np.ndarray]:
    """The labels (N,) that the candidate's heads give together, by how they are put together; where folds part
    duplicates, also with the labels of those in the other folds."""
    first = found[: len(one.fusions)]
    out = {"counted": tally(first, Way(tie)).labels, "averaged": tally(first, Way(soft=True)).labels}
    if len(found) > len(first):
        out |= {
            "committee, counted": tally(found, Way(tie)).labels,
            "committee, averaged": tally(found, Way(soft=True)).labels,
        }
    if plan.groups is None:
        out["averaged, twins"] = with_twins(tally(found, Way()).probabilities, plan).argmax(axis=1)
    return out


def with_twins(mean: np.ndarray, plan: FoldPlan) -> np.ndarray:
    """Probabilities (N, C) of each fold after what near-duplicates in the other folds say."""
    features, classes = plan.features, mean.shape[1]
    assert features is not None
    bounds = [near_cosine(plan.cache.encoder, name) for name in ("near_image", "near_text")]
    out = mean.copy()
    for k in range(plan.folds):
        held = plan.fold == k
        known = labelled_rows(features, plan.rows[~held], *bounds)
        rows = plan.rows[held]
        image, text = compared(features)
        shares = twin_shares(known, image[rows], text[rows], classes)
        out[held] = posterior(mean[held], shares, twin_table(known, classes))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, nargs="+", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="each seed cuts other folds and starts other heads")
    parser.add_argument("--group", type=Group, default=Group.near, help="none: plain folds, which part duplicates")
    parser.add_argument("--only", nargs="*", help="candidates: a name, for all caches, or ENCODERS/name")
    parser.add_argument("--together", nargs="*", help="candidates: also the mean of what these say, one per cache")
    parser.add_argument("--save", type=Path, help="write the out-of-fold probabilities into this folder (npz)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    caches = [Cache.open(path) for path in arguments.cache]
    loaded = [cache.load("train") for cache in caches]
    if any(features.index.ids != loaded[0].index.ids for features in loaded):
        parser.error("the caches hold different posts, or in another order")
    table = [["encoders", "candidate", "vote", "weighted F1", "macro F1", "to the first"]]
    baseline: np.ndarray | None = None
    means: dict[int, list[np.ndarray]] = {}  # by seed, of the candidate that votes together: (N, C) per cache
    for cache, features in zip(caches, loaded, strict=True):
        for wanted in arguments.only or [name for name, one in CANDIDATES.items() if one.recipe != "tuned"]:
            encoders, _, name = wanted.rpartition("/")
            if encoders not in ("", cache.encoder):
                continue
            one = CANDIDATES[name]
            reached: dict[str, list[list[float]]] = {}
            for seed in range(arguments.seeds):
                split = SplitSettings(group=arguments.group, seed=seed)
                plan = plan_folds(caches[0], split, arguments.folds, features=loaded[0])
                found = probabilities(plan, features, cache, one, seed)
                if arguments.save:
                    arguments.save.mkdir(parents=True, exist_ok=True)
                    np.savez(arguments.save / f"{cache.encoder}-{name}-{seed}.npz".replace(" ", "-"), p=found)
                if wanted in (arguments.together or ()):
                    means.setdefault(seed, []).append(found.mean(axis=0))
                for way, said in ways(found, one, default_tie(cache.labels), plan).items():
                    reached.setdefault(way, []).extend(fold_scores(plan, said))
            for way, values in reached.items():
                per_fold = np.array(values)
                baseline = per_fold if baseline is None else baseline
                gain = per_fold[:, 0] - baseline[:, 0]
                cells = [_mean(per_fold[:, 0]), _mean(per_fold[:, 1]), _mean(gain, signed=True) if gain.any() else "–"]
                table.append([cache.encoder, name, way, *cells])
                print("  ".join(table[-1]), flush=True)
    if arguments.together:
        values = []
        for seed, each in means.items():
            plan = plan_folds(
                caches[0], SplitSettings(group=arguments.group, seed=seed), arguments.folds, features=loaded[0]
            )
            values += fold_scores(plan, np.mean(each, axis=0).argmax(axis=1))
        per_fold = np.array(values)
        gain = per_fold[:, 0] - (per_fold if baseline is None else baseline)[:, 0]
        cells = [_mean(per_fold[:, 0]), _mean(per_fold[:, 1]), _mean(gain, signed=True)]
        table.append(["together", " + ".join(arguments.together), "averaged", *cells])
    print("\n" + columns(table))


def fold_scores(plan: FoldPlan, said: np.ndarray) -> list[list[float]]:
    """Weighted and macro F1 of each fold. said: (N,) labels."""
    found = []
    for k in range(plan.folds):
        rows = plan.fold == k
        s = scores(plan.labels[rows], said[rows], len(plan.cache.labels))
        found.append([s["f1_weighted"], s["f1_macro"]])
    return found


def _mean(values: np.ndarray, *, signed: bool = False) -> str:
    return f"{values.mean():{'+' if signed else ''}.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


if __name__ == "__main__":
    main()
