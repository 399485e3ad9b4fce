"""Data sets: posts (id, image, text, label) from a folder of guid files or from a manifest. No torch here.

There are two layouts. *guid*: `train.txt` and `test_without_label.txt` hold `guid,tag` lines, `data/` holds
`<guid>.txt` and `<guid>.<image ending>`. *manifest*: one CSV, TSV, JSONL or Parquet file with one row per post; images
are paths relative to the file, or URLs of protocols that the settings allow. A manifest row belongs to the split in its
split column, else to train if it has a label and to test if it has none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from mmsent.config import DataSettings
from mmsent.data.encodings import Decoding, bom_encoding, decide_encoding
from mmsent.data.lists import ListForm, list_rows
from mmsent.data.manifests import MANIFEST_ENDINGS, ManifestRow, cell, image_file, label_of, open_manifest
from mmsent.data.posts import SPLITS as SPLITS
from mmsent.data.posts import Post as Post
from mmsent.data.posts import Posts
from mmsent.data.posts import Problem as Problem
from mmsent.data.posts import Split as Split
from mmsent.data.text import MAX_BYTES, clean_text, encodable, require_text
from mmsent.errors import DataError
from mmsent.system.files import leads_out, protocol, read_file, require_local, unreadable

LISTS: dict[Split, str] = {"train": "train.txt", "test": "test_without_label.txt"}
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
VALIDATION = ("dev", "development", "val", "valid", "validation")  # rows of the training split that validate
SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", *VALIDATION), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MAX_ID_BYTES = 255


@dataclass(frozen=True)
class Dataset:
    """Posts in list order. root: the folder or the manifest file that was opened. validation: ids of training posts
    that the data set itself keeps for validation."""

    root: Path
    layout: Literal["guid", "manifest"]
    settings: DataSettings
    posts: Posts
    problems: tuple[Problem, ...] = ()
    forms: dict[Split, ListForm] = field(default_factory=dict)
    manifest_decoding: Decoding | None = None
    validation: tuple[str, ...] = ()

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
        if self.layout == "guid":
            return f"{self.root} has no {split} split: {LISTS[split]} is missing or empty; it holds 'guid,tag' lines"
        rows = "rows with a label" if split == "train" else "rows without a label"
        return (
            f"{self.root} has no {split} split: it needs {rows}, "
            f"or a column {self.settings.split_column!r} that says '{split}'"
        )

    @property
    def splits(self) -> list[Split]:
        """The splits that hold at least one post."""
        return self.posts.splits

    def has_file(self, path: Path) -> bool:
        """Whether a path, without links, is that of a list, manifest, image or text of this data set."""
        root = Path(os.path.realpath(self.root))
        if path in {root, *(root / name for name in LISTS.values())}:
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


def load_dataset(
    path: Path | str,
    settings: DataSettings | None = None,
    *,
    strict: bool = True,
    with_test_labels: bool = False,
) -> Dataset:
    """Open a data set in either layout.

    strict: raise DataError on any error-level problem; otherwise keep them all in `Dataset.problems`.
    with_test_labels: keep the labels of the test split; only what writes into the log of openings may.
    """
    settings = settings or DataSettings()
    root = locate(Path(path))
    loaded = _load_guid(root, settings) if root.is_dir() else _load_manifest(root, settings)
    problems = list(loaded.problems) + _row_problems(loaded)
    posts = loaded.posts if with_test_labels else loaded.posts.without_test_labels()
    errors = [p for p in problems if p.severity == "error"]
    if strict and errors:
        shown = "; ".join(f"{p.where}: {p.message}" for p in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise DataError(f"{shown}{more}; `mmsent check --data {path}` lists all problems")
    return replace(loaded, posts=posts, problems=tuple(problems))


def locate(root: Path) -> Path:
    """The folder of a guid data set, or the manifest file of the other layout. Raises DataError if there is none."""
    if not root.exists():
        require_local(root, "a data set or its manifest")
        raise DataError(
            f"no data set at {root}; set --data to a folder with train.txt and data/, "
            "or to a CSV, TSV, JSONL or Parquet manifest"
        )
    if root.is_dir() and not any((root / name).is_file() for name in LISTS.values()):
        manifests = sorted(p for p in root.iterdir() if p.suffix.lower().lstrip(".") in MANIFEST_ENDINGS)
        manifests = [p for p in manifests if p.suffix.lower() != ".json"] or manifests  # which often tell of others
        if len(manifests) != 1:
            found = f"{len(manifests)} manifests" if manifests else "neither list nor manifest"
            raise DataError(
                f"{root} is not a data set: found {found}; expected {LISTS['train']} and data/, "
                f"or one file ending in {', '.join(MANIFEST_ENDINGS)}"
            )
        return manifests[0]
    return root


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


def name_of(path: Path) -> str:
    """The name of the data set at a path, without reading it."""
    root = locate(path).resolve()
    return root.name if root.is_dir() else root.stem


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
            meant = next((one for one in data.settings.labels if one.casefold() == post.label.casefold()), None)
            mend = f"write {meant!r}, or add it" if meant else "add it"
            message = f"label {post.label[:60]!r} is not one of {known}; {mend} with --labels if it is right"
            problems.append(Problem("error", "unknown label", where, message))
        other = seen.setdefault(post.id, post) if i in again else post
        if other is not post:
            if other.split == post.split:
                problems.append(Problem("error", "duplicate id", where, "this id stands twice in its list"))
            else:
                message = "this id is in both splits; validation would see a test post"
                problems.append(Problem("warning", "id in both splits", where, message))
    return problems


# --- guid layout


def _load_guid(root: Path, settings: DataSettings) -> Dataset:
    data = root / "data"
    files, problems = _scan(data), []
    posts = Posts(data)
    forms: dict[Split, ListForm] = {}
    for split in SPLITS:
        path = root / LISTS[split]
        if not path.is_file():
            continue
        rows, forms[split] = list_rows(path, settings)
        if (delimiter := forms[split].delimiter) != ",":
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
            posts.append(Post(guid, split, label_of(tag, settings), image, data / files.texts.get(guid, f"{guid}.txt")))
    listed = set(posts.ids)
    problems += _outside(posts, root, data.resolve())
    problems += files.problems()
    if extra := len((files.images.keys() | files.texts.keys()) - listed):
        problems.append(Problem("note", "unlisted", "data/", f"{extra} ids have files but are in no list"))
    return Dataset(root, "guid", settings, posts, tuple(problems), forms)


def _outside(posts: Iterable[Post], *folders: Path) -> list[Problem]:
    """A warning if files are links that lead out of the data set. data/ itself may be a link."""
    homes = [folder.resolve() for folder in folders]
    files = (
        (post.id, f) for post in posts for f in (post.image, post.text) if isinstance(f, Path) and os.path.islink(f)
    )
    found = [name for name, file in files if all(leads_out(file, home) for home in homes)]
    if not found:
        return []
    message = f"{len(found)} files are links that lead out of the data set; their targets are read"
    return [Problem("warning", "link to outside", found[0], message)]


@dataclass
class _Files:
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


def _scan(folder: Path) -> _Files:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; the guid layout keeps <guid>.txt and <guid>.jpg there")
    found = _Files(folder)
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


# --- manifest layout


def _load_manifest(path: Path, settings: DataSettings) -> Dataset:
    manifest = open_manifest(path, settings)
    settings = manifest.settings
    posts = Posts(path.parent)
    problems: list[Problem] = []
    validation: list[str] = []
    for i, row in enumerate(manifest.rows):
        where = f"{path.name} row {i + 1}"
        try:
            post, found = _manifest_post(path.parent, row, settings)
            if post is not None and (cell(row, settings.split_column) or "").strip().casefold() in VALIDATION:
                validation.append(post.id)
        except DataError as error:
            post, found = None, ("malformed row", str(error))
        if found:
            problems.append(Problem("error", found[0], where, found[1], post.id if post else None))
        if post is not None:
            posts.append(post)
    problems += [*manifest.problems, *_outside(posts, path.parent)]
    if validation:
        message = (
            f"{len(validation)} training rows are the data set's own validation rows; fit and sweep validate on them"
        )
        problems.append(Problem("note", "validation rows", path.name, message))
    form = dict.fromkeys(SPLITS, ListForm((settings.id_column, settings.label_column)))
    told = tuple(problems)
    return Dataset(path, "manifest", settings, posts, told, form, manifest.decoding, tuple(validation))


def split_named(value: str | None) -> Split | None:
    """The split that a cell names; None where it names none."""
    return SPLIT_NAMES.get((value or "").strip().casefold())


def _manifest_post(
    folder: Path, row: ManifestRow, settings: DataSettings
) -> tuple[Post | None, tuple[str, str] | None]:
    """The post of a row, None where it can have none, and the kind of problem and its message, where there is one.
    Raises DataError if a cell is not a plain value."""
    guid = cell(row, settings.id_column) or ""
    if reason := unsafe_id(guid, names_files=False):
        return None, ("unsafe id", f"id {guid[:60]!r} {reason}")
    label = label_of(cell(row, settings.label_column), settings)
    problem: tuple[str, str] | None = None
    split: Split = "train" if label is not None else "test"
    named = cell(row, settings.split_column) or ""
    if known := split_named(named):
        split = known
    elif named.strip():
        problem = "unknown split", f"split {named[:60]!r} is neither 'train' nor 'test'"
    image, text = cell(row, settings.image_column) or "", cell(row, settings.text_column)
    remote = protocol(image) if "://" in image else None
    if remote in settings.remote:
        return Post(guid, split, label, image, text), problem
    if remote not in (None, "file"):
        problem = "remote picture", f"picture {image[:60]!r} is at a URL; --remote {remote} allows fetching it"
        return Post(guid, split, label, None, text), problem
    return Post(guid, split, label, image_file(folder, image) if image.strip() else None, text), problem
