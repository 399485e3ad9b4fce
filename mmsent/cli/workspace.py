"""Where a command works: the data set, the cache and the runs that its options name, or that it finds by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.cli.output import note, resumable, suggest_also
from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, Fusion, default, settings
from mmsent.errors import CacheError, CacheShutError, DataError, MmsentError, RunError

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset
    from mmsent.encoders.base import Encoders
    from mmsent.features.cache import Cache
    from mmsent.training.runs import Run

DATA = Path("data")


@dataclass(frozen=True)
class Workspace:
    """data: the data set, None where it was not named. cache_at: a cache file, or the folder of the caches. encoder:
    the cache's encoder pair, None for the one there is. runs_at: the folder of the runs. text_encoder: where a text
    encoder's own folders lie now.

    Everything is looked for when it is first asked for, and the cache is opened once.
    """

    data: Path | None = None
    cache_at: Path = Path("cache")
    encoder: str | None = None
    runs_at: Path = Path("runs")
    text_encoder: str | None = None

    @cached_property
    def cache(self) -> Cache:
        """The cache that fits the data set's name and the encoder. Raises CacheError where none or several fit."""
        from mmsent.features.cache.finding import find_cache

        found = find_cache(self.cache_at, data_name=self._data_name, encoder=self.encoder, tell=note)
        suggest_also(lambda command: self._needed(command, found))
        return found

    def _needed(self, command: str, cache: Cache) -> dict[str, Any]:
        """What a suggested command needs to work on the same: the data set, where nobody named it, and how its list is
        read, for a command that does not learn it from the cache."""
        source = self.source(cache)
        data = {} if self.data is not None or source == DATA else {"data": source}
        if command not in ("check", "prepare"):
            return data
        own = _data_settings(cache).model_dump(exclude_defaults=True)
        return data | {name: ",".join(v) if name == "labels" else v for name, v in own.items()}

    @cached_property
    def cache_to_repair(self) -> Cache:
        """The cache, also where it is damaged, with all in it that is sound. Raises CacheError where several are."""
        from mmsent.features.cache import Cache
        from mmsent.features.cache.finding import unreadable

        at = self.cache_at
        if not at.is_file():
            shut = unreadable(at, self._data_name, self.encoder)
            broken = [path for path, why in shut.items() if not isinstance(why, CacheShutError)]
            if len(broken) > 1:
                raise CacheError(
                    f"{len(broken)} caches in {at} cannot be read; name one with --cache: {broken[0]} or other"
                )
            at = broken[0] if broken else self.cache.path
        return Cache.salvage(at)

    @property
    def _data_name(self) -> str | None:
        """The name of the data set that was named, or that lies in data/; None where there is neither."""
        from mmsent.data.dataset import name_of

        if self.cache_at.is_file():
            return None
        if self.data is not None:
            return name_of(self.data)
        return name_of(DATA) if DATA.exists() else None

    def source(self, cache: Cache | None = None) -> Path:
        """The data set of the cache: the named one, else data/ if it has the cache's name, else what it remembers."""
        from mmsent.data.dataset import name_of

        if self.data is not None:
            return self.data
        cache = cache or self.cache
        try:
            if name_of(DATA) == cache.data_name:
                return DATA
        except MmsentError:
            pass  # no data set here
        return Path(cache.provenance["data"])

    def dataset(self, cache: Cache | None = None, **how: Any) -> Dataset:
        """The data set of the cache, read as it was for the cache. how: as for load_dataset. Raises DataError."""
        from mmsent.data.dataset import load_dataset

        cache = cache or self.cache
        return load_dataset(self.source(cache), _data_settings(cache), **how)

    def dataset_if_there(self, cache: Cache | None = None) -> tuple[Dataset | None, str]:
        """The data set of the cache, or None and why it is not there. Raises DataError where a named one is not."""
        try:
            return self.dataset(cache, strict=False), ""
        except DataError as error:
            if self.data is not None:
                raise
            return None, f"the posts cannot be found ({error})"

    def require_current(self, split: str) -> Cache:
        """The cache. Raises CacheError where it lacks the split, or where the data set's list, images or texts, if they
        are at hand, are no longer what it holds."""
        from mmsent.features.cache import NO_LABEL

        cache = self.cache
        cache.require(split)
        path = self.source()
        if not path.exists():
            return cache
        dataset = self.dataset()
        posts = [p for p in dataset.posts if p.split == split]
        numbers = {label: i for i, label in enumerate(_data_settings(cache).labels)}
        now = {p.id: numbers[p.label] if p.label is not None else NO_LABEL for p in posts}
        index = cache.index(split)
        then = dict(zip(index.ids, index.labels.tolist(), strict=True))
        validating = set(cache.validation) ^ set(dataset.validation) if split == "train" else set()
        if now != then or validating:
            moved = len({k for k in now.keys() | then.keys() if now.get(k) != then.get(k)} | validating)
            raise CacheError(
                f"the {split} list of {path} differs from {cache.path} in {moved} rows; run `mmsent extract --split "
                f"{split} --data {path} --encoder {cache.encoder}` (only new posts are encoded)"
            )
        if said := _what_changed(cache, dataset, split):
            raise CacheError(said)
        return cache

    def tell_changes(self, dataset: Dataset | None) -> None:
        """Note which posts of a cache's splits have changed since they were encoded."""
        for split in self.cache.rows if dataset else ():
            if said := _what_changed(self.cache, dataset, split):
                note(said)

    def complete(self, split: str, device: str | None = None) -> Cache:
        """The cache with a split in it: as it is, or after encoding that split with the cache's own settings."""
        from mmsent.data.dataset import SPLITS
        from mmsent.encoders.specs import moved
        from mmsent.features.extract import extract

        cache = self.cache
        if split in cache.rows:
            return self.require_current(split)
        dataset, pair = self.dataset(), encoder_settings_of(cache, device)
        if self.text_encoder is not None:
            pair = moved(pair, self.text_encoder)
        wanted = [s for s in SPLITS if s == split]
        note(f"{cache.path.name} holds no {split} rows yet: encoding {len(dataset.of(wanted[0]))} posts")
        with resumable("what was encoded is kept"):
            done = extract(
                dataset,
                wanted,
                cache,
                encoder=pair,
                views=cache.settings.views,
                options=extract_settings_of(cache),
            )
        for line in done.notes:
            note(line)
        return done.cache

    def named_runs(self, names: Sequence[str]) -> list[Run]:
        """Runs by path, or by name in the folder of the runs; a hub folder gives all that it holds, a sweep its
        winners."""
        from mmsent.export.hub import CONFIG, open_runs
        from mmsent.sweep.results import SUMMARY, open_sweep
        from mmsent.training.runs import WINNERS

        def at(name: str) -> list[Path]:
            known = any((Path(name) / file).is_file() for file in ("run.json", CONFIG, SUMMARY))
            path = Path(name) if known else self.runs_at / name
            if (path / SUMMARY).is_file():
                done = open_sweep(path)
                return [done.run_path(one["run"]) for one in done.winners]
            kept = [] if path.is_dir() else [p for p in self.runs_at.glob(f"*/{WINNERS}/*") if p.name == name]
            return kept[:1] or [path]

        return self._here([run for name in names for path in at(name) for run in open_runs(path)])

    def of_runs(self, names: Sequence[str], encoders: Sequence[str] = ()) -> tuple[Workspace, list[Workspace]]:
        """Where the named runs were trained on several caches: the workspace of the first run's cache and those of the
        others, from the folder of the caches; else this one, and those of these encoders."""
        from mmsent.features.cache.finding import list_caches

        if encoders:
            folder = self.cache_at.parent if self.cache_at.is_file() else self.cache_at
            return self, [replace(self, cache_at=folder, encoder=name) for name in encoders]
        contracts = list(dict.fromkeys(run.contract for run in self.named_runs(names)))
        if len(contracts) < 2:
            return self, []
        alone = self.cache_at.is_file()
        folder = self.cache_at.parent if alone else self.cache_at
        newest = {
            one.settings.contract: replace(self, cache_at=one.path)
            for one in reversed(list_caches(folder))
            if self._data_name in (None, one.data_name)
        }
        fitting = [newest[contract] for contract in contracts if contract in newest]
        if alone:
            own = self.cache.settings.contract
            return self, [one for one in fitting if one.cache.settings.contract != own]
        return (fitting[0], fitting[1:]) if fitting else (self, [])

    def _here(self, runs: list[Run]) -> list[Run]:
        """Runs whose text encoder lies where --text-encoder says."""
        from mmsent.encoders.specs import moved

        typed = self.text_encoder
        if typed is None:
            return runs
        return [run.with_text_folder(moved(run.encoder_settings, typed).text_folder) for run in runs]

    def runs(self, names: Sequence[str] | None) -> list[Run]:
        """The named runs, else the newest of each fusion of this cache, and says which. Raises RunError where there are
        none."""
        from mmsent.training.runs import picked, runs_of

        if names:
            return self.named_runs(names)
        cache = self.cache
        newest: dict[Fusion, Run] = {}
        for run in runs_of(self.runs_at, cache):
            newest.setdefault(run.fusion, run)
        if not newest:
            raise RunError(f"no runs of {cache.path.name} in {self.runs_at}; fit some with `mmsent fit --fusion all`")
        chosen = [newest[fusion] for fusion in Fusion if fusion in newest]
        note(picked(chosen, f"the newest of each fusion on this cache in {self.runs_at}"))
        return self._here(chosen)

    def voting_runs(self, names: Sequence[str] | None) -> list[Run]:
        """The named runs, else the newest of this cache that vote, and says which. Raises RunError where there are
        none."""
        from mmsent.inference.vote import voting_runs
        from mmsent.training.runs import picked

        if names:
            return self.named_runs(names)
        chosen = voting_runs(self.runs_at, self.cache)
        which = "committee" if chosen[0].committee else f"{', '.join(run.fusion for run in chosen)}"
        note(picked(chosen, f"the newest {which} on this cache in {self.runs_at}"))
        return self._here(chosen)


def _what_changed(cache: Cache, dataset: Any, split: Any) -> str:
    """Which posts of a split have changed since they were encoded, and what to do; empty where none has."""
    from mmsent.features.changes import changed_posts

    found = changed_posts(cache, dataset, split)
    if not found.ids:
        return ""
    n, shown = len(found.ids), ", ".join(found.ids[:3]) + (", …" if len(found.ids) > 3 else "")
    if found.elsewhere:
        return (
            f"{cache.path} was made from {cache.provenance['data']}, not from {dataset.root}: {n} of {found.compared} "
            f"{split} posts compared have another image or text ({shown}); leave --data out to use that data set, or "
            f"run `mmsent extract --data {dataset.root} --encoder {cache.encoder}`"
        )
    return (
        f"{n} {split} posts of {dataset.root} have changed since they were encoded ({shown}); run `mmsent extract "
        f"--split {split} --data {dataset.root} --encoder {cache.encoder}` (only these are encoded)"
    )


def encoder_settings_of(cache: Cache, device: str | None = None, weights: str | None = None) -> EncoderSettings:
    """What the cache was encoded with; on another device, or with weights at another place, where these are given."""
    from mmsent.encoders.runtimes import usable

    stored = cache.encoder_settings
    given = {"device": device, "weights": weights, "runtime": usable(stored.runtime, stored.precision, device)}
    return settings(EncoderSettings, **stored.model_dump() | {name: value for name, value in given.items() if value})


def extract_settings_of(cache: Cache, *, wait: bool = False) -> ExtractSettings:
    """How the cache was extracted."""
    max_bad = cache.provenance.get("max_bad", default(ExtractSettings, "max_bad"))
    return settings(ExtractSettings, storage=cache.settings.storage, max_bad=max_bad, wait=wait)


def encoders_of(cache: Cache, device: str | None = None, weights: str | None = None) -> Encoders:
    """The encoders that a cache was made with. Raises CacheError where their weights are others here."""
    from mmsent.encoders.factory import open_encoders

    encoders = open_encoders(encoder_settings_of(cache, device, weights))
    for half, card in (("image", encoders.image.card), ("text", encoders.text.card)):
        known = getattr(cache.settings, half)
        if card.weights_sha256 != known.weights_sha256:
            raise CacheError(
                f"{cache.path}: {half} rows were encoded with weights {known.weights_sha256[:12]}, "
                f"here are {card.weights_sha256[:12]}"
            )
    return encoders


def _data_settings(cache: Cache) -> DataSettings:
    return DataSettings.model_validate(cache.provenance["data_settings"])
