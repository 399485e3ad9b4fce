"""How well the audit finds wrong labels: flip some at random, cross-validate, and count the flips among the top.

    python scripts/audit_flips.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --share 0.05 --seeds 5

For each seed a share of the training labels is flipped to another label at random, in memory alone. Then heads are
cross-validated on near-grouped folds with the encoder pair's recipe, and rows are ranked by cleanlab's label quality.
Prints, for each head and for their mean and by each of cleanlab's scores, the precision: the share
of flips among as many rows at the top as were flipped; then how many rows the audit marks, with their precision beside
its own estimate, and the share of the flips that they are. The labels that were wrong before count against it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmsent.config import VOTING_FUSIONS, Fusion, Group, SplitSettings, fit_settings, recipe_for
from mmsent.evaluation.audit import audit_labels, label_quality
from mmsent.evaluation.cross_validation import cross_validate
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.inference.tally import Way, tally
from mmsent.system.tables import columns
from mmsent.training.folds import plan_folds

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def flipped(
    labels: np.ndarray, usable: np.ndarray, share: float, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) with a share of the usable rows' changed to another at random, and which rows those are (N,)."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.flatnonzero(usable), round(share * int(usable.sum())), replace=False)
    out, changed = labels.copy(), np.zeros(len(labels), bool)
    out[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    changed[rows] = True
    return out, changed


def deviation(values: Sequence[float]) -> float:
    """The standard deviation over seeds; 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", type=Fusion, nargs="+", default=list(VOTING_FUSIONS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    index, classes = features.index, len(cache.labels)
    usable = index.good & (index.labels != NO_LABEL)
    found: dict[tuple[str, str], list[float]] = {}
    flagged: dict[str, list[tuple[int, float, float, float]]] = {}
    for seed in range(arguments.seeds):
        labels, changed = flipped(index.labels, usable, arguments.share, classes, seed)
        spoilt = replace(features, index=replace(index, labels=labels))
        split = SplitSettings(group=Group.near, seed=seed)
        plan = plan_folds(cache, split, arguments.folds, features=spoilt)
        recipe = recipe_for(cache.encoder)
        each = {f: cross_validate(plan, fit_settings(recipe, fusion=f, seed=seed)) for f in arguments.heads}
        wrong = changed[plan.rows]
        sources = {fusion.value: done.probabilities for fusion, done in each.items()}
        if len(each) > 1:
            sources["mean of all"] = tally(
                np.stack([done.probabilities for done in each.values()]), Way()
            ).probabilities
        for name, probabilities in sources.items():
            for method in METHODS:
                order = np.argsort(label_quality(plan.labels, probabilities, method), kind="stable")
                hits = float(wrong[order[: int(wrong.sum())]].mean())
                found.setdefault((name, method), []).append(hits)
            names = [str(i) for i in range(len(wrong))]
            audit = audit_labels(names, plan.labels, probabilities, list(cache.labels))
            marked = [int(one.id) for one in audit.suspects if one.likely_wrong]
            both = float(wrong[marked].sum())
            said = audit.suspects[len(marked) - 1].precision if marked else 0.0
            flagged.setdefault(name, []).append((len(marked), both / max(1, len(marked)), said, both / wrong.sum()))
        shown = ", ".join(f"{name} {method} {values[-1]:.3f}" for (name, method), values in found.items())
        flags = ", ".join(
            f"{name} {n[-1][0]} ({n[-1][1]:.3f}, {n[-1][2]:.3f}, {n[-1][3]:.3f})" for name, n in flagged.items()
        )
        print(
            f"seed {seed}, {int(wrong.sum())} flips: {shown}; marked (precision, estimate, recall): {flags}", flush=True
        )
    rows = [["probabilities", "score", "precision at the top", "sd over the seeds"]]
    for (name, method), values in found.items():
        rows.append([name, method, f"{np.mean(values):.3f}", f"{deviation(values):.3f}"])
    print("\n" + columns(rows, right=(2, 3)))
    rows = [["probabilities", "marked", "precision", "as estimated", "recall"]]
    for name, figures in flagged.items():
        marks, *shares = zip(*figures, strict=True)
        cells = [f"{np.mean(values):.3f} ± {deviation(values):.3f}" for values in shares]
        rows.append([name, f"{np.mean(marks):.1f} ± {deviation(marks):.1f}", *cells])
    print("\n" + columns(rows, right=(1, 2, 3, 4)))
    print("\nmean ± standard deviation over the seeds")
    print(f"by chance the precision would be {arguments.share:.3f}")


if __name__ == "__main__":
    main()
