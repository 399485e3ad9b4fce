"""Compare training settings on one cache: mean validation weighted F1 over several grouped splits, same splits for all.

    python scripts/compare_recipes.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --splits 5

Prints one row a setting: each voting head, their majority vote, the difference of the vote to the first row's with its
standard error over the splits, and the mean best epoch. Reads training rows only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsent.config import VOTING_FUSIONS, SplitSettings, fit_settings, settings
from mmsent.features.cache import Cache
from mmsent.inference.tally import Way, default_tie, tally
from mmsent.metrics import scores
from mmsent.system.tables import columns
from mmsent.training.calibration import softmax
from mmsent.training.loaders import to_tensors
from mmsent.training.sides import split_rows
from mmsent.training.train import train_head

LONG: dict[str, Any] = {"epochs": 20, "patience": 5}
CANDIDATES: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper, longer": LONG,
    "paper, lr 5e-4": {"lr": 5e-4},
    "standardize, lr 1e-3": {"standardize": True, "lr": 1e-3},
    "standardize, lr 5e-4": {"standardize": True, "lr": 5e-4},
    "standardize, lr 3e-4, longer": {"standardize": True, "lr": 3e-4, **LONG},
    "rms, lr 1e-4, longer": {"rms": True, **LONG},
    "offline": {"rms": True, "lr": 2e-4, **LONG},
    "rms, lr 5e-4": {"rms": True, "lr": 5e-4},
    "rms + standardize, lr 1e-4, longer": {"rms": True, "standardize": True, **LONG},
    "offline, precision fp32": {"rms": True, "lr": 2e-4, **LONG, "precision": "fp32"},
    "offline, precision bf16": {"rms": True, "lr": 2e-4, **LONG, "precision": "bf16"},
    **{
        f"offline, {name.replace('_', ' ')} {value}": {"rms": True, "lr": 2e-4, **LONG, name: value}
        for name, value in {
            "views": False,
            "class_weight_power": 0.0,
            "modality_dropout": 0.2,
            "weight_decay": 0.3,
            "common_width": 256,
            "dropout": 0.7,
            "hidden": 512,
            "batch_size": 32,
            "label_smoothing": 0.2,
        }.items()
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--no-group", action="store_true", help="plain stratified splits, which leak duplicates")
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    classes, tie = len(cache.labels), default_tie(cache.labels)
    names = arguments.only or list(CANDIDATES)
    rows = [["setting", *VOTING_FUSIONS, "vote", "to the first", "epoch"]]
    baseline: np.ndarray | None = None
    for name in names:
        found = []
        for seed in range(arguments.splits):
            cut = split_rows(features.index, settings(SplitSettings, seed=seed, group=not arguments.no_group))
            sides = [
                to_tensors(features.image[part], features.text[part], features.index.labels[part], "cpu")
                for part in (cut.train, cut.val)
            ]
            truth = features.index.labels[cut.val]
            heads = [
                train_head(*sides, fit_settings("paper", fusion=fusion, seed=seed, **CANDIDATES[name]), classes)
                for fusion in VOTING_FUSIONS
            ]
            probabilities = np.stack([softmax(h.val_logits) for h in heads])
            votes = [p.argmax(axis=1) for p in probabilities] + [tally(probabilities, Way(tie)).labels]
            found.append(
                [scores(truth, v, classes)["f1_weighted"] for v in votes] + [np.mean([h.best_epoch for h in heads])]
            )
        table = np.array(found)
        baseline = table[:, 3] if baseline is None else baseline
        gain = table[:, 3] - baseline
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
        means = table.mean(axis=0)
        shown = [f"{m:.4f}" for m in means[:4]]
        rows.append([name, *shown, f"{gain.mean():+.4f} ± {error:.4f}", f"{means[4]:.1f}"])
        print(columns([rows[0], rows[-1]]), flush=True)
    print("\n" + columns(rows))


if __name__ == "__main__":
    main()
