"""The fusion heads: frozen features in, logits out (report, section 1). Nothing here knows about files.

Shapes: B batch, D_image and D_text feature widths, D common width, H hidden width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mmsent.config import Fusion
from mmsent.errors import UsageError
from mmsent.training.head_config import HeadConfig


@dataclass(frozen=True)
class Trace:
    """What a head computed on the way. fused (B, D_fused); first: the first linear layer's outputs, (B, H) or (B, C);
    hidden (B, H), of the last hidden layer, None without one; logits (B, C); shares (B, 2): how much of the fused
    features is image and text (weighted: the weights; attention: the mean attention that each receives); None for other
    fusions."""

    fused: Tensor
    first: Tensor
    hidden: Tensor | None
    logits: Tensor
    shares: Tensor | None


def unit_rms(x: Tensor) -> Tensor:
    """Rows (B, D) scaled to root mean square 1: length sqrt(D), whatever their length was."""
    return x * x.square().mean(dim=1, keepdim=True).clamp(min=1e-12).rsqrt()


class Head(nn.Module):
    """A fusion and a classifier. The classifier is width -> H -> LayerNorm -> GELU -> Dropout -> C; with a depth above
    1, further hidden layers H -> H with all of these follow the first. attention_alt has one linear layer instead."""

    image_mean: Tensor
    image_std: Tensor
    text_mean: Tensor
    text_std: Tensor
    fc1: nn.Linear
    norm: nn.LayerNorm
    out: nn.Linear

    def __init__(self, config: HeadConfig) -> None:
        """Raises UsageError where the attention heads do not divide the width."""
        super().__init__()
        self.config = config
        self.products = torch.float32  # or bfloat16: of large layers in training; not kept with a trained head
        width = config.fused_width
        plain: dict[str, Any] = {"dtype": torch.float32}  # whatever default the process has set
        for name, size in (("image", config.image_width), ("text", config.text_width)):
            # The training rows' mean stands in for a missing half; with `standardize` features are also scaled by it.
            self.register_buffer(f"{name}_mean", torch.zeros(size, **plain))
            self.register_buffer(f"{name}_std", torch.ones(size, **plain))
        if config.projects:
            self.project_image = nn.Linear(config.image_width, width, **plain)
            self.project_text = nn.Linear(config.text_width, width, **plain)
        if config.fusion is Fusion.weighted:
            self.weight_logits = nn.Parameter(torch.zeros(2, **plain))
        if config.fusion in {Fusion.attention, Fusion.attention_alt}:
            if width % config.heads:
                raise UsageError(f"{config.heads} attention heads do not divide the width {width}")
            self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True, **plain)
        if not self.has_hidden:
            self.out = nn.Linear(width, config.classes, **plain)
        else:
            self.fc1 = nn.Linear(width, config.hidden, **plain)
            self.norm = nn.LayerNorm(config.hidden, **plain)
            self.drop = nn.Dropout(config.dropout)
            for k in range(2, config.depth + 1):
                self.add_module(f"fc{k}", nn.Linear(config.hidden, config.hidden, **plain))
                self.add_module(f"norm{k}", nn.LayerNorm(config.hidden, **plain))
            self.out = nn.Linear(config.hidden, config.classes, **plain)

    @torch.no_grad()
    def set_statistics(self, image: Tensor, text: Tensor) -> None:
        """Store the training rows' mean and standard deviation, image (N, D_image) and text (N, D_text), as scaled."""
        if self.config.rms:
            image, text = unit_rms(image), unit_rms(text)
        for name, values in (("image", image), ("text", text)):
            mean = values.mean(dim=0)
            deviation = (values - mean).square_().mean(dim=0).sqrt_()  # torch's own std is ten times slower here
            self.set_moments(name, mean, deviation)

    @torch.no_grad()
    def set_moments(self, half: str, mean: Tensor, std: Tensor) -> None:
        """Store a half's mean and standard deviation, (D,) each, of "image" or "text"; a deviation of 0 counts as 1."""
        getattr(self, f"{half}_mean").copy_(mean)
        getattr(self, f"{half}_std").copy_(torch.where(std > 1e-8, std, torch.ones_like(std)))

    def forward(
        self, image: Tensor, text: Tensor, missing: Tensor | None = None, factors: Tensor | None = None
    ) -> Tensor:
        """image (B, D_image), text (B, D_text), missing (B, 2) bool or None -> logits (B, C). factors (B, L·H): of
        dropout, hidden layer by hidden layer (see mmsent.train.Draws); None: drawn here, in training alone."""
        return self._classify(self.fuse(*self.scale(image, text), missing), factors)[2]

    def scale(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D_image), (n, D_text) as the fusion takes them, row by row: at root mean square 1, standardised,
        where the head does so."""
        if self.config.rms:
            image, text = unit_rms(image), unit_rms(text)
        if self.config.standardize:
            image = (image - self.image_mean) / self.image_std
            text = (text - self.text_mean) / self.text_std
        return image, text

    def fuse(self, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Tensor:
        """Fused features (B, D_fused) of features that `scale` has been over: it can take many batches at once."""
        return self._fuse(*self._filled(image, text, missing), shares=False)[0]

    def trace(self, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Trace:
        """The same computation with its intermediate results."""
        fused, shares = self._fuse(*self._filled(*self.scale(image, text), missing), shares=True)
        first, hidden, logits = self._classify(fused)
        return Trace(fused, first, hidden, logits, shares)

    @property
    def has_hidden(self) -> bool:
        """Whether the classifier has a hidden layer; attention_alt's is one linear layer."""
        return self.config.fusion is not Fusion.attention_alt

    @property
    def hidden_layers(self) -> list[tuple[nn.Linear, nn.LayerNorm]]:
        """The linear layer and the norm of each hidden layer, first to last; none in attention_alt."""
        if not self.has_hidden:
            return []
        more = range(2, self.config.depth + 1)
        return [(self.fc1, self.norm), *((getattr(self, f"fc{k}"), getattr(self, f"norm{k}")) for k in more)]

    @property
    def first_linear(self) -> nn.Linear:
        """The first linear layer after the fusion: fc1, or attention_alt's only one."""
        return self.fc1 if self.has_hidden else self.out

    def attention_map(self, image: Tensor, text: Tensor) -> Tensor:
        """image (B, D_image), text (B, D_text) -> attention (B, heads, 2, 2): row the asking half (image, text),
        column the half it attends to; rows sum to 1. Raises UsageError where the fusion has no attention."""
        if self.config.fusion not in {Fusion.attention, Fusion.attention_alt}:
            raise UsageError(f"a {self.config.fusion} head has no attention; take attention or attention_alt")
        image, text = self.scale(image, text)
        if self.config.projects:
            image, text = self.project_image(image), self.project_text(text)
        pair = torch.stack([image, text], dim=1)
        weights: Tensor = self.attention(pair, pair, pair, need_weights=True, average_attn_weights=False)[1]
        return weights

    @property
    def _in_bfloat16(self) -> bool:
        return self.training and self.products is torch.bfloat16

    def _filled(self, image: Tensor, text: Tensor, missing: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scaled features with the training rows' mean in the place of missing halves: zero, where standardised."""
        if missing is None:
            return image, text
        means = self.image_mean, self.text_mean
        if self.config.standardize:
            means = torch.zeros_like(means[0]), torch.zeros_like(means[1])
        return (
            torch.where(missing[:, :1], means[0], image),
            torch.where(missing[:, 1:], means[1], text),
        )

    def _linear(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """x (..., K), weight (M, K), bias (M,) -> (..., M) float32; the product and those of its gradients in bfloat16,
        where training does so. torch.autocast does the same and takes longer."""
        if not self._in_bfloat16:
            return linear(x, weight, bias)
        out = linear(x.bfloat16(), weight.bfloat16()).float()
        return out if bias is None else out + bias

    def _fuse(self, image: Tensor, text: Tensor, *, shares: bool) -> tuple[Tensor, Tensor | None]:
        fusion = self.config.fusion
        if fusion is Fusion.image:
            return image, None
        if fusion is Fusion.text:
            return text, None
        if fusion is Fusion.concat:
            return torch.cat([image, text], dim=1), None  # (B, D_image + D_text)
        if self.config.projects:
            image = self._linear(self.project_image.weight, self.project_image.bias, image)  # (B, D)
            text = self._linear(self.project_text.weight, self.project_text.bias, text)
        if fusion is Fusion.weighted:
            weights = self.weight_logits.softmax(dim=0)
            fused = weights[0] * image + weights[1] * text
            return fused, weights.expand(len(image), 2) if shares else None
        fused, share = self._attend(image, text)
        return fused, torch.stack([share, 1 - share], dim=1) if shares else None

    def _attend(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """The attention of the pair of image and text, (B, D) each, to itself, mean over the two: (B, D), and how much
        of it the image receives, (B,). As nn.MultiheadAttention computes it, in a quarter fewer products: over two keys
        the softmax is the sigmoid of their difference, and values are mixed and projected after the mean over the
        queries, for both are linear."""
        layer, heads = self.attention, self.config.heads
        (of_query, of_key, of_value), bias = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
        pair = torch.stack([image, text], dim=1)

        def by_head(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
            out = self._linear(weight, bias, x)
            return out.view(*out.shape[:-1], heads, layer.head_dim)

        query = by_head(of_query, bias[0], pair)  # (B, 2, heads, d)
        key = by_head(of_key, None, image - text)[:, None]  # (B, 1, heads, d)
        value = by_head(of_value, bias[2], pair)
        share = torch.sigmoid((query * key).sum(dim=3) * layer.head_dim**-0.5).mean(dim=1)  # (B, heads)
        mixed = torch.lerp(value[:, 1], value[:, 0], share[..., None]).flatten(1)
        return self._linear(layer.out_proj.weight, layer.out_proj.bias, mixed), share.mean(dim=1)

    def _classify(self, fused: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
        """First layer's outputs, the last layer's hidden units (None without a hidden layer), logits."""
        if not self.has_hidden:
            logits = self.out(fused)
            return logits, None, logits
        x, outputs, hidden = fused, [], fused
        for at, (layer, norm) in enumerate(self.hidden_layers):
            outputs.append(self._linear(layer.weight, layer.bias, x))  # (B, H)
            x = hidden = nn.functional.gelu(norm(outputs[-1]))
            own = None if factors is None else factors[:, at * self.config.hidden : (at + 1) * self.config.hidden]
            x = self.drop(hidden) if own is None else hidden * own
        return outputs[0], hidden, self.out(x)
