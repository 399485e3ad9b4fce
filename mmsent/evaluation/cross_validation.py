"""Cross-validation: a head per fold, the scores of all folds, and the folder that keeps them."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.errors import RunError
from mmsent.features.cache import Cache
from mmsent.inference.tally import Way, default_tie, tally
from mmsent.metrics import (
    Labels,
    Probabilities,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    scores,
)
from mmsent.system import safe_csv
from mmsent.system.files import put_folder
from mmsent.system.provenance import command, versions
from mmsent.system.records import Record, RecordKind
from mmsent.training.calibration import apply_temperature, cross_fitted, fit_temperature
from mmsent.training.folds import PREDICTIONS, SUMMARY, FoldPlan, Ints
from mmsent.training.halves import lackable
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import cache_facts
from mmsent.training.sides import rows_at, tuned
from mmsent.training.train import evaluate_head, precision_for, train_head
from mmsent.training.tuning import BlocksOf

FORMAT_VERSION = 1
_KIND = RecordKind(
    file=SUMMARY,
    version=FORMAT_VERSION,
    needed=frozenset({"fit", "split", "folds", "labels", "cache", "summary", "rows", "finished"}),
    name="a cross-validation",
    made_by="`mmsent fit --folds 10` makes one",
    again="run `mmsent fit --folds 10` again",
)

MEASURES = ("accuracy", "f1_weighted", "f1_macro")


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
    plan: FoldPlan,
    settings: FitSettings,
    *,
    device: str = "cpu",
    blocks: BlocksOf | None = None,
    on_fold: Callable[[FoldHead], None] | None = None,
) -> CrossValidated:
    """Train one head per fold, on the rows of the plan that it can learn from, and predict that fold. blocks: as of
    mmsent.training.fit.Training. Raises DataError where a class has no row left to train on."""
    started = time.monotonic()
    plan = plan.of(lackable(settings))
    index, cache, classes = plan.index, plan.cache, len(plan.cache.labels)
    if settings.precision == "auto":  # the record says what it was trained in
        settings = settings.model_copy(update={"precision": precision_for(device, settings.tune)})
    labels = plan.labels
    probabilities, plain = np.zeros((len(plan.rows), classes)), np.zeros((len(plan.rows), classes))
    heads = []
    for number in range(plan.folds):
        held = plan.fold == number
        parts = plan.sides(number)
        three = ((parts.train, False), (parts.val, True), (plan.rows[held], True))
        given = [
            (rows_at(cache, index, plan.features, rows, device, plan.memory, clean=clean), rows)
            for rows, clean in three
        ]
        train, val, out = tuned(cache, settings.tune, given, blocks, plan.memory)
        trained = train_head(train, val, settings, classes)
        heat = fit_temperature(trained.val_logits, index.labels[parts.val])
        logits = evaluate_head(trained.head, out)[0].cpu().numpy()
        # Rows that are scored and gave the temperature too get theirs from one another.
        own = plan.published is not None and plan.published.scored == "val"
        probabilities[held] = cross_fitted(logits, labels[held]) if own else apply_temperature(logits, heat)
        plain[held] = apply_temperature(logits, 1.0)
        reached = scores(labels[held], logits.argmax(axis=1).astype(np.int64), classes)
        heads.append(FoldHead(reached, len(train), len(val), trained.best_epoch, heat))
        if on_fold:
            on_fold(heads[-1])
    return CrossValidated(plan, settings, heads, probabilities, plain, time.monotonic() - started)


def vote_spread(found: Sequence[CrossValidated]) -> dict[str, dict[str, float]]:
    """The scores of the majority vote of several heads on the same folds, as `spread` gives them."""
    plan = found[0].plan
    stacked = np.stack([one.probabilities for one in found])
    labels = tally(stacked, Way(default_tie(plan.cache.labels))).labels
    classes = stacked.shape[2]
    return spread([scores(plan.labels[plan.fold == k], labels[plan.fold == k], classes) for k in range(plan.folds)])


@dataclass(frozen=True)
class Folds(Record):
    """A finished cross-validation, read from its folder."""

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
            given = np.array([numbers[safe_csv.plain(row["label"])] for row in rows], np.int64)
            shares = np.array([[float(row[f"p_{name}"]) for name in labels] for row in rows])
            fold = np.array([int(row["fold"]) for row in rows], np.int64)
            if len(rows) != self.info["rows"] or not np.isfinite(shares).all():
                raise ValueError(f"{len(rows)} rows, but {self.info['rows']} were written")
            ids = [safe_csv.plain(row["id"]) for row in rows]
            return OutOfFold(ids, given, shares / shares.sum(axis=1, keepdims=True), fold)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; run `mmsent fit --folds 10` again") from error


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions: ids (N,), given label indices (N,), probabilities (N, C) to six digits, fold (N,)."""

    ids: list[str]
    given: Labels
    probabilities: Probabilities
    fold: Ints


def open_folds(path: Path) -> Folds:
    """Read a cross-validation's folder. Raises RunError where it is not one."""
    return Folds(path, _KIND.read(path))


def list_folds(folder: Path, cache: Cache) -> list[Folds]:
    """The readable cross-validations of a cache in a folder, newest first."""
    return _KIND.newest_first(folder, open_folds, cache.fingerprint, cache.data_name)


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
        **({"published": plan.published.to_json()} if plan.published else {}),
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
        "versions": versions(),
        "command": command(),
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
