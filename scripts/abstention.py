"""Whether `--abstain` keeps its promise: the share of wrong answers among those given, over many random splits.

    python scripts/abstention.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --keep splits.npz --figure abstention.png

Each split holds out a fifth of the labelled training rows, with near-duplicates on one side, and cuts 500 rows to
validate on from the rest. Concat, weighted and attention are fitted as `mmsent fit` fits them; the validation rows
decide when they stop, give their temperatures and then the bound, as `mmsent vote --abstain` takes it; the fifth is
answered. Prints a row per level. --keep: what the heads say of each split, so that a second call fits nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from mmsent.config import VOTING_FUSIONS, Group, SplitSettings, fit_settings
from mmsent.features.cache import Cache
from mmsent.features.cache.groups import row_groups, with_thresholds
from mmsent.inference.abstain import Abstention, confidence_of
from mmsent.inference.held_out import HeldOut
from mmsent.inference.tally import Way, tally
from mmsent.report.figures.style import INK, SKY, in_style, new_figure, png_bytes
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.sides import ids_at, rows_at, usable_rows
from mmsent.training.splits import validation_split
from mmsent.training.train import evaluate_head, train_head

HEADER = (
    *("promised", "labelled (%)", "wrong among them (%)", "by what was expected (%)", "splits above"),
    *("within the binomial interval", "right label in the set (%)", "labels per set"),
)
Split = dict[str, Any]  # truth (n,) and probabilities (R, n, C) of the validation rows and of those held out


def fitted(cache: Cache, seed: int, recipe: str) -> Split:
    """The heads of one split: their probabilities on the rows that they did not train on."""
    features = cache.load("train")
    index = features.index
    rows = usable_rows(index)
    near = with_thresholds(SplitSettings(group=Group.near, seed=seed, val_size=0.2), cache.encoder)
    groups = row_groups(index, rows, near, features)
    assert groups is not None
    held = validation_split(ids_at(index, rows), index.labels[rows], groups, near)
    rest, test = rows[~held], rows[held]
    inner = validation_split(
        ids_at(index, rest), index.labels[rest], groups[~held], near.model_copy(update={"val_size": 500})
    )
    train, val = rest[~inner], rest[inner]
    parts = [rows_at(cache, index, features, part, "cpu", None, clean=part is not train) for part in (train, val, test)]
    said: dict[str, list[np.ndarray]] = {"val": [], "test": []}
    for fusion in VOTING_FUSIONS:
        trained = train_head(parts[0], parts[1], fit_settings(recipe, fusion=fusion, seed=seed), len(cache.labels))
        heat = fit_temperature(trained.val_logits, index.labels[val])
        said["val"].append(apply_temperature(trained.val_logits, heat))
        said["test"].append(apply_temperature(evaluate_head(trained.head, parts[2])[0].numpy(), heat))
    return {
        "val": np.stack(said["val"]),
        "test": np.stack(said["test"]),
        "val_truth": index.labels[val],
        "test_truth": index.labels[test],
    }


def splits(cache: Path, count: int, recipe: str, keep: Path | None) -> list[Split]:
    """All splits: those kept, and the others fitted now."""
    kept: dict[str, Any] = dict(np.load(keep)) if keep is not None and keep.exists() else {}
    out: list[Split] = []
    opened = Cache.open(cache)
    for seed in range(count):
        if f"{seed} val" not in kept:
            kept |= {f"{seed} {name}": part for name, part in fitted(opened, seed, recipe).items()}
            print(f"split {seed} fitted", flush=True)
            if keep is not None:
                np.savez_compressed(keep, **kept)
        out.append({name: kept[f"{seed} {name}"] for name in ("val", "test", "val_truth", "test_truth")})
    return out


@dataclass(frozen=True)
class Outcome:
    """One split at one level: the new posts, those answered and answered wrongly; the same share of the validation
    posts; of sets, those that hold the right label, per class, and the labels in all of them."""

    posts: int
    answered: int
    wrong: int
    expected: float
    held: np.ndarray
    of_class: np.ndarray
    labels: int


def outcome(split: Split, labels: list[str], level: float) -> Outcome:
    """What becomes of the held-out posts of a split."""
    way = Way.of(labels, None, False)
    rows, truth, n = HeldOut(*_rows(split, "val")), split["test_truth"], len(split["test_truth"])
    voted = tally(split["test"], way)
    plain, sets = (Abstention.of(rows, labels, way, level, sets=wanted) for wanted in (False, True))
    answered = confidence_of(voted) >= plain.least
    wrong = answered & (voted.labels != truth)
    inside = voted.probabilities >= np.array(sets.bounds)
    inside[np.arange(n), voted.labels] = True
    right = inside[np.arange(n), truth]
    return Outcome(
        n,
        int(answered.sum()),
        int(wrong.sum()),
        (1 + plain.answered) / (1 + plain.rows),
        np.bincount(truth, right, len(labels)),
        np.bincount(truth, minlength=len(labels)),
        int(inside.sum()),
    )


def _rows(split: Split, name: str) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    truth, said = split[f"{name}_truth"], split[name]
    return list(map(str, range(len(truth)))), truth, said, np.ones(said.shape[:2], np.bool_)


def report(level: float, found: list[Outcome], labels: list[str]) -> str:
    """The row of a level."""
    shares = np.array([one.wrong / one.answered for one in found if one.answered])
    promised = np.mean([one.wrong / one.posts / one.expected for one in found])
    within = sum(one.wrong <= binom.ppf(0.975, one.answered, level) for one in found)
    above = int((shares > level).sum())
    answered = np.array([one.answered / one.posts for one in found])
    held, of_class = (np.array([getattr(one, name) for one in found]) for name in ("held", "of_class"))
    covered = held.sum(axis=1) / of_class.sum(axis=1)
    per_class = ", ".join(
        f"{name} {100 * share:.1f}" for name, share in zip(labels, held.sum(0) / of_class.sum(0), strict=True)
    )
    size = np.mean([one.labels / one.posts for one in found])
    cells = [
        f"{100 * level:g}%",
        f"{100 * answered.mean():.1f} ± {100 * answered.std(ddof=1):.1f}",
        f"{100 * shares.sum() / len(found):.1f} ± {100 * shares.std(ddof=1):.1f}" if len(shares) > 1 else "none",
        f"{100 * promised:.1f}",
        f"{above}",
        f"{within} of {len(found)}",
        f"{100 * covered.mean():.1f} ({per_class})",
        f"{size:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


@in_style
def figure(by_level: dict[float, list[Outcome]]) -> Figure:
    """Wrong among the answered by the promised level, a dot a split, and how many posts are answered."""
    fig = new_figure(8.4, 3.6)
    left, right = fig.subplots(1, 2)
    levels = np.array(list(by_level))
    for level, found in by_level.items():
        shares = [100 * one.wrong / one.answered for one in found if one.answered]
        spread = np.linspace(-0.5, 0.5, len(shares)) if shares else []
        left.plot(100 * level + np.array(spread), shares, ".", color=SKY, ms=4)
        answered = [100 * one.answered / one.posts for one in found]
        right.plot(100 * level + np.linspace(-0.5, 0.5, len(found)), answered, ".", color=SKY, ms=4)
    means = [np.mean([one.wrong / max(1, one.answered) for one in found]) for found in by_level.values()]
    left.plot(100 * levels, 100 * np.array(means), "o-", color=INK, label="mean of the splits")
    left.plot([0, 100 * levels.max()], [0, 100 * levels.max()], "--", color=INK, lw=0.9, label="promised")
    counts = [np.mean([one.answered / one.posts for one in found]) for found in by_level.values()]
    right.plot(100 * levels, 100 * np.array(counts), "o-", color=INK)
    left.set_ylabel("wrong among the labelled posts (%)")
    right.set_ylabel("labelled posts (% of all)")
    for ax in (left, right):
        ax.set_xlabel("--abstain (%)")
        ax.set_xlim(0, None)
        ax.set_ylim(0, None)
    left.legend(loc="upper left", fontsize=8)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.25])
    parser.add_argument("--recipe", default="offline")
    parser.add_argument("--keep", type=Path, help=".npz file of what the heads say")
    parser.add_argument("--figure", type=Path, help=".png file to draw")
    arguments = parser.parse_args()
    labels = list(Cache.open(arguments.cache).labels)
    all_splits = splits(arguments.cache, arguments.splits, arguments.recipe, arguments.keep)
    found = {level: [outcome(split, labels, level) for split in all_splits] for level in arguments.levels}
    print(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
    for level, outcomes in found.items():
        print(report(level, outcomes, labels), flush=True)
    if arguments.figure is not None:
        arguments.figure.write_bytes(png_bytes(figure(found), dpi=110))


if __name__ == "__main__":
    main()
