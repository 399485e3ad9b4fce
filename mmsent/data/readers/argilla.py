"""Records of Argilla 2, as `dataset.to_disk` or `dataset.records.to_json` write them: an array of fields, metadata,
responses and suggestions. A label is what most responses say, else the suggestion. Images are paths or addresses, or
stand in the file as base64.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmsent.config import DataSettings
from mmsent.data.containers import Inside
from mmsent.data.manifests import ManifestRow, json_rows
from mmsent.data.posts import Problem
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.label_studio import ID, Task, first_bytes, read_tasks
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import SPLIT
from mmsent.errors import DataError

_RECORD = re.compile(rb'\[\s*\{\s*("id"\s*:[^,]*,\s*)?"fields"\s*:\s*\{')
_IMAGE = re.compile(rb'"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=]+)"')


def _locate(path: Path) -> Path | None:
    if path.is_dir():
        found = manifests_in(path)
        path = found[0] if len(found) == 1 else path
    return path if path.suffix.lower() == ".json" and _RECORD.match(first_bytes(path)) else None


def _read(path: Path, settings: DataSettings) -> Reading:
    records, decoding = json_rows(path, settings)
    suggested: dict[str, list[str]] = {}
    made = read_tasks(path, _tasks(path, records, suggested), settings, decoding)
    if not (found := suggested.get(made.settings.label_column)):
        return made
    message = f"{len(found)} records have no response; what is suggested for them is taken for an answer"
    return made.with_problem(Problem("warning", "suggested labels", found[0], message))


def _tasks(path: Path, records: Iterable[ManifestRow], suggested: dict[str, list[str]]) -> Iterator[Task]:
    """The records, each with its responses by the question. suggested: grows by
    those that have a suggestion alone."""
    inside: dict[int, Inside] = {}
    for number, record in enumerate(records, 1):
        where = f"{path.name} record {number}"
        try:
            row = {**(record.get("metadata") or {}), **record["fields"], ID: record.get("id")}
            answers = {
                name: [_several(one["value"]) for one in of] for name, of in (record.get("responses") or {}).items()
            }
            for name, one in (record.get("suggestions") or {}).items():
                if not answers.get(name):
                    answers[name] = [_several(one["value"])]
                    suggested.setdefault(name, []).append(where)
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{path} record {number}: not a record as Argilla writes it: {error!r}") from error
        for name, value in row.items():
            if isinstance(value, str) and value.startswith("data:image/"):
                inside = inside or _images(path)
                row[name] = inside.get(hash(value.partition(",")[2]), value)
        yield where, row, answers


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _images(path: Path) -> dict[int, Inside]:
    """Where in the file the images stand, by the hash of their base64."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        return {hash(one[1].decode("ascii")): Inside.base64(path, *one.span(1)) for one in _IMAGE.finditer(raw)}


READER = Reader("argilla", "records of Argilla, as to_disk writes them", SPLIT, _locate, _read)
