"""The commands on features: extract, and the caches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import (
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    ViewSettings,
    default,
)
from mmsent.errors import CacheError, DataError, UsageError
from mmsent.system.tables import columns


def extract(
    data: Path,
    settings: DataSettings,
    split: str,
    cache: Path,
    encoder: EncoderSettings,
    views: ViewSettings,
    options: ExtractSettings,
    as_json: bool,
) -> None:
    """Encode what is missing and bring the cache up to date."""
    from mmsent.data.dataset import SPLITS, load_dataset
    from mmsent.features.extract import extract as run

    if split not in (*SPLITS, "all"):
        raise UsageError(f"--split {split!r}: choose train, test or all")
    if cache.is_file():
        raise UsageError(f"--cache {cache} is a file; extract takes the folder and names the file itself")
    dataset = load_dataset(data, settings)
    wanted = dataset.splits if split == "all" else [s for s in SPLITS if s == split]
    if not wanted:
        raise DataError(f"{data} holds no posts")
    with resumable("what was encoded is kept"), _engine(options) as engine:
        result = run(dataset, wanted, cache, encoder=encoder, views=views, options=options, engine=engine)
    if as_json:
        say_json(
            {
                "cache": str(result.cache.path),
                "fingerprint": result.cache.fingerprint,
                "encoded": result.encoded,
                "rows": result.rows,
                "quarantined": [dict(zip(("split", "id", "reason"), q, strict=True)) for q in result.quarantined],
                "texts_cut": result.cut,
                "text_encoding": {"encoding": dataset.decoding.encoding, "why": dataset.decoding.why},
                "seconds": round(result.seconds, 3),
                "notes": result.notes,
            }
        )
        return
    for line in result.notes:
        note(line)
    for name, n in result.rows.items():
        say(f"{name}: {n} rows, {result.encoded[name]} encoded, {n - result.encoded[name]} already there")
    say(f"text encoding: {dataset.decoding.encoding} ({dataset.decoding.why})")
    if result.cut:
        say(f"{result.cut} texts are longer than {result.cache.settings.text.max_tokens} tokens and were cut")
    if result.quarantined:
        say(f"{len(result.quarantined)} rows are quarantined:")
        for split_name, row_id, reason in result.quarantined[:10]:
            say(f"  {split_name} {row_id}: {reason}")
    say(f"cache: {result.cache.path} ({result.seconds:.1f} s)")


@contextmanager
def _engine(options: ExtractSettings) -> Iterator[Any]:
    """The engine that options ask for; None is extraction's own."""
    if options.engine == "local":
        if options.address or options.actors:
            raise UsageError("--address and --actors go with --engine ray")
        yield None
        return
    from mmsent.features.ray_engine import RayEngine

    # What Ray says of lost nodes would stand in front of our own output, or in the middle of its JSON.
    with redirect_stdout(sys.stderr), RayEngine(options.address, options.actors, options.workers) as engine:
        yield engine


def find(data: Path | None, cache: Path, encoder: str | None) -> Any:
    """The cache that a command works on: by the data set's name and the encoder. data None: whatever is there."""
    from mmsent.data.dataset import name_of
    from mmsent.features.cache.finding import find_cache

    name = None
    if not cache.is_file():
        if data is not None:
            name = name_of(data)
        elif Path("data").exists():
            name = name_of(Path("data"))
    return find_cache(cache, data_name=name, encoder=encoder)


def source_of(cache: Any, data: Path | None) -> Path:
    """The data set of a cache: the given path, else data/ if it has the cache's name, else what it remembers."""
    from mmsent.data.dataset import name_of
    from mmsent.errors import MmsentError

    if data is not None:
        return data
    try:
        if name_of(Path("data")) == cache.data_name:
            return Path("data")
    except MmsentError:
        pass  # no data set here
    return Path(cache.provenance["data"])


def require_current(cache: Any, data: Path | None, split: str) -> None:
    """Raise CacheError where the list of the data set (if it is at hand) is no longer what the cache holds."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.cache import NO_LABEL

    path = source_of(cache, data)
    if not path.exists() or split not in cache.rows:
        return
    settings = DataSettings.model_validate(cache.provenance["data_settings"])
    posts = [p for p in load_dataset(path, settings).posts if p.split == split]
    numbers = {label: i for i, label in enumerate(settings.labels)}
    now = {p.id: numbers[p.label] if p.label is not None else NO_LABEL for p in posts}
    index = cache.index(split)
    then = dict(zip(index.ids, index.labels.tolist(), strict=True))
    if now != then:
        moved = sum(now.get(k) != then.get(k) for k in now.keys() | then.keys())
        raise CacheError(
            f"the {split} list of {path} differs from {cache.path} in {moved} rows; "
            f"run `mmsent extract --split {split} --data {path} --encoder {cache.encoder}` (only new posts are encoded)"
        )


def complete(cache: Any, data: Path | None, split: str, device: str | None) -> Any:
    """The cache with a split in it: as it is, or after extracting that split with the cache's own settings."""
    from mmsent.data.dataset import SPLITS, load_dataset
    from mmsent.features.extract import extract as run

    if split in cache.rows:
        require_current(cache, data, split)
        return cache
    path = source_of(cache, data)
    settings = DataSettings.model_validate(cache.provenance["data_settings"])
    dataset = load_dataset(path, settings)
    wanted = [s for s in SPLITS if s == split]
    n = len(dataset.of(wanted[0]))
    note(f"{cache.path.name} holds no {split} rows yet: encoding {n} posts")
    stored = cache.provenance["encoder_settings"]
    encoder = EncoderSettings.model_validate(stored | ({"device": device} if device else {}))
    max_bad = cache.provenance.get("max_bad", default(ExtractSettings, "max_bad"))
    options = ExtractSettings(storage=cache.settings.storage, max_bad=max_bad)
    folder = cache.path.parent
    views = cache.settings.views
    with resumable("what was encoded is kept"):
        return run(dataset, wanted, folder, encoder=encoder, views=views, options=options, only=cache).cache


def cache_ls(folder: Path, as_json: bool) -> None:
    """List the caches of a folder."""
    from mmsent.features.cache.finding import list_caches

    found = list_caches(folder)
    if as_json:
        say_json(
            [
                {
                    "path": str(c.path),
                    "data": c.data_name,
                    "encoder": c.encoder,
                    "rows": c.rows,
                    "views": c.settings.views.count,
                    "fingerprint": c.fingerprint,
                    "bytes": c.path.stat().st_size,
                }
                for c in found
            ]
        )
        return
    if not found:
        say(f"no caches in {folder}; make one with `mmsent extract`")
        return
    rows = [["file", "data", "encoder", "train", "test", "views", "MB"]]
    for c in found:
        size = f"{c.path.stat().st_size / 1e6:.1f}"
        counts = [str(c.rows.get("train", "")), str(c.rows.get("test", "")), str(c.settings.views.count)]
        rows.append([c.path.name, c.data_name, c.encoder, *counts, size])
    say(columns(rows, right=range(3, 7)))
    for path in sorted(set(folder.glob("*.h5")) - {c.path for c in found}):
        note(f"{path.name}: unreadable, no cache or damaged")
    for path in sorted(folder.glob("*.h5.journal")):
        note(f"{path.name}: unfinished; run the same `mmsent extract` again to complete it")


def cache_info(data: Path | None, cache_at: Path, encoder: str | None, as_json: bool) -> None:
    """Everything a cache says of itself."""
    cache = find(data, cache_at, encoder)
    outcome = {}
    for split in cache.rows:
        index = cache.index(split)
        bad = [{"id": index.ids[i], "reason": index.reason(i)} for i in range(len(index)) if not index.good[i]]
        outcome[split] = {
            "rows": len(index),
            "labels": {name: int((index.labels == k).sum()) for k, name in enumerate(cache.labels)},
            "texts_cut": int((index.tokens > cache.settings.text.max_tokens).sum()),
            "quarantined": bad,
        }
    facts = {
        "path": str(cache.path),
        "fingerprint": cache.fingerprint,
        "contract": cache.settings.contract,
        "data_name": cache.data_name,
        "encoder": cache.encoder,
        "splits": outcome,
        "settings": cache.settings.canonical(),
        "provenance": cache.provenance,
    }
    if as_json:
        say_json(facts)
        return
    say(outline(facts))


def outline(value: Any, indent: int = 0) -> str:
    """Nested values as indented `key: value` lines."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{'  ' * indent}{key}:")
            lines.append(outline(item, indent + 1))
        else:
            shown = json.dumps(item, ensure_ascii=False) if isinstance(item, (list, dict)) else item
            lines.append(f"{'  ' * indent}{key}: {shown}")
    return "\n".join(lines)


@resumable("nothing was changed")
def cache_verify(data: Path | None, cache_at: Path, encoder: str | None, sample: int, as_json: bool) -> int:
    """Check a cache's integrity and encode a sample of rows again. Returns the exit status."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.repair import verify

    cache = _find_to_mend(data, cache_at, encoder)
    dataset, encoders = None, None
    path = source_of(cache, data)
    if sample and not cache.damage and path.exists():
        dataset = load_dataset(path, DataSettings.model_validate(cache.provenance["data_settings"]))
        encoders = _encoders_of(cache, None)
    elif sample and not cache.damage:
        note(f"{path} is not here, so no row can be encoded again; only the file is checked")
    done = verify(cache, dataset, encoders, sample)
    if as_json:
        say_json(done.to_json())
    elif done.damaged:
        say(f"{cache.path}: {done.rows} rows read, damaged:")
        for line in done.damaged:
            say(f"  {line}")
    else:
        say(f"{cache.path}: {done.rows} rows read, all checksums hold")
        if done.sampled:
            say(
                f"{done.sampled} rows encoded again: {done.identical} identical to the bit, "
                f"lowest cosine {done.lowest:.6f}, {len(done.changed)} changed since, {len(done.wrong)} wrong"
            )
        for row_id in done.wrong[:10]:
            say(f"  wrong: {row_id}")
        if done.changed:
            note("run `mmsent extract` to encode the changed rows")
    if done.damaged:
        note(f"`mmsent cache repair --cache {cache.path}` encodes damaged rows again")
    return 0 if done.ok else 1


def cache_repair(
    data: Path | None, cache_at: Path, encoder: str | None, device: str | None, wait: bool, as_json: bool
) -> None:
    """Encode a cache's damaged rows again."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.repair import repair

    cache = _find_to_mend(data, cache_at, encoder)
    if not cache.damage:
        say_json({"path": str(cache.path), "found": [], "encoded": {}, "dropped": {}}) if as_json else say(
            f"{cache.path}: all checksums hold, nothing to repair"
        )
        return
    path = source_of(cache, data)
    if not path.exists():
        raise CacheError(f"{cache.path} was made from {path}, which is not here; --data says where the posts are now")
    dataset = load_dataset(path, DataSettings.model_validate(cache.provenance["data_settings"]))
    max_bad = cache.provenance.get("max_bad", default(ExtractSettings, "max_bad"))
    options = ExtractSettings(storage=cache.settings.storage, max_bad=max_bad, wait=wait)
    with resumable("the damaged cache is as it was and what was encoded is kept"):
        done = repair(cache.path, dataset, _encoders_of(cache, device), options)
    if as_json:
        say_json(done.to_json())
        return
    for line in done.found:
        say(f"damaged: {line}")
    for name, n in done.encoded.items():
        say(f"{name}: {n} rows encoded again, {done.cache.rows[name] - n} kept")
    for name, n in done.dropped.items():
        note(f"{name}: {n} damaged rows are gone, for they had left the list before")
    say(f"cache: {done.cache.path}, all checksums hold")


def _find_to_mend(data: Path | None, cache_at: Path, encoder: str | None) -> Any:
    """The cache that a command works on, for what is still good in it where it is damaged."""
    from mmsent.data.dataset import name_of
    from mmsent.features.cache import Cache
    from mmsent.features.cache.finding import unreadable

    at = cache_at
    if not at.is_file():
        name = name_of(data) if data is not None else name_of(Path("data")) if Path("data").exists() else None
        broken = unreadable(at, name, encoder) if at.is_dir() else []
        if len(broken) > 1:
            raise CacheError(
                f"{len(broken)} caches in {at} cannot be read; name one with --cache: {broken[0]} or other"
            )
        at = broken[0] if broken else find(data, cache_at, encoder).path
    return Cache.salvage(at)


def _encoders_of(cache: Any, device: str | None) -> Any:
    """The encoders that a cache was made with. Raises CacheError where their weights are others here."""
    from mmsent.encoders.factory import open_encoders

    stored = cache.provenance["encoder_settings"]
    encoders = open_encoders(EncoderSettings.model_validate(stored | ({"device": device} if device else {})))
    for half, card in (("image", encoders.image.card), ("text", encoders.text.card)):
        known = getattr(cache.settings, half)
        if card.weights_sha256 != known.weights_sha256:
            raise CacheError(
                f"{cache.path}: {half} rows were encoded with weights {known.weights_sha256[:12]}, "
                f"here are {card.weights_sha256[:12]}"
            )
    return encoders


def cache_explain(
    data: Path,
    settings: DataSettings,
    cache_at: Path,
    encoder: EncoderSettings,
    views: ViewSettings,
    storage: str,
    as_json: bool,
) -> None:
    """Say why each cache of a data set serves the given settings or does not."""
    from mmsent.data.dataset import load_dataset
    from mmsent.encoders.factory import open_encoders
    from mmsent.features.cache.finding import explain
    from mmsent.features.extract import feature_settings

    dataset = load_dataset(data, settings)
    wanted = feature_settings(dataset, open_encoders(encoder), encoder, views, storage)
    found = explain(cache_at if cache_at.is_dir() else cache_at.parent, dataset.name, wanted)
    if as_json:
        say_json([{"path": str(c.path), "serves": not d, "differences": d} for c, d in found])
        return
    if not found:
        say(f"no cache of {dataset.name} in {cache_at}")
    for cache, differing in found:
        say(f"{cache.path.name}: " + ("serves these settings" if not differing else "does not serve, for"))
        for line in differing:
            say(f"  {line}")


@resumable("nothing was written")
def cache_export(data: Path | None, cache_at: Path, encoder: str | None, split: str, out: Path) -> None:
    """Write a split for other programs."""
    from mmsent.features.cache.export import export

    cache = find(data, cache_at, encoder)
    say(f"wrote {export(cache, split, out)}")
