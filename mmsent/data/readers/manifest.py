"""Manifests: one CSV, TSV, JSON, JSONL or Parquet file with one row per post. Images are paths relative to the file, or
URLs of protocols that the settings allow. A row belongs to the split in its split column, else to train if it has a
label and to test if it has none.
"""

from __future__ import annotations

from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.columns import columns_told
from mmsent.data.manifests import MANIFEST_ENDINGS, open_manifest
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ImageFiles, files_in
from mmsent.data.readers.rows import SPLIT, RowPosts
from mmsent.errors import DataError


def manifests_in(folder: Path) -> list[Path]:
    """The manifests in a folder; JSON files only where there are no others."""
    files = [folder / name for name in files_in(folder)]
    found = [p for p in files if p.suffix.lower().lstrip(".") in MANIFEST_ENDINGS]
    return [p for p in found if p.suffix.lower() != ".json"] or found  # which often tell of others


def _locate(path: Path) -> Path | None:
    if not path.is_dir():
        return path
    found = manifests_in(path)
    return found[0] if len(found) == 1 else None


def _read(path: Path, settings: DataSettings) -> Reading:
    if path.is_dir():
        raise DataError(f"{path} is a folder without a manifest")
    manifest = open_manifest(path, settings)
    made = RowPosts(manifest.settings, ImageFiles(path.parent, settings), path.name)
    made.add((f"{path.name} row {i}", row) for i, row in enumerate(manifest.rows, 1))
    return made.reading(
        (path,), [columns_told(manifest.settings, manifest.names)], manifest.problems, manifest.decoding
    )


READER = Reader("manifest", f"one file ending in {', '.join(MANIFEST_ENDINGS)}", SPLIT, _locate, _read)
