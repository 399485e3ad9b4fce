"""What a reader is: it recognises one form of data set and makes posts of it. `choosing` lists all."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from mmsent.config import DataSettings, default
from mmsent.data.encodings import Decoding
from mmsent.data.labels import label_of, label_spellings
from mmsent.data.lists import ListForm
from mmsent.data.posts import Post, Posts, Problem, Split
from mmsent.data.text import encodable
from mmsent.system.files import leads_out

MAX_ID_BYTES = 255
_WORD = re.compile(r"[A-Za-z]+")
VALIDATION = ("dev", "development", "val", "valid", "validation")  # rows of the training split that validate
SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", *VALIDATION), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Reading:
    """What a reader made of a data set. settings: with the names that columns have in the file; lists: the files that
    name the posts; told: how it was read, one sentence each; validation: ids of training posts that the data set itself
    keeps for validation; forms: of the lists of labels; decoding: None where each text is a file."""

    posts: Posts
    settings: DataSettings
    lists: tuple[Path, ...]
    problems: tuple[Problem, ...] = ()
    told: tuple[str, ...] = ()
    forms: dict[Split, ListForm] = field(default_factory=dict)
    decoding: Decoding | None = None
    validation: tuple[str, ...] = ()

    def with_problem(self, problem: Problem) -> Reading:
        """The same with one more problem."""
        return replace(self, problems=(*self.problems, problem))


@dataclass(frozen=True)
class Reader:
    """One form of data set. name: for --reader; form: what it looks like, in a few words; split: what its posts need to
    be training or test posts; locate: the folder or file that it would read at a path, None where there is nothing that
    it recognises; read: all of it, raising DataError where it cannot be read."""

    name: str
    form: str
    split: dict[Split, str]
    locate: Callable[[Path], Path | None]
    read: Callable[[Path, DataSettings], Reading]


def usual_columns(settings: DataSettings, columns: Mapping[str, str]) -> DataSettings:
    """The settings with a form's own names for the columns that nobody has named. columns: by what they hold."""
    fields = {f"{what}_column": name for what, name in columns.items()}
    unnamed = {f: name for f, name in fields.items() if getattr(settings, f) == default(DataSettings, f)}
    return settings.model_copy(update=unnamed)


class Labels:
    """The labels that cells hold. Those spelled otherwise, or that the settings' label map has, are counted."""

    def __init__(self, settings: DataSettings) -> None:
        self._settings = settings
        self._mapped: Counter[tuple[str, str]] = Counter()

    def of(self, value: str | None) -> str | None:
        """The label of a cell, None for none."""
        label = label_of(value, self._settings)
        if label is None or value is None:
            return None
        if (name := value.strip()) != label:
            self._mapped[name, label] += 1
        return label

    def told(self) -> list[str]:
        """Which names were mapped, and in how many rows."""
        rows = [f"{name[:60]!r} is {label!r} ({n} rows)" for (name, label), n in self._mapped.items()]
        said = {spelling for name, _ in self._mapped for spelling in label_spellings(name)}
        unused = [repr(name) for name in self._settings.label_map if name.casefold() not in said]
        none = [f"--label-map has {', '.join(sorted(unused))}, which no row says"] if unused else []
        return [f"labels: {', '.join(rows)}", *none] if rows else none


def split_named(value: str | None) -> Split | None:
    """The split that a cell names; None where it names none."""
    return SPLIT_NAMES.get((value or "").strip().casefold())


def split_of_name(stem: str) -> str | None:
    """The word at the start of a shard's name, such as train-00000, if it is that of a split."""
    found = _WORD.match(stem)
    return found[0] if found and split_named(found[0]) else None


def is_validation(value: str | None) -> bool:
    """Whether a cell names the validation rows."""
    return (value or "").strip().casefold() in VALIDATION


def validation_note(validation: Iterable[str], where: str) -> list[Problem]:
    """That a data set has validation rows of its own, where it has."""
    n = len(list(validation))
    message = f"{n} training rows are the data set's own validation rows; fit and sweep validate on them"
    return [Problem("note", "validation rows", where, message)] if n else []


def unsafe_id(guid: str, *, names_files: bool = True) -> str | None:
    """Why an id cannot be used, or None. names_files: it becomes a file name, as in the guid layout."""
    if not guid:
        return "is empty"
    if not encodable(guid):
        return "holds half a surrogate pair, which is not a character"
    if len(guid.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        return f"is longer than {MAX_ID_BYTES} bytes"
    if not guid.isprintable():
        return "holds a control character"
    if names_files and (any(c in guid for c in "/\\") or guid in {".", ".."}):
        return "holds a path separator"
    return None


def outside(posts: Iterable[Post], *folders: Path) -> list[Problem]:
    """A warning if files are links that lead out of the data set. data/ itself may be a link."""
    homes = [folder.resolve() for folder in folders]

    @cache
    def linked(folder: Path) -> bool:
        inside = folder not in folders and folder.is_relative_to(folders[0])
        return inside and (folder.is_symlink() or linked(folder.parent))

    def way_out(file: Path) -> bool:
        return (os.path.islink(file) or linked(file.parent)) and all(leads_out(file, home) for home in homes)

    files = ((post.id, one) for post in posts for one in (post.image, post.text))
    found = [name for name, one in files if isinstance(one, Path) and way_out(one)]
    if not found:
        return []
    message = f"{len(found)} files are links that lead out of the data set; their targets are read"
    return [Problem("warning", "link to outside", found[0], message)]
