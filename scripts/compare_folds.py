"""Compare mmsent's folds with scikit-learn's StratifiedGroupKFold: how even they are, and how long they take.

    python scripts/compare_folds.py --cache cache/mvsa-single.offline.XXXXXXXX.h5

Near-duplicates are grouped. Both see the rows in the order of their groups' hashes, so that neither depends on the
order of the list. Columns: the largest differences between two folds in rows, and in rows of a class, over all plans.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from bench_common import table
from sklearn.model_selection import StratifiedGroupKFold

from mmsent.config import Group, SplitSettings
from mmsent.features.cache import Cache
from mmsent.features.cache.groups import row_groups, with_thresholds
from mmsent.training.folds import Ints, fold_numbers
from mmsent.training.sides import ids_at, usable_rows
from mmsent.training.splits import hashed_order, smallest_ids


def scikit_learn(ids: list[str], labels: Ints, groups: Ints, folds: int, seed: int) -> Ints:
    """The same call by StratifiedGroupKFold."""
    part = np.unique(groups, return_inverse=True)[1]
    rank = np.argsort(hashed_order(ids, smallest_ids(ids, part), seed))[part]
    rows = np.argsort(rank, kind="stable")
    fold = np.empty(len(rows), np.int64)
    for number, (_, held) in enumerate(StratifiedGroupKFold(folds).split(rows, labels[rows], rank[rows])):
        fold[rows[held]] = number
    return fold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    cache = Cache.open(given.cache)
    features = cache.load("train")
    rows = usable_rows(features.index)
    groups = row_groups(features.index, rows, with_thresholds(SplitSettings(group=Group.near), cache.encoder), features)
    assert groups is not None
    ids, labels = list(ids_at(features.index, rows)), features.index.labels[rows]
    print(f"{len(rows)} rows in {len(np.unique(groups))} groups, 5 and 10 folds, {given.seeds} seeds each")
    shown = [["", "rows", "rows of a class", "CPU seconds per plan"]]
    for name, maker in (("mmsent", fold_numbers), ("StratifiedGroupKFold", scikit_learn)):
        gaps, seconds = [], 0.0
        for folds in (5, 10):
            for seed in range(given.seeds):
                started = time.process_time()
                fold = maker(ids, labels, groups, folds, seed)
                seconds += time.process_time() - started
                counts = np.stack([np.bincount(fold[labels == c], minlength=folds) for c in np.unique(labels)])
                gaps.append((np.ptp(counts.sum(axis=0)), np.ptp(counts, axis=1).max()))
        largest = np.max(gaps, axis=0)
        shown.append([name, str(largest[0]), str(largest[1]), f"{seconds / len(gaps):.4f}"])
    print(table(shown))


if __name__ == "__main__":
    main()
