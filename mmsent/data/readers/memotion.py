"""Memotion 7k as it is published: `labels.csv` has the texts and labels of memes, `images/` the memes.

The label is the overall sentiment, in the three classes of SemEval-2020's task 8: `very_positive` is positive and
`very_negative` negative, unless the settings have labels or a label map of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmsent.config import DEFAULT_LABELS, DataSettings
from mmsent.data.columns import columns_told
from mmsent.data.manifests import ManifestRow, cell, open_manifest
from mmsent.data.readers.base import Reader, Reading, usual_columns
from mmsent.data.readers.files import ImageFiles
from mmsent.data.readers.rows import SPLIT, RowPosts
from mmsent.errors import DataError

LIST = "labels.csv"
COLUMNS = {"id": "image_name", "image": "image_name", "text": "text_corrected", "label": "overall_sentiment"}
UNCORRECTED = "text_ocr"
THREE_CLASSES = {"very_positive": "positive", "very_negative": "negative"}


def _locate(path: Path) -> Path | None:
    folder = path.parent if path.name == LIST else path
    try:
        found = (folder / LIST).is_file() and open_manifest(folder / LIST, _settings(DataSettings())).names
    except DataError:
        return None
    return folder if found and {*COLUMNS.values(), UNCORRECTED} <= set(found) else None


def _settings(settings: DataSettings) -> DataSettings:
    settings = usual_columns(settings, COLUMNS)
    if settings.label_map or settings.labels != DEFAULT_LABELS:
        return settings
    return settings.model_copy(update={"label_map": THREE_CLASSES})


def _read(root: Path, settings: DataSettings) -> Reading:
    opened = open_manifest(root / LIST, _settings(settings))
    settings, uncorrected = opened.settings, 0

    def rows() -> Iterator[tuple[str, ManifestRow]]:
        nonlocal uncorrected
        for number, row in enumerate(opened.rows, 1):
            if not (cell(row, settings.text_column) or "").strip() and (text := cell(row, UNCORRECTED)):
                row[settings.text_column] = text
                uncorrected += 1
            yield f"{LIST} row {number}", row

    files = ImageFiles(root, settings, deep=True, spellings=lambda name: [f"images/{name}", name])
    made = RowPosts(settings, files, LIST)
    made.add(rows())
    told = [columns_told(settings, opened.names)]
    if uncorrected:
        told.append(f"text is {UNCORRECTED} where {settings.text_column} is empty ({uncorrected} rows)")
    return made.reading((root / LIST,), told, opened.problems, opened.decoding)


READER = Reader("memotion", f"Memotion's folder with {LIST} and images/", SPLIT, _locate, _read)
