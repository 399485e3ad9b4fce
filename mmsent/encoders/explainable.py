"""The differentiable side of the encoders: layers of a picture tower as maps, texts as tokens and whole words.

`encode` stays as it is, in inference mode; what stands here serves explanations (mmsent.inference.explain) alone.
Gradients are taken in fp32: an encoder that runs in a shorter precision is copied to fp32 at first use, with its
rounded weights.

Shapes: B batch, C channels, L tokens, h x w the grid of a map.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmsent.data.images import Pixels
from mmsent.encoders.base import ImageCard, TextCard
from mmsent.errors import EncoderError

Form = Literal["NCHW", "NHWC", "NLC", "LNC"]

# Modules that only hold the stages of a tower, under the names that open_clip and timm give them.
CONTAINERS = {"trunk", "transformer", "encoder", "resblocks", "blocks", "stages", "layers", "features"}


@dataclass(frozen=True)
class Layer:
    """A place in a picture tower. form: the order of its output's axes (N batch, L tokens); prefix: class and register
    tokens before the patch tokens; grid: (h, w) of its map."""

    name: str
    module: nn.Module
    form: Form
    grid: tuple[int, int]
    prefix: int = 0

    def map_of(self, output: Tensor) -> Tensor:
        """The module's output, or a gradient of that shape, as (B, C, h, w); prefix tokens are left out."""
        if self.form == "NCHW":
            return output
        if self.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        tokens = output.transpose(0, 1) if self.form == "LNC" else output  # (B, L, C)
        return tokens[:, self.prefix :].transpose(1, 2).reshape(len(tokens), -1, *self.grid)


@dataclass(frozen=True)
class Word:
    """A whole word of a text (a #tag, an @name and a contraction count as one) and the positions of its tokens."""

    text: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Tokens:
    """A text as the encoder sees it: token ids after the cut, which of them are special, and the words among the rest.
    pad: the id that stands for no word. cut: whether the text was longer than the encoder takes."""

    ids: tuple[int, ...]
    special: tuple[bool, ...]
    words: tuple[Word, ...]
    pad: int
    cut: bool


@runtime_checkable
class ExplainableImageEncoder(Protocol):
    """An image encoder with a differentiable path beside `encode`."""

    card: ImageCard

    @property
    def batch_size(self) -> int:
        """Pictures a forward pass that suit the device."""

    def prepared(self, pixels: Pixels) -> Tensor:
        """(B, size, size, 3) bytes as the normalised fp32 input (B, 3, size, size); 0 is the mean colour."""

    def features(self, x: Tensor) -> Tensor:
        """A normalised input (B, 3, size, size) to raw embeddings (B, D_image) as `encode` gives, with a graph."""

    def layers(self) -> list[Layer]:
        """The tower's layers in forward order, the patch embedding or first convolution first."""


@runtime_checkable
class ExplainableTextEncoder(Protocol):
    """A text encoder with a differentiable path beside `encode`."""

    card: TextCard

    def tokenize(self, text: str) -> Tokens:
        """A text's tokens and words, cut as `encode` cuts them."""

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """B rows of token ids as ids (B, L), padded, and mask (B, L): 1 where a token stands."""

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids and mask (B, L) to the raw embeddings (B, D_text) that `encode` gives for that text, with a graph."""

    def embedding(self) -> nn.Module:
        """The module that turns ids (B, L) into token embeddings (B, L, C)."""


def in_fp32(model: Any) -> Any:
    """The model itself where it is fp32, else an fp32 copy: half precision rounds small gradients to nothing."""
    if all(p.dtype is torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).float()


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The outputs of modules by name, as tensors that `torch.autograd.grad` can differentiate by.

    The encoders are frozen, so no output has a graph until the first of these modules starts one.
    """
    found: dict[str, Tensor] = {}

    def hook_of(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            found[name] = output if output.requires_grad else output.detach().requires_grad_()
            return found[name].clone()  # the next module may work in place

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def find_layers(tower: nn.Module, probe: Callable[[], object]) -> list[Layer]:
    """The layers of a picture tower in forward order, found by looking on while `probe` encodes one picture.

    The first convolution, then every stage or block that mixes channels, then (convolutional towers) the map that is
    pooled. A tower built otherwise gives every module with weights whose output is a map.
    Raises EncoderError where no output is a map.
    """
    names = {module: name for name, module in tower.named_modules() if name}
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes.setdefault(module, []).append(tuple(output.shape))

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            probe()
    finally:
        for handle in handles:
            handle.remove()
    read = _Reader(tower)
    found = {m: layer for m, s in shapes.items() if len(s) == 1 and (layer := read(names[m], m, s[0]))}
    order = [m for m in shapes if m in found]
    stem = next((m for m in order if isinstance(m, nn.Conv2d)), None)
    maps = [m for m in _stages(tower) if m in found and not isinstance(m, nn.Identity)]
    chosen = {m for m in maps if not isinstance(m, nn.Conv2d) and any(p.ndim >= 2 for p in m.parameters())}
    if len(chosen) < 2:
        chosen = {m for m in order if next(m.parameters(recurse=False), None) is not None}
    if convolved := [m for m in maps if found[m].form == "NCHW"]:
        chosen.add(max(convolved, key=order.index))  # after its activation, as it is pooled
    if stem is not None:
        chosen = {m for m in chosen if not names[stem].startswith(f"{names[m]}.")} | {stem}
    if not chosen:
        raise EncoderError(f"no layer of {type(tower).__name__} gives a map, so Grad-CAM has nothing to show")
    return [found[m] for m in sorted(chosen, key=order.index)]


class _Reader:
    """Which layer an output of one picture makes, by its shape; None where it is no map."""

    def __init__(self, tower: nn.Module) -> None:
        trunk: Any = getattr(tower, "trunk", tower)  # open_clip's wrapper of timm towers
        class_token = 1 if hasattr(trunk, "class_embedding") else 0
        self.prefix = int(getattr(trunk, "num_prefix_tokens", class_token))
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        grid = getattr(trunk, "grid_size", None) or getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
        self.grid: tuple[int, int] | None = (int(grid[0]), int(grid[1])) if grid else None

    def __call__(self, name: str, module: nn.Module, shape: tuple[int, ...]) -> Layer | None:
        if any("pool" in part or part == "head" for part in name.split(".")):
            return None  # an attention pool's queries are no places of the picture
        if len(shape) == 4:
            _, first, second, third = shape
            ambiguous = first == second == third
            if first == second and not isinstance(module, nn.Conv2d) and (self.channels_last or not ambiguous):
                return Layer(name, module, "NHWC", (first, second)) if first > 1 else None
            return Layer(name, module, "NCHW", (second, third)) if second == third > 1 else None
        if len(shape) != 3 or 1 not in shape[:2]:
            return None
        form: Form = "NLC" if shape[0] == 1 else "LNC"
        length = shape[1] if form == "NLC" else shape[0]
        for prefix in dict.fromkeys((self.prefix, 0)):
            side = math.isqrt(max(0, length - prefix))
            square = self.grid if self.grid and math.prod(self.grid) == length - prefix else (side, side)
            if math.prod(square) == length - prefix and min(square) > 1:
                return Layer(name, module, form, square, prefix)
        return None


def _stages(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a tower, with containers opened."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList) or name in CONTAINERS:
            yield from _stages(child)
        else:
            yield child
