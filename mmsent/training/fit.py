"""Fitting: a cache to trained runs. The split, the training and the run folder meet here."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import FitSettings, SplitSettings
from mmsent.errors import RunError
from mmsent.features.cache import Cache, Features, digests
from mmsent.features.cache.groups import with_thresholds
from mmsent.features.cache.states import StoredStates
from mmsent.metrics import scores
from mmsent.system import provenance
from mmsent.system.files import ready_folder
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.halves import LACKS, lackable
from mmsent.training.loaders import Tensors
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import Run, cache_facts, list_runs, save_run
from mmsent.training.sides import Sides, sides, tuned
from mmsent.training.train import Trained, precision_for, train_head
from mmsent.training.tuning import BlocksOf, TunedRows


@dataclass(frozen=True)
class Training:
    """How heads are trained, beside their settings. recipe: the name that their runs record. device: where to train.
    memory: bytes that embeddings may take; a larger split stays on disk and is read block by block (see
    mmsent.training.loaders). committee: what the runs record of the committee that they belong to (see
    `fit_committee`); sweep: of the sweep whose winners they are. lacking: halves that posts may lack on which a head
    trains; None: what it can learn from (see mmsent.training.halves.lackable). kept: ids to validate on; None: those of
    the newest run with this data and split, else new ones. blocks: fresh blocks for heads that tune them, by `tune`
    (see mmsent.inference.tuned)."""

    recipe: str = "paper"
    device: str = "cpu"
    memory: int | None = None
    committee: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    lacking: Sequence[int] | None = None
    kept: Collection[str] | None = None
    blocks: BlocksOf | None = None


def fit(
    cache: Cache,
    runs: Path,
    wanted: Sequence[FitSettings],
    split: SplitSettings,
    how: Training | None = None,
    *,
    features: Features | None = None,
    on_run: Callable[[Run, Trained, Sides], None] | None = None,
) -> list[Run]:
    """Train one head per settings on one split of a cache and write a run folder for each.

    features: the train split, where the caller has loaded it. on_run: called with each run when it is written. Raises
    DataError where a class has no training row.
    """
    how = how or Training()
    split = with_thresholds(split, cache.encoder)
    kept = validated_before(runs, cache, split) if how.kept is None else how.kept
    stored = features is None and how.memory is not None and cache.rows["train"] * cache.row_bytes("train") > how.memory
    if features is None and not stored:
        features = cache.load("train")

    @functools.cache
    def given_for(lacking: tuple[int, ...]) -> tuple[Sides, dict[str, Any]]:
        given = sides(cache, split, device=how.device, features=features, memory=how.memory, kept=kept, lacking=lacking)
        return given, data_facts(cache, given)

    may_lack = [lackable(settings) if how.lacking is None else tuple(how.lacking) for settings in wanted]
    given_for(may_lack[0] if may_lack else ())  # a split that cannot be cut is told before anything is written
    ready_folder(runs)  # better now than after an hour of training
    facts = {
        **provenance.environment(how.device),
        "weights": {"image": cache.settings.image.weights_sha256, "text": cache.settings.text.weights_sha256},
        **({"committee": how.committee} if how.committee else {}),
        **({"sweep": how.sweep} if how.sweep else {}),
    }
    done = []
    for settings, lacking in zip(wanted, may_lack, strict=True):
        given, data = given_for(lacking)
        if settings.precision == "auto":  # a run says what it was trained in
            settings = settings.model_copy(update={"precision": precision_for(how.device, settings.tune)})
        both = [(given.train, given.rows.train), (given.val, given.rows.val)]
        train, val = tuned(cache, settings.tune, both, how.blocks, how.memory)
        trained = train_head(train, val, settings, len(cache.labels))
        stored = given.stored or (isinstance(train, TunedRows) and isinstance(train.states, StoredStates))
        own = {"data": data, "memory": how.memory if stored else None, "lacking": [LACKS[bit] for bit in lacking]}
        info = {"recipe": how.recipe, "split": split.model_dump(mode="json"), "device": how.device, **facts, **own}
        done.append(_save(cache, runs, settings, given, trained, info))
        if on_run:
            on_run(done[-1], trained, given)
    return done


def validated_before(runs: Path, cache: Cache, split: SplitSettings) -> list[str]:
    """The ids that the newest run of this data set with this split validated on; none where there is no such run."""
    for run in list_runs(runs, data_name=cache.data_name):
        if run.split == split and run.labels == list(cache.labels):
            with contextlib.suppress(RunError):
                return run.validation_ids()
    return []


def data_facts(cache: Cache, given: Sides) -> dict[str, Any]:
    """Digests of the rows of both sides: ids, labels, contents, which side each is on, and the embeddings themselves
    (None where they stay on disk, for that would read them all once more)."""
    used = np.zeros(cache.rows["train"], np.bool_)
    used[given.rows.train] = used[given.rows.val] = True
    held = np.zeros(len(used), np.bool_)
    held[given.rows.val] = True
    features = None
    if isinstance(given.train, Tensors) and isinstance(given.val, Tensors):
        tensors = (given.train.image, given.train.text, given.val.image[:, :1], given.val.text)
        features = digests.array_digest(tensor.cpu().numpy() for tensor in tensors)
    rows = digests.content(cache, "train", used)
    return {**rows, "split": digests.array_digest([held[used]]), "features": features}


def _save(
    cache: Cache,
    runs: Path,
    settings: FitSettings,
    given: Sides,
    trained: Trained,
    facts: dict[str, Any],
) -> Run:
    """Write a run folder. facts: what its record says of the split and of how it was trained."""
    temperature = fit_temperature(trained.val_logits, given.truth)
    finished = datetime.now(UTC)
    info = {
        "fit": settings.model_dump(mode="json"),
        "labels": list(cache.labels),
        "cache": cache_facts(cache),
        "rows": {"train": len(given.train), "val": len(given.val)},
        "best_epoch": trained.best_epoch,
        "metrics": scores(given.truth, trained.val_logits.argmax(axis=1).astype(np.int64), len(cache.labels)),
        "temperature": temperature,
        "seconds": round(trained.seconds, 3),
        "finished": finished.isoformat(),
        **facts,
    }
    probabilities = apply_temperature(trained.val_logits, temperature)
    table = predictions_csv(given.val_ids, cache.labels, probabilities, [cache.labels[i] for i in given.truth])
    name = f"{finished:%Y%m%d-%H%M%S}-{settings.fusion.value}-s{settings.seed}"
    return save_run(runs, name, info, trained, table)


def read_history(run: Run) -> list[dict[str, Any]]:
    """A run's record of each epoch. Raises RunError where the file cannot be read."""
    path = run.path / "history.json"
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; run `mmsent fit` again") from error
    if not (isinstance(found, list) and found and all(isinstance(one, dict) for one in found)):
        raise RunError(f"{path} holds no epochs; run `mmsent fit` again")
    return found


def write_tensorboard(run: Run, folder: Path) -> Path:
    """Write a run's history as TensorBoard scalars into `folder`/<run name>. Raises UsageError without tensorboard."""
    from mmsent.errors import UsageError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs its package: pip install 'mmsent[tensorboard]'") from error
    history = read_history(run)
    writer = SummaryWriter(str(folder / run.name))
    started = time.time()
    for record in history:
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "epoch":
                writer.add_scalar(name.replace("_", "/", 1), value, record["epoch"], walltime=started)
    writer.close()
    return folder / run.name


def fit_committee(
    cache: Cache,
    runs: Path,
    wanted: Sequence[FitSettings],
    split: SplitSettings,
    splits: int,
    how: Training,
    *,
    on_run: Callable[[Run, Trained, Sides], None] | None = None,
) -> list[Run]:
    """Train one head per settings on each of `splits` validation splits of a cache, and write a run folder for each.

    Split and head seeds count up from the given ones. on_run and errors as for `fit`. Stopped
    early, the runs so far are kept and vote alone.
    """
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{how.recipe}"
    about: dict[str, Any] = {"name": name, "size": splits * len(wanted)}
    stored = how.memory is not None and cache.rows["train"] * cache.row_bytes("train") > how.memory
    features = None if stored else cache.load("train")
    done: list[Run] = []
    for k in range(splits):
        done += fit(
            cache,
            runs,
            [one.model_copy(update={"seed": one.seed + k}) for one in wanted],
            split.model_copy(update={"seed": split.seed + k}),
            replace(how, committee=about),
            features=features,
            on_run=on_run,
        )
    return done
