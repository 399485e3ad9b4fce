"""Extraction: a data set through two frozen encoders into a cache. Only missing or changed rows are encoded.

Images are encoded in fixed blocks of consecutive rows, texts in fixed windows whose rows are sorted by length. Which
rows share a batch depends only on the order of the rows, because another batch would change the low bits. Each batch is
journalled as a whole. So an extraction that was interrupted and continued gives the same bytes as one that was not (on
the same machine, with the same number of threads; on a GPU that had to halve a batch, low bits may differ).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data import views as view_module
from mmsent.data.dataset import Dataset, Split
from mmsent.data.readers.files import missing_images
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.runtimes import with_runtime
from mmsent.encoders.specs import encoder_label
from mmsent.errors import DataError
from mmsent.features.cache import HALVES, Cache, RowTable, Sources, pour
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Entry, Half, Journal
from mmsent.features.engine import Engine, LocalEngine, Plan, Work
from mmsent.features.extraction_record import (
    content_record,
    empty_record,
    journal_record,
    makers_record,
    mixture,
    now,
    read_record,
    settings_record,
    used_later,
)
from mmsent.features.target import begin_journal, opened_target, target_settings
from mmsent.system.process import cores


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction did. encoded: per split, rows of which at least one half was encoded."""

    cache: Cache
    encoded: dict[str, int]
    rows: dict[str, int]
    quarantined: list[tuple[str, str, str]]  # split, id, reason
    cut: int  # texts that the encoder truncates
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
    target: Path | Cache,
    *,
    encoder: EncoderSettings,
    views: ViewSettings,
    options: ExtractSettings,
    engine: Engine | None = None,
    show: bool = True,
) -> ExtractResult:
    """Encode what is missing of `splits` and bring a cache up to date.

    target: the folder of the caches, or the cache to complete. A damaged cache that `Cache.salvage` opened is repaired:
    its damaged rows are encoded again. engine: what encodes, by default this process. show: progress bars.

    Raises CacheError if another extraction is writing the cache (with `options.wait` it waits), the cache belongs to
    another data set or was made with other settings, or the folder cannot be written; DataError if more than the share
    `options.max_bad` of the rows is bad (what was encoded is kept).
    """
    started = time.monotonic()
    if engine is None:
        encoder = with_runtime(encoder)
        engine = LocalEngine(open_encoders(encoder))
    elif encoder.runtime == "auto":  # the machines of a cluster may differ
        encoder = encoder.model_copy(update={"runtime": "torch"})
    encoders = engine.open(encoder)
    here = feature_settings(dataset, encoders, encoder, views, options.storage)
    settings, notes = target_settings(target, here)
    with opened_target(target, dataset, encoder, settings, wait=options.wait) as (path, old, why):
        notes += [*why, *filter(None, [dataset.decoding.doubt])]
        # A cache keeps its first batch size, because the low bits depend on it.
        batch = old.provenance["batch_size"] if old else options.batch_size or encoders.image.batch_size
        journal = begin_journal(path, journal_record(dataset, encoder, settings, batch, options.max_bad))
        job = _Job(dataset, encoder, options, engine, settings, journal, old)
        if options.batch_size and job.batch_size != options.batch_size:
            notes.append(f"--batch-size {options.batch_size} is ignored: the cache was begun with {job.batch_size}")
        try:
            job.read(splits)
            job.encode(show)
            cache = job.store(path)
        except BaseException:
            job.journal.close()
            raise
        if job.journal.discard(splits):
            job.journal.close()  # another split is unfinished and continues another time
        else:
            job.journal.remove()
    if any(job.encoded.values()):
        notes += filter(None, [mixture(cache.provenance["made_by"])])
    if mended := [row_id for table in job.lists.values() for row_id in table.mended]:
        notes.append(f"{len(mended)} images lack the end of their file, but no pixel, and are used: {mended[0]} first")
    quarantined, cut = _outcome(cache, splits)
    rows = {str(split): len(table) for split, table in job.lists.items()}
    return ExtractResult(cache, job.encoded, rows, quarantined, cut, time.monotonic() - started, notes)


@dataclass
class _Job:
    """One extraction: what it reads, encodes, journals and stores. old: the cache so far."""

    dataset: Dataset
    encoder: EncoderSettings
    options: ExtractSettings
    engine: Engine
    settings: FeatureSettings
    journal: Journal
    old: Cache | None
    lists: dict[Split, RowTable] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    read_at: dict[str, str] = field(default_factory=dict)  # split -> when its posts were read
    _halves: dict[Split, dict[str, str]] = field(default_factory=dict)  # split -> id -> why it has one half
    _bad: dict[Split, dict[str, str]] = field(default_factory=dict)  # split -> id -> reason

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return int(self.journal.meta["batch_size"])

    @property
    def encoded(self) -> dict[str, int]:
        """Rows of which at least one half is encoded, by split."""
        return {work.split: int((work.texts | work.images).sum()) for work in self.works}

    @property
    def _workers(self) -> int:
        return self.options.workers or min(8, cores())

    def read(self, splits: Sequence[Split]) -> None:
        """Read the posts and decide what must be encoded. Raises DataError if too many rows are bad."""
        for split in splits:
            posts = self.dataset.of(split)
            self.read_at[split] = now()
            rows = self.lists[split] = self.engine.rows(self.dataset, posts, self._workers)
            sources = Sources(split, rows, self.old, self.journal)
            self._halves[split], self._bad[split] = {}, {}
            for half in HALVES:
                self._lost(split, ((rows.ids[i], why) for i, why in sorted(sources.reasons[half].items())))
            self.works.append(Work(split, posts, rows, sources.missing("text"), sources.missing("image")))

    def encode(self, show: bool) -> None:
        """Encode what is missing into the journal. Raises DataError if too many rows are bad."""
        plan = Plan(self.dataset, self.works, self.settings, self.batch_size, self._workers)
        with closing(self.engine.entries(plan, show)) as found:
            for split, part in groupby(found, key=itemgetter(0)):
                for _, half, entries in part:
                    self._put(split, half, entries)
                self.journal.commit()

    def store(self, path: Path) -> Cache:
        """Write the cache anew, unless it is up to date."""
        labels = self.dataset.settings.labels
        record = settings_record(self.dataset, self.encoder, self.batch_size, self.options.max_bad)
        old = self.old
        if (
            old is not None
            and old.damage is None
            and not any(self.encoded.values())
            and not _lists_differ(old, self.lists, labels)
            and used_later(old.provenance) == used_later(record)
        ):
            return old
        attributes = {
            "labels": list(labels),
            "data_name": self.dataset.name,
            "encoder": encoder_label(self.encoder),
            "provenance": record
            | {
                "read": read_record(old) | self.read_at,
                "content": content_record(old, self.lists, labels),
                "empty": empty_record(old, self.journal),
                "made_by": makers_record(old, self.encoded, self.engine, self.encoder),
            },
        }
        damaged = old if old is not None and old.damage is not None else None
        return pour(path, self.journal, self.settings, self.lists, attributes, damaged)

    def _put(self, split: Split, half: Half, entries: list[Entry]) -> None:
        self.journal.put(split, half, entries)
        self._lost(split, ((e.id, e.reason) for e in entries if e.reason))

    def _lost(self, split: Split, found: Iterable[tuple[str, str]]) -> None:
        """Count rows that lack a half, by id and reason. One that names no such half, but has the other, is not bad.
        Raises DataError if too many are."""
        halves, bad = self._halves[split], self._bad[split]
        for row_id, why in found:
            if why in self._half_reasons and row_id not in halves and row_id not in bad:
                halves[row_id] = why
            else:
                halves.pop(row_id, None)
                bad[row_id] = why
        self._check_bad(split)

    @cached_property
    def _half_reasons(self) -> set[str]:
        return self.dataset.half_reasons

    def _check_bad(self, split: Split) -> None:
        bad, n = self._bad[split], len(self.lists[split])
        if len(bad) <= self.options.max_bad * n + 1e-6:  # 0.29 * 100 is a little less than 29
            return
        shown = "; ".join(f"{row_id}: {reason}" for row_id, reason in list(bad.items())[:3])
        share = math.ceil(100 * len(bad) / n) / 100  # rounded up, so that it is enough
        causes = [p.message for p in self.dataset.problems if p.kind == "column not found"]
        if missing := missing_images(self.dataset.of(split), self.dataset.root):
            causes.append(missing)
        cause = "".join(f"{one}. " for one in causes)
        raise DataError(
            f"{cause}{len(bad)} of {n} {split} rows are bad ({shown}), more than --max-bad {self.options.max_bad:g}; "
            f"what was encoded is kept. `mmsent check` lists them; continue with --max-bad {share:g}, or more where "
            "posts that follow are bad too"
        )


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


def _outcome(cache: Cache, splits: Sequence[Split]) -> tuple[list[tuple[str, str, str]], int]:
    """The quarantined rows as (split, id, reason), and how many texts the encoder truncates."""
    quarantined: list[tuple[str, str, str]] = []
    cut = 0
    for split in splits:
        for _, columns in cache.blocks(split):
            for i in np.flatnonzero(columns["outcome"]).tolist():
                reasons = (columns[f"{half}_reason"][i].decode() for half in HALVES)
                quarantined.append((split, columns["id"][i].decode(), "; ".join(filter(None, reasons))))
            cut += int((columns["tokens"] > cache.settings.text.max_tokens).sum())
    return quarantined, cut
