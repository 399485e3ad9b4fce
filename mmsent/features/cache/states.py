"""Hidden states of texts or images, beside a cache: what enters the last blocks of an encoder, float16, a row per post.

They lie in one SQLite file, written as a journal is: rows of any length, a checksum per row, and a kill at any moment
loses only what was being encoded (see mmsent.features.cache.journal). The cache itself stays as it is.

Shapes: N texts, T tokens of all of them, D_token width of a state.
"""

from __future__ import annotations

import glob
import re
import weakref
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import CacheError
from mmsent.features.cache.journal import Half, Journal
from mmsent.features.cache.reading import Cache, RowIndex

DTYPE = "float16"


@dataclass(frozen=True)
class Ragged:
    """States of N texts, one after the other: values (T, D_token) float16, offsets (N + 1,)."""

    values: NDArray[np.float16]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (N,)."""
        return np.diff(self.offsets)


def ragged(rows: Sequence[NDArray[np.float16]]) -> Ragged:
    """States of N texts (L, D_token), in order; a text without states has none."""
    width = max((row.shape[1] for row in rows if len(row)), default=1)
    values = [row for row in rows if len(row)]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Ragged(np.concatenate(values) if values else np.zeros((0, width), np.float16), offsets)


def states_path(cache: Cache, tune: str) -> Path:
    """Where the states of a cache lie; tune: as in `text:2`."""
    return cache.path.with_suffix(f".{tune.replace(':', '')}.states")


def open_states(cache: Cache, tune: str, width: int = 0) -> Journal:
    """The file of a cache's states, made where there is none if `width` says how wide a state is. Close it.

    Raises CacheError where there is none, or it belongs to other features.
    """
    path = states_path(cache, tune)
    if not width and not path.is_file():
        raise CacheError(
            f"{cache.path.name} has no states for {tune}; run `mmsent extract --tokens {tune}` with the options of "
            "that cache"
        )
    found = Journal(path, {"contract": cache.settings.contract, "width": width})
    if found.meta["contract"] != cache.settings.contract:
        found.close()
        raise CacheError(f"{path} holds states of another encoder than {cache.path.name}; rename it and extract again")
    return found


def half_of(tune: str) -> Half:
    """Whose blocks `text:2` names."""
    return "image" if tune.startswith("image") else "text"


def behind(index: RowIndex, split: str, store: Journal, half: Half) -> tuple[set[str], list[str]]:
    """The ids of a split's good texts or images, and those whose states are not stored, or of other content."""
    known = {row_id: digest for row_id, digest, _, _ in store.known(split, half)}
    hashes = index.text_hashes if half == "text" else index.image_hashes
    reasons = index.text_reasons if half == "text" else index.image_reasons
    wanted = {row_id: digest for row_id, digest, why in zip(index.ids, hashes, reasons, strict=True) if not why}
    return set(wanted), [row_id for row_id, digest in wanted.items() if known.get(row_id) != digest]


def damaged_states(cache: Cache) -> dict[str, str]:
    """What is damaged in the files of states beside a cache, by `tune`; a file whose checksums hold is left out."""
    found = {}
    for path in sorted(cache.path.parent.glob(f"{glob.escape(cache.path.stem)}.*.states")):
        tune = re.sub(r"(\d+)$", r":\1", path.suffixes[-2].removeprefix("."))
        try:
            with closing(open_states(cache, tune)) as store:
                rows = [row_id for split in cache.rows for row_id in store.damaged(split, half_of(tune))]
        except CacheError as error:
            found[tune] = str(error)
            continue
        if rows:
            more = ", ..." if len(rows) > 5 else ""
            found[tune] = f"states of {tune}: {len(rows)} {half_of(tune)}s ({', '.join(rows[:5])}{more})"
    return found


def drop_damaged(cache: Cache, tune: str) -> None:
    """Forget the states whose checksums do not hold. Raises CacheError where the file cannot be read at all."""
    with closing(open_states(cache, tune)) as store:
        for split in cache.rows:
            store.drop(split, half_of(tune), store.damaged(split, half_of(tune)))


class StoredStates:
    """States of N texts or images that stay on disk, but for what is taken; lengths (N,): tokens of each."""

    def __init__(self, cache: Cache, split: str, tune: str) -> None:
        """Of a split's rows, in the order of its index; a quarantined text has none. Raises CacheError where states are
        missing, or of another text than the cache's."""
        index, store, half = cache.index(split), open_states(cache, tune), half_of(tune)
        weakref.finalize(self, store.close)
        wanted, absent = behind(index, split, store, half)
        if absent:
            raise CacheError(
                f"{store.path.name} lacks the states of {len(absent)} {split} {half}s ({absent[0]} first); run "
                f"`mmsent extract --tokens {tune}` again, which encodes only these"
            )
        self._store, self._split, self._half, self._ids = store, split, half, index.ids
        self._width = int(store.meta["width"])
        sizes = store.sizes(split, half)
        row = self._width * np.dtype(DTYPE).itemsize
        self.lengths = np.array([sizes[name] // row if name in wanted else 0 for name in index.ids], np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Of all of them, once they are in memory."""
        return int(self.lengths.sum()) * self._width * np.dtype(DTYPE).itemsize

    def take(self, places: NDArray[np.int64]) -> Ragged:
        """The states of the texts at these places. Raises CacheError where they are damaged."""
        ids = [self._ids[i] for i in places.tolist()]
        there = [name for name, length in zip(ids, self.lengths[places], strict=True) if length]
        found = self._store.vectors(self._split, self._half, there, DTYPE)
        nothing = np.zeros((0, self._width), np.float16)
        return ragged([found[name].reshape(-1, self._width) if name in found else nothing for name in ids])


def load_states(cache: Cache, split: str, tune: str) -> Ragged:
    """The states of a split's rows in memory, in the order of its index. Errors as of StoredStates."""
    stored = StoredStates(cache, split, tune)
    return stored.take(np.arange(len(stored)))


def states_of(cache: Cache, split: str, tune: str, memory: int | None) -> Ragged | StoredStates:
    """The states of a split's rows, in memory where they take at most `memory` bytes. Errors as of StoredStates."""
    stored = StoredStates(cache, split, tune)
    return stored if memory is not None and stored.nbytes > memory else stored.take(np.arange(len(stored)))
