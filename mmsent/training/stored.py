"""Training rows that stay on disk. The shuffle has two levels: blocks of consecutive rows in a random order, as many as
the memory allows at a time, and within these the rows in a random order. Each block is read once an epoch.

Shapes: N rows, V views, D_image and D_text widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsent.config import FitSettings
from mmsent.errors import UsageError
from mmsent.features.cache import Cache
from mmsent.metrics import Labels
from mmsent.training.loaders import PART, Batch, Chunk, Part

READ_BYTES = 8 << 20  # of one block
Read = Callable[[int, int], tuple[NDArray[Any], NDArray[Any]]]


class Stored:
    """Rows that stay in a cache file: those at `positions` (N,), increasing, with labels (N,) and missing (N, 2) or
    None. At most about `memory` bytes of embeddings are held at a time."""

    def __init__(
        self,
        cache: Cache,
        split: str,
        positions: NDArray[np.int64],
        labels: Labels,
        memory: int,
        device: str,
        missing: NDArray[np.bool_] | None = None,
    ) -> None:
        self.labels, self.device = torch.from_numpy(labels), device
        self._missing = torch.from_numpy(missing) if missing is not None and missing.any() else None
        self._checked = np.zeros(cache.rows[split], bool)  # rows whose checksums need no second look
        self._cache, self._split, self._positions = cache, split, positions
        self._total = cache.rows[split]
        row = cache.row_bytes(split)
        self._views = cache.settings.views.count + 1
        self._block = max(1, READ_BYTES // row)
        self._dtype = np.dtype(cache.settings.storage)
        held = max(1, sum(self.widths) * self._dtype.itemsize)  # of a row in the buffer: one view, as stored
        # Half of the limit: the other half is for what reading, shuffling and the split itself take.
        self._buffer = max(1, memory // (2 * held * self._block))  # blocks

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def widths(self) -> tuple[int, int]:
        """D_image, D_text."""
        return self._cache.settings.image.width, self._cache.settings.text.width

    def epoch(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """A two-level shuffle. Raises UsageError for the weighted draw, which needs all rows at hand."""
        for which, take in self.chunks(settings, generator):
            for start in range(0, len(which), settings.batch_size):
                yield take(slice(start, start + settings.batch_size))

    def chunks(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Chunk]:
        """As many blocks at a time as the memory holds. Raises as `epoch`."""
        if settings.balance == "sampler":
            raise UsageError("--balance sampler draws from all rows at once; raise --memory, or use --balance weights")
        blocks = torch.randperm(-(-self._total // self._block), generator=generator).tolist()
        bounds = np.searchsorted(self._positions, np.arange(len(blocks) + 1) * self._block)
        image, text = (np.zeros((0, width), self._dtype) for width in self.widths)
        which = np.zeros(0, np.int64)
        size = settings.batch_size
        with self._cache.reader(self._split, self._checked) as read:
            for first in range(0, len(blocks), self._buffer):
                chosen = blocks[first : first + self._buffer]
                kept = len(which)  # rows that were too few for a batch
                n = kept + sum(int(bounds[b + 1] - bounds[b]) for b in chosen)
                places, at = torch.randperm(n, generator=generator).numpy(), kept
                before = (image, text, which)
                image, text = (np.empty((n, width), self._dtype) for width in self.widths)
                which = np.empty(n, np.int64)
                image[places[:kept]], text[places[:kept]], which[places[:kept]] = before
                for block in chosen:
                    inside, pictures, texts = self._read(read, block)
                    if not len(inside):
                        continue
                    here = places[at : at + len(inside)]
                    drawn = np.zeros(len(inside), np.int64)
                    if settings.views and pictures.shape[1] > 1:
                        drawn = torch.randint(pictures.shape[1], (len(inside),), generator=generator).numpy()
                    image[here] = pictures[np.arange(len(inside)), drawn]
                    text[here], which[here] = texts, inside
                    at += len(inside)
                whole = n if first + self._buffer >= len(blocks) else n // size * size
                yield which[:whole], self._taker(image[:whole], text[:whole], which[:whole])
                image, text, which = image[whole:].copy(), text[whole:].copy(), which[whole:].copy()

    def _taker(self, image: NDArray[Any], text: NDArray[Any], which: NDArray[np.int64]) -> Callable[[Any], Batch]:
        return lambda at: self._moved(image[at], text[at], which[at])

    def parts(self) -> Iterator[Part]:
        """Block after block, as the file has them."""
        with self._cache.reader(self._split, self._checked) as read:
            for block in range(-(-self._total // self._block)):
                inside, image, text = self._read(read, block)
                for start in range(0, len(inside), PART):
                    part = slice(start, start + PART)
                    images, texts, _, missing = self._moved(image[part, 0], text[part], inside[part])
                    yield inside[part], images, texts, missing

    def _read(self, read: Read, block: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Of one block: which of our rows lie in it, their image (n, V, D_image) and text (n, D_text), as stored."""
        start, stop = block * self._block, min((block + 1) * self._block, self._total)
        first, last = np.searchsorted(self._positions, [start, stop])
        inside = np.arange(first, last)
        if not len(inside):
            none = np.zeros((0, 1, 1), np.float32)
            return inside, none, none[:, 0]
        image, text = read(start, stop)
        if len(inside) == stop - start:
            return inside, image, text
        rows = self._positions[first:last] - start
        return inside, image[rows], text[rows]

    def _moved(self, image: NDArray[Any], text: NDArray[Any], rows: NDArray[np.int64]) -> Batch:
        pair = [torch.from_numpy(half).to(self.device, torch.float32) for half in (image, text)]
        at = torch.from_numpy(rows)
        missing = None if self._missing is None else self._missing[at].to(self.device)
        return pair[0], pair[1], self.labels[at].to(self.device), missing
