"""Rows whose text features come from blocks that train with the head: the last blocks of the text encoder, on the
states that enter them. `train_head` takes such rows as any others; the rest of the encoder has run once, for the cache.

Shapes: N rows, B batch, L tokens, D_token width of a state, D_image and D_text widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from mmsent.config import FitSettings
from mmsent.features.cache.states import Ragged, StoredStates
from mmsent.training.loaders import Batch, Chunked, Part

BUCKET = 50  # batches whose rows are sorted by length together
PART = 128  # rows at a time without gradients


class Blocks(Protocol):
    """The last blocks of a text encoder (see mmsent.encoders.blocks)."""

    @property
    def trained(self) -> list[nn.Parameter]:
        """What training changes."""

    def weights(self) -> dict[str, Tensor]:
        """The trained weights by name."""

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take them back."""

    def train(self, mode: bool = True) -> Any:
        """With the encoder's dropout, or without."""

    def modules(self) -> Iterator[nn.Module]:
        """The layers."""

    def to(self, device: str) -> Any:
        """On this device."""

    def __call__(self, states: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        """states (B, L, D_token), mask (B, L), text (B, D_text) as cached -> text (B, D_text)."""


BlocksOf = Callable[[str], Blocks]  # fresh blocks by `tune`, as in text:2


def padded(states: Ragged | StoredStates, places: NDArray[np.int64], device: str) -> tuple[Tensor, Tensor]:
    """The states of the texts at these places (B,): (B, L, D_token) fp32, and their mask (B, L) int64. A text without
    states counts as one token of zeros."""
    if isinstance(states, StoredStates):
        states, places = states.take(places), np.arange(len(places))
    lengths = states.lengths[places]
    steps = np.arange(max(1, int(lengths.max(initial=1))))
    there = steps[None] < lengths[:, None]
    at = np.where(there, states.offsets[places][:, None] + steps[None], 0)
    values = (
        np.where(there[:, :, None], states.values[at], np.float16(0))
        if len(states.values)
        else np.zeros((*there.shape, states.values.shape[1]), np.float16)
    )
    mask = (steps[None] < np.maximum(lengths, 1)[:, None]).astype(np.int64)
    return torch.from_numpy(values).to(device, torch.float32), torch.from_numpy(mask).to(device)


@dataclass(frozen=True)
class TunedRows:
    """Rows whose texts go through blocks: those of `rows`, N, and the states of their texts at `places` (N,) of
    `states`."""

    rows: Chunked
    states: Ragged | StoredStates
    places: NDArray[np.int64]
    blocks: Blocks

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return self.rows.labels

    @property
    def device(self) -> str:
        """Where the rows are."""
        return self.rows.device

    @property
    def widths(self) -> tuple[int, int]:
        """D_image, D_text."""
        return self.rows.widths

    def epoch(self, settings: FitSettings, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One permutation (or weighted draw) of all rows, in batches of texts of similar length; the texts with a
        gradient to the blocks."""
        self.blocks.train()
        for which, take in self.rows.chunks(settings, generator):
            places = self.places[which]
            lengths = self.states.lengths[places]
            batches: list[NDArray[np.int64]] = []
            for start in range(0, len(which), BUCKET * settings.batch_size):
                some = start + np.argsort(lengths[start : start + BUCKET * settings.batch_size], kind="stable")
                batches += np.split(some, range(settings.batch_size, len(some), settings.batch_size))
            for at in torch.randperm(len(batches), generator=generator).tolist():
                image, text, labels, missing = take(batches[at])
                text = self.blocks(*padded(self.states, places[batches[at]], self.device), text)
                yield image, text, labels, missing

    def parts(self) -> Iterator[Part]:
        """Consecutive rows, through the blocks as they are now, without gradients."""
        for part, image, text, missing in self.rows.parts():
            yield part, image, tuned_text(self.blocks, text, self.states, self.places[part]), missing


@torch.no_grad()
def tuned_text(blocks: Blocks, text: Tensor, states: Ragged | StoredStates, places: NDArray[np.int64]) -> Tensor:
    """The text features (N, D_text) that blocks make of the states at `places` (N,); text (N, D_text) as cached. Texts
    of similar length go together, so the result does not depend on what else is asked for beyond the last bits."""
    blocks.train(False)
    out = text.clone()
    order = np.argsort(states.lengths[places], kind="stable")
    for start in range(0, len(order), PART):
        here = order[start : start + PART]
        on = torch.from_numpy(here).to(text.device)
        out[on] = blocks(*padded(states, places[here], str(text.device)), text[on])
    return out


def use_bfloat16(blocks: Blocks) -> None:
    """In training, the matrix products of linear layers and those of their gradients are in bfloat16; weights and sums
    stay in fp32, as in a head (see mmsent.training.heads)."""
    for layer in blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = _bfloat16_product(layer)  # type: ignore[method-assign]


def _bfloat16_product(layer: nn.Linear) -> Any:
    def product(x: Tensor) -> Tensor:
        if not layer.training:
            return linear(x, layer.weight, layer.bias)
        found = linear(x.bfloat16(), layer.weight.bfloat16()).float()
        return found if layer.bias is None else found + layer.bias

    return product
