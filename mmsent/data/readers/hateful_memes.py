"""Hateful Memes as it is published: `train.jsonl`, `dev….jsonl` and `test….jsonl` with id, img, label and text, and the
memes in `img/`. Label 0 is "not hateful" and 1 "hateful", unless the settings have labels or a label map of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mmsent.config import DEFAULT_LABELS, DataSettings
from mmsent.data.columns import columns_told
from mmsent.data.manifests import Manifest, ManifestRow, cell, open_manifest
from mmsent.data.posts import Problem, Split
from mmsent.data.readers.base import Reader, Reading, usual_columns
from mmsent.data.readers.files import ImageFiles
from mmsent.data.readers.rows import RowPosts
from mmsent.errors import DataError

NAMES = ("train", "dev", "dev_seen", "dev_unseen", "test", "test_seen", "test_unseen")
COLUMNS = {"image": "img"}
KEYS = {"id", "img", "text"}
LABELS = ("not hateful", "hateful")


def _locate(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.stem in NAMES and path.suffix == ".jsonl" and _has_keys(path) else None
    lists = _lists(path)
    return path if lists and _has_keys(lists[0]) else None


def _lists(root: Path) -> list[Path]:
    return [one for name in NAMES if (one := root / f"{name}.jsonl").is_file()] if root.is_dir() else [root]


def _has_keys(path: Path) -> bool:
    try:
        opened = open_manifest(path, usual_columns(DataSettings(), COLUMNS))
        return all(KEYS <= set(row) <= KEYS | {"label"} for row in islice(opened.rows, 10))
    except DataError:
        return False


def _settings(settings: DataSettings) -> DataSettings:
    settings = usual_columns(settings, COLUMNS)
    if settings.label_map or settings.labels != DEFAULT_LABELS:
        return settings
    return settings.model_copy(update={"labels": LABELS, "label_map": {"0": LABELS[0], "1": LABELS[1]}})


def _read(root: Path, settings: DataSettings) -> Reading:
    settings = _settings(settings)
    lists = _lists(root)
    made = RowPosts(settings, ImageFiles(root if root.is_dir() else root.parent, settings), root.name)
    told: list[str] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    opened = [open_manifest(path, settings) for path in lists]
    for path, manifest in zip(lists, opened, strict=True):
        before = len(made.posts)
        again = _add(made, path, manifest, seen)
        problems += manifest.problems
        told.append(f"{path.name}: {len(made.posts) - before} posts")
        if again:
            message = f"{again} rows stand in another file too and are read from there"
            problems.append(Problem("warning", "left out", path.name, message))
    told.insert(0, columns_told(opened[0].settings, opened[0].names))
    return made.reading(lists, told, problems, opened[0].decoding)


def _add(made: RowPosts, path: Path, manifest: Manifest, seen: set[str]) -> int:
    """Add the rows of a file, with the split that its name says; returns how many were left out, as another file has
    them. seen: the ids of the files before."""
    split, again, own = path.stem.partition("_")[0], 0, set[str]()

    def rows() -> Iterator[tuple[str, ManifestRow]]:
        nonlocal again
        for number, row in enumerate(manifest.rows, 1):
            name = cell(row, manifest.settings.id_column) or ""
            if name in seen:
                again += 1
                continue
            own.add(name)
            yield f"{path.name} row {number}", row | {manifest.settings.split_column: split}

    made.add(rows())
    seen |= own
    return again


_HOW = "it needs {}.jsonl"
SPLIT: dict[Split, str] = {"train": _HOW.format("train"), "test": _HOW.format("test")}
READER = Reader("hateful-memes", "Hateful Memes' folder with train.jsonl, dev.jsonl and img/", SPLIT, _locate, _read)
