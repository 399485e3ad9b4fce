"""The guid layout: `train.txt` and `test_without_label.txt` hold `guid,tag` lines, `data/` holds `<guid>.txt` and
`<guid>.<image ending>`. A `val.txt`, or one of its other names, holds training posts that validate.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.lists import ListForm, list_rows
from mmsent.data.posts import SPLITS, Post, Posts, Problem, Split
from mmsent.data.readers.base import Labels, Reader, Reading, outside, unsafe_id, validation_note
from mmsent.data.readers.files import IMAGE_ENDINGS
from mmsent.errors import DataError

LISTS: dict[Split, str] = {"train": "train.txt", "test": "test_without_label.txt"}
VALIDATION_LISTS = ("val.txt", "valid.txt", "validation.txt", "dev.txt")


def _locate(path: Path) -> Path | None:
    return path if path.is_dir() and any((path / name).is_file() for name in LISTS.values()) else None


def _read(root: Path, settings: DataSettings) -> Reading:
    data = root / "data"
    files, problems = scan(data), []
    posts = Posts(data)
    forms: dict[Split, ListForm] = {}
    labels = Labels(settings)
    validation: list[str] = []
    for split, name in [*((split, LISTS[split]) for split in SPLITS), *(("train", n) for n in VALIDATION_LISTS)]:
        path = root / name
        if not path.is_file():
            continue
        rows, form = list_rows(path, settings)
        forms.setdefault(split, form)
        if (delimiter := form.delimiter) != ",":
            shown = "tabs" if delimiter == "\t" else f"'{delimiter}'"
            problems.append(Problem("note", "how it is read", path.name, f"fields are separated by {shown}"))
        for line, fields in rows:
            where = f"{path.name}:{line}"
            if len(fields) != 2:
                message = f"expected 'guid,tag', got {len(fields)} fields: {','.join(fields)[:80]!r}"
                problems.append(Problem("error", "malformed line", where, message))
                continue
            guid, tag = fields[0].strip(), fields[1]
            if reason := unsafe_id(guid):
                problems.append(Problem("error", "unsafe id", where, f"id {guid[:60]!r} {reason}"))
                continue
            image = data / (files.image(guid) or f"{guid}.*")
            posts.append(Post(guid, split, labels.of(tag), image, data / files.texts.get(guid, f"{guid}.txt")))
            if name in VALIDATION_LISTS:
                validation.append(guid)
    listed = set(posts.ids)
    problems += outside(posts, root, data.resolve())
    problems += files.problems()
    problems += validation_note(validation, ", ".join(n for n in VALIDATION_LISTS if (root / n).is_file()))
    if extra := len((files.images.keys() | files.texts.keys()) - listed):
        problems.append(Problem("note", "unlisted", "data/", f"{extra} ids have files but are in no list"))
    lists = tuple(root / name for name in (*LISTS.values(), *VALIDATION_LISTS))
    return Reading(posts, settings, lists, tuple(problems), tuple(labels.told()), forms, validation=tuple(validation))


@dataclass
class Files:
    """The names of the files in a folder: images and texts by id; several: of ids with more than one image; others:
    files with other endings, or none, by what may be their id; chosen: those of them that are used as images."""

    folder: Path
    images: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    several: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)

    def image(self, guid: str) -> str | None:
        """The image of an id. One with an unusual ending is known by its bytes."""
        if guid in self.images or guid not in self.others:
            return self.images.get(guid)
        from mmsent.data.images import is_image

        found = next((name for name in self.others[guid] if is_image(self.folder / name)), None)
        if found is not None:
            self.images[guid] = found
            self.chosen.append(found)
        return found

    def problems(self) -> list[Problem]:
        """What is to be told of the listed ids' images."""
        first = ", ".join(IMAGE_ENDINGS)
        found = [
            Problem("warning", "two pictures", name, f"{guid} has more than one picture; the first of {first} is used")
            for guid, name in self.several
        ]
        if self.chosen:
            message = f"{len(self.chosen)} images have unusual endings and were known by their bytes"
            found.append(Problem("note", "how it is read", self.chosen[0], message))
        return found


def scan(folder: Path) -> Files:
    """The files of a folder. Raises DataError if there is none."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; the guid layout keeps <guid>.txt and <guid>.jpg there")
    found = Files(folder)
    rank = {ending: i for i, ending in enumerate(IMAGE_ENDINGS)}
    for name in sorted(os.listdir(folder)):
        stem, _, ending = name.rpartition(".")
        ending = ending.lower()
        if ending == "txt":
            found.texts[stem] = name
        elif ending in rank:
            other = found.images.get(stem)
            if other is not None:
                found.several.append((stem, name))
            if other is None or rank[ending] < rank[other.rpartition(".")[2].lower()]:
                found.images[stem] = name
        else:
            for guid in {stem, name} - {""}:  # of an id with a dot in it, or without an ending
                found.others.setdefault(guid, []).append(name)
    return found


READER = Reader(
    "guid",
    "a folder with train.txt and data/",
    {split: f"{name} is missing or empty; it holds 'guid,tag' lines" for split, name in LISTS.items()},
    _locate,
    _read,
)
