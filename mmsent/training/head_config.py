"""What a head is built from. Nothing here loads torch.

Shapes: D_image and D_text feature widths, H hidden width, C classes.
"""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from mmsent.config import FitSettings, Fusion, Settings

COMMON_WIDTH = 512  # where the two widths differ and no common width is asked for


class HeadConfig(Settings):
    """What a head is built from; stored beside its weights."""

    fusion: Fusion
    image_width: int
    text_width: int
    classes: int
    hidden: int = 256
    depth: int = 1
    dropout: float = 0.5
    heads: int = 8
    common_width: int | None = None
    rms: bool = False
    standardize: bool = False
    modality_dropout: float = 0.0

    @model_serializer(mode="wrap")
    def _without_the_usual_depth(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A head of one hidden layer is written as before there could be several: the same bytes, for any mmsent."""
        found: dict[str, Any] = dump(self)
        return found if found.get("depth") != 1 else {k: v for k, v in found.items() if k != "depth"}

    @property
    def projects(self) -> bool:
        """Whether both halves are first projected to a common width."""
        mixes = self.fusion in {Fusion.weighted, Fusion.attention, Fusion.attention_alt}
        return mixes and (self.image_width != self.text_width or self.common_width is not None)

    @property
    def fused_width(self) -> int:
        """Width of the fused features."""
        if self.fusion is Fusion.concat:
            return self.image_width + self.text_width
        if self.fusion is Fusion.text:
            return self.text_width
        return (self.common_width or COMMON_WIDTH) if self.projects else self.image_width


def head_config(settings: FitSettings, image_width: int, text_width: int, classes: int) -> HeadConfig:
    """The head that fit settings describe, for features of these widths."""
    shared = settings.model_dump(include=set(HeadConfig.model_fields))
    return HeadConfig(**shared, image_width=image_width, text_width=text_width, classes=classes)
