"""Data sets: posts (id, image, text, label) from a folder of guid files or from a manifest. No torch here.

There are two layouts. *guid*: `train.txt` and `test_without_label.txt` hold `guid,tag` lines, `data/` holds
`<guid>.txt` and `<guid>.<image ending>`. *manifest*: one CSV, TSV, JSONL or Parquet file with one row per post; images
are paths relative to the file, or URLs of protocols that the settings allow. A manifest row belongs to the split in its
split column, else to train if it has a label and to test if it has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mmsent.config import DataSettings
from mmsent.data.encodings import Decoding, bom_encoding, decide_encoding
from mmsent.data.lists import MANIFEST_ENDINGS, ListForm, cell, list_rows, manifest_rows
from mmsent.data.posts import SPLITS as SPLITS
from mmsent.data.posts import Post as Post
from mmsent.data.posts import Posts
from mmsent.data.posts import Split as Split
from mmsent.data.text import MAX_BYTES, clean_text, encodable, require_text
from mmsent.errors import DataError
from mmsent.system.files import is_file, leads_out, protocol, read_file, require_local

LISTS: dict[Split, str] = {"train": "train.txt", "test": "test_without_label.txt"}
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
NO_LABEL = ("", "null", "none", "nan")
MAX_ID_BYTES = 255


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding about a data set. Errors stop extraction; warnings and notes do not."""

    severity: Literal["error", "warning", "note"]
    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class Dataset:
    """Posts in list order. root: the folder or the manifest file that was opened."""

    root: Path
    layout: Literal["guid", "manifest"]
    settings: DataSettings
    posts: Posts
    problems: tuple[Problem, ...] = ()
    forms: dict[Split, ListForm] = field(default_factory=dict)
    manifest_decoding: Decoding | None = None

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
            raise DataError(f"text cannot be read: {error.strerror or error}") from error
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
    with_test_labels: keep the labels of the test split; only `mmsent evaluate --split test` may.
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
    return Dataset(root, loaded.layout, settings, posts, tuple(problems), loaded.forms, loaded.manifest_decoding)


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
        if len(manifests) != 1:
            found = f"{len(manifests)} manifests" if manifests else "neither list nor manifest"
            raise DataError(
                f"{root} is not a data set: found {found}; expected {LISTS['train']} and data/, "
                f"or one file ending in {', '.join(MANIFEST_ENDINGS)}"
            )
        return manifests[0]
    return root


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
            message = f"label {post.label[:60]!r} is not one of {known}; add it with --labels if it is right"
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
    images, texts, problems = _scan(data)
    posts = Posts(data)
    forms: dict[Split, ListForm] = {}
    for split in SPLITS:
        path = root / LISTS[split]
        if not path.is_file():
            continue
        rows, forms[split] = list_rows(path, settings)
        for line, fields in rows:
            where = f"{path.name}:{line}"
            if len(fields) != 2:
                message = f"expected 'guid,tag', got {len(fields)} fields: {','.join(fields)[:80]!r}"
                problems.append(Problem("error", "malformed line", where, message))
                continue
            guid, tag = fields[0].strip(), fields[1].strip()
            if reason := unsafe_id(guid):
                problems.append(Problem("error", "unsafe id", where, f"id {guid[:60]!r} {reason}"))
                continue
            label = None if tag.lower() in NO_LABEL and tag not in settings.labels else tag
            image, text = images.get(guid), texts.get(guid)
            posts.append(Post(guid, split, label, data / image if image else None, data / text if text else None))
    listed = set(posts.ids)
    problems += _outside(posts, root, data.resolve())
    if extra := len((images.keys() | texts.keys()) - listed):
        problems.append(Problem("note", "unlisted", "data/", f"{extra} ids have files but are in no list"))
    return Dataset(root, "guid", settings, posts, tuple(problems), forms)


def _outside(posts: Iterable[Post], *folders: Path) -> list[Problem]:
    """A warning if files are links that lead out of the data set. data/ itself may be a link."""
    homes = [folder.resolve() for folder in folders]
    files = ((post.id, f) for post in posts for f in (post.image, post.text) if isinstance(f, Path) and f.is_symlink())
    found = [name for name, file in files if all(leads_out(file, home) for home in homes)]
    if not found:
        return []
    message = f"{len(found)} files are links that lead out of the data set; their targets are read"
    return [Problem("warning", "link to outside", found[0], message)]


def _scan(folder: Path) -> tuple[dict[str, str], dict[str, str], list[Problem]]:
    """The file names of images and of texts by id."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; the guid layout keeps <guid>.txt and <guid>.jpg there")
    images: dict[str, str] = {}
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    rank = {ending: i for i, ending in enumerate(IMAGE_ENDINGS)}
    for name in sorted(os.listdir(folder)):
        stem, _, ending = name.rpartition(".")
        ending = ending.lower()
        if ending == "txt":
            texts[stem] = name
        elif ending in rank:
            other = images.get(stem)
            if other is not None:
                message = f"{stem} has more than one picture; the first of {', '.join(IMAGE_ENDINGS)} is used"
                problems.append(Problem("warning", "two pictures", name, message))
            if other is None or rank[ending] < rank[other.rpartition(".")[2].lower()]:
                images[stem] = name
    return images, texts, problems


# --- manifest layout


def _load_manifest(path: Path, settings: DataSettings) -> Dataset:
    rows, decoding = manifest_rows(path, settings)
    posts = Posts(path.parent)
    problems: list[Problem] = []
    for i, row in enumerate(rows):
        where = f"{path.name} row {i + 1}"
        try:
            post = _manifest_post(path.parent, row, settings)
        except DataError as error:
            problems.append(Problem("error", "malformed row", where, str(error)))
            continue
        if isinstance(post, Post):
            posts.append(post)
        else:
            problems.append(Problem("error", post[0], where, post[1]))
    problems += _outside(posts, path.parent)
    form = ListForm((settings.id_column, settings.label_column))
    return Dataset(path, "manifest", settings, posts, tuple(problems), dict.fromkeys(SPLITS, form), decoding)


def _manifest_post(folder: Path, row: dict[str, Any], settings: DataSettings) -> Post | tuple[str, str]:
    """The post of a row, or the kind of problem and its message. Raises DataError if a cell is not a plain value."""
    guid = cell(row, settings.id_column) or ""
    if reason := unsafe_id(guid, names_files=False):
        return "unsafe id", f"id {guid[:60]!r} {reason}"
    label = cell(row, settings.label_column)
    if label is not None and label.lower() in NO_LABEL and label not in settings.labels:
        label = None
    split: Split = "train" if label is not None else "test"
    named = cell(row, settings.split_column)
    if named:
        if named not in SPLITS:
            return "unknown split", f"split {named[:60]!r} is neither 'train' nor 'test'"
        split = "train" if named == "train" else "test"
    image, text = cell(row, settings.image_column), cell(row, settings.text_column)
    if image and "://" in image and (remote := protocol(image)):
        if remote not in settings.remote:
            return "remote picture", f"picture {image[:60]!r} is at a URL; --remote {remote} allows fetching it"
        return Post(guid, split, label, image, text)
    path = folder / image if image else None
    return Post(guid, split, label, path if path and is_file(path) else None, text)
