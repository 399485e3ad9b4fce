"""Posts from rows: by which of their cells they get an id, a label, a split, an image and a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmsent.config import DataSettings
from mmsent.data.containers import Inside
from mmsent.data.encodings import Decoding
from mmsent.data.lists import ListForm
from mmsent.data.manifests import ManifestRow, cell
from mmsent.data.posts import SPLITS, Post, Posts, Problem, Split
from mmsent.data.readers.base import Labels, Reading, is_validation, outside, split_named, unsafe_id, validation_note
from mmsent.data.readers.files import ImageFiles
from mmsent.errors import DataError
from mmsent.system.files import protocol

SPLIT: dict[Split, str] = {
    "train": "it needs rows with a label, or a column {split!r} that says 'train'",
    "test": "it needs rows without a label, or a column {split!r} that says 'test'",
}


_ROUNDED, _FRACTION = re.compile(r"\d([.,]\d+)?[eE]\+\d+"), re.compile(r"\d+\.0")
_NO_TEXT = ("\\N", "NULL", "null", "nan", "NaN", "None", "<NA>", "#N/A")
_ODD: dict[str, tuple[Literal["warning", "note"], str]] = {
    "rounded ids": (
        "warning",
        "{n} ids such as {first!r} were rounded by a spreadsheet, and their last digits are lost; export them as text",
    ),
    "ids that were fractions": ("note", "{n} ids such as {first!r} end in .0 and are used as they stand"),
    "words for no text": (
        "warning",
        "{n} texts such as {first!r} are programs' words for none and are read as texts; empty them if they are none",
    ),
}


@dataclass
class RowPosts:
    """What becomes of rows. settings: with the columns' names as the rows have them; source: the name of the file that
    has the rows."""

    settings: DataSettings
    files: ImageFiles
    source: str
    problems: list[Problem] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.posts = Posts(self.files.folder)
        self.labels = Labels(self.settings)
        self._said: Counter[str] = Counter()
        self._odd: dict[str, list[str]] = {kind: [] for kind in _ODD}

    def add(self, rows: Iterable[tuple[str, ManifestRow]]) -> None:
        """The posts of rows, each with words that say where it stands."""
        for where, row in rows:
            try:
                post, found = self._post(row)
            except DataError as error:
                post, found = None, ("malformed row", str(error))
            if found:
                self.problems.append(Problem("error", found[0], where, found[1], post.id if post else None))
            if post is not None:
                self.posts.append(post)

    def reading(
        self,
        lists: Iterable[Path],
        told: Iterable[str],
        problems: Iterable[Problem] = (),
        decoding: Decoding | None = None,
    ) -> Reading:
        """All posts that were added. lists: the files that name them; told, problems: what comes before the rows'."""
        said = ", ".join(f"{name} ({n} rows)" for name, n in self._said.items())
        own = [*self.labels.told(), *([f"splits: {said}"] if said else []), *self.files.told()]
        odd = [
            Problem(severity, kind, self.source, message.format(n=len(found), first=found[0]))
            for kind, (severity, message) in _ODD.items()
            if (found := self._odd[kind])
        ]
        around = [*odd, *outside(self.posts, self.files.folder), *validation_note(self.validation, self.source)]
        return Reading(
            self.posts,
            self.settings,
            tuple(lists),
            (*problems, *self.problems, *around),
            (*told, *own),
            dict.fromkeys(SPLITS, ListForm((self.settings.id_column, self.settings.label_column))),
            decoding,
            tuple(self.validation),
        )

    def _post(self, row: ManifestRow) -> tuple[Post | None, tuple[str, str] | None]:
        """The post of a row, None where it can have none, and the kind of problem and its message, where there is one.
        Raises DataError if a cell is not a plain value."""
        settings = self.settings
        guid = cell(row, settings.id_column) or ""
        if reason := unsafe_id(guid, names_files=False):
            return None, ("unsafe id", f"id {guid[:60]!r} {reason}")
        label = self.labels.of(cell(row, settings.label_column))
        split, problem = self._split(cell(row, settings.split_column) or "", label)
        image, text = cell(row, settings.image_column) or "", row.get(settings.text_column)
        if not isinstance(text, Path):  # of a reader whose texts are files
            text = cell(row, settings.text_column)
        if _ROUNDED.fullmatch(guid):
            self._odd["rounded ids"].append(guid)
        elif _FRACTION.fullmatch(guid):
            self._odd["ids that were fractions"].append(guid)
        if isinstance(text, str) and text.strip() in _NO_TEXT:
            self._odd["words for no text"].append(text.strip())
        if is_validation(cell(row, settings.split_column)):
            self.validation.append(guid)
        if isinstance(own := row.get(settings.image_column), Inside):
            return Post(guid, split, label, str(own), text), problem
        remote = protocol(image) if "://" in image else None
        if remote in settings.remote:
            return Post(guid, split, label, image, text), problem
        if remote not in (None, "file"):
            problem = "remote picture", f"picture {image[:60]!r} is at a URL; --remote {remote} allows fetching it"
            return Post(guid, split, label, None, text), problem
        return Post(guid, split, label, self.files.find(image) if image.strip() else None, text), problem

    def _split(self, named: str, label: str | None) -> tuple[Split, tuple[str, str] | None]:
        split: Split = "train" if label is not None else "test"
        if known := split_named(named):
            self._said[f"{named.strip()!r} is {known}"] += 1
            return known, None
        self._said[f"without a label is {split}" if label is None else f"with a label is {split}"] += 1
        if named.strip():
            return split, ("unknown split", f"split {named[:60]!r} is neither 'train' nor 'test', nor 'val'")
        return split, None
