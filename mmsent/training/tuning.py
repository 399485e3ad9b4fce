"""Rows whose features of one half come from blocks that train with the head: the last blocks of its encoder, on the
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

from mmsent.config import FitSettings, Fusion
from mmsent.errors import UsageError
from mmsent.features.cache.states import Ragged, StoredStates
from mmsent.training.loaders import Batch, Chunked, Part

BUCKET = 50  # batches whose rows are sorted by length together
TUNING = {"tune", "tune_lr", "lora"}  # the settings of tuned blocks
PART = 128  # rows at a time without gradients


class Blocks(Protocol):
    """The last blocks of an encoder (see mmsent.encoders.blocks)."""

    @property
    def trained(self) -> list[nn.Parameter]:
        """What training changes."""

    def use_low_rank(self, rank: int) -> None:
        """From now on train low-rank updates alone."""

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

    def __call__(self, states: Tensor, mask: Tensor, cached: Tensor) -> Tensor:
        """states (B, L, D_token), mask (B, L), cached (B, D), the features of that half -> these features (B, D)."""


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
    """Rows whose texts or images go through blocks: those of `rows`, N, and the states of their `half` at `places` (N,)
    of `states`."""

    rows: Chunked
    states: Ragged | StoredStates
    places: NDArray[np.int64]
    blocks: Blocks
    half: str = "text"

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
        """One permutation (or weighted draw) of all rows, in batches of texts of similar length; the texts or images
        with a gradient to the blocks."""
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
                given = padded(self.states, places[batches[at]], self.device)
                if self.half == "text":
                    text = self.blocks(*given, text)
                else:
                    image = self.blocks(*given, image)
                yield image, text, labels, missing

    def parts(self) -> Iterator[Part]:
        """Consecutive rows, through the blocks as they are now, without gradients."""
        for part, image, text, missing in self.rows.parts():
            own = text if self.half == "text" else image
            own = tuned_features(self.blocks, own, self.states, self.places[part])
            yield part, *((image, own) if self.half == "text" else (own, text)), missing


@torch.no_grad()
def tuned_features(blocks: Blocks, cached: Tensor, states: Ragged | StoredStates, places: NDArray[np.int64]) -> Tensor:
    """The features (N, D) that blocks make of the states at `places` (N,); cached (N, D): the encoder's own. Texts of
    similar length go together, so the result does not depend on what else is asked for beyond the last bits."""
    blocks.train(False)
    out = cached.clone()
    order = np.argsort(states.lengths[places], kind="stable")
    for start in range(0, len(order), PART):
        here = order[start : start + PART]
        on = torch.from_numpy(here).to(cached.device)
        out[on] = blocks(*padded(states, places[here], str(cached.device)), cached[on])
    return out


def require_tunable(settings: FitSettings, blocks: Blocks | None) -> None:
    """Raise UsageError where a head is to tune blocks that are not at hand, or whose features it does not read."""
    if settings.tune and blocks is None:
        raise UsageError(f"tune {settings.tune} trains blocks of an encoder, which are not at hand here")
    if settings.lora and not settings.tune:
        raise UsageError(f"--lora {settings.lora} is for blocks that are tuned; add --tune text:2, or leave it out")
    half = settings.tune.partition(":")[0]
    if half and settings.fusion in {Fusion.image, Fusion.text} and settings.fusion.value != half:
        raise UsageError(
            f"a head of fusion {settings.fusion} reads no {half}, so --tune {settings.tune} has nothing to learn from; "
            "leave --tune out, or choose another fusion"
        )


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
