"""What blocks of every kind of encoder share: the module that training takes, and catching what enters a layer.

Shapes: B texts or images, L tokens, D_token width of a state, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsent.errors import UsageError

States = NDArray[np.float16]


class Blocks(Protocol):
    """The last blocks of one encoder."""

    def caught(self) -> AbstractContextManager[list[States]]:
        """While it is open, the list takes what enters the blocks of each text or image that the encoder encodes, in
        order: (L, D_token), without padding."""

    def module(self) -> EncoderBlocks:
        """The blocks with the encoder's own weights, on the CPU in fp32; each call gives a copy of its own."""

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        """The first of the blocks in a model of the encoder, and whether the batch is the first axis of its input."""

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Which tokens count, (B, L) int64, of the ids and the mask (B, L) that the encoder reads."""


class EncoderBlocks(nn.Module):
    """The last blocks of an encoder: states (B, L, D_token) and the mask of their tokens (B, L) int64, which starts
    with ones, to embeddings (B, D) as a cache holds them. `trained`: the blocks' parameters, in order."""

    def __init__(self, body: nn.Module, trained: Sequence[nn.Module], part: Part) -> None:
        super().__init__()
        self.body, self._part = body, part
        self._trained = nn.ModuleList(trained)
        self.requires_grad_(False)
        self._trained.requires_grad_(True)

    @property
    def trained(self) -> list[nn.Parameter]:
        """What training changes: the blocks' parameters."""
        return list(self._trained.parameters())

    def weights(self) -> dict[str, Tensor]:
        """The blocks' weights by name."""
        return self._trained.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the weights that `weights` gave. Raises RuntimeError where they are of other blocks."""
        self._trained.load_state_dict(weights)

    def forward(self, states: Tensor, mask: Tensor, cached: Tensor) -> Tensor:
        """cached (B, D): the embeddings, of which this encoder's part is replaced."""
        found = self._part.scale(self.body(states, mask))
        start, stop = self._part.place
        if (start, stop) == (0, cached.shape[1]):
            return found
        return torch.cat([cached[:, :start], found, cached[:, stop:]], dim=1)


@dataclass(frozen=True)
class Part:
    """Where an encoder's embedding stands in the cached one, and how the cache scales it."""

    place: tuple[int, int]
    scale: Callable[[Tensor], Tensor]


def unit(x: Tensor) -> Tensor:
    """Embeddings (B, D) scaled to length 1."""
    return nn.functional.normalize(x, dim=1)


def as_is(x: Tensor) -> Tensor:
    """What was given."""
    return x


def last(layers: Any, count: int, name: str) -> nn.ModuleList:
    """The last `count` layers. Raises UsageError where there are fewer; name: of the encoder."""
    if count > len(layers):
        raise UsageError(f"{name} has {len(layers)} blocks; got {count}")
    return nn.ModuleList(list(layers)[len(layers) - count :])


@contextmanager
def caught_states(
    first: nn.Module, batch_first: bool, whole: nn.Module, reader: nn.Module, lengths: Callable[[Any], Tensor | None]
) -> Iterator[list[States]]:
    """The states that enter the layer `first`, once the module `whole` has used them: a pass that ran out of memory
    leaves none. They are without padding, which stands at the end; lengths: tokens of each text (B,) by what the module
    `reader` is given before; None: all."""
    read: list[Tensor | None] = []
    entered: list[States] = []
    found: list[States] = []

    def take(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        states = given[0] if batch_first else given[0].transpose(0, 1)
        values, known = states.float().cpu().numpy(), read[-1]
        ends = [None] * len(values) if known is None else known.tolist()
        entered[:] = [row[:n].astype(np.float16) for row, n in zip(values, ends, strict=True)]

    hooks = [
        reader.register_forward_pre_hook(lambda _, given: read.append(lengths(given[0]))),
        first.register_forward_pre_hook(take),
        whole.register_forward_hook(lambda *_: found.extend(entered)),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
