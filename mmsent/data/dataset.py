"""Data sets: posts (id, image, text, label), as one of the readers reads them. No torch here."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.encodings import Decoding, bom_encoding, decide_encoding
from mmsent.data.lists import ListForm
from mmsent.data.manifests import open_manifest
from mmsent.data.posts import SPLITS as SPLITS
from mmsent.data.posts import Post as Post
from mmsent.data.posts import Posts
from mmsent.data.posts import Problem as Problem
from mmsent.data.posts import Split as Split
from mmsent.data.readers.base import split_named as split_named
from mmsent.data.readers.base import unsafe_id as unsafe_id
from mmsent.data.readers.choosing import READERS, choose
from mmsent.data.readers.guid import LISTS as LISTS
from mmsent.data.readers.guid import VALIDATION_LISTS as VALIDATION_LISTS
from mmsent.data.text import MAX_BYTES, clean_text, require_text
from mmsent.errors import DataError
from mmsent.system.files import read_file, unreadable


@dataclass(frozen=True)
class Dataset:
    """Posts in list order. root: the folder or file that was opened. layout: the reader's name. validation: ids of
    training posts that the data set itself keeps for validation. lists: the files that name the posts. told: how it was
    read, one sentence each."""

    root: Path
    layout: str
    settings: DataSettings
    posts: Posts
    problems: tuple[Problem, ...] = ()
    forms: dict[Split, ListForm] = field(default_factory=dict)
    manifest_decoding: Decoding | None = None
    validation: tuple[str, ...] = ()
    lists: tuple[Path, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the folder or the manifest; caches are found by it."""
        return name_of(self.root)

    def of(self, split: Split) -> Sequence[Post]:
        """The posts of one split, in list order. Raises DataError if there are none."""
        found = self.posts.of(split)
        if not found:
            raise DataError(self._missing(split))
        return found

    def _missing(self, split: Split) -> str:
        needs = READERS[self.layout].split[split].format(split=self.settings.split_column)
        said = f"{self.root} has no {split} split: {needs}"
        if split != "test":
            return said
        data, out = shlex.quote(str(self.root)), shlex.quote(f"{self.name}-with-test")
        return f"{said}; `mmsent prepare --data {data} --out {out} --holdout 0.1` writes a copy that has one"

    @property
    def half_reasons(self) -> set[str]:
        """Why a post may lack one half and be none the worse for it: its row names none. Not where a column that is not
        read may hold them."""
        missed = {one.message.split("'")[1] for one in self.problems if one.kind == "column not found"}
        read = {"no picture": self.settings.image_column, "no text": self.settings.text_column}
        return {reason for reason, column in read.items() if column not in missed}

    @property
    def splits(self) -> list[Split]:
        """The splits that hold at least one post."""
        return self.posts.splits

    def has_file(self, path: Path) -> bool:
        """Whether a path, without links, is that of a list, manifest, image or text of this data set."""
        root = Path(os.path.realpath(self.root))
        if path in {root, *(Path(os.path.realpath(one)) for one in self.lists)}:
            return True
        files = (file for post in self.posts for file in (post.image, post.text) if isinstance(file, Path))
        return any(file.name == path.name and Path(os.path.realpath(file)) == path for file in files)

    @cached_property
    def decoding(self) -> Decoding:
        """The text encoding of this data set, decided once from all listed texts."""
        if self.manifest_decoding is not None:
            return self.manifest_decoding
        files = (post.text for post in self.posts if isinstance(post.text, Path))
        return decide_encoding(_readable(files), self.settings.encodings, self.settings.text_encoding)

    def text_of(self, post: Post) -> str:
        """The decoded, stripped and (if the settings say so) cleaned text. Raises DataError with the reason if there is
        none."""
        if post.text is None:
            raise DataError("no text")
        text = post.text.strip() if isinstance(post.text, str) else self._decoded(post.text)
        return clean_text(require_text(text), self.settings.clean)

    def _decoded(self, path: Path) -> str:
        try:
            raw = read_file(path, MAX_BYTES)
        except OSError as error:
            raise DataError(unreadable("text", path, error)) from error
        try:
            return self.decoding.decode(raw)
        except UnicodeError as error:
            raise DataError(f"text is not {bom_encoding(raw) or self.decoding.encoding}: {error}") from error


def _readable(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        try:
            yield read_file(path, MAX_BYTES)
        except OSError:
            continue  # a missing text is a problem of its row, not of the data set


def load_dataset(
    path: Path | str,
    settings: DataSettings | None = None,
    *,
    strict: bool = True,
    with_test_labels: bool = False,
) -> Dataset:
    """Open a data set in any form that a reader recognises.

    strict: raise DataError on any error-level problem; otherwise keep them all in `Dataset.problems`.
    with_test_labels: keep the labels of the test split; only what writes into the log of openings may.
    """
    settings = settings or DataSettings()
    reader, root = choose(Path(path), settings)
    read = reader.read(root, settings)
    loaded = Dataset(
        root,
        reader.name,
        read.settings,
        read.posts,
        read.problems,
        read.forms,
        read.decoding,
        read.validation,
        read.lists,
        (f"read by {reader.name}: {reader.form}", *read.told),
    )
    problems = list(loaded.problems) + _row_problems(loaded)
    posts = loaded.posts if with_test_labels else loaded.posts.without_test_labels()
    errors = [p for p in problems if p.severity == "error"]
    if strict and errors:
        shown = "; ".join(f"{p.where}: {p.message}" for p in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise DataError(f"{shown}{more}; `mmsent check --data {path}` lists all problems")
    return replace(loaded, posts=posts, problems=tuple(problems))


def locate(root: Path, settings: DataSettings | None = None) -> Path:
    """The folder or file that the data set at a path consists of. Raises DataError if there is none."""
    return choose(root, settings)[1]


def belongs_to(path: Path, *datasets: Dataset) -> Path | None:
    """The data set that has a file at this path, or would have it there: one of these, or one that is known by the
    files around it; None if there is none."""
    real = Path(os.path.realpath(path))
    for dataset in datasets:
        if dataset.has_file(real):
            return dataset.root
    home = real.parent if real.name in LISTS.values() and (real.parent / "data").is_dir() else real.parent.parent
    if (home == real.parent or real.parent.name == "data") and any((home / n).is_file() for n in LISTS.values()):
        return home
    if real.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl") and real.is_file():
        with contextlib.suppress(DataError, OSError), real.open(encoding="utf-8", errors="replace") as file:
            if "predicted,confidence," in file.readline():  # a table of predictions, whatever its heads are called
                return None
            open_manifest(real, DataSettings())  # raises DataError on what is no manifest
            return real
    return None


def name_of(path: Path, settings: DataSettings | None = None) -> str:
    """The name of the data set at a path, without reading it."""
    root = locate(path, settings).resolve()
    return root.name if root.is_dir() else root.stem


_ADD = "add it with --labels if it is right, or say with --label-map which one it is"


def _row_problems(data: Dataset) -> list[Problem]:
    """Problems of ids and labels: duplicate ids, labels outside the set, unlabelled training rows."""
    problems: list[Problem] = []
    labels = set(data.settings.labels)
    known = ", ".join(data.settings.labels)
    again = data.posts.ids.repeated()
    seen: dict[str, Post] = {}
    for i, post in enumerate(data.posts):
        where = f"{data.root.name} {post.split} {post.id[:60]}"
        if post.split == "train" and post.label is None:
            problems.append(Problem("error", "no label", where, "a training row has no label"))
        if post.label is not None and post.label not in labels:
            message = f"label {post.label[:60]!r} is not one of {known}; {_ADD}"
            problems.append(Problem("error", "unknown label", where, message))
        other = seen.setdefault(post.id, post) if i in again else post
        if other is not post:
            if other.split == post.split:
                problems.append(Problem("error", "duplicate id", where, "this id stands twice in its list"))
            else:
                message = "this id is in both splits; validation would see a test post"
                problems.append(Problem("warning", "id in both splits", where, message))
    return problems
