"""Fitting: a cache to trained runs. The split, the training and the run folder meet here."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.errors import DataError, RunError, UsageError
from mmsent.features.cache import IMAGE_BAD, NO_LABEL, TEXT_BAD, Cache, Columns, Features, RowIndex, digests
from mmsent.features.cache.groups import row_groups, with_thresholds
from mmsent.features.cache.states import StoredStates, states_of
from mmsent.metrics import scores
from mmsent.system import provenance
from mmsent.system.files import ready_folder
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.loaders import Chunked, Rows, Stored, Tensors, to_tensors
from mmsent.training.runs import Run, cache_facts, list_runs, predictions_csv, save_run
from mmsent.training.splits import validation_split
from mmsent.training.train import Trained, precision_for, train_head
from mmsent.training.tuning import BlocksOf, TunedRows


@dataclass(frozen=True)
class SplitRows:
    """Positions of the rows to train on and to validate on, (n,) int64 each; bad and unlabelled rows are in neither.
    kept: whether those that validate did so before, and others would be chosen now."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    kept: bool = False


def usable_rows(index: RowIndex | Columns) -> NDArray[np.int64]:
    """Positions (n,) of the good, labelled rows. Raises DataError where there are none."""
    usable = np.flatnonzero(index.good & (index.labels != NO_LABEL))
    if not len(usable):
        raise DataError(f"the cache has no row with both halves and a label{lacking(index)}; run `mmsent check`")
    return usable


def lacking(index: RowIndex | Columns) -> str:
    """How many labelled rows lack a half, in words; empty where none does."""
    labelled = index.labels != NO_LABEL
    lost = {"an image": IMAGE_BAD, "a text": TEXT_BAD}
    alone = {what: int((labelled & (index.outcome == bit)).sum()) for what, bit in lost.items()}
    neither = int((labelled & (index.outcome == IMAGE_BAD | TEXT_BAD)).sum())
    parts = [f"{n} lack {what}" for what, n in alone.items() if n] + ([f"{neither} lack both"] if neither else [])
    if not parts:
        return ""
    hint = "; --fusion image and --fusion text train on every row that has their half" if any(alone.values()) else ""
    return f" (of {int(labelled.sum())} labelled rows {', '.join(parts)}{hint})"


def ids_at(index: RowIndex | Columns, rows: NDArray[np.int64]) -> list[str] | NDArray[np.bytes_]:
    """The ids of the rows at these positions, as the index has them: text, or UTF-8."""
    return index.ids[rows] if isinstance(index, Columns) else [index.ids[i] for i in rows]


def split_rows(
    index: RowIndex | Columns,
    settings: SplitSettings,
    features: Features | None = None,
    *,
    kept: Collection[str] = (),
    half: int | None = None,
    own: Collection[str] = (),
) -> SplitRows:
    """Cut the validation split from the good, labelled rows. Depends on ids, labels, contents and settings alone.

    features: the embeddings, needed where near-duplicates are grouped. kept: ids that validated before, which do so
    again, with their duplicates, while they are at least half of the rows wanted. half: IMAGE_BAD or TEXT_BAD, which
    rows may lack that train only; none of them shares content with a row that validates. Where fewer than two rows are
    whole, the split is cut from those. own: ids that the data set itself keeps for validation; where there are such,
    they alone validate.
    """
    labelled = index.labels != NO_LABEL
    more = np.flatnonzero(labelled & (index.outcome == half)) if half else np.zeros(0, np.int64)
    usable = np.flatnonzero(labelled & index.good)
    if len(usable) < 2 <= len(usable) + len(more):
        usable, more = np.union1d(usable, more), more[:0]
    elif not len(usable):
        usable = usable_rows(index)
    held, moved = _among(index, usable, own), False
    if held.any() and not held.all():
        return SplitRows(np.union1d(usable[~held], more[~_among(index, more, own)]), usable[held])
    groups = row_groups(index, usable, settings, features)
    held = validation_split(ids_at(index, usable), index.labels[usable], groups, settings)
    if len(kept):
        again = _among(index, usable, kept)
        again = again if groups is None else np.isin(groups, groups[again])
        if 2 * again.sum() >= held.sum() and _trainable(index.labels[usable], again):
            moved, held = not np.array_equal(held, again), again
    train, val = usable[~held], usable[held]
    if len(more):
        train = np.union1d(train, _apart(index, more, val, settings, features))
    return SplitRows(train, val, moved)


def _among(index: RowIndex | Columns, rows: NDArray[np.int64], ids: Collection[str]) -> NDArray[np.bool_]:
    """(n,) which of the rows at these positions are among the ids."""
    names = {name.encode("utf-8", "replace") for name in ids} if isinstance(index, Columns) else set(ids)
    return np.array([name in names for name in ids_at(index, rows)], np.bool_)


def _trainable(labels: NDArray[np.int64], held: NDArray[np.bool_]) -> bool:
    """Whether every class that there is has a row to train on beside those that are held back."""
    return bool(np.isin(labels, labels[~held]).all())


def _apart(
    index: RowIndex | Columns,
    more: NDArray[np.int64],
    val: NDArray[np.int64],
    settings: SplitSettings,
    features: Features | None,
) -> NDArray[np.int64]:
    """Those of the rows `more` that are in no group with a validation row."""
    rows = np.union1d(more, val)
    groups = row_groups(index, rows, settings, features)
    return more if groups is None else more[~np.isin(groups[np.isin(rows, more)], groups[np.isin(rows, val)])]


def half_spared(settings: FitSettings) -> int | None:
    """The half that a head does not read, as a bit of a row's outcome; None where it reads both."""
    return {Fusion.image: TEXT_BAD, Fusion.text: IMAGE_BAD}.get(settings.fusion)


@dataclass(frozen=True)
class Sides:
    """The two sides of a split, ready to train on, and what identifies their rows."""

    rows: SplitRows
    train: Chunked
    val: Chunked
    stored: bool  # on disk, not in memory
    val_ids: list[str]
    truth: NDArray[np.int64]  # of the validation rows
    left_out: str = ""  # which labelled rows are in neither, in words


def sides(
    cache: Cache,
    split: SplitSettings,
    *,
    device: str,
    features: Features | None = None,
    memory: int | None = None,
    kept: Collection[str] = (),
    half: int | None = None,
) -> Sides:
    """The training rows of a cache in two sides, in memory or, where they would take more than `memory` bytes, on disk.

    kept, half: as for split_rows. Raises DataError where a class has no training row.
    """
    stored = features is None and memory is not None and cache.rows["train"] * cache.row_bytes("train") > memory
    if not stored:
        features = features or cache.load("train")
    index: RowIndex | Columns = features.index if features is not None else cache.columns("train")
    rows = split_rows(index, split, features, kept=kept, half=half, own=cache.validation)
    require_classes(cache, index, rows.train)
    train = rows_at(cache, index, features, rows.train, device, memory)
    val = rows_at(cache, index, features, rows.val, device, memory, clean=True)
    ids = [name.decode() if isinstance(name, bytes) else name for name in (index.ids[i] for i in rows.val.tolist())]
    left = int((index.labels != NO_LABEL).sum()) - len(rows.train) - len(rows.val)
    return Sides(rows, train, val, stored, ids, index.labels[rows.val], lacking(index) if left else "")


def require_classes(cache: Cache, index: RowIndex | Columns, train: NDArray[np.int64]) -> None:
    """Raise DataError where a class has no row among those to train on."""
    counts = np.bincount(index.labels[train], minlength=len(cache.labels))
    if (counts == 0).any():
        absent = np.flatnonzero(counts == 0)
        names = ", ".join(cache.labels[i] for i in absent)
        if n := int(np.isin(index.labels, absent).sum()):
            raise DataError(
                f"no row to train on is labelled {names}; {n} rows are, but validate or lack a half{lacking(index)}"
            )
        raise DataError(f"no training row is labelled {names}; add some, or leave the label out of --labels")


def rows_at(
    cache: Cache,
    index: RowIndex | Columns,
    features: Features | None,
    rows: NDArray[np.int64],
    device: str,
    memory: int | None,
    *,
    clean: bool = False,
) -> Chunked:
    """The training rows at increasing positions (n,): in memory where features are given, else on disk. clean: without
    the augmented views, as validation takes them."""
    labels = index.labels[rows]
    if features is not None:
        image = features.image[rows, :1] if clean else features.image[rows]
        return to_tensors(image, features.text[rows], labels, device)
    assert memory is not None
    return Stored(cache, "train", rows, labels, memory, device)


def tuned(
    cache: Cache,
    tune: str,
    sides: Sequence[tuple[Chunked, NDArray[np.int64]]],
    blocks: BlocksOf | None,
    memory: int | None = None,
) -> list[Rows]:
    """Rows of the training split, each with its positions (n,), over one fresh copy of the blocks that `tune` names;
    as they are where it names none. Their states stay on disk where they and the embeddings take more than `memory`
    bytes. Raises UsageError where there are no blocks, CacheError where the states are not stored."""
    if not tune:
        return [rows for rows, _ in sides]
    if blocks is None:
        raise UsageError(f"--tune {tune} needs the text encoder's blocks, which are not at hand here")
    left = None if memory is None else memory - cache.rows["train"] * cache.row_bytes("train")
    states, own = states_of(cache, "train", tune, left), blocks(tune).to(sides[0][0].device)
    return [TunedRows(rows, states, places, own) for rows, places in sides]


@dataclass(frozen=True)
class Training:
    """How heads are trained, beside their settings. recipe: the name that their runs record. device: where to train.
    memory: bytes that embeddings may take; a larger split stays on disk and is read block by block (see
    mmsent.training.loaders). committee: what the runs record of the committee that they belong to (see
    `fit_committee`); sweep: of the sweep whose winners they are. half_posts: whether heads that read one half train on
    posts that lack the other. kept: ids to validate on; None: those of the newest run with this data and split, else
    new ones. blocks: fresh blocks for heads that tune them, by
    `tune` (see mmsent.inference.tuned)."""

    recipe: str = "paper"
    device: str = "cpu"
    memory: int | None = None
    committee: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    half_posts: bool = True
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
    def given_for(half: int | None) -> tuple[Sides, dict[str, Any]]:
        given = sides(cache, split, device=how.device, features=features, memory=how.memory, kept=kept, half=half)
        return given, data_facts(cache, given)

    spared = [half_spared(settings) if how.half_posts else None for settings in wanted]
    given_for(spared[0] if spared else None)  # a split that cannot be cut is told before anything is written
    ready_folder(runs)  # better now than after an hour of training
    facts = {
        **provenance.environment(how.device),
        "weights": {"image": cache.settings.image.weights_sha256, "text": cache.settings.text.weights_sha256},
        **({"committee": how.committee} if how.committee else {}),
        **({"sweep": how.sweep} if how.sweep else {}),
    }
    done = []
    for settings, half in zip(wanted, spared, strict=True):
        given, data = given_for(half)
        if settings.precision == "auto":  # a run says what it was trained in
            settings = settings.model_copy(update={"precision": precision_for(how.device)})
        both = [(given.train, given.rows.train), (given.val, given.rows.val)]
        train, val = tuned(cache, settings.tune, both, how.blocks, how.memory)
        trained = train_head(train, val, settings, len(cache.labels))
        stored = given.stored or (isinstance(train, TunedRows) and isinstance(train.states, StoredStates))
        own = {"data": data, "memory": how.memory if stored else None, "half_posts": how.half_posts}
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
