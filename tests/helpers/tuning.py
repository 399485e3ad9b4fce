"""Blocks and states for the fakes' features, for tests of heads that tune blocks: microseconds a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmsent.features.cache import Cache
from mmsent.features.cache.journal import Entry
from mmsent.features.cache.states import open_states

WIDTH = 6


class TinyBlocks(nn.Module):
    """One linear layer on the states (B, L, 6), its mean over the tokens added to the text features (B, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 32)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-0.1, 0.1, self.layer.weight.numel()).view_as(self.layer.weight))
            self.layer.bias.zero_()

    @property
    def trained(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def weights(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        self.load_state_dict(weights)

    def forward(self, states: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        there = mask[:, :, None]
        found: Tensor = text + (self.layer(states) * there).sum(dim=1) / there.sum(dim=1)
        return found


@dataclass(frozen=True)
class FreshTinyBlocks:
    """Fresh ones in any process."""

    def __call__(self, tune: str) -> TinyBlocks:
        return TinyBlocks()


def store_states(cache: Cache, tune: str) -> None:
    """States of 1 to 9 tokens for every good text of the train split."""
    index, store = cache.index("train"), open_states(cache, tune, WIDTH)
    rng = np.random.default_rng(0)
    rows = zip(index.ids, index.text_hashes, index.text_reasons, strict=True)
    store.put(
        "train",
        "text",
        [
            Entry(name, digest, rng.standard_normal((int(rng.integers(1, 10)), WIDTH)).astype(np.float16))
            for name, digest, why in rows
            if not why
        ],
    )
    store.close()
