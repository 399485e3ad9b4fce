"""ImageFolder, as Hugging Face and torchvision have it: a folder per label, below folders of splits if there are some.
A text is `<image's name>.txt` beside the image, or stands in a `metadata` file, whose `file_name` says the image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from mmsent.config import DataSettings, default
from mmsent.data.columns import columns_told
from mmsent.data.encodings import Decoding
from mmsent.data.manifests import Manifest, ManifestRow, cell, open_manifest
from mmsent.data.posts import Problem, Split
from mmsent.data.readers.base import Reader, Reading, split_named
from mmsent.data.readers.files import ENDINGS, ImageFiles, files_in, folders_in, has_images, walked
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts
from mmsent.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def _locate(path: Path) -> Path | None:
    """The folder, if it or a folder of a split has a metadata file of images, or at least two folders hold images."""
    if not path.is_dir():
        return None
    folders = folders_in(path)
    splits = [one for one in folders if split_named(one.name)]
    if any(map(_names_files, _metadata([path, *splits]))):
        return path
    if manifests_in(path):
        return None
    labels = {one.name for split in splits for one in folders_in(split) if has_images(one)}
    labels |= {one.name for one in folders if one not in splits and has_images(one)}
    return path if len(labels) > 1 else None


def _metadata(folders: Iterable[Path]) -> list[Path]:
    return [folder / name for folder in folders for name in METADATA if (folder / name).is_file()]


def _names_files(path: Path) -> bool:
    try:
        return FILE_NAME in _opened(path, DataSettings()).names
    except DataError:
        return False


def _opened(path: Path, settings: DataSettings) -> Manifest:
    """A metadata file, whose ids and images are the names of files."""
    given = settings.image_column
    image = FILE_NAME if given == default(DataSettings, "image_column") else given
    return open_manifest(path, settings.model_copy(update={"id_column": image, "image_column": image}))


def _read(root: Path, settings: DataSettings) -> Reading:
    folders = list(walked(root))
    listed = [path for path in _metadata(folders) if _names_files(path)]
    made = RowPosts(settings, ImageFiles(root, settings), root.name)
    images, others = _images(root, folders)
    told = ["a text is the .txt file beside its image"]
    problems: list[Problem] = []
    decoding: Decoding | None = None
    if listed:
        opened = [_opened(path, settings) for path in listed]
        where = ", ".join(path.relative_to(root).as_posix() for path in listed)
        told = [f"posts are the rows of {where}", columns_told(opened[0].settings, opened[0].names)]
        named = {"label_column": opened[0].settings.label_column, "text_column": opened[0].settings.text_column}
        made.settings = settings.model_copy(update=named)
        seen: set[str] = set()
        for path, manifest in zip(listed, opened, strict=True):
            made.add(_listed(root, path, manifest, made.settings, seen))
            problems += manifest.problems
        decoding = opened[0].decoding
        if unlisted := images.keys() - seen:
            message = f"{len(unlisted)} images are in no metadata file and were left out"
            problems.append(Problem("warning", "unlisted", min(unlisted), message))
    else:
        made.add((name, _row(name, text, settings)) for name, text in images.items())
        told.append("a label is the name of its image's folder")
    if others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in others.most_common(4))
        told.append(f"not read: {kinds}")
    return made.reading(listed, told, problems, decoding)


def _images(root: Path, folders: Iterable[Path]) -> tuple[dict[str, Path | None], Counter[str]]:
    """The images by their paths from the root, with the text file beside each, and the kinds of other files."""
    found: dict[str, Path | None] = {}
    others: Counter[str] = Counter()
    for folder in folders:
        names = files_in(folder)
        texts = {name[:-4]: folder / name for name in names if name.lower().endswith(".txt")}
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in ENDINGS:
                found[(folder / name).relative_to(root).as_posix()] = texts.get(stem)
            elif name not in METADATA and ending.lower() != ".txt":
                others[ending.lower() or "without an ending"] += 1
    return found, others


def _row(name: str, text: Path | None, settings: DataSettings) -> ManifestRow:
    """The row of an image by where it lies: its folder is its label, unless it is that of a split."""
    folders = PurePosixPath(name).parts[:-1]
    split = next((one for one in folders if split_named(one)), None)
    return {
        settings.id_column: name,
        settings.image_column: name,
        settings.text_column: text,
        settings.label_column: folders[-1] if folders and folders[-1] != split else None,
        settings.split_column: split,
    }


def _listed(
    root: Path, path: Path, manifest: Manifest, settings: DataSettings, seen: set[str]
) -> Iterator[tuple[str, ManifestRow]]:
    """The rows of a metadata file; what it does not say, the folders do. seen: the images that rows name."""
    folder = path.parent.relative_to(root)
    for number, row in enumerate(manifest.rows, 1):
        written = cell(row, manifest.settings.image_column) or ""
        name = (folder / written.replace("\\", "/")).as_posix() if written.strip() else ""
        seen.add(name)
        own = _row(name, None, settings)
        given = {
            settings.id_column: cell(row, settings.id_column) or name,
            settings.text_column: cell(row, manifest.settings.text_column),
        }
        for column in (manifest.settings.label_column, manifest.settings.split_column):
            if column in manifest.names:
                given[column] = cell(row, column)
        yield f"{path.relative_to(root).as_posix()} row {number}", own | given


_HOW = "it needs images in folders below '{}/', or rows {} a label"
SPLIT: dict[Split, str] = {"train": _HOW.format("train", "with"), "test": _HOW.format("test", "without")}
READER = Reader(
    "imagefolder", "a folder of images per label, .txt beside them or a metadata.csv", SPLIT, _locate, _read
)
