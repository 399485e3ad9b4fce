"""Units of work of a distributed extraction: consecutive rows of a split, in whole windows of texts or whole blocks of
images, as JSON; and how a worker encodes them. Nothing here depends on how units are sent.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsent import errors
from mmsent.config import DataSettings, EncoderSettings
from mmsent.data.dataset import Dataset, Post, Split
from mmsent.data.encodings import Decoding
from mmsent.data.posts import Posts
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.errors import EncoderError, MmsentError
from mmsent.features.batches import TEXT_WINDOW, blocks, read_rows
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Entry
from mmsent.features.engine import Work, image_entries, text_entries
from mmsent.system import provenance
from mmsent.system.files import from_here
from mmsent.system.process import tune_process
from mmsent.version import __version__

Opener = Callable[[EncoderSettings], Encoders]
UnitResult = tuple[dict[str, Any], bytes]  # plain values, and the bytes of vectors

UNIT_BLOCKS = 4  # blocks of images per unit
READ_ROWS = 1024  # posts per unit whose files are read for their hashes


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of a split from position `start`. half: what to encode; "both": files are only read for their
    hashes. needed: positions within the unit. Posts have no labels, and only the needed halves."""

    split: Split
    half: Literal["text", "image", "both"]
    start: int
    posts: Sequence[Post]
    needed: Sequence[int]

    def dumps(self) -> str:
        """As ASCII, in which any path and text can be written; files by their absolute paths."""
        posts = [(post.id, *_content(post.image), *_content(post.text)) for post in self.posts]
        return json.dumps([self.split, self.half, self.start, posts, list(self.needed)])

    @classmethod
    def loads(cls, text: str) -> Unit:
        """What `dumps` wrote."""
        split, half, start, contents, needed = json.loads(text)
        posts = [
            Post(row_id, split, None, Path(image) if image_is_file else image, Path(text) if text_is_file else text)
            for row_id, image_is_file, image, text_is_file, text in contents
        ]
        return cls(split, half, start, posts, needed)


def _content(what: str | Path | None) -> tuple[bool, str | None]:
    """Whether it is a file, and its path or the content itself."""
    return (True, os.path.abspath(what)) if isinstance(what, Path) else (False, what)


def units_of(works: Sequence[Work], block: int) -> Iterator[Unit]:
    """The units with needed rows. Texts come first, because windows of texts are the longest units. block: rows per
    block."""
    for work in works:
        for part, needed in _parts(len(work.posts), TEXT_WINDOW, work.texts):
            posts = [Post(p.id, p.split, None, None, p.text) for p in work.posts[part.start : part.stop]]
            yield Unit(work.split, "text", part.start, posts, needed)
    for work in works:
        for part, needed in _parts(len(work.posts), block * UNIT_BLOCKS, work.images):
            wanted = set(needed)
            posts = [
                Post(p.id, p.split, None, p.image if i in wanted else None, None)
                for i, p in enumerate(work.posts[part.start : part.stop])
            ]
            yield Unit(work.split, "image", part.start, posts, needed)


def _parts(n: int, size: int, wanted: NDArray[np.bool_]) -> Iterator[tuple[range, list[int]]]:
    for part in blocks(n, size):
        needed = np.flatnonzero(wanted[part.start : part.stop]).tolist()
        if needed:
            yield part, needed


def reading_units(split: Split, posts: Sequence[Post]) -> Iterator[Unit]:
    """Units whose files are all read for their hashes."""
    for part in blocks(len(posts), READ_ROWS):
        bare = [Post(p.id, p.split, None, p.image, p.text) for p in posts[part.start : part.stop]]
        yield Unit(split, "both", part.start, bare, ())


def packed(entries: Sequence[Entry]) -> tuple[list[tuple[str, str, str, int, bool, list[int] | None]], bytes]:
    """Entries as plain values, and the bytes of their vectors one after the other."""
    about = [
        (e.id, e.hash.hex(), e.reason, e.tokens, e.empty, list(e.data.shape) if e.data is not None else None)
        for e in entries
    ]
    return about, b"".join(e.data.tobytes() for e in entries if e.data is not None)


def unpacked(about: Sequence[Sequence[Any]], data: bytes, storage: str) -> list[Entry]:
    """The entries that `packed` packed; vectors have type `storage`."""
    out, at, width = [], 0, np.dtype(storage).itemsize
    for row_id, digest, reason, tokens, empty, shape in about:
        vector = None
        if shape is not None:
            count = int(np.prod(shape))
            vector = np.frombuffer(data, storage, count, at).reshape(shape)
            at += count * width
        out.append(Entry(row_id, bytes.fromhex(digest), vector, from_here(reason), tokens, empty))
    return out


def raise_problem(result: dict[str, Any]) -> None:
    """Raise the error of a worker, if it had one."""
    if "problem" in result:
        kind: type[MmsentError] = getattr(errors, result["problem"], MmsentError)
        raise kind(result["message"]) from RuntimeError(f"on the worker:\n{result['trace']}")


# --- on the workers


def job_of(dataset: Dataset) -> dict[str, Any]:
    """What workers need to know of a data set, besides its posts."""
    return {
        "data": dataset.settings.model_dump_json(),
        "decoding": dataset.decoding.encoding,
        "layout": dataset.layout,
        "code": provenance.code()["sha256"],
    }


def _dataset_of(job: dict[str, Any]) -> Dataset:
    decoding = Decoding(job["decoding"], "decided by the driver")
    data = DataSettings.model_validate_json(job["data"])
    return Dataset(Path(), job["layout"], data, Posts(Path()), manifest_decoding=decoding)


def _problem(error: Exception) -> dict[str, Any]:
    where, known = socket.gethostname(), isinstance(error, MmsentError)
    message = f"{error} (on {where})" if known else f"a worker on {where} failed with {type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {"problem": type(error).__name__ if known else "MmsentError", "message": message, "trace": trace}


def _use_threads(threads: int) -> None:
    """Use as many threads as the driver would, however the worker was started."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_process()
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _device(encoder: EncoderSettings) -> str | None:
    if "torch" not in sys.modules:
        return None
    from mmsent.system.devices import pick_device

    return pick_device(encoder.device)


def cards(encoder: str, threads: int, opener: Opener) -> str:
    """The cards of a worker's encoders and its environment, as JSON. encoder: its settings, as JSON."""
    _use_threads(threads)
    chosen = EncoderSettings.model_validate_json(encoder)
    try:
        pair = opener(chosen)
        found: dict[str, Any] = {
            "image": pair.image.card.model_dump_json(),
            "text": pair.text.card.model_dump_json(),
            "batch_size": pair.image.batch_size,
            "environment": provenance.environment(_device(chosen)),
        }
    except Exception as error:
        found = _problem(error)
    return json.dumps(found)


class Reader:
    """Reads the files of a unit for their hashes."""

    def __init__(self, job: str) -> None:
        self._job = json.loads(job)
        self._dataset = _dataset_of(self._job)

    def __call__(self, unit: Unit) -> UnitResult:
        rows = read_rows(self._dataset, unit.posts, self._job["workers"])
        hashes = [(row.image_hash.hex(), row.text_hash.hex()) for row in rows]
        found = {"start": unit.start, "hashes": hashes, "mended": rows.mended, "node": socket.gethostname()}
        return found, b""


class Worker:
    """Encodes units with one encoder pair, several at a time; an encoder encodes one batch at a time."""

    def __init__(self, job: str, opener: Opener) -> None:
        self._job = json.loads(job)
        _use_threads(self._job["threads"])
        self._lock = threading.Lock()
        self._settings = FeatureSettings.model_validate_json(self._job["settings"])
        self._encoder = EncoderSettings.model_validate_json(self._job["encoder"])
        self._dataset = _dataset_of(self._job)
        self._failed: dict[str, Any] | None = None
        try:
            self._pair = self._open(opener)
        except Exception as error:
            self._failed = _problem(error)

    def _open(self, opener: Opener) -> Encoders:
        code = provenance.code()["sha256"]
        if code != self._job["code"]:
            raise EncoderError(
                f"another mmsent ({__version__}, code {code[:12]}) than the driver's (code "
                f"{self._job['code'][:12]}); install the same version on every node"
            )
        pair = opener(self._encoder)
        for half, mine in (("image", pair.image.card), ("text", pair.text.card)):
            theirs = getattr(self._settings, half)
            if mine != theirs:
                a, b = theirs.model_dump(), mine.model_dump()
                changes = "; ".join(f"{half}.{name}: {a[name]} -> {b[name]}" for name in a if a[name] != b[name])
                raise EncoderError(
                    f"another encoder than on the first worker: {changes}; install the same on every node"
                )
        return Encoders(_Guarded(pair.image, self._lock), _Guarded(pair.text, self._lock))

    def __call__(self, unit: Unit) -> UnitResult:
        if self._failed:
            return self._failed, b""
        try:
            needed = np.zeros(len(unit.posts), bool)
            needed[list(unit.needed)] = True
            if unit.half == "text":
                found = text_entries(self._dataset, unit.posts, needed, self._pair, self._settings)
            else:
                batch_size, workers = self._job["batch_size"], self._job["workers"]
                found = image_entries(unit.posts, needed, self._pair, self._settings, batch_size, workers)
            entries, data = packed([entry for part, _ in found for entry in part])
        except Exception as error:  # also errors of the encoders' libraries
            return _problem(error), b""
        where = {"node": socket.gethostname(), "machine": provenance.machine(_device(self._encoder))}
        return {"split": unit.split, "half": unit.half, "start": unit.start, "entries": entries} | where, data


class _Guarded:
    """An encoder that several threads use, one call at a time."""

    def __init__(self, encoder: Any, lock: threading.Lock) -> None:
        self._encoder, self._lock = encoder, lock
        self.card = encoder.card

    @property
    def batch_size(self) -> int:
        return int(self._encoder.batch_size)

    def encode(self, rows: Any) -> Embeddings:
        with self._lock:
            found: Embeddings = self._encoder.encode(rows)
        return found

    def lengths(self, texts: list[str]) -> list[int]:
        with self._lock:
            return list(self._encoder.lengths(texts))
