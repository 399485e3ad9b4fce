"""open_clip models as encoders: any architecture, with a pretrained tag or a local checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, ImageCard, OnRuntime, TextCard
from mmsent.encoders.clip_model import ClipModel, context_length
from mmsent.encoders.common import (
    FittingBatches,
    normalized,
    versions,
)
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError
from mmsent.system.devices import torch_dtype, without_tf32

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmsent.encoders.explainable import Layer, Tokens


class ClipImageEncoder:
    """The image tower: (B, size, size, 3) bytes to (B, D) embeddings."""

    def __init__(self, clip: ClipModel) -> None:
        self.clip, self._fitting = clip, FittingBatches()
        self.on_runtime: OnRuntime | None = None
        # Few at a time on a CPU, so that what passes from layer to layer fits its cache; that of 16 images does not.
        self.batch_size = 4 if clip.device == "cpu" else 256
        self.card = ImageCard(
            library="open_clip",
            name=clip.arch,
            tag=clip.tag,
            weights_sha256=clip.sha256,
            width=clip.width,
            precision=clip.precision,
            libraries=versions("open_clip_torch"),
            preprocess=clip.preprocess,
        )

    def encode(self, pixels: Pixels) -> Embeddings:
        return self._fitting(self._encode, pixels)

    def _encode(self, pixels: Pixels) -> Embeddings:
        if self.on_runtime is not None:
            return self.on_runtime()(pixels)
        import torch

        with torch.inference_mode(), without_tf32(self.clip.device):
            x = normalized(pixels, self.clip.preprocess, self.clip.device, torch_dtype(self.clip.precision))
            out: Embeddings = self.clip.model.encode_image(x).float().cpu().numpy()
        return out

    def prepared(self, pixels: Pixels) -> Tensor:
        return normalized(pixels, self.clip.preprocess, self.clip.device, torch_dtype("fp32"))

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.clip.fp32_model.encode_image(x)
        return found

    def layers(self) -> list[Layer]:
        import torch

        from mmsent.encoders.explainable import find_layers

        size = self.clip.preprocess.size
        probe = torch.zeros(1, 3, size, size, dtype=torch.float32, device=self.clip.device)
        return find_layers(self.clip.fp32_model.visual, lambda: self.features(probe))


class ClipTextEncoder:
    """The text tower. It is causal and pooled at the end token, so a batch is padded only to its longest text."""

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self.card = TextCard(
            library="open_clip",
            name=clip.arch,
            tag=clip.tag,
            weights_sha256=clip.sha256,
            width=clip.width,
            precision=clip.precision,
            libraries=versions("open_clip_torch"),
            max_tokens=clip.max_tokens,
        )

    def lengths(self, texts: list[str]) -> list[int]:
        tokenizer = self.clip.tokenizer
        if hasattr(tokenizer, "encode"):  # open_clip's own byte-pair tokenizer; start and end are added later
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return [len(ids) for ids in tokenizer.tokenizer(list(map(tokenizer.clean_fn, texts))).input_ids]

    def encode(self, texts: list[str]) -> Embeddings:
        import torch

        tokens = self.clip.tokenizer(texts, context_length=self.clip.max_tokens)
        model = self.clip.model
        with torch.inference_mode(), without_tf32(self.clip.device):
            if self.clip.shortens:
                used = min(tokens.shape[1], max(2, *self.lengths(texts)))
                with context_length(model, used):
                    features = model.encode_text(tokens[:, :used].to(self.clip.device))
            else:
                features = model.encode_text(tokens.to(self.clip.device))
            out: Embeddings = features.float().cpu().numpy()
        return out

    def tokenize(self, text: str) -> Tokens:
        from mmsent.encoders.tokens import byte_pair_tokens, fast_tokens

        tokenizer = self.clip.tokenizer
        if mode := getattr(tokenizer, "tokenizer_mode", ""):  # its class token stands behind the padding
            raise EncoderError(f"texts of {self.card.name} cannot be explained: its tokenizer works in mode {mode!r}")
        row = tokenizer([text], context_length=self.clip.max_tokens)[0].tolist()
        cut = self.lengths([text])[0] > self.clip.max_tokens
        if hasattr(tokenizer, "encode"):
            return byte_pair_tokens(row, tokenizer, tokenizer.clean_fn(text), cut)
        return fast_tokens(row, tokenizer.tokenizer, tokenizer.clean_fn(text), cut)

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        from mmsent.encoders.tokens import padded

        tokenizer = self.clip.tokenizer
        pad = 0 if hasattr(tokenizer, "encode") else tokenizer.tokenizer.pad_token_id
        length = max(map(len, rows)) if self.clip.shortens else self.clip.max_tokens
        return padded(rows, pad, length, self.clip.device)

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        # The mask is not needed: the towers are causal, or derive it from the padding.
        model = self.clip.fp32_model
        with context_length(model, ids.shape[1]):
            found: Tensor = model.encode_text(ids)
        return found

    def embedding(self) -> nn.Module:
        from mmsent.encoders.tokens import token_embedding

        model = self.clip.fp32_model
        return token_embedding(getattr(model, "text", model))


def open_pair(
    spec: Spec, *, weights: Path | None, device: str, precision: str
) -> tuple[ClipImageEncoder, ClipTextEncoder]:
    """Both sides of one open_clip model, sharing its weights."""
    clip = ClipModel(spec, weights=weights, device=device, precision=precision)
    return ClipImageEncoder(clip), ClipTextEncoder(clip)
