"""Cross-validation: every labelled row is predicted once, by a head that saw neither it nor any of its duplicates.

For each fold a head is trained on the other rows exactly as `mmsent fit` would: a validation split is cut from them (of
whole groups), which decides when to stop and gives the temperature, and only then is the fold predicted. So no row has
a part in its own probabilities. The heads are thrown away.

    <runs>/<time>-<fusion>-s<seed>-k<folds>/
      folds.json    settings, scores a fold with mean, deviation and standard error, scores over all rows, versions
      oof.csv       id, label, predicted, confidence, a probability per class, fold: the out-of-fold predictions

N rows, C classes, K folds.
"""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mmsent
from mmsent import spreadsheet
from mmsent.cache import Cache, Columns, Features, RowIndex
from mmsent.calibration import apply_temperature, fit_temperature
from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.errors import DataError, RunError, UsageError
from mmsent.fit import SplitRows, ids_at, require_classes, rows_at, usable_rows
from mmsent.grouping import row_groups, with_thresholds
from mmsent.metrics import (
    Labels,
    Probabilities,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    scores,
)
from mmsent.runs import cache_facts, predictions_csv, put_folder
from mmsent.split import hashed_order, smallest_ids, validation_split
from mmsent.train import evaluate_head, precision_for, train_head
from mmsent.vote import default_tie, majority

FORMAT_VERSION = 1
SUMMARY, PREDICTIONS = "folds.json", "oof.csv"
MEASURES = ("accuracy", "f1_weighted", "f1_macro")

Ints = NDArray[np.int64]


def fold_numbers(
    ids: Sequence[str] | NDArray[np.bytes_], labels: Labels, groups: Ints | None, folds: int, seed: int
) -> Ints:
    """The fold of each row, (N,) in 0..K-1: groups whole, classes spread evenly, the same for any order of the rows.

    ids: (N,) all different. labels: (N,) class numbers. groups: (N,), or None: every row on its own. Groups of several
    rows go first, the largest first and then by sha256(seed, smallest id), each to the fold where its classes are
    scarcest; single rows, in the order of that hash, then level each class out. Raises UsageError where there are fewer
    groups than folds or fewer than 2 folds.
    """
    n, classes = len(ids), int(labels.max()) + 1 if len(labels) else 0
    part = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    named = smallest_ids(ids, part) if n else np.zeros(0, np.int64)
    if folds < 2:
        raise UsageError(f"--folds {folds}: cross-validation needs at least 2")
    if len(named) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(named)} rows, or groups of duplicates; use fewer folds")
    if len(np.unique(ids) if isinstance(ids, np.ndarray) else set(ids)) != n:
        raise DataError("cannot cut folds: some ids stand twice; `mmsent check` names them")
    order = hashed_order(ids, named, seed)
    sizes = np.bincount(part)
    content = np.bincount(part * classes + labels, minlength=len(sizes) * classes).reshape(len(sizes), classes)
    totals = np.maximum(content.sum(axis=0), 1)
    have = np.zeros((folds, classes), np.int64)
    fold = np.zeros(len(sizes), np.int64)
    several = order[sizes[order] > 1]
    for group in several[np.argsort(-sizes[several], kind="stable")].tolist():
        # What the sum over classes of (share of the class in the fold) squared grows by.
        cost = ((2 * have + content[group]) * content[group] / totals.astype(np.float64) ** 2).sum(axis=1)
        best = np.lexsort((have.sum(axis=1), cost.round(12)))[0]
        fold[group] = best
        have[best] += content[group]
    single = order[sizes[order] == 1]
    of_class = labels[named[single]]
    for c in range(classes):
        rows = single[of_class == c]
        wanted = _levelled(have[:, c], len(rows), have.sum(axis=1))
        fold[rows] = np.repeat(np.arange(folds), wanted)
        have[:, c] += wanted
    return fold[part]


def _levelled(have: Ints, more: int, filled: Ints) -> Ints:
    """How to spread `more` rows over folds that have (K,) of them, as evenly as can be; what remains goes to the folds
    that are least filled (K,) in all."""
    low, high = int(have.min()), int(have.max()) + more
    while low < high:  # the highest level that these rows can fill everywhere
        middle = (low + high + 1) // 2
        if np.maximum(middle - have, 0).sum() <= more:
            low = middle
        else:
            high = middle - 1
    wanted = np.maximum(low - have, 0)
    open_folds = np.flatnonzero(have <= low)
    rest = open_folds[np.argsort((filled + wanted)[open_folds], kind="stable")][: more - int(wanted.sum())]
    wanted[rest] += 1
    return wanted


@dataclass(frozen=True)
class FoldPlan:
    """Which row is in which fold, ready for any number of heads. rows: (N,) positions of the good, labelled rows;
    fold: (N,); groups: (N,), or None."""

    cache: Cache
    split: SplitSettings
    folds: int
    index: RowIndex | Columns
    features: Features | None
    rows: Ints
    fold: Ints
    groups: Ints | None
    memory: int | None

    @property
    def labels(self) -> Labels:
        """(N,) label indices."""
        return self.index.labels[self.rows]

    @property
    def ids(self) -> list[str]:
        """(N,) ids."""
        found = ids_at(self.index, self.rows)
        return [name.decode() if isinstance(name, bytes) else name for name in found]

    def sides(self, number: int) -> SplitRows:
        """The rows outside fold `number` (from 0) in two sides, to train on and to stop on. Raises DataError where a
        class has no row left to train on."""
        held = self.fold == number
        rest = self.rows[~held]
        groups = self.groups[~held] if self.groups is not None else None
        inner = validation_split(ids_at(self.index, rest), self.index.labels[rest], groups, self.split)
        try:
            require_classes(self.cache, self.index, rest[~inner])
        except DataError as error:
            raise DataError(
                f"fold {number + 1} of {self.folds}: {error}; or use other --folds, or --group exact"
            ) from error
        return SplitRows(rest[~inner], rest[inner])


def plan_folds(
    cache: Cache, split: SplitSettings, folds: int, *, features: Features | None = None, memory: int | None = None
) -> FoldPlan:
    """Cut the good, labelled training rows of a cache into folds. split: what stays together, the seed, and the size of
    the validation split inside; features and memory as for mmsent.fit.fit."""
    split = with_thresholds(split, cache.encoder)
    stored = features is None and memory is not None and cache.rows["train"] * cache.row_bytes("train") > memory
    if not stored:
        features = features or cache.load("train")
    index: RowIndex | Columns = features.index if features is not None else cache.columns("train")
    rows = usable_rows(index)
    groups = row_groups(index, rows, split, features)
    fold = fold_numbers(ids_at(index, rows), index.labels[rows], groups, folds, split.seed)
    return FoldPlan(cache, split, folds, index, features, rows, fold, groups, memory)


@dataclass(frozen=True)
class FoldHead:
    """What became of one fold: scores on its rows, and the head's best epoch and temperature."""

    scores: dict[str, Any]
    train: int
    val: int
    best_epoch: int
    temperature: float


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """Out-of-fold predictions of one kind of head. probabilities (N, C): calibrated by a temperature from other rows;
    plain (N, C): at temperature 1."""

    plan: FoldPlan
    settings: FitSettings
    heads: list[FoldHead]
    probabilities: Probabilities
    plain: Probabilities
    seconds: float

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """Of each measure the mean over the folds, the standard deviation (n - 1) and the standard error."""
        return spread([head.scores for head in self.heads])

    @property
    def pooled(self) -> dict[str, Any]:
        """Scores over all rows at once: those of mmsent.metrics.scores, nll, brier, ece and ece_uncalibrated."""
        truth = self.plan.labels
        return {
            **scores(truth, self.probabilities.argmax(axis=1).astype(np.int64), self.probabilities.shape[1]),
            "nll": negative_log_likelihood(truth, self.probabilities),
            "brier": brier_score(truth, self.probabilities),
            "ece": expected_calibration_error(truth, self.probabilities),
            "ece_uncalibrated": expected_calibration_error(truth, self.plain),
        }


def spread(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and standard error of MEASURES over folds.

    The folds share most of their training rows, so the standard error is somewhat too small (Bengio and Grandvalet
    2004 show that no unbiased one exists).
    """
    out = {}
    for name in MEASURES:
        values = np.array([one[name] for one in found])
        deviation = float(values.std(ddof=1))
        out[name] = {"mean": float(values.mean()), "sd": deviation, "se": deviation / float(np.sqrt(len(values)))}
    return out


def cross_validate(
    plan: FoldPlan, settings: FitSettings, *, device: str = "cpu", on_fold: Callable[[FoldHead], None] | None = None
) -> CrossValidated:
    """Train a head a fold and predict the fold. Raises DataError where a class has no row left to train on."""
    started = time.monotonic()
    index, cache, classes = plan.index, plan.cache, len(plan.cache.labels)
    if settings.precision == "auto":  # the record says what it was trained in
        settings = settings.model_copy(update={"precision": precision_for(device)})
    labels = plan.labels
    probabilities, plain = np.zeros((len(plan.rows), classes)), np.zeros((len(plan.rows), classes))
    heads = []
    for number in range(plan.folds):
        held = plan.fold == number
        parts = plan.sides(number)
        train, val, out = (
            rows_at(cache, index, plan.features, rows, device, plan.memory, clean=clean)
            for rows, clean in ((parts.train, False), (parts.val, True), (plan.rows[held], True))
        )
        trained = train_head(train, val, settings, classes)
        heat = fit_temperature(trained.val_logits, index.labels[parts.val])
        logits = evaluate_head(trained.head, out)[0].cpu().numpy()
        probabilities[held], plain[held] = apply_temperature(logits, heat), apply_temperature(logits, 1.0)
        reached = scores(labels[held], logits.argmax(axis=1).astype(np.int64), classes)
        heads.append(FoldHead(reached, len(train), len(val), trained.best_epoch, heat))
        if on_fold:
            on_fold(heads[-1])
    return CrossValidated(plan, settings, heads, probabilities, plain, time.monotonic() - started)


def vote_spread(found: Sequence[CrossValidated]) -> dict[str, dict[str, float]]:
    """The scores of the majority vote of several heads on the same folds, as `spread` gives them."""
    plan = found[0].plan
    stacked = np.stack([one.probabilities for one in found])
    said = majority(stacked, default_tie(plan.cache.labels)).winners
    classes = stacked.shape[2]
    return spread([scores(plan.labels[plan.fold == k], said[plan.fold == k], classes) for k in range(plan.folds)])


# --- folders


@dataclass(frozen=True)
class Folds:
    """A finished cross-validation, read from its folder."""

    path: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def fusion(self) -> Fusion:
        """The heads' fusion."""
        return Fusion(self.info["fit"]["fusion"])

    @property
    def split(self) -> SplitSettings:
        """What stayed together, and the seed of the folds."""
        return SplitSettings.model_validate(self.info["split"])

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """See CrossValidated.summary."""
        found: dict[str, dict[str, float]] = self.info["summary"]
        return found

    def predictions(self) -> OutOfFold:
        """The out-of-fold predictions. Raises RunError where their file cannot be read."""
        path = self.path / PREDICTIONS
        labels = self.info["labels"]
        numbers = {name: i for i, name in enumerate(labels)}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            given = np.array([numbers[spreadsheet.plain(row["label"])] for row in rows], np.int64)
            shares = np.array([[float(row[f"p_{name}"]) for name in labels] for row in rows])
            fold = np.array([int(row["fold"]) for row in rows], np.int64)
            if len(rows) != self.info["rows"] or not np.isfinite(shares).all():
                raise ValueError(f"{len(rows)} rows where {self.info['rows']} were written")
            ids = [spreadsheet.plain(row["id"]) for row in rows]
            return OutOfFold(ids, given, shares / shares.sum(axis=1, keepdims=True), fold)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; run `mmsent fit --folds` again") from error


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions: ids (N,), given label indices (N,), probabilities (N, C) to six digits, fold (N,)."""

    ids: list[str]
    given: Labels
    probabilities: Probabilities
    fold: Ints


def open_folds(path: Path) -> Folds:
    """Read a cross-validation's folder. Raises RunError where it is none."""
    file = path / SUMMARY
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        if info["format_version"] > FORMAT_VERSION:
            raise RunError(f"{path} was written by a newer mmsent; upgrade to read it")
        needed = {"fit", "split", "folds", "labels", "cache", "summary", "rows", "finished"}
        if absent := sorted(needed - info.keys()):
            raise RunError(f"{file} lacks {', '.join(absent)}; run `mmsent fit --folds` again")
        return Folds(path, info)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is no cross-validation: it has no {SUMMARY}; `mmsent fit --folds 10` makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error


def list_folds(folder: Path, cache: Cache) -> list[Folds]:
    """The readable cross-validations of a cache in a folder, newest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or not (path / SUMMARY).is_file():
            continue
        try:
            one = open_folds(path)
        except RunError:
            continue  # named outright, it says what is wrong with it
        if one.info["cache"]["fingerprint"] == cache.fingerprint and one.info["cache"]["data_name"] == cache.data_name:
            found.append(one)
    return sorted(found, key=lambda one: (one.info["finished"], one.name), reverse=True)


def save_folds(folder: Path, done: CrossValidated, *, recipe: str, device: str = "cpu") -> Folds:
    """Write a cross-validation's folder whole, in one rename. Raises RunError where it cannot be written."""
    plan, finished = done.plan, datetime.now(UTC)
    info = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe,
        "fit": done.settings.model_dump(mode="json"),
        "split": plan.split.model_dump(mode="json"),
        "folds": plan.folds,
        "rows": len(plan.rows),
        "groups": len(np.unique(plan.groups)) if plan.groups is not None else len(plan.rows),
        "labels": list(plan.cache.labels),
        "cache": cache_facts(plan.cache),
        "summary": done.summary,
        "pooled": done.pooled,
        "heads": [
            {
                "scores": head.scores,
                "rows": {"train": head.train, "val": head.val},
                "best_epoch": head.best_epoch,
                "temperature": head.temperature,
            }
            for head in done.heads
        ],
        "seconds": round(done.seconds, 3),
        "finished": finished.isoformat(),
        "device": device,
        "versions": {
            "mmsent": mmsent.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy")},
        },
        "command": sys.argv,
    }
    names = plan.cache.labels
    table = predictions_csv(
        plan.ids, names, done.probabilities, [names[i] for i in plan.labels], extra={"fold": plan.fold.tolist()}
    )
    name = f"{finished:%Y%m%d-%H%M%S}-{done.settings.fusion.value}-s{done.settings.seed}-k{plan.folds}"

    def fill(building: Path) -> None:
        (building / PREDICTIONS).write_text(table, encoding="utf-8", newline="")
        text = json.dumps(info, indent=1, ensure_ascii=False)
        (building / SUMMARY).write_text(text, encoding="utf-8", errors="backslashreplace")

    try:
        return open_folds(put_folder(folder, name, fill))
    except OSError as error:
        raise RunError(f"cannot write a cross-validation in {folder}: {error.strerror or error}") from error
