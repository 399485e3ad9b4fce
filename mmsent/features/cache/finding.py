"""Where caches are stored and how they are found: by the data set's name, the encoder and the fingerprint."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mmsent.errors import CacheError
from mmsent.features.cache.fingerprint import FeatureSettings, differences
from mmsent.features.cache.reading import Cache
from mmsent.system.files import require_local


def cache_path(folder: Path, data_name: str, encoder: str, settings: FeatureSettings) -> Path:
    """The path of the cache of a data set and settings: `<data>.<encoder>.<fingerprint>.h5`."""
    return folder / f"{slug(data_name)}.{slug(encoder)}.{settings.fingerprint[:8]}.h5"


def slug(name: str) -> str:
    """A name as part of a file name; long names are cut and get a digest."""
    plain = re.sub(r"[^A-Za-z0-9_+-]+", "-", name).strip("-")
    if len(plain) > 64 or not plain:
        plain = f"{plain[:48] or 'data'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return plain


def list_caches(folder: Path) -> list[Cache]:
    """Every readable cache in a folder, newest first. Unreadable files are left out; `unreadable` lists them."""
    found = []
    for path in sorted(folder.glob("*.h5"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            found.append(Cache.open(path))
        except CacheError:
            continue
    return found


def unreadable(folder: Path, data_name: str | None = None, encoder: str | None = None) -> list[Path]:
    """The caches in a folder that cannot be opened. data_name, encoder: only those whose file names match."""
    known = {cache.path for cache in list_caches(folder)}
    found = []
    for path in sorted(folder.glob("*.h5")):
        data, _, rest = path.name.partition(".")
        fits = data_name in (None, data) or slug(data_name or "") == data
        if path not in known and fits and (encoder is None or rest.startswith(f"{slug(encoder)}.")):
            found.append(path)
    return found


def find_cache(where: Path, *, data_name: str | None = None, encoder: str | None = None) -> Cache:
    """The one cache that matches. where: a cache file, or the folder to search.

    Raises CacheError if none or several match; the message lists them and says how to choose.
    """
    if where.is_file():
        return Cache.open(where)
    require_local(where, "a cache")
    caches = list_caches(where) if where.is_dir() else []
    matching = [
        c
        for c in caches
        if data_name in (None, c.data_name) and (encoder is None or encoder in (c.encoder, slug(c.encoder)))
    ]
    if len(matching) == 1:
        return matching[0]
    wanted = (f" of {data_name}" if data_name else "") + (f" with {encoder}" if encoder else "")
    if not matching:
        names = "; it holds " + ", ".join(c.path.name for c in caches) if caches else ""
        if broken := unreadable(where, data_name):
            Cache.open(broken[0])  # raises an error that says what is wrong
        unfinished = sorted(where.glob("*.h5.journal")) if where.is_dir() else []
        hint = f" ({unfinished[0].name} is unfinished: run the same `mmsent extract` again)" if unfinished else ""
        flag = f" --encoder {encoder}" if encoder else ""
        raise CacheError(
            f"no cache{wanted} in {where}/{names}; make one with `mmsent extract --split train{flag}`{hint}"
        )
    several = ", ".join(str(c.path) for c in matching)
    encoders = sorted({c.encoder for c in matching})
    how = f"--encoder {' or '.join(encoders)}" if len(encoders) == len(matching) else "--cache FILE"
    raise CacheError(f"{len(matching)} caches{wanted} match: {several}; choose one with {how}")


def explain(folder: Path, data_name: str, wanted: FeatureSettings) -> list[tuple[Cache, list[str]]]:
    """Every cache of a data set with the settings that differ from the wanted ones; an empty list means that it
    matches."""
    return [(c, differences(c.settings, wanted)) for c in list_caches(folder) if c.data_name == data_name]
