"""One manifest per split in a folder: `train.csv`, `val.csv` or `dev.csv`, and `test.csv`. A file's name says the split
of its rows, unless they have a column that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.columns import columns_told
from mmsent.data.manifests import Manifest, ManifestRow, cell, open_manifest
from mmsent.data.posts import Problem, Split
from mmsent.data.readers.base import Reader, Reading, split_named, split_of_name
from mmsent.data.readers.files import ImageFiles
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts


def _locate(path: Path) -> Path | None:
    found = manifests_in(path) if path.is_dir() else []
    return path if len(found) > 1 and all(split_of_name(one.stem) for one in found) else None


def _read(root: Path, settings: DataSettings) -> Reading:
    made = RowPosts(settings, ImageFiles(root, settings), root.name)
    problems: list[Problem] = []
    told: list[str] = []
    lists = manifests_in(root)
    opened = [open_manifest(path, settings) for path in lists]
    for path, manifest in zip(lists, opened, strict=True):
        before = len(made.posts)
        made.settings = manifest.settings
        made.add(_rows(path, manifest))
        problems += manifest.problems
        told.append(f"{path.name}: {len(made.posts) - before} posts; {columns_told(manifest.settings, manifest.names)}")
    mixed = [one.decoding for one in opened if one.decoding.encoding != opened[0].decoding.encoding]
    return made.reading(lists, told, problems, (mixed or [opened[0].decoding])[0])


def _rows(path: Path, manifest: Manifest) -> Iterator[tuple[str, ManifestRow]]:
    column, split = manifest.settings.split_column, split_of_name(path.stem)
    for number, row in enumerate(manifest.rows, 1):
        own = {} if split_named(cell(row, column)) else {column: split}
        yield f"{path.name} row {number}", row | own


_HOW = "it needs {}.csv or another manifest whose name begins with {}"
SPLIT: dict[Split, str] = {"train": _HOW.format("train", "train"), "test": _HOW.format("test", "test")}
READER = Reader("split-files", "a folder with train.csv, val.csv and test.csv, or the like", SPLIT, _locate, _read)
