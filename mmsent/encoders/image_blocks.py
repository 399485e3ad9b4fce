"""The last blocks of vision transformers.

Shapes: B images, L tokens, D_token width of a state, D_image width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmsent.encoders.blocks_base import EncoderBlocks, Part, States, as_is, caught_states, last, on_torch
from mmsent.encoders.clip import ClipImageEncoder
from mmsent.encoders.timm import TimmImageEncoder
from mmsent.errors import EncoderError, UsageError


class ImageBlocks:
    """Of a vision transformer: open_clip's own, timm's, and timm's inside open_clip."""

    def __init__(self, encoder: ClipImageEncoder | TimmImageEncoder, part: Part, count: int) -> None:
        self._encoder, self._part, self._count, name = encoder, part, count, encoder.card.name
        last(vision_transformer(self._tower, name)[1], count, name)
        if encoder.card.precision == "int8":
            raise UsageError(f"image blocks are taken from torch, not from int8: extract {name} with --runtime torch")

    @property
    def _tower(self) -> Any:
        one = self._encoder
        return one.fp32_model if isinstance(one, TimmImageEncoder) else one.clip.fp32_model.visual

    @contextmanager
    def caught(self) -> Iterator[list[States]]:
        one = self._encoder
        tower: Any = one.model if isinstance(one, TimmImageEncoder) else one.clip.model.visual
        with on_torch(one), caught_states(*self.entrance(tower), tower, tower, lambda _: None) as found:
            yield found

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        owner, layers = vision_transformer(model, self._encoder.card.name)
        return list(layers)[-self._count], getattr(owner, "batch_first", True)

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        raise EncoderError("the tokens of an image are never padded")

    def module(self) -> EncoderBlocks:
        tower = copy.deepcopy(self._tower).cpu()
        owner, layers = vision_transformer(tower, self._encoder.card.name)
        kept = last(layers, self._count, self._encoder.card.name)
        if hasattr(owner, "resblocks"):
            owner.resblocks, vars(tower)["_embeds"] = kept, as_is
        else:
            owner.blocks, vars(owner)["_pos_embed"] = nn.Sequential(*kept), as_is
            owner.patch_embed = owner.patch_drop = owner.norm_pre = nn.Identity()
        return EncoderBlocks(_ImageBody(tower), list(kept), self._part).eval()


class _ImageBody(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if states.shape[1] == 1:  # of images that are not there; a tower may pool without the class token
            states = states.expand(-1, 16, -1)
        found: Tensor = self.tower(states)
        return found


def vision_transformer(tower: Any, name: str) -> tuple[Any, Any]:
    """The module that holds the blocks of a vision transformer, and these."""
    from open_clip.transformer import VisionTransformer as OpenClip
    from timm.models.vision_transformer import VisionTransformer as Timm

    trunk = getattr(tower, "trunk", tower)  # open_clip's wrapper of timm towers
    if isinstance(tower, OpenClip) and not tower.output_tokens:
        return tower.transformer, tower.transformer.resblocks
    if isinstance(trunk, Timm):
        return trunk, trunk.blocks
    raise EncoderError(
        f"{name} is no vision transformer of open_clip or timm ({type(trunk).__name__}), so it has no image blocks to "
        "tune; use a ViT, or --tokens text:2"
    )
