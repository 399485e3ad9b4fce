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
from torch.nn.utils.parametrize import register_parametrization

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


class LowRank(nn.Module):
    """A weight (O, I) plus twice a product of two thin matrices, (O, rank) and (rank, I), that alone are trained; zero
    at first (LoRA, Hu et al. 2021)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        bound = weight.shape[1] ** -0.5
        down = torch.empty(rank, weight.shape[1]).uniform_(-bound, bound)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))
        self.down = nn.Parameter(down.to(weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I) to (O, I)."""
        return weight + 2 * self.up @ self.down


class EncoderBlocks(nn.Module):
    """The last blocks of an encoder: states (B, L, D_token) and the mask of their tokens (B, L) int64, which starts
    with ones, to embeddings (B, D) as a cache holds them."""

    def __init__(self, body: nn.Module, trained: Sequence[nn.Module], part: Part) -> None:
        super().__init__()
        self.body, self._part = body, part
        self._trained = nn.ModuleList(trained)
        self.requires_grad_(False)
        self._trained.requires_grad_(True)

    @property
    def trained(self) -> list[nn.Parameter]:
        """What training changes, in order: the blocks' parameters, or low-rank updates of them."""
        return [weight for weight in self._trained.parameters() if weight.requires_grad]

    def use_low_rank(self, rank: int) -> None:
        """From now on low-rank updates of the blocks' matrices are trained, and nothing else of them."""
        self._trained.requires_grad_(False)
        for module in list(self._trained.modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight.ndim == 2:
                    register_parametrization(module, name, LowRank(weight, rank))

    def weights(self) -> dict[str, Tensor]:
        """What is trained, by name, and what else the blocks keep."""
        frozen = {name for name, weight in self._trained.named_parameters() if not weight.requires_grad}
        return {name: values for name, values in self._trained.state_dict().items() if name not in frozen}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take what `weights` gave. Raises RuntimeError where it is of other blocks."""
        load_weights(self._trained, weights)

    def forward(self, states: Tensor, mask: Tensor, cached: Tensor) -> Tensor:
        """cached (B, D): the embeddings, of which this encoder's part is replaced."""
        found = self._part.scale(self.body(states, mask))
        start, stop = self._part.place
        if (start, stop) == (0, cached.shape[1]):
            return found
        return torch.cat([cached[:, :start], found, cached[:, stop:]], dim=1)


def load_weights(blocks: nn.Module, weights: dict[str, Tensor]) -> None:
    """Take weights of blocks, or low-rank updates of theirs, which are added where the blocks have no such updates.
    Raises RuntimeError where they are of other blocks."""
    own = dict(blocks.named_parameters())
    if not any(name.endswith(".0.up") for name in weights):
        blocks.load_state_dict(weights)
    elif own.keys() >= weights.keys():
        blocks.load_state_dict(own | weights)
    else:
        # Of each matrix the update's names: torch has put them where the matrix's own name was.
        names = {key: [_updated(key, part) for part in ("up", "down")] for key, w in own.items() if w.ndim == 2}
        if weights.keys() != {name for pair in names.values() for name in pair}:
            raise RuntimeError("these are low-rank updates of other blocks")
        with torch.no_grad():
            for key, (up, down) in names.items():
                own[key].add_(2 * weights[up].to(own[key]) @ weights[down].to(own[key]))


def _updated(key: str, part: str) -> str:
    owner, _, name = key.rpartition(".")
    return ".".join([owner] * bool(owner) + ["parametrizations", name, "0", part])


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
def on_torch(encoder: Any) -> Iterator[None]:
    """Inside the with block an encoder computes with torch, whatever its runtime: only there can states be caught."""
    kept, encoder.on_runtime = encoder.on_runtime, None
    try:
        yield
    finally:
        encoder.on_runtime = kept


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
