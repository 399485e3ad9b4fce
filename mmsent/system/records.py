"""Folders of records. A record is a folder with a JSON file of facts: a run, a sweep or a cross-validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mmsent.errors import RunError


@dataclass(frozen=True)
class RecordFormat:
    """A kind of record. file: the name of its JSON file; version: the newest format version that can be read; needed:
    the keys that must be there; kind: what a message calls such a record; made_by: the command that writes one."""

    file: str
    version: int
    needed: Collection[str]
    kind: str
    made_by: str


class Record(Protocol):
    """A record that was read: its folder's name and its facts."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Record)


def read_record(
    path: Path, form: RecordFormat, check: Callable[[Path, dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """The facts of the record in a folder. Raises RunError if there is none, it is damaged, or its format is newer.

    check: looks at the facts and raises RunError, or a KeyError, TypeError, ValueError or AttributeError if they are
    malformed.
    """
    file = path / form.file
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if info["format_version"] > form.version:
            raise RunError(f"{path} was written by a newer mmsent; upgrade to read it")
        if absent := sorted(set(form.needed) - info.keys()):
            raise RunError(f"{file} lacks {', '.join(absent)}; run {form.made_by} again")
        if check:
            check(file, info)
    except FileNotFoundError as error:
        raise RunError(f"{path} is not a {form.kind}: it has no {form.file}; {form.made_by} writes one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    return info


def list_records(
    folder: Path,
    file: str,
    read: Callable[[Path], R],
    *,
    fingerprint: str | None = None,
    data_name: str | None = None,
) -> list[R]:
    """The readable records in a folder, newest first. fingerprint, data_name: only those of this cache.

    Unreadable records are left out; reading one by its own name says what is wrong with it.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or not (path / file).is_file():
            continue
        try:
            record = read(path)
        except RunError:
            continue
        cache = record.info["cache"]
        if fingerprint in (None, cache["fingerprint"]) and data_name in (None, cache["data_name"]):
            found.append(record)
    return sorted(found, key=lambda record: (record.info["finished"], record.name), reverse=True)
