"""WebDataset: `.tar` shards whose members belong together by name, `<key>.jpg`, `<key>.txt`, and `<key>.cls` or
`<key>.json`. Images stay in the shard and are read where they lie.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from mmsent.config import DataSettings
from mmsent.data.containers import Inside
from mmsent.data.encodings import Decoding
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem, Split
from mmsent.data.readers.base import Reader, Reading, split_of_name
from mmsent.data.readers.files import IMAGE_ENDINGS, ImageFiles, files_in
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts
from mmsent.data.text import MAX_BYTES
from mmsent.errors import DataError

ENDING = ".tar"
TEXTS, LABELS, OTHERS = ("txt", "text"), ("cls", "label"), ("json",)


def _locate(path: Path) -> Path | None:
    shards = _shards(path)
    try:
        first = list(islice(_samples(shards[0]), 1)) if shards else []
    except DataError:
        return None
    endings = {ending for _, members in first for ending in members}
    known = endings & {*TEXTS, *LABELS, *OTHERS}
    return path if endings & set(IMAGE_ENDINGS) and known else None


def _shards(path: Path) -> list[Path]:
    """The shards at a path in the order of their names, if there is no manifest beside them."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ENDING else []
    found = [path / name for name in files_in(path) if name.lower().endswith(ENDING)]
    return found if found and not manifests_in(path) else []


@dataclass
class _Member:
    """A file in a shard: where its bytes are, and what they are where they are few."""

    offset: int
    size: int
    raw: bytes | None


def _samples(path: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """The keys of a shard, each with its members by their endings. Raises DataError if it cannot be read."""

    def members() -> Iterator[tuple[str, str, _Member]]:
        with tarfile.open(path, "r:") as shard:
            for one in shard:
                folder, _, name = one.name.removeprefix("./").rpartition("/")
                stem, _, ending = name.partition(".")
                if not one.isfile() or not stem:
                    continue
                file = None if ending.lower() in IMAGE_ENDINGS or one.size > MAX_BYTES else shard.extractfile(one)
                raw = file.read() if file else None
                yield f"{folder}/{stem}" if folder else stem, ending.lower(), _Member(one.offset_data, one.size, raw)

    try:
        for key, together in groupby(members(), key=lambda one: one[0]):
            yield key, {ending: member for _, ending, member in together}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: not readable as a tar file: {error}") from error


def _read(root: Path, settings: DataSettings) -> Reading:
    shards = _shards(root)
    made = RowPosts(settings, ImageFiles(root if root.is_dir() else root.parent, settings), root.name)
    rows = _Rows(settings)
    for shard in shards:
        made.add(rows.of(shard))
    told = [
        f"{len(made.posts)} posts in {len(shards)} shards",
        f"columns: text is .txt, or {settings.text_column} in .json",
        f"columns: label is .cls, or {settings.label_column} in .json",
    ]
    if others := rows.others:
        told.append(f"not read: {', '.join(f'{n} .{ending}' for ending, n in sorted(others.items()))}")
    return made.reading(shards, told, rows.problems, Decoding("utf-8", "WebDataset's texts are UTF-8"))


@dataclass
class _Rows:
    """The rows of shards. others: how many members with endings that are not read."""

    settings: DataSettings
    problems: list[Problem] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def of(self, path: Path) -> Iterator[tuple[str, ManifestRow]]:
        """The rows of a shard, with the split that its name says."""
        how = self.settings
        for key, members in _samples(path):
            where = f"{path.name} {key}"
            image = next((members[one] for one in IMAGE_ENDINGS if one in members), None)
            about = self._about(members, where)
            row: ManifestRow = {how.id_column: key, how.split_column: split_of_name(path.stem)}
            row |= {how.text_column: self._text(members, TEXTS, where)} if set(TEXTS) & members.keys() else {}
            row |= {how.label_column: self._text(members, LABELS, where)} if set(LABELS) & members.keys() else {}
            row |= {name: about[name] for name in (how.id_column, how.split_column) if about.get(name) is not None}
            for name in (how.text_column, how.label_column):
                row.setdefault(name, about.get(name))
            row[how.image_column] = Inside.at(path, image.offset, image.size) if image else None
            for ending in members.keys() - {*IMAGE_ENDINGS, *TEXTS, *LABELS, *OTHERS}:
                self.others[ending] = self.others.get(ending, 0) + 1
            yield where, row

    def _about(self, members: dict[str, _Member], where: str) -> dict[str, Any]:
        text = self._text(members, OTHERS, where)
        if text is None:
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.problems.append(Problem("error", "malformed row", where, "its .json is no JSON object"))
            return {}
        return found

    def _text(self, members: dict[str, _Member], endings: tuple[str, ...], where: str) -> str | None:
        found = next((one for one in endings if one in members), None)
        if found is None:
            return None
        raw = members[found].raw
        try:
            return None if raw is None else raw.decode("utf-8-sig").strip()
        except UnicodeError as error:
            self.problems.append(Problem("error", "undecodable text", where, f"its .{found} is not UTF-8: {error}"))
            return None


_HOW = "it needs shards called {}-….tar, or posts {} a label"
SPLIT: dict[Split, str] = {"train": _HOW.format("train", "with"), "test": _HOW.format("test", "without")}
READER = Reader("webdataset", "WebDataset's .tar shards", SPLIT, _locate, _read)
