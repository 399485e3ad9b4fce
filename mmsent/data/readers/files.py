"""Where the image files are that rows name, and in how many rows they were found in which way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.manifests import image_file
from mmsent.system.files import is_file


class ImageFiles:
    """Finds images below a folder, and below --images where that is given.

    deep: a name alone is enough, wherever below the folder its file lies; below --images it always is. spellings: the
    paths that a cell may mean, the likeliest first.
    """

    def __init__(
        self,
        folder: Path,
        settings: DataSettings,
        *,
        deep: bool = False,
        spellings: Callable[[str], list[str]] = lambda written: [written],
    ) -> None:
        self.folder = folder
        self.spellings = spellings
        self._other = Path(settings.images) if settings.images else None
        self._deep = [folder] if deep else []
        self._ways: Counter[str] = Counter()

    def find(self, written: str) -> Path:
        """The file that a cell means. Where there is none, the path where it was looked for first."""
        names = self.spellings(written)
        first = image_file(self.folder, names[0])
        if self._other is None and not self._deep:
            return first
        for folder, way in ((self.folder, "by the path"), (self._other, f"below {self._other}")):
            for name in names if folder else ():
                if folder and is_file(found := image_file(folder, name)):
                    self._ways[way] += 1
                    return found
        for name in names:
            if (alone := self._by_name.get(_last(name))) is not None:
                self._ways["by the name alone"] += 1
                return alone
        several = any(_last(name) in self._by_name for name in names)
        self._ways["not found, as several files have the name" if several else "not found"] += 1
        return first

    @cached_property
    def _by_name(self) -> dict[str, Path | None]:
        """The files by their names; None where several have one name."""
        found: dict[str, Path | None] = {}
        for folder in [*self._deep, *([self._other] if self._other else [])]:
            for where, _, names in os.walk(folder):
                for name in names:
                    found[name] = None if name in found else Path(where, name)
        return found

    def told(self) -> list[str]:
        """How images were found, where there was more than one way to find them."""
        ways = ", ".join(f"{n} {way}" for way, n in self._ways.items())
        return [f"images: {ways}"] if ways else []


def _last(name: str) -> str:
    return name.strip().replace("\\", "/").rpartition("/")[2]
