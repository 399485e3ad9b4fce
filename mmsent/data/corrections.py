"""A data set's list with corrected labels, in the same form, so that it can replace the old file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmsent.data.dataset import LISTS, Dataset, split_named
from mmsent.data.encodings import known_encoding
from mmsent.data.lists import read_list
from mmsent.data.manifests import cell, json_text, read_manifest
from mmsent.errors import DataError
from mmsent.system.files import read_file
from mmsent.system.safe_csv import join_csv

NEW = "posts.csv"  # the manifest of a folder that had none
MEDIA = {
    "txt": "text/plain",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "jsonl": "application/jsonl",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}


def correctable(dataset: Dataset) -> set[str]:
    """The ids of posts whose corrected labels may be used in training: those of the training list, and in a manifest
    also rows without a label, unless its split column says test."""
    if dataset.layout == "guid":
        return {post.id for post in dataset.posts if post.split == "train"} - set(dataset.validation)
    if dataset.layout == "folder":
        return {post.id for post in dataset.posts}
    if dataset.layout != "manifest":
        return set()
    rows, _ = read_manifest(dataset.root, dataset.settings)
    column, split = dataset.settings.id_column, dataset.settings.split_column
    kept = {cell(row, column) for row in rows if split_named(cell(row, split)) == "test"}
    return {post.id for post in dataset.posts} - kept


def corrected_list(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    """The data set's training list, or its manifest, with new labels by post id: file name, media type, bytes. For a
    bare folder, the manifest that belongs into it.

    All other rows stay as they are. Raises DataError on a label outside the set, an unknown id, and a test post.
    """
    if dataset.layout not in ("guid", "manifest", "folder"):
        raise DataError(
            f"corrected labels are written into guid lists and manifests, and {dataset.root.name} was read by "
            f"{dataset.layout}; correct them where they came from"
        )
    known, listed, allowed = dataset.settings.labels, {post.id for post in dataset.posts}, correctable(dataset)
    for name, label in labels.items():
        if label not in known:
            raise DataError(f"label {label[:60]!r} of post {name[:60]!r} is not one of {', '.join(known)}")
        if name not in listed:
            raise DataError(f"{dataset.root.name} has no post {name[:60]!r}")
        if name in dataset.validation and name not in allowed:
            raise DataError(f"post {name[:60]!r} validates and stands in a list of its own; correct it there")
        if name not in allowed:
            raise DataError(f"post {name[:60]!r} belongs to the test split; test labels must not enter training")
    if dataset.layout == "folder":
        return _new_manifest(dataset, labels)
    return _guid_list(dataset, labels) if dataset.layout == "guid" else _manifest(dataset, labels)


def _guid_list(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    name = LISTS["train"]
    rows, form = read_list(dataset.root / name, dataset.settings)
    lines = [[f[0], labels.get(f[0].strip(), f[1])] if len(f) == 2 else f for _, f in rows]
    text = join_csv([*([form.header] if form.header else []), *lines], form.delimiter, form.newline)
    # UTF-8, unless the settings name a codec for the whole data set, with which lists are read too.
    codec = known_encoding(dataset.settings.text_encoding or "utf-8").partition("+")[0]
    return name, MEDIA["txt"], _encoded(text, codec)


def _new_manifest(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    s = dataset.settings
    plain = replace(dataset, settings=s.model_copy(update={"clean": ()}))  # the texts as they are
    rows = [[s.id_column, s.image_column, s.text_column, s.label_column]]
    for post in dataset.posts:
        image = post.image.relative_to(dataset.root).as_posix() if isinstance(post.image, Path) else ""
        try:
            text = plain.text_of(post)
        except DataError:  # there is none
            text = ""
        rows.append([post.id, image, text, labels.get(post.id, "")])
    return NEW, MEDIA["csv"], join_csv(rows).encode("utf-8")


def _manifest(dataset: Dataset, labels: Mapping[str, str]) -> tuple[str, str, bytes]:
    name, settings = dataset.root.name, dataset.settings
    ending = dataset.root.suffix.lower().lstrip(".")
    if ending == "parquet":
        return name, MEDIA[ending], _parquet(dataset, labels)
    rows, opened = read_manifest(dataset.root, settings)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if settings.label_column not in columns:
        columns.append(settings.label_column)
    before = _values(row.get(settings.label_column) for row in rows)
    for row in rows:
        if (label := labels.get(cell(row, settings.id_column) or "")) is not None:
            row[settings.label_column] = before.get(label, label)
    # Another codec would change the text encoding of all posts, which would be encoded again; only a mixture ends here.
    codec = opened.decoding.encoding.partition("+")[0]
    if ending in ("json", "jsonl"):
        return name, MEDIA[ending], _encoded(json_text(rows, ending, codec), codec)
    cells = [[row.get(name, "") for name in columns] for row in rows]
    crlf = opened.decoding.decode_lines(read_file(dataset.root)).partition("\n")[0].endswith("\r")
    text = join_csv([columns, *cells], opened.delimiter, "\r\n" if crlf else "\n")
    return name, MEDIA[ending], _encoded(text, codec)


def _values(column: Iterable[Any]) -> dict[str, Any]:
    """The values of a column by their text, because a label may be stored as a number."""
    return {str(value): value for value in column if value is not None}


def _parquet(dataset: Dataset, labels: Mapping[str, str]) -> bytes:
    """The file's table with the new label column; types, other columns and metadata stay."""
    import pyarrow
    from pyarrow import parquet

    settings = dataset.settings
    table = parquet.read_table(pyarrow.BufferReader(read_file(dataset.root)))
    place = table.schema.get_field_index(settings.label_column)
    there = place >= 0
    values = table.column(place).to_pylist() if there else [None] * table.num_rows
    kind = table.schema.field(place).type if there else pyarrow.string()
    before = _values(values)
    for i, found in enumerate(table.column(settings.id_column).to_pylist()):
        name = cell({"id": found}, "id") or ""
        if name in labels:
            values[i] = before.get(labels[name], labels[name])
    try:
        column = pyarrow.array(values, kind)
    except (pyarrow.ArrowException, OverflowError):  # a label that the column's type cannot hold
        texts = (cell({"label": value}, "label") for value in values)
        column = pyarrow.array(list(texts), pyarrow.string())
    field = pyarrow.field(settings.label_column, column.type)
    table = table.set_column(place, field, column) if there else table.append_column(field, column)
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def _encoded(text: str, codec: str) -> bytes:
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        raise DataError(f"the list cannot be written in {codec}: {error}") from error
