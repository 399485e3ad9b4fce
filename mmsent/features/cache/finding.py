"""Where caches are stored and how they are found: by the data set's name, the encoder and the fingerprint."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from warnings import warn

from mmsent.errors import CacheError, CacheShutError
from mmsent.features.cache.fingerprint import FeatureSettings, differences
from mmsent.features.cache.journal import begun_with
from mmsent.features.cache.reading import Cache
from mmsent.system.failures import reason
from mmsent.system.files import from_here, require_local


def cache_path(folder: Path, data_name: str, encoder: str, settings: FeatureSettings) -> Path:
    """The path of the cache of a data set and settings: `<data>.<encoder>.<fingerprint>.h5`."""
    return folder / f"{slug(data_name)}.{slug(encoder)}.{settings.fingerprint[:8]}.h5"


def slug(name: str) -> str:
    """A name as part of a file name; long names are cut and get a digest."""
    plain = re.sub(r"[^A-Za-z0-9_+-]+", "-", name).strip("-")
    if len(plain) > 64 or not plain:
        plain = f"{plain[:48] or 'data'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return plain


def survey(folder: Path) -> tuple[list[Cache], dict[Path, CacheError]]:
    """Every cache in a folder that can be opened, newest first, and why the others cannot. Raises CacheError if the
    folder cannot be listed."""
    found: list[tuple[int, Cache]] = []
    shut: dict[Path, CacheError] = {}
    try:
        paths = sorted(folder / name for name in os.listdir(folder) if name.endswith(".h5"))
    except (FileNotFoundError, ValueError):  # or no path that can exist
        return [], {}
    except OSError as error:
        raise CacheError(f"the caches in {folder} cannot be listed: {reason(error)}") from error
    for path in paths:
        try:
            found.append((path.stat().st_mtime_ns, Cache.open(path)))
        except FileNotFoundError:  # gone since, or a link to nowhere
            continue
        except CacheError as error:
            shut[path] = error
        except OSError as error:
            shut[path] = CacheShutError(f"{path} cannot be read: {reason(error)}")
    return [cache for _, cache in sorted(found, key=lambda one: one[0], reverse=True)], shut


def list_caches(folder: Path) -> list[Cache]:
    """Every cache in a folder that can be opened, newest first; `survey` says what is wrong with others."""
    return survey(folder)[0]


def named(path: Path, data_name: str | None = None, encoder: str | None = None) -> bool:
    """Whether a cache's file name is that of a data set and an encoder."""
    data, _, rest = path.name.partition(".")
    fits = data_name in (None, data) or slug(data_name or "") == data
    return fits and (encoder is None or rest.startswith(f"{slug(encoder)}."))


def unreadable(folder: Path, data_name: str | None = None, encoder: str | None = None) -> dict[Path, CacheError]:
    """The caches in a folder that cannot be opened, and why. data_name, encoder: only those whose file names match."""
    return {path: why for path, why in survey(folder)[1].items() if named(path, data_name, encoder)}


def find_cache(
    where: Path, *, data_name: str | None = None, encoder: str | None = None, tell: Callable[[str], object] = warn
) -> Cache:
    """The one cache that matches; the newest of several that differ only by rounding. where: a cache file, or the
    folder to search. tell: takes a remark, which of them was taken or which one could not be opened.

    Raises CacheError if none or several match; the message lists them and says how to choose.
    """
    if where.is_file():
        return Cache.open(where)
    require_local(where, "a cache")
    caches, shut = survey(where)
    broken = [why for path, why in shut.items() if named(path, data_name, encoder)]
    matching = [
        c
        for c in caches
        if data_name in (None, c.data_name) and (encoder is None or encoder in (c.encoder, slug(c.encoder)))
    ]
    wanted = (f" of {data_name}" if data_name else "") + (f" with {encoder}" if encoder else "")
    if not matching:
        if broken:
            raise broken[0]
        raise _none(where, caches, wanted, data_name, encoder)
    newest = matching[0]
    if not all(c.encoder == newest.encoder and newest.settings.alike(c.settings) for c in matching):
        encoders = sorted({c.encoder for c in matching})
        ways = [f"--encoder {one}" for one in encoders]
        if len(encoders) < len(matching):
            ways = [f"--cache {shlex.quote(str(c.path))}" for c in matching]
        raise CacheError(f"{len(matching)} caches{wanted} match; choose one with {' or '.join(ways)}")
    if len(matching) > 1:
        others = ", ".join(c.path.name for c in matching[1:])
        tell(
            f"{newest.path.name} is used, the newest of {len(matching)} caches{wanted} that differ only in library "
            f"versions or precision (not {others}); choose another with --cache FILE"
        )
    if data_name is not None:
        for why in broken:
            tell(f"left out: {why}")
    return newest


def _none(where: Path, caches: list[Cache], wanted: str, data_name: str | None, encoder: str | None) -> CacheError:
    flag = f" --encoder {encoder}" if encoder else ""
    make = f"make one with `mmsent extract --split train{flag}`"
    names = "; it holds " + ", ".join(c.path.name for c in caches) if caches else ""
    if data_name and (misnamed := [c for c in caches if named(c.path, data_name, encoder)]):
        names = f"; {misnamed[0].path.name} was made from {misnamed[0].data_name}, another data set"
    left = [told for path, told in unfinished(where) if named(path.with_suffix(""), data_name, encoder)]
    return CacheError(f"no cache{wanted} in {where}/{names}; {left[0] if left else make}")


def unfinished(folder: Path) -> list[tuple[Path, str]]:
    """The journal of every extraction in a folder that is not finished, and how to finish it."""
    found = []
    for path in sorted(folder.glob("*.h5.journal")) if folder.is_dir() else ():
        data = shlex.quote(from_here(begun_with(path).get("data", "")))
        how = f"`mmsent extract --data {data}` goes on" if data != "''" else "run the same extraction again"
        found.append((path, f"{path.name} is unfinished: {how}"))
    return found


def explain(folder: Path, data_name: str, wanted: FeatureSettings) -> list[tuple[Cache, list[str]]]:
    """Every cache of a data set with the settings that differ from the wanted ones; an empty list means that it
    matches."""
    return [(c, differences(c.settings, wanted)) for c in list_caches(folder) if c.data_name == data_name]
