"""Records: folders that say in one JSON file what they hold. Reading one, and finding all of a kind in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmsent.errors import RunError


@dataclass(frozen=True)
class Record:
    """A folder, and what its JSON file says."""

    path: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def since(self) -> str:
        """When it was finished or, later, promoted (see mmsent.sweep.promote), as ISO text: what newest means."""
        return str(self.info.get("promoted") or self.info["finished"])


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RecordKind:
    """One kind of record. file: the JSON file's name; version: the newest format that can be read; needed: the keys it
    must have. In messages, name says what such a folder is, made_by which command makes one, again how to replace a
    damaged one."""

    file: str
    version: int
    needed: frozenset[str]
    name: str
    made_by: str
    again: str

    def read(self, folder: Path) -> dict[str, Any]:
        """What the folder's record says. Raises RunError where there is none, or it cannot be read."""
        file = folder / self.file
        try:
            info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            require_format(info, self.version, folder)
            absent = sorted(self.needed - info.keys())
        except FileNotFoundError as error:
            raise RunError(f"{folder} is not {self.name}: it has no {self.file}; {self.made_by}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{file} cannot be read: {error}") from error
        if absent:
            raise RunError(f"{file} lacks {', '.join(absent)}; {self.again}")
        return info

    def newest_first(
        self, folder: Path, opener: Callable[[Path], R], fingerprint: str | None = None, data_name: str | None = None
    ) -> list[R]:
        """The readable records of this kind in a folder by `since`, the last one first.
        fingerprint, data_name: only those made from such a cache."""
        found = []
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(".") or not (path / self.file).is_file():
                continue
            try:
                one = opener(path)
            except RunError:
                continue  # opened by name, it says what is wrong with it
            cache = one.info["cache"]
            if fingerprint in (None, cache["fingerprint"]) and data_name in (None, cache["data_name"]):
                found.append(one)
        return sorted(found, key=lambda one: (one.since, one.name), reverse=True)


def require_format(info: Mapping[str, Any], newest: int, folder: Path) -> None:
    """Raise RunError where a record's format is newer than `newest`."""
    if info["format_version"] > newest:
        raise RunError(f"{folder} was written by a newer mmsent; upgrade to read it")
