"""Rows to train or to validate on: what training asks of them, and those in memory; stored.py holds those on disk.

An epoch is one permutation of all rows.

Shapes: N rows, V views, B batch, D_image and D_text widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsent.config import FitSettings
from mmsent.metrics import Labels
from mmsent.system.memory import free_memory, out_of_memory

PART = 8192  # rows evaluated at a time

Batch = tuple[Tensor, Tensor, Tensor, Tensor | None]
Part = tuple[NDArray[np.int64] | slice, Tensor, Tensor, Tensor | None]
# Rows of an epoch that are at hand together: which, (n,), in random order; and a function that makes a batch of those
# at some of the n places. Each but the last has a whole number of batches.
Chunk = tuple[NDArray[np.int64], Callable[[Any], Batch]]


class Rows(Protocol):
    """Labelled rows on some device."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    def __len__(self) -> int: ...

    @property
    def device(self) -> str:
        """Where the batches are."""

    @property
    def widths(self) -> tuple[int, int]:
        """D_image, D_text."""

    def epoch(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Batches of one epoch in random order, one view drawn per row: image (B, D_image), text (B, D_text) float32,
        labels (B,), missing (B, 2) bool: which rows lack their image or text, None where no row does. generator: on the
        CPU; None: torch's own."""

    def parts(self) -> Iterator[Part]:
        """All rows once on their clean view: which rows, image, text, missing. The order is the same every time."""


class Chunked(Rows, Protocol):
    """Rows whose batches others may cut."""

    def chunks(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Chunk]:
        """What `epoch` draws, before it is cut into batches."""


def draw_epoch(
    labels: Tensor, views: int, settings: FitSettings, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The order of an epoch's rows (N,), and the view that each place in it shows (N,). Drawn on the CPU."""
    n = len(labels)
    if settings.balance == "sampler":
        here = labels.cpu()  # float64, which not every device has
        inverse = 1.0 / torch.bincount(here).clamp(min=1).to(torch.float64)
        order = torch.multinomial(inverse[here], n, replacement=True, generator=generator)
    else:
        order = torch.randperm(n, generator=generator)
    view = torch.randint(views if settings.views else 1, (n,), generator=generator)
    return order.to(labels.device), view.to(labels.device)


class InMemory:
    """What rows in memory have in common; `at` says where in image and text they are."""

    image: Tensor
    text: Tensor
    labels: Tensor
    missing: Tensor | None

    def at(self, rows: Any) -> Any:
        """The places of some rows, by their numbers or a slice, in image and text."""
        return rows

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> str:
        """Where the rows are."""
        return str(self.labels.device)

    @property
    def widths(self) -> tuple[int, int]:
        """D_image, D_text."""
        return self.image.shape[2], self.text.shape[1]

    def epoch(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One permutation (or weighted draw) of all rows."""
        order, view = draw_epoch(self.labels, self.image.shape[1], settings, generator)
        return self._batches(order, view, settings.batch_size)

    def _batches(self, order: Tensor, view: Tensor, size: int) -> Iterator[Batch]:
        """order, view (N,): of each row in the epoch its place and its view."""
        pictures = self.image.flatten(0, 1)  # (M * V, D_image); index_select is many times faster than two indices
        places = self.at(order)
        shown = places * self.image.shape[1] + view
        parts = [torch.split(each, size) for each in (shown, places, self.labels[order])]
        missing = [None] * len(parts[0]) if self.missing is None else torch.split(self.missing[order], size)
        for image, text, labels, lost in zip(*parts, missing, strict=True):
            yield pictures.index_select(0, image), self.text.index_select(0, text), labels, lost

    def chunks(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Chunk]:
        """All rows at once."""
        order, view = draw_epoch(self.labels, self.image.shape[1], settings, generator)

        def take(which: Any) -> Batch:
            here = torch.as_tensor(which, device=order.device)
            rows, places = order[here], self.at(order[here])
            missing = None if self.missing is None else self.missing[rows]
            return self.image[places, view[here]], self.text[places], self.labels[rows], missing

        return iter([(order.cpu().numpy(), take)])

    def parts(self) -> Iterator[Part]:
        """Consecutive rows."""
        for start in range(0, len(self), PART):
            part = slice(start, start + PART)
            places = self.at(part)
            yield part, self.image[places, 0], self.text[places], None if self.missing is None else self.missing[part]


@dataclass(frozen=True)
class Tensors(InMemory):
    """Rows in memory: image (N, V, D_image), text (N, D_text) float32, labels (N,) int64; missing (N, 2) bool, which
    rows lack their image or text, whose features mean nothing then; None: no row does."""

    image: Tensor
    text: Tensor
    labels: Tensor
    missing: Tensor | None = None


@dataclass(frozen=True)
class Picked(InMemory):
    """Some rows of arrays in memory that others use as well, so nothing is copied: those at `places` (N,) of image (M,
    V, D_image), text (M, D_text) float32; labels (N,) int64 and missing (N, 2) are of these rows alone. Trains as
    `Tensors` does. moments: of each half, mean and standard deviation (D,), by whether rows are scaled to root mean
    square 1: kept here for all heads that train on these rows."""

    image: Tensor
    text: Tensor
    places: Tensor
    labels: Tensor
    missing: Tensor | None = None
    moments: dict[bool, list[tuple[Tensor, Tensor]]] = field(default_factory=dict, compare=False, repr=False)

    def at(self, rows: Any) -> Any:
        """Those of `places`."""
        return self.places[rows]


@dataclass(frozen=True)
class Moved(Tensors):
    """Rows in the host's memory for a device that cannot hold them all: each batch is moved when its turn comes."""

    target: str = "cpu"

    @property
    def device(self) -> str:
        """Where the batches are."""
        return self.target

    def epoch(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """The batches of `Tensors`, moved."""
        return map(self._moved, super().epoch(settings, generator))

    def chunks(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Chunk]:
        """Those of `Tensors`, whose batches are moved."""
        for which, take in super().chunks(settings, generator):
            yield which, lambda at, take=take: self._moved(take(at))  # type: ignore[misc]

    def parts(self) -> Iterator[Part]:
        """Consecutive rows, moved."""
        for part, image, text, missing in super().parts():
            yield part, image.to(self.target), text.to(self.target), _to(missing, self.target)

    def _moved(self, batch: Batch) -> Batch:
        image, text, labels, missing = batch
        return image.to(self.target), text.to(self.target), labels.to(self.target), _to(missing, self.target)


def _to(missing: Tensor | None, device: str) -> Tensor | None:
    return None if missing is None else missing.to(device)


def on_host(rows: Rows) -> Rows:
    """Rows whose batches come from the host's memory, for the same device; those on disk as they are."""
    if isinstance(rows, Picked):
        image, text = (half.cpu()[rows.places.cpu()] for half in (rows.image, rows.text))
    elif isinstance(rows, Tensors):
        image, text = rows.image.cpu(), rows.text.cpu()
    else:
        return rows
    return Moved(image, text, rows.labels.cpu(), _to(rows.missing, "cpu"), rows.device)


def to_tensors(
    image: NDArray[np.float32],
    text: NDArray[np.float32],
    labels: Labels,
    device: str,
    missing: NDArray[np.bool_] | None = None,
) -> Tensors:
    """Move arrays to a device once, where its memory holds them; training never copies rows again. missing (N, 2): None
    or all false where no row lacks a half."""
    given = (image, text, labels, *([missing] if missing is not None and missing.any() else []))
    parts = [torch.from_numpy(array) for array in given]
    try:
        return Tensors(*(part.to(device) for part in parts))
    except (RuntimeError, MemoryError) as error:
        if device == "cpu" or not out_of_memory(error):
            raise
    free_memory()
    return Moved(parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else None, device)
