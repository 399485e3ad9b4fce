"""A data set's list with corrected labels: the same file again, so that it takes the old one's place."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from mmsent.dataset import LISTS, Dataset
from mmsent.errors import DataError
from mmsent.lists import cell, read_list, read_manifest
from mmsent.spreadsheet import join_csv
from mmsent.text import known_encoding

MEDIA = {
    "txt": "text/plain",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}


def correctable(dataset: Dataset) -> set[str]:
    """The ids of posts whose corrected labels can enter training: those of the training list; in a manifest also rows
    that have no label yet, unless its split column calls them test. Test labels stay out."""
    if dataset.layout == "guid":
        return {post.id for post in dataset.posts if post.split == "train"}
    rows, _ = read_manifest(dataset.root, dataset.settings)
    column, split = dataset.settings.id_column, dataset.settings.split_column
    kept = {cell(row, column) for row in rows if cell(row, split) == "test"}
    return {post.id for post in dataset.posts} - kept


def corrected_list(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    """The data set's training list, or its manifest, with new labels by post id: file name, media type, bytes.

    All other rows are as they were. Raises DataError on a label outside the set, an id that is not listed, and a test
    post.
    """
    known, listed, allowed = dataset.settings.labels, {post.id for post in dataset.posts}, correctable(dataset)
    for name, label in labels.items():
        if label not in known:
            raise DataError(f"label {label[:60]!r} of post {name[:60]!r} is not one of {', '.join(known)}")
        if name not in listed:
            raise DataError(f"{dataset.root.name} lists no post {name[:60]!r}")
        if name not in allowed:
            raise DataError(f"post {name[:60]!r} is of the test split; its label stays out of training")
    return _guid_list(dataset, labels) if dataset.layout == "guid" else _manifest(dataset, labels)


def _guid_list(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    name = LISTS["train"]
    rows, form = read_list(dataset.root / name, dataset.settings)
    lines = [[f[0], labels.get(f[0].strip(), f[1])] if len(f) == 2 else f for _, f in rows]
    text = join_csv([*([form.header] if form.header else []), *lines], newline=form.newline)
    return name, MEDIA["txt"], _encoded(text, dataset)


def _manifest(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    settings, ending = dataset.settings, dataset.root.suffix.lower().lstrip(".")
    rows, _ = read_manifest(dataset.root, settings)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if settings.label_column not in columns:
        columns.append(settings.label_column)
    for row in rows:
        if (label := labels.get(cell(row, settings.id_column) or "")) is not None:
            row[settings.label_column] = label
    if ending == "parquet":
        return dataset.root.name, MEDIA[ending], _parquet(rows)
    if ending == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        cells = [[row.get(name, "") for name in columns] for row in rows]
        text = join_csv([columns, *cells], delimiter="\t" if ending == "tsv" else ",")
    return dataset.root.name, MEDIA[ending], _encoded(text, dataset)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def _encoded(text: str, dataset: Dataset) -> bytes:
    """UTF-8, unless a codec was given for the whole data set: its lists are then read with it too."""
    codec = known_encoding(dataset.settings.text_encoding or "utf-8")
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        raise DataError(f"the list cannot be written in {codec}: {error}") from error
