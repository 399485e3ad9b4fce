"""Exports of Label Studio, as JSON or JSON-MIN: an array of tasks, whose choices are the labels.

Images are found below the export's folder, or below --images: `/data/upload/3/1a2b3c4d-name.jpg` by its name, with or
without what the upload put before it, and `/data/local-files/?d=folder/name.jpg` by its path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmsent.config import DataSettings
from mmsent.data.columns import columns_told, named
from mmsent.data.encodings import Decoding
from mmsent.data.manifests import ManifestRow, json_rows
from mmsent.data.posts import Problem
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ImageFiles, is_label_studio
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import SPLIT, RowPosts
from mmsent.errors import DataError
from mmsent.system.files import open_file, protocol

_LOOKED_AT = 1 << 16  # bytes at the start of a file that is recognised
_TASK = re.compile(rb'"data"\s*:\s*\{')
_DISAGREE, _SEVERAL = "annotators disagree", "several choices in one answer"
ID = "id"
Task = tuple[str, ManifestRow, dict[str, list[list[Any]]]]  # where it stands, what it shows, choices by the question
_ABOUT = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")  # of JSON-MIN


def _locate(path: Path) -> Path | None:
    if path.is_dir():
        found = manifests_in(path)
        path = found[0] if len(found) == 1 else path
    if path.suffix.lower() != ".json":
        return None
    start = first_bytes(path)
    whole = b'"annotations"' in start and _TASK.search(start)
    small = b'"annotation_id"' in start and b'"annotator"' in start
    return path if start.startswith(b"[") and (whole or small) else None


def first_bytes(path: Path) -> bytes:
    """The start of a file without a byte order mark and blanks; nothing where it cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(_LOOKED_AT).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return b""


def _read(path: Path, settings: DataSettings) -> Reading:
    tasks, decoding = json_rows(path, settings)
    return read_tasks(path, _tasks(path, tasks), settings, decoding)


def read_tasks(path: Path, rows: Iterator[Task], settings: DataSettings, decoding: Decoding) -> Reading:
    """The posts of tasks. Raises DataError where several questions may ask for the labels."""
    left_out: Counter[str] = Counter()
    first = list(islice(rows, 100))
    names = list(dict.fromkeys(name for _, row, _ in first for name in row))
    choices = list(dict.fromkeys(name for _, _, labels in first for name in labels))
    if settings.label_column not in (*names, *choices):
        if len(choices) > 1:
            raise DataError(f"{path}: the labels may be {' or '.join(choices)}; add --columns label={choices[0]}")
        settings = settings.model_copy(update={"label_column": choices[0]} if choices else {})
    problems: list[Problem] = []
    settings = named(path, [*names, *(name for name in choices if name not in names)], settings, problems)
    made = RowPosts(settings, ImageFiles(path.parent, settings, deep=True), path.name)
    made.add(_labelled(chain(first, rows), settings, left_out))
    for why, n in left_out.items():
        problems.append(Problem("warning", "left out", path.name, f"{n} tasks were left out: {why}"))
    told = columns_told(settings, list(dict.fromkeys([*names, *choices])))
    return made.reading((path,), [told], problems, decoding)


def _tasks(path: Path, tasks: Iterable[ManifestRow]) -> Iterator[Task]:
    """The tasks of an export. Raises DataError where an annotation is none of Label Studio's."""
    for number, task in enumerate(tasks, 1):
        where = f"{path.name} task {number}"
        try:
            yield where, *(_full(task) if isinstance(task.get("data"), dict) else _small(task))
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{path} task {number}: not a task as Label Studio exports it: {error!r}") from error


def _full(task: ManifestRow) -> tuple[ManifestRow, dict[str, list[list[Any]]]]:
    answers = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    found: dict[str, list[list[Any]]] = {}
    for one in (one for answer in answers for one in answer["result"]):
        if one["type"] == "choices":
            found.setdefault(one["from_name"], []).append(list(one["value"]["choices"]))
    return task["data"] | {ID: task["id"]}, found


def _small(task: ManifestRow) -> tuple[ManifestRow, dict[str, list[list[Any]]]]:
    """A task of JSON-MIN, where one choice stands as it is, and several in an object."""
    several = {name: [list(one["choices"])] for name, one in task.items() if isinstance(one, dict)}
    return {name: one for name, one in task.items() if name not in _ABOUT}, several


def _labelled(
    tasks: Iterable[Task], settings: DataSettings, left_out: Counter[str]
) -> Iterator[tuple[str, ManifestRow]]:
    """The rows with the one label that most annotators chose. Those without one label are counted."""
    for where, row, answers in tasks:
        given = answers.get(settings.label_column, [])
        if any(len(one) > 1 for one in given):
            left_out[_SEVERAL] += 1
            continue
        votes = Counter(str(one[0]) for one in given if one)
        best = votes.most_common(2)
        if len(best) == 2 and best[0][1] == best[1][1]:
            left_out[_DISAGREE] += 1
            continue
        yield where, row | _own_image(row, settings) | ({settings.label_column: best[0][0]} if best else {})


def _own_image(row: ManifestRow, settings: DataSettings) -> ManifestRow:
    """The image's path, where the row has the address of a file that the export's server holds."""
    image = row.get(settings.image_column)
    if not isinstance(image, str) or not is_label_studio(image) or protocol(image) in (None, *settings.remote):
        return {}
    parts = urlsplit(image)
    return {settings.image_column: f"{parts.path}?{parts.query}"}


READER = Reader("label-studio", "a JSON export of Label Studio", SPLIT, _locate, _read)
