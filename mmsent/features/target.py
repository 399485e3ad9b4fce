"""The cache that an extraction writes: where it is, its lock, and what there is so far."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmsent.config import EncoderSettings
from mmsent.data.dataset import Dataset
from mmsent.encoders.specs import encoder_label
from mmsent.errors import CacheError
from mmsent.features.cache import Cache
from mmsent.features.cache.finding import cache_path, list_caches
from mmsent.features.cache.fingerprint import FeatureSettings, differences
from mmsent.features.cache.journal import Journal
from mmsent.system.files import require_local


def target_settings(target: Path | Cache, here: FeatureSettings) -> tuple[FeatureSettings, list[str]]:
    """The settings of the cache to write, and a note where rows that are encoded here differ from its others by
    rounding. Raises CacheError if the cache to complete holds other features."""
    if not isinstance(target, Cache) or target.fingerprint == here.fingerprint:
        return here, []
    changes = "; ".join(differences(target.settings, here))
    if target.settings.contract != here.contract:
        raise CacheError(
            f"{target.path} cannot be completed here: {changes}; run `mmsent extract --split all` and fit again"
        )
    return target.settings, [
        f"the other rows of {target.path.name} were encoded under other conditions ({changes}); heads fit both alike"
    ]


@contextmanager
def opened_target(
    target: Path | Cache, dataset: Dataset, encoder: EncoderSettings, settings: FeatureSettings, *, wait: bool
) -> Iterator[tuple[Path, Cache | None, list[str]]]:
    """Hold the lock of the cache to write: its file, the cache so far, and why a new one is made where there are others
    of the data set. Raises CacheError if another process holds it and `wait` is off, it belongs to another data set or
    has other settings, or its folder cannot be written."""
    if isinstance(target, Cache):
        path = target.path
    else:
        path = cache_path(target, dataset.name, encoder_label(encoder), settings)
    with _locked(path, wait):
        path.with_name(path.name + ".tmp").unlink(missing_ok=True)  # left by an extraction that was killed
        old = _existing(path, target)
        _refuse_other_data(old, dataset)
        _refuse_other_settings(old, settings)
        known = old or isinstance(target, Cache)
        yield path, old, [] if known else _explain_new(path.parent, dataset, encoder, settings)


def begin_journal(path: Path, about: dict[str, object]) -> Journal:
    """Open the journal beside a cache, or make it. Raises CacheError if it was begun with other settings."""
    journal = Journal(path.with_name(path.name + ".journal"), about)
    if journal.meta["fingerprint"] != about["fingerprint"]:
        journal.close()
        raise CacheError(
            f"{journal.path} was begun with other settings, so its rows would not go with those encoded now; rename it"
        )
    return journal


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a cache, whose folder is made. Raises CacheError if another process holds it and `wait` is off,
    or if the folder cannot be written. The lock of a process that dies is released."""
    require_local(path, "a cache")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            if not wait:
                raise CacheError(f"another extraction is writing {path}; try again later, or pass --wait") from error
            print(f"another extraction is writing {path}; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise CacheError(f"cannot write in {path.parent}: {reason}; choose another folder with --cache") from error
    try:
        yield
    finally:
        lock.release()


def _existing(path: Path, target: Path | Cache) -> Cache | None:
    """The cache as it is now that nobody else writes it; None if there is none."""
    if isinstance(target, Cache) and target.damage is not None:
        return Cache.salvage(path)
    return Cache.open(path) if path.is_file() else None


def _refuse_other_data(old: Cache | None, dataset: Dataset) -> None:
    if old is None:
        return
    made_from = Path(old.provenance["data"])
    if made_from != dataset.root.resolve() and made_from.exists():
        raise CacheError(
            f"{old.path} was made from {made_from}, not from {dataset.root.resolve()}, and both are called "
            f"{dataset.name!r}; choose another folder with --cache"
        )


def _refuse_other_settings(old: Cache | None, settings: FeatureSettings) -> None:
    """Raise CacheError if a cache has the expected name, but other settings, as after it was renamed: rows encoded now
    would not go with its rows."""
    if old is not None and old.fingerprint != settings.fingerprint:
        changes = "; ".join(differences(old.settings, settings))
        raise CacheError(
            f"{old.path} has the name of the cache to make, but holds features of other settings ({changes}); rename "
            "it, or choose another folder with --cache"
        )


def _explain_new(folder: Path, dataset: Dataset, encoder: EncoderSettings, settings: FeatureSettings) -> list[str]:
    """Why a new cache is made although the folder holds one of the same data set and encoder."""
    label = encoder_label(encoder)
    alike = [c for c in list_caches(folder) if c.data_name == dataset.name and c.encoder == label]
    if not alike:
        return []
    nearest = min(alike, key=lambda c: len(differences(c.settings, settings)))
    changes = "; ".join(differences(nearest.settings, settings))
    return [f"a new cache is made, because settings differ from {nearest.path.name}: {changes}"]
