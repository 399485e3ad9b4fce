"""The differentiable side of the encoders: layers of an image tower as maps, texts as tokens and whole words.

Only explanations (mmsent.inference.explain) use it; `encode` runs in inference mode. Gradients are computed in fp32: an
encoder that runs in a lower precision is copied to fp32 at first use, with its rounded weights.

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
    """A layer of an image tower. form: the order of its output's axes (N batch, L tokens); prefix: class and register
    tokens before the patch tokens; grid: (h, w) of its map."""

    name: str
    module: nn.Module
    form: Form
    grid: tuple[int, int]
    prefix: int = 0

    def map_of(self, output: Tensor) -> Tensor:
        """The module's output, or a gradient of that shape, as (B, C, h, w); without the prefix tokens."""
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
    """A text as the encoder sees it: token ids after truncation, which of them are special, and the words of the
    others. pad: the id that replaces a word that is left out. cut: whether the text was truncated."""

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
        """How many images per forward pass suit the device."""

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
        """A text's tokens and words, truncated as by `encode`."""

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """B rows of token ids as ids (B, L), padded, and mask (B, L): 1 for a token, 0 for padding."""

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids and mask (B, L) to the raw embeddings (B, D_text) that `encode` gives for that text, with a graph."""

    def embedding(self) -> nn.Module:
        """The module that turns ids (B, L) into token embeddings (B, L, C)."""


def in_fp32(model: Any) -> Any:
    """The model itself if it is fp32, else an fp32 copy: half precision rounds small gradients to zero."""
    if all(p.dtype is torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).float()


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The outputs of modules by name, as tensors with respect to which `torch.autograd.grad` can differentiate.

    The encoders are frozen: the first of these modules starts the graph.
    """
    found: dict[str, Tensor] = {}

    def hook_of(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            found[name] = output if output.requires_grad else output.detach().requires_grad_()
            return found[name].clone()  # the next module may change it in place

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def find_layers(tower: nn.Module, probe: Callable[[], object]) -> list[Layer]:
    """The layers of an image tower in forward order, observed while `probe` encodes one image.

    They are the first convolution, every stage or block that mixes channels, and in convolutional towers the map that
    is pooled. In a tower of another kind, they are all modules with weights whose output is a map.
    Raises EncoderError if no output is a map.
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
        raise EncoderError(f"no layer of {type(tower).__name__} outputs a map, so Grad-CAM is not possible")
    return [found[m] for m in sorted(chosen, key=order.index)]


class _Reader:
    """The layer whose output for one image has a given shape; None if that is not a map."""

    def __init__(self, tower: nn.Module) -> None:
        trunk: Any = getattr(tower, "trunk", tower)  # open_clip's wrapper of timm towers
        class_token = 1 if hasattr(trunk, "class_embedding") else 0
        self.prefix = int(getattr(trunk, "num_prefix_tokens", class_token))
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        grid = getattr(trunk, "grid_size", None) or getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
        self.grid: tuple[int, int] | None = (int(grid[0]), int(grid[1])) if grid else None

    def __call__(self, name: str, module: nn.Module, shape: tuple[int, ...]) -> Layer | None:
        if any("pool" in part or part == "head" for part in name.split(".")):
            return None  # the queries of attention pooling are not positions in the image
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
    """The parts of a tower, those inside containers included."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList) or name in CONTAINERS:
            yield from _stages(child)
        else:
            yield child
