"""Fitting: a cache to trained runs. The split, the training and the run folder meet here."""

from __future__ import annotations

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
from mmsent.cache import NO_LABEL, Cache, Features, RowIndex
from mmsent.calibration import apply_temperature, fit_temperature
from mmsent.config import FitSettings, SplitSettings
from mmsent.errors import DataError
from mmsent.metrics import scores
from mmsent.runs import Run, cache_facts, predictions_csv, save_run
from mmsent.split import duplicate_groups, validation_split
from mmsent.train import to_tensors, train_head


@dataclass(frozen=True)
class SplitRows:
    """Positions of the rows to train on and to validate on, (n,) int64 each; bad and unlabelled rows are in neither."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


def split_rows(index: RowIndex, settings: SplitSettings) -> SplitRows:
    """Cut the validation split from the good, labelled rows. Depends on ids, labels, contents and settings alone."""
    usable = np.flatnonzero(index.good & (index.labels != NO_LABEL))
    if not len(usable):
        raise DataError("the cache has no row with both halves and a label; run `mmsent check`")
    groups = None
    if settings.group:
        groups = duplicate_groups([index.image_hashes[i] for i in usable], [index.text_hashes[i] for i in usable])
    held = validation_split([index.ids[i] for i in usable], index.labels[usable], groups, settings)
    return SplitRows(usable[~held], usable[held])


def fit(
    cache: Cache,
    runs: Path,
    wanted: Sequence[FitSettings],
    split: SplitSettings,
    *,
    recipe: str = "paper",
    device: str = "cpu",
    features: Features | None = None,
    on_epoch: Callable[[FitSettings, dict[str, Any]], None] | None = None,
) -> list[Run]:
    """Train one head per settings on one split of a cache and write a run folder for each.

    features: the train split, where the caller has loaded it. Each run gets a temperature, fitted on its validation
    logits, and validation.csv holds the probabilities at it. Raises DataError where a class has no training row.
    """
    features = features or cache.load("train")
    index = features.index
    rows = split_rows(index, split)
    classes = len(cache.labels)
    counts = np.bincount(index.labels[rows.train], minlength=classes)
    if (counts == 0).any():
        absent = ", ".join(cache.labels[i] for i in np.flatnonzero(counts == 0))
        raise DataError(f"no training row is labelled {absent}; add some, or leave the label out of --labels")
    train = to_tensors(features.image[rows.train], features.text[rows.train], index.labels[rows.train], device)
    val = to_tensors(features.image[rows.val, :1], features.text[rows.val], index.labels[rows.val], device)
    done = []
    for settings in wanted:

        def report(record: dict[str, Any], settings: FitSettings = settings) -> None:
            if on_epoch:
                on_epoch(settings, record)

        trained = train_head(train, val, settings, classes, report)
        truth = index.labels[rows.val]
        temperature = fit_temperature(trained.val_logits, truth)
        finished = datetime.now(UTC)
        info = {
            "recipe": recipe,
            "fit": settings.model_dump(mode="json"),
            "split": split.model_dump(mode="json"),
            "labels": list(cache.labels),
            "cache": cache_facts(cache),
            "rows": {"train": len(rows.train), "val": len(rows.val)},
            "best_epoch": trained.best_epoch,
            "metrics": scores(truth, trained.val_logits.argmax(axis=1).astype(np.int64), classes),
            "temperature": temperature,
            "seconds": round(trained.seconds, 3),
            "finished": finished.isoformat(),
            "device": device,
            "versions": {
                "mmsent": mmsent.__version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("torch", "numpy")},
            },
            "command": sys.argv,
        }
        table = predictions_csv(
            [index.ids[i] for i in rows.val],
            cache.labels,
            apply_temperature(trained.val_logits, temperature),
            [cache.labels[i] for i in truth],
        )
        name = f"{finished:%Y%m%d-%H%M%S}-{settings.fusion.value}-s{settings.seed}"
        done.append(save_run(runs, name, info, trained.head, trained.history, table))
    return done


def write_tensorboard(run: Run, folder: Path) -> Path:
    """Write a run's history as TensorBoard scalars into `folder`/<run name>. Raises UsageError without tensorboard."""
    import json

    from mmsent.errors import UsageError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs its package: pip install 'mmsent[tensorboard]'") from error
    history = json.loads((run.path / "history.json").read_text(encoding="utf-8"))
    writer = SummaryWriter(str(folder / run.name))
    started = time.time()
    for record in history:
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "epoch":
                writer.add_scalar(name.replace("_", "/", 1), value, record["epoch"], walltime=started)
    writer.close()
    return folder / run.name
