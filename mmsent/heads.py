"""The fusion heads: frozen features in, logits out (report, section 1). Nothing here knows about files.

Shapes: B batch, D_image and D_text feature widths, D common width, H hidden width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsent.config import FitSettings, Fusion, Settings
from mmsent.errors import UsageError

COMMON_WIDTH = 512  # where the two widths differ and no common width is asked for


class HeadConfig(Settings):
    """What a head is built from; stored beside its weights."""

    fusion: Fusion
    image_width: int
    text_width: int
    classes: int
    hidden: int = 256
    dropout: float = 0.5
    heads: int = 8
    common_width: int | None = None
    rms: bool = False
    standardize: bool = False
    modality_dropout: float = 0.0

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


@dataclass(frozen=True)
class Trace:
    """What a head computed on the way. fused (B, D_fused); hidden (B, H), None without a hidden layer; logits (B, C);
    shares (B, 2): how much of the fused features is image and text (weighted: the weights; attention: the mean
    attention that each half receives); None for the other fusions."""

    fused: Tensor
    hidden: Tensor | None
    logits: Tensor
    shares: Tensor | None


def unit_rms(x: Tensor) -> Tensor:
    """Rows (B, D) scaled to root mean square 1: length sqrt(D), whatever their length was."""
    return x * x.square().mean(dim=1, keepdim=True).clamp(min=1e-12).rsqrt()


class Head(nn.Module):
    """A fusion and a classifier. The classifier is width -> H -> LayerNorm -> GELU -> Dropout -> C; attention_alt has
    one linear layer instead."""

    image_mean: Tensor
    image_std: Tensor
    text_mean: Tensor
    text_std: Tensor

    def __init__(self, config: HeadConfig) -> None:
        """Raises UsageError where the attention heads do not divide the width."""
        super().__init__()
        self.config = config
        width = config.fused_width
        for name, size in (("image", config.image_width), ("text", config.text_width)):
            # The training rows' mean stands in for a missing half; with `standardize` features are also scaled by it.
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        if config.projects:
            self.project_image = nn.Linear(config.image_width, width)
            self.project_text = nn.Linear(config.text_width, width)
        if config.fusion is Fusion.weighted:
            self.weight_logits = nn.Parameter(torch.zeros(2))
        if config.fusion in {Fusion.attention, Fusion.attention_alt}:
            if width % config.heads:
                raise UsageError(f"{config.heads} attention heads do not divide the width {width}")
            self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        if config.fusion is Fusion.attention_alt:
            self.out = nn.Linear(width, config.classes)
        else:
            self.fc1 = nn.Linear(width, config.hidden)
            self.norm = nn.LayerNorm(config.hidden)
            self.drop = nn.Dropout(config.dropout)
            self.out = nn.Linear(config.hidden, config.classes)

    @torch.no_grad()
    def set_statistics(self, image: Tensor, text: Tensor) -> None:
        """Store the training rows' mean and standard deviation, image (N, D_image) and text (N, D_text), as scaled."""
        if self.config.rms:
            image, text = unit_rms(image), unit_rms(text)
        for name, values in (("image", image), ("text", text)):
            self.set_moments(name, values.mean(dim=0), values.std(dim=0, correction=0))

    @torch.no_grad()
    def set_moments(self, half: str, mean: Tensor, std: Tensor) -> None:
        """Store a half's mean and standard deviation, (D,) each, of "image" or "text"; a deviation of 0 counts as 1."""
        getattr(self, f"{half}_mean").copy_(mean)
        getattr(self, f"{half}_std").copy_(torch.where(std > 1e-8, std, torch.ones_like(std)))

    def forward(
        self, image: Tensor, text: Tensor, missing: Tensor | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """image (B, D_image), text (B, D_text), missing (B, 2) bool or None -> logits (B, C). dropout: the factors
        (B, H) of hidden units, where the caller has drawn them; None: drawn here in training mode."""
        fused, _ = self._fuse(*self._inputs(image, text, missing), shares=False)
        return self._classify(fused, dropout)[0]

    def trace(self, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Trace:
        """The same computation with its intermediate results."""
        fused, shares = self._fuse(*self._inputs(image, text, missing), shares=True)
        logits, hidden = self._classify(fused)
        return Trace(fused, hidden, logits, shares)

    @property
    def first_linear(self) -> nn.Linear:
        """The first linear layer after the fusion: fc1, or attention_alt's only one."""
        return self.out if self.config.fusion is Fusion.attention_alt else self.fc1

    def attention_map(self, image: Tensor, text: Tensor) -> Tensor:
        """image (B, D_image), text (B, D_text) -> attention (B, heads, 2, 2): row the asking half (image, text),
        column the half it attends to; rows sum to 1. Raises UsageError where the fusion has no attention."""
        if self.config.fusion not in {Fusion.attention, Fusion.attention_alt}:
            raise UsageError(f"a {self.config.fusion} head has no attention; take attention or attention_alt")
        image, text = self._inputs(image, text, None)
        if self.config.projects:
            image, text = self.project_image(image), self.project_text(text)
        pair = torch.stack([image, text], dim=1)
        weights: Tensor = self.attention(pair, pair, pair, need_weights=True, average_attn_weights=False)[1]
        return weights

    def _inputs(self, image: Tensor, text: Tensor, missing: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.config.rms:
            image, text = unit_rms(image), unit_rms(text)
        if missing is not None:
            image = torch.where(missing[:, :1], self.image_mean, image)
            text = torch.where(missing[:, 1:], self.text_mean, text)
        if self.config.standardize:
            image = (image - self.image_mean) / self.image_std
            text = (text - self.text_mean) / self.text_std
        return image, text

    def _fuse(self, image: Tensor, text: Tensor, *, shares: bool) -> tuple[Tensor, Tensor | None]:
        fusion = self.config.fusion
        if fusion is Fusion.image:
            return image, None
        if fusion is Fusion.text:
            return text, None
        if fusion is Fusion.concat:
            return torch.cat([image, text], dim=1), None  # (B, D_image + D_text)
        if self.config.projects:
            image, text = self.project_image(image), self.project_text(text)  # (B, D) each
        if fusion is Fusion.weighted:
            weights = self.weight_logits.softmax(dim=0)
            fused = weights[0] * image + weights[1] * text
            return fused, weights.expand(len(image), 2) if shares else None
        pair = torch.stack([image, text], dim=1)  # (B, 2, D)
        mixed, attention = self.attention(pair, pair, pair, need_weights=shares)
        return mixed.mean(dim=1), attention.mean(dim=1) if shares else None  # (B, D), (B, 2)

    def _classify(self, fused: Tensor, dropout: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.config.fusion is Fusion.attention_alt:
            return self.out(fused), None
        hidden = nn.functional.gelu(self.norm(self.fc1(fused)))  # (B, H)
        return self.out(self.drop(hidden) if dropout is None else hidden * dropout), hidden
