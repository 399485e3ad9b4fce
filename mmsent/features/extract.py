"""Extraction: a data set through two frozen encoders into a cache. Only missing or changed rows are encoded.

Pictures are encoded in fixed blocks of consecutive rows, texts in fixed windows whose rows are sorted by length; the
make-up of every batch is a function of the row order alone, since batch make-up shifts the low bits. Each batch is
journalled whole. So a run that was interrupted and continued holds the same bytes as one that was not (same
machine, same number of threads; on a GPU that had to part a batch for want of memory, low bits may differ).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data import views as view_module
from mmsent.data.dataset import Dataset, Split
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.specs import encoder_label
from mmsent.errors import CacheError, DataError
from mmsent.features.cache import HALVES, Cache, RowTable, Sources, digests, pour
from mmsent.features.cache.finding import cache_path, list_caches
from mmsent.features.cache.fingerprint import FeatureSettings, differences
from mmsent.features.cache.journal import Entry, Half, Journal
from mmsent.features.engine import Engine, LocalEngine, Work
from mmsent.system.devices import pick_device
from mmsent.system.files import require_local

MADE_BY = 20  # extractions that a cache remembers: the first and the newest


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction did. `encoded` counts rows of which at least one half went through an encoder."""

    cache: Cache
    encoded: dict[str, int]
    rows: dict[str, int]
    quarantined: list[tuple[str, str, str]]  # split, id, reason
    cut: int  # texts cut at the encoder's length
    seconds: float
    notes: list[str] = field(default_factory=list)


def feature_settings(
    dataset: Dataset, encoders: Encoders, encoder: EncoderSettings, views: ViewSettings, storage: str
) -> FeatureSettings:
    """Everything that will determine the numbers of this data set's cache."""
    return FeatureSettings(
        image=encoders.image.card,
        text=encoders.text.card,
        normalize=encoder.normalize,
        views=views,
        views_version=view_module.VERSION,
        clean=dataset.settings.clean,
        text_encoding=dataset.decoding.encoding,
        storage=storage,
    )


def extract(
    dataset: Dataset,
    splits: Sequence[Split],
    folder: Path,
    *,
    encoder: EncoderSettings,
    views: ViewSettings,
    options: ExtractSettings,
    encoders: Encoders | None = None,
    engine: Engine | None = None,
    only: Cache | None = None,
    salvaged: Cache | None = None,
    show: bool = True,
) -> ExtractResult:
    """Encode what is missing of `splits` and bring the cache in `folder` up to date.

    encoders: ready ones, where the caller has them. engine: what encodes, by default this process. only: complete this
    cache, make no other. salvaged: the same for a damaged cache that `Cache.salvage` opened; what is damaged is encoded
    again. Raises CacheError where another extraction holds the cache (with `options.wait` it waits), it belongs to
    another data set, or the folder cannot be written; DataError where more rows than `options.max_bad` are bad (what
    was encoded is kept).
    """
    started = time.monotonic()
    engine = engine or LocalEngine(encoders or open_encoders(encoder))
    encoders = engine.open(encoder)
    settings = feature_settings(dataset, encoders, encoder, views, options.storage)
    label = encoder_label(encoder)
    only = only or salvaged
    if only is not None and only.fingerprint != settings.fingerprint:
        changes = "; ".join(differences(only.settings, settings))
        raise CacheError(
            f"{only.path} cannot be completed here: {changes}; run `mmsent extract --split all` and fit anew"
        )
    path = only.path if only is not None else cache_path(folder, dataset.name, label, settings)
    lock = hold(path, options.wait)
    try:
        path.with_name(path.name + ".tmp").unlink(missing_ok=True)  # of an extraction that was killed
        if salvaged is not None:
            salvaged = Cache.salvage(path)  # once more, now that nobody else writes it
        old = salvaged or (Cache.open(path) if path.is_file() else None)
        _refuse_other_data(old, dataset)
        notes = [] if old else _explain_new(folder, dataset.name, label, settings)
        journal = Journal(
            path.with_name(path.name + ".journal"),
            {
                "fingerprint": settings.fingerprint,
                # A cache keeps the batch it was begun with, for the low bits depend on it.
                "batch_size": old.provenance["batch_size"] if old else options.batch_size or encoders.image.batch_size,
            },
        )
        if options.batch_size and journal.meta["batch_size"] != options.batch_size:
            notes.append(f"--batch-size {options.batch_size} is not used: begun with {journal.meta['batch_size']}")
        try:
            job = _Job(dataset, journal, old, splits, options, engine)
            lists, batch_size = job.lists, journal.meta["batch_size"]
            found = engine.entries(dataset, job.works, settings, batch_size, job.workers, show)
            with closing(found):
                for split, part in groupby(found, key=itemgetter(0)):
                    for _, half, entries in part:
                        job.put(split, half, entries)
                    journal.commit()
            changed = salvaged is not None or any(job.encoded.values())
            changed = changed or old is None or _lists_differ(old, lists, dataset.settings.labels)
            about = _provenance(dataset, encoder, batch_size, options.max_bad)
            # Where things lie may have changed since; what later commands read back must be where it is now.
            changed = changed or old is None or _whereabouts(old.provenance) != _whereabouts(about)
            cache = old
            if changed or cache is None:
                attributes = {
                    "labels": list(dataset.settings.labels),
                    "data_name": dataset.name,
                    "encoder": label,
                    "provenance": about
                    | _origin(old, lists, job.encoded, dataset.settings.labels, lambda: _environment(engine, encoder)),
                }
                cache = pour(path, journal, settings, lists, attributes, salvaged)
        except BaseException:
            journal.close()
            raise
        if journal.discard(splits):
            journal.close()  # another split is unfinished and goes on another time
        else:
            journal.remove()
    finally:
        lock.release()
    quarantined: list[tuple[str, str, str]] = []
    cut = 0
    for split in splits:
        for _, columns in cache.blocks(split):
            for i in np.flatnonzero(columns["outcome"]).tolist():
                reasons = (columns[f"{half}_reason"][i].decode() for half in ("image", "text"))
                quarantined.append((split, columns["id"][i].decode(), "; ".join(filter(None, reasons))))
            cut += int((columns["tokens"] > settings.text.max_tokens).sum())
    return ExtractResult(
        cache,
        job.encoded,
        {split: len(rows) for split, rows in lists.items()},
        quarantined,
        cut,
        time.monotonic() - started,
        notes,
    )


def hold(path: Path, wait: bool = False) -> FileLock:
    """Take the lock of a cache, making its folder. Raises CacheError where another process holds it and `wait` is off,
    or where the folder cannot be written. A process that dies gives its lock back."""
    require_local(path, "a cache")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            if not wait:
                raise CacheError(
                    f"another extraction is writing {path}; wait for it to finish, or let --wait do so"
                ) from error
            print(f"another extraction is writing {path}; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise CacheError(
            f"cannot write in {path.parent}: {error.strerror or error}; --cache names another folder"
        ) from error
    return lock


def _refuse_other_data(old: Cache | None, dataset: Dataset) -> None:
    if old is None:
        return
    made_from = Path(old.provenance["data"])
    if made_from != dataset.root.resolve() and made_from.exists():
        raise CacheError(
            f"{old.path} was made from {made_from}, not from {dataset.root.resolve()}, and both are called "
            f"{dataset.name!r}; give --cache another folder"
        )


def _explain_new(folder: Path, data_name: str, label: str, settings: FeatureSettings) -> list[str]:
    alike = [c for c in list_caches(folder) if c.data_name == data_name and c.encoder == label]
    if not alike:
        return []
    nearest = min(alike, key=lambda c: len(differences(c.settings, settings)))
    changes = "; ".join(differences(nearest.settings, settings))
    return [f"a new cache, for settings differ from {nearest.path.name}: {changes}"]


def _lists_differ(old: Cache, lists: dict[Split, RowTable], labels: tuple[str, ...]) -> bool:
    if old.labels != labels:
        return True
    for split, rows in lists.items():
        if old.rows.get(split) != len(rows):
            return True
        for start, columns in old.blocks(split):
            part = slice(start, start + len(columns["id"]))
            ids = [rows.ids[i].encode("utf-8", "replace") for i in range(len(rows))[part]]
            halves = (columns["image_sha256"], rows.image_hashes), (columns["text_sha256"], rows.text_hashes)
            same = columns["id"].tolist() == ids and np.array_equal(columns["label"], rows.labels[part])
            if not same or not all(np.array_equal(stored, now[part]) for stored, now in halves):
                return True
    return False


def _whereabouts(provenance: dict[str, Any]) -> tuple[Any, ...]:
    return provenance["data"], provenance["encoder_settings"]["weights"], provenance.get("max_bad")


def _provenance(dataset: Dataset, encoder: EncoderSettings, batch_size: int, max_bad: float) -> dict[str, Any]:
    chosen = encoder.model_dump(mode="json")
    if chosen["weights"]:
        chosen["weights"] = str(Path(chosen["weights"]).resolve())
    return {
        "data": str(dataset.root.resolve()),
        "data_settings": dataset.settings.model_dump(mode="json"),
        "decoding": dataset.decoding.why,
        "encoder_settings": chosen,
        "batch_size": batch_size,
        "max_bad": max_bad,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def _origin(
    old: Cache | None,
    lists: dict[Split, RowTable],
    encoded: dict[str, int],
    labels: tuple[str, ...],
    environment: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Digests of all rows that the cache will list, and who encoded them: one record an extraction, newest last."""
    content: dict[str, Any] = {split: digests.content_of(rows, labels) for split, rows in lists.items()}
    made_by: list[dict[str, Any]] = []
    if old is not None:
        others = [split for split in old.rows if split not in content]
        if old.damage is None:
            content |= {split: digests.content(old, split, names=labels) for split in others}
        else:  # what was damaged there, checksums or embeddings, is not what these digests are of
            known = old.provenance.get("content", {})
            content |= {split: known[split] for split in others if split in known}
        first = {"written": old.provenance.get("written"), "command": old.provenance.get("command")}
        made_by = old.provenance.get("made_by", [first])
    if any(encoded.values()) or old is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made_by = [*made_by, {"written": now, "encoded": encoded, **environment()}]
    return {"content": content, "made_by": [*made_by[:1], *made_by[1:][1 - MADE_BY :]]}


def _environment(engine: Engine, encoder: EncoderSettings) -> dict[str, Any]:
    return engine.environment(pick_device(encoder.device) if "torch" in sys.modules else None)


class _Job:
    """One extraction: what it reads and journals, split by split."""

    def __init__(
        self,
        dataset: Dataset,
        journal: Journal,
        old: Cache | None,
        splits: Sequence[Split],
        options: ExtractSettings,
        engine: Engine,
    ) -> None:
        self.journal, self.options = journal, options
        self.workers = options.workers or min(8, os.cpu_count() or 1)
        self.lists: dict[Split, RowTable] = {}
        self.works: list[Work] = []
        self._bad: dict[Split, dict[str, str]] = {}  # split -> id -> why
        for split in splits:
            posts = dataset.of(split)
            rows = self.lists[split] = engine.rows(dataset, posts, self.workers)
            sources = Sources(split, rows, old, journal)
            reasons = (sources.reasons[half] for half in HALVES)
            self._bad[split] = {rows.ids[i]: why for some in reasons for i, why in sorted(some.items())}
            self._check_bad(split)
            self.works.append(Work(split, posts, rows, sources.missing("text"), sources.missing("image")))

    @property
    def encoded(self) -> dict[str, int]:
        """Rows of which at least one half is encoded, by split."""
        return {work.split: int((work.texts | work.images).sum()) for work in self.works}

    def put(self, split: Split, half: Half, entries: list[Entry]) -> None:
        """Journal the entries of a batch. Raises DataError where too many rows are bad."""
        self.journal.put(split, half, entries)
        self._bad[split] |= {e.id: e.reason for e in entries if e.reason}
        self._check_bad(split)

    def _check_bad(self, split: Split) -> None:
        bad, n = self._bad[split], len(self.lists[split])
        if len(bad) <= self.options.max_bad * n + 1e-6:  # 0.29 * 100 is a little less than 29
            return
        shown = "; ".join(f"{row_id}: {reason}" for row_id, reason in list(bad.items())[:3])
        share = math.ceil(100 * len(bad) / n) / 100  # rounded up, or it would be refused again
        raise DataError(
            f"{len(bad)} of {n} {split} rows are bad ({shown}), more than --max-bad {self.options.max_bad:g}; what was "
            f"encoded is kept. `mmsent check` lists them; --max-bad {share:g} goes on"
        )
