"""A UTF-8 copy of a data set (the preprocessing step of the coursework report). The original is only read.

Data files are written first and lists or the manifest last, each as a temporary file that is then renamed. So an
interrupted copy is not a data set, and no half-written file has a final name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsent.data.dataset import LISTS, VALIDATION_LISTS, Dataset, Post
from mmsent.data.encodings import Decoding, decide_lines
from mmsent.data.images import read_image
from mmsent.data.lists import list_text, read_list
from mmsent.data.manifests import cell, json_text, read_manifest
from mmsent.data.readers.files import ImageFiles
from mmsent.data.text import clean_text
from mmsent.errors import DataError, UsageError
from mmsent.system.files import is_file
from mmsent.system.safe_csv import join_csv

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A text or image that is not in the copy, and why. Its row stays in the list."""

    id: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """The result of a copy. path: for --data, the folder or the new manifest."""

    path: Path
    decoding: Decoding
    texts: int
    pictures: int
    skipped: tuple[Skipped, ...]


def prepare(
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    held_out: Collection[str] = (),
) -> PrepareResult:
    """Copy a data set's listed posts to `out`: lists and texts as UTF-8, stripped and cleaned; images byte for byte.

    overwrite: allow a folder that is not empty; files of this data set's posts are replaced, others stay.
    progress: called with the number of posts done since the last call. held_out: ids of labelled training posts that
    belong to the copy's test split, with their labels. Raises UsageError if `out` is, contains or is
    inside the source, or is not empty; DataError if a file of the source cannot be read.
    """
    if dataset.layout not in ("guid", "manifest"):
        raise UsageError(
            f"prepare copies guid folders and manifests, and {dataset.root} was read by {dataset.layout}; "
            "the other commands take it as it is"
        )
    _check_target(dataset, out, overwrite)
    (out / "data").mkdir(parents=True, exist_ok=True)
    made = _prepare_guid if dataset.layout == "guid" else _prepare_manifest
    return made(dataset, out, progress, frozenset(held_out))


def _check_target(dataset: Dataset, out: Path, overwrite: bool) -> None:
    source = dataset.root.resolve()
    source = source if dataset.layout == "guid" else source.parent
    targets = {out.resolve(), (out / "data").resolve()}  # the latter may be a link
    files = (f for post in dataset.posts for f in (post.image, post.text) if isinstance(f, Path) and is_file(f))
    folders = {folder.resolve() for folder in {file.parent for file in files}}
    if any(t.is_relative_to(source) or f.is_relative_to(t) for t in targets for f in {source, *folders}):
        raise UsageError(f"{out} is, contains or is inside the data set {dataset.root}; choose a folder outside of it")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder; choose a new one")
    if out.is_dir() and not overwrite and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; choose a new folder, or pass --overwrite")


def _write(path: Path, text: str) -> None:
    temporary = _temporary(path)
    temporary.write_bytes(text.encode("utf-8"))
    os.replace(temporary, path)


def _copy(source: Path, path: Path) -> None:
    temporary = _temporary(path)
    shutil.copyfile(source, temporary)
    os.replace(temporary, path)


def _temporary(path: Path) -> Path:
    temporary = path.with_name(
        ".partial"
    )  # not named after the id, which may already have the maximal length of a file name
    temporary.unlink(missing_ok=True)
    return temporary


# --- guid layout


def _prepare_guid(dataset: Dataset, out: Path, progress: Progress | None, held_out: frozenset[str]) -> PrepareResult:
    for name in (*LISTS.values(), *VALIDATION_LISTS):
        (out / name).unlink(missing_ok=True)
    skipped: list[Skipped] = []
    texts: set[str] = set()
    pictures: set[str] = set()
    for post in dataset.posts:
        try:
            _write(out / "data" / f"{post.id}.txt", dataset.text_of(post))
            texts.add(f"{post.id}.txt")
        except (DataError, UnicodeEncodeError) as error:
            skipped.append(Skipped(post.id, "text", str(error)))
        assert isinstance(post.image, Path)  # the guid layout knows no URLs
        if reason := _no_file(post.image):
            skipped.append(Skipped(post.id, "picture", reason))
        else:
            _copy_picture(post, post.image, out / "data" / post.image.name)
            pictures.add(post.image.name)
        if progress:
            progress(1)
    ids = {post.id for post in dataset.posts}
    for path in (out / "data").iterdir():  # left by an earlier copy, and outdated
        if path.stem in ids and path.name not in texts | pictures and path.is_file():
            path.unlink()
    for name in (*LISTS.values(), *VALIDATION_LISTS):
        if (dataset.root / name).is_file() and (name in VALIDATION_LISTS or not held_out):
            _write(out / name, _list_text(dataset, dataset.root / name))
    if held_out:
        _write_lists(dataset, out, held_out)
    return PrepareResult(out, dataset.decoding, len(texts), len(pictures), tuple(skipped))


def _write_lists(dataset: Dataset, out: Path, held_out: frozenset[str]) -> None:
    """The two lists, with the posts that are held out in that of the test."""
    train, form = read_list(dataset.root / LISTS["train"], dataset.settings)
    there = (dataset.root / LISTS["test"]).is_file()
    test = read_list(dataset.root / LISTS["test"], dataset.settings)[0] if there else []
    kept = [(fields[0], fields[1]) for _, fields in train if fields[0].strip() not in held_out]
    moved = [(fields[0], fields[1]) for _, fields in train if fields[0].strip() in held_out]
    _write(out / LISTS["test"], list_text([*((fields[0], fields[1]) for _, fields in test), *moved], form))
    _write(out / LISTS["train"], list_text(kept, form))


def _no_file(path: Path) -> str | None:
    """Why the path of an image is not a file: there is none, or it is a folder, a pipe or a broken link. None if it is
    one."""
    if is_file(path):
        return None
    try:
        read_image(path)
    except DataError as error:
        return str(error)
    return None


def _copy_picture(post: Post, source: Path, path: Path) -> None:
    try:
        _copy(source, path)
    except OSError as error:
        raise DataError(f"the picture of {post.id} cannot be copied: {source}: {error.strerror or error}") from error


def _list_text(dataset: Dataset, path: Path) -> str:
    raw = path.read_bytes()
    settings = dataset.settings
    text = decide_lines(raw, settings.encodings, settings.text_encoding).decode_lines(raw).strip()
    return text + ("\r\n" if "\r\n" in text else "\n")


# --- manifest layout


def _prepare_manifest(
    dataset: Dataset, out: Path, progress: Progress | None, held_out: frozenset[str]
) -> PrepareResult:
    settings, source = dataset.settings, dataset.root
    target = out / source.name
    target.unlink(missing_ok=True)
    rows, opened = read_manifest(source, settings)
    files = ImageFiles(source.parent, settings)
    copied: dict[Path, str] = {}
    remote = {post.image for post in dataset.posts if isinstance(post.image, str)}
    skipped: list[Skipped] = []
    texts = 0
    for number, row in enumerate(rows, 1):
        post_id = cell(row, settings.id_column) or ""
        if held_out:
            row[settings.split_column] = "test" if post_id in held_out else cell(row, settings.split_column) or ""
        text = cell(row, settings.text_column)
        if text is None:
            skipped.append(Skipped(post_id, "text", "no text"))
        else:
            row[settings.text_column] = clean_text(text.strip(), settings.clean)
            texts += 1
        image = (cell(row, settings.image_column) or "").strip()
        picture = files.find(cell(row, settings.image_column) or "") if image else None
        if image and image in remote:
            pass  # a URL means the same anywhere
        elif picture is None or not is_file(picture):
            skipped.append(Skipped(post_id, "picture", f"no file {picture}" if picture else "no picture"))
            if picture is not None:
                row[settings.image_column] = None  # the old path could mean another file here
        else:
            if picture not in copied:
                copied[picture] = f"data/{_safe_name(number, post_id, picture)}"
                _copy_picture(Post(post_id, "train", None, picture, None), picture, out / copied[picture])
            row[settings.image_column] = copied[picture]
        if progress:
            progress(1)
    if source.suffix.lower() == ".parquet":
        changed = [settings.text_column, settings.image_column, *([settings.split_column] if held_out else [])]
        _write_parquet(source, target, rows, changed)
    elif source.suffix.lower() in (".json", ".jsonl"):
        _write(target, json_text(rows, source.suffix, "utf-8"))
    else:
        _write(target, _csv_text(rows, opened.delimiter))
    return PrepareResult(target, opened.decoding, texts, len(copied), tuple(skipped))


def _safe_name(number: int, post_id: str, picture: Path) -> str:
    """A unique name that is valid on every system: the row number, then the valid characters of the id."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", post_id)[:60].strip("-")
    ending = picture.suffix.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", picture.suffix) else ""
    return f"{number:06d}-{stem}".rstrip("-") + ending


def _csv_text(rows: Sequence[Mapping[str, Any]], delimiter: str) -> str:
    names = list(rows[0])
    return join_csv([names, *([row[name] for name in names] for row in rows)], delimiter)


def _write_parquet(source: Path, target: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(source)  # every other column keeps its type
    for name in columns:
        if any(name in row for row in rows):
            values = pyarrow.array([cell(dict(row), name) for row in rows], pyarrow.string())
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, values) if place >= 0 else table.append_column(name, values)
    temporary = _temporary(target)
    parquet.write_table(table, temporary)
    os.replace(temporary, target)
