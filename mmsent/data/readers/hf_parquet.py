"""Parquet files with the images inside, as Hugging Face keeps data sets.

One file, or a folder of shards called `train-00000-of-00002.parquet`, `validation-…` and `test-…`, also below `data/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsent.config import DataSettings, default
from mmsent.data.columns import columns_told, named
from mmsent.data.containers import Inside
from mmsent.data.encodings import Decoding
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem, Split
from mmsent.data.readers.base import Reader, Reading, split_of_name
from mmsent.data.readers.files import ImageFiles
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts
from mmsent.errors import DataError


def _locate(path: Path) -> Path | None:
    shards = _shards(path)
    try:
        return path if shards and _image_columns(_schema(shards[0])) else None
    except (ImportError, DataError):  # which the reader of manifests says
        return None


def _shards(path: Path) -> list[Path]:
    """The Parquet files at a path, if there are no other manifests."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = manifests_in(path) or (manifests_in(path / "data") if (path / "data").is_dir() else [])
    return found if all(one.suffix.lower() == ".parquet" for one in found) else []


def _schema(path: Path) -> Any:
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except Exception as error:  # Arrow's errors have no other common parent class
        raise DataError(f"{path}: not readable as Parquet: {error}") from error


def _image_columns(schema: Any) -> list[str]:
    """The columns that hold bytes, or an object with bytes."""
    import pyarrow

    def holds(kind: Any) -> bool:
        if pyarrow.types.is_struct(kind):
            return any(field.name == "bytes" and holds(field.type) for field in kind)
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    return [field.name for field in schema if holds(field.type)]


def _read(root: Path, settings: DataSettings) -> Reading:
    shards = _shards(root)
    schema = _schema(shards[0])
    names, images = list(schema.names), _image_columns(schema)
    for shard in shards[1:]:
        if (other := _schema(shard).names) != names:
            raise DataError(f"{shard} has other columns than {shards[0].name}: {', '.join(other)}")
    if settings.image_column not in images:
        if len(images) > 1 or settings.image_column != default(DataSettings, "image_column"):
            hint = f"add --columns image={images[0]}{' or another of them' if images[1:] else ''}"
            raise DataError(f"{shards[0]}: images are in {' and '.join(images)}; {hint}")
        settings = settings.model_copy(update={"image_column": images[0]})
    told = []
    if settings.id_column not in names:
        told.append("ids are the files' names and the rows' numbers")
    problems: list[Problem] = []
    settings = named(root, [*names, *({settings.id_column} - set(names))], settings, problems)
    made = RowPosts(settings, ImageFiles(root if root.is_dir() else root.parent, settings), root.name)
    for shard in shards:
        made.add(_rows(shard, settings, names))
    told.append(columns_told(settings, names))
    decoding = Decoding("utf-8", "Parquet strings are UTF-8")
    return made.reading(shards, [*told, f"images: inside {len(shards)} Parquet files"], problems, decoding)


def _rows(path: Path, settings: DataSettings, names: list[str]) -> Iterator[tuple[str, ManifestRow]]:
    """The rows of a file without the bytes of their images, which are read when they are needed."""
    from pyarrow import parquet

    wanted = (settings.id_column, settings.text_column, settings.label_column, settings.split_column)
    own, column, number = [name for name in names if name in wanted], settings.image_column, 0
    split = split_of_name(path.stem)
    try:
        with parquet.ParquetFile(path) as file:
            classes = _classes(file.schema_arrow, settings.label_column)
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                rows = file.read_row_group(group, columns=own).to_pylist() if own else [{}] * n
                for i, row in enumerate(rows):
                    label = row.get(settings.label_column)
                    if classes and isinstance(label, int):
                        row[settings.label_column] = classes[label] if 0 <= label < len(classes) else None
                    made = {
                        settings.id_column: f"{path.stem}-{number}",
                        settings.split_column: split,
                        column: Inside.of(path, group, i, column),
                    }
                    number += 1
                    yield f"{path.name} row {number}", made | row
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from error


def _classes(schema: Any, label: str) -> list[str]:
    """The names of the labels that stand as numbers, as Hugging Face's ClassLabel has them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


_HOW = "it needs files called {}-….parquet, or rows {} a label"
SPLIT: dict[Split, str] = {"train": _HOW.format("train", "with"), "test": _HOW.format("test", "without")}
READER = Reader("hf-parquet", "Parquet files with the images inside", SPLIT, _locate, _read)
