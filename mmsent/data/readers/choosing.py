"""Which reader reads what --data names."""

from __future__ import annotations

import os
import shlex
from difflib import get_close_matches
from pathlib import Path

from mmsent.config import DataSettings, nearest
from mmsent.data.manifests import MANIFEST_ENDINGS
from mmsent.data.readers import (
    argilla,
    excel,
    folder,
    guid,
    hateful_memes,
    hf_parquet,
    imagefolder,
    label_studio,
    manifest,
    memotion,
    mvsa,
    split_files,
    webdataset,
)
from mmsent.data.readers.base import Reader
from mmsent.data.readers.files import holds
from mmsent.errors import DataError, UsageError
from mmsent.system.files import require_local

# In this order: the first that recognises a data set reads it. A manifest is any table, so its reader comes late; a
# folder without any list comes last.
_ALL = (
    guid.READER,
    mvsa.READER,
    mvsa.SAME,
    memotion.READER,
    hateful_memes.READER,
    imagefolder.READER,
    label_studio.READER,
    argilla.READER,
    hf_parquet.READER,
    excel.READER,
    webdataset.READER,
    split_files.READER,
    manifest.READER,
    folder.READER,
)
READERS: dict[str, Reader] = {one.name: one for one in _ALL}


def choose(path: Path, settings: DataSettings | None = None) -> tuple[Reader, Path]:
    """The reader of what is at a path, and the folder or file that it reads. Raises DataError if none recognises it,
    UsageError on a reader that does not exist."""
    wanted = settings.reader if settings else None
    if wanted is not None and wanted not in READERS:
        raise UsageError(f"--reader {wanted!r}{nearest(wanted, READERS)}; readers are {', '.join(READERS)}")
    if not path.exists():
        require_local(path, "a data set or its manifest")
        raise DataError(
            f"no data set at {path}; set --data to a folder with train.txt and data/, "
            f"or to a CSV, TSV, JSONL or Parquet manifest{_near(path)}"
        )
    for reader in READERS.values():
        if wanted in (None, reader.name) and (root := reader.locate(path)) is not None:
            return reader, root
    if wanted is not None:
        listed = manifest.manifests_in(path) if wanted == folder.READER.name and path.is_dir() else []
        list_reads = f"; {listed[0].name} lists its posts, which is read without --reader" if listed else ""
        raise DataError(f"{path} is not what --reader {wanted} reads: {READERS[wanted].form}{_holds(path)}{list_reads}")
    found = manifest.manifests_in(path)
    raise DataError(
        f"{path} is not a data set: found {f'{len(found)} manifests' if found else 'neither list nor manifest'}; "
        f"expected {guid.LISTS['train']} and data/, or one file ending in {', '.join(MANIFEST_ENDINGS)}{_holds(path)}"
        f"{_others()}; the smallest manifest is a CSV of id,image,text,label"
    )


def _others() -> str:
    """The readers beside those of guid folders and manifests, with what each reads."""
    others = [one for one in READERS.values() if one.name not in ("guid", "manifest")]
    return f"; other readers: {'; '.join(f'{one.name} ({one.form})' for one in others)}" if others else ""


def _near(path: Path) -> str:
    """What was probably meant by a path that does not exist, and what lies where it was looked for."""
    folder = next(one for one in Path(os.path.abspath(path)).parents if one.is_dir())
    try:
        there = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    except OSError:
        return ""
    sets = {
        f"{one.name}{'/' * one.is_dir()}": one
        for one in there
        if one.is_dir() or one.suffix.lower().lstrip(".") in MANIFEST_ENDINGS
    }
    like = get_close_matches(path.name, sets, 1) if folder == Path(os.path.abspath(path)).parent else []
    meant = f"; did you mean --data {shlex.quote(str(path.parent / sets[like[0]].name))}?" if like else ""
    shown = f"{', '.join(list(sets)[:6])}{', …' * (len(sets) > 6)}" if sets else "neither folders nor manifests"
    return f"{meant}; {folder} holds {shown}"


def _holds(path: Path) -> str:
    """What a folder holds, in a few words."""
    if not path.is_dir():
        return ""
    packed = any(one.name.lower().endswith((".tar.gz", ".tgz")) for one in path.iterdir())
    return f"; it holds {holds(path)}{', and shards are read once they are unpacked (gunzip)' * packed}"
