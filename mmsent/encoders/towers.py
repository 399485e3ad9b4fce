"""The encoders as plain modules for export, with preprocessing and scaling inside: bytes or token ids in, embeddings
out.

Shapes: B batch, H height and width of the input, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmsent.data.preprocess import Preprocess
from mmsent.encoders.base import ImageEncoder, TextEncoder
from mmsent.encoders.blocks import SideBySide, last_blocks
from mmsent.encoders.clip import ClipImageEncoder, ClipTextEncoder
from mmsent.encoders.common import scaled
from mmsent.encoders.sentences import SentenceEncoder
from mmsent.encoders.timm import TimmImageEncoder
from mmsent.errors import EncoderError

_WORD_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # open_clip's own pattern


class ImageTower(nn.Module):
    """pixels (B, H, H, 3) bytes, resized and cropped, to embeddings (B, D) as a cache holds them."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, how: Preprocess, normalize: bool, method: str) -> None:
        super().__init__()
        self.model, self._normalize, self._method = model, normalize, method
        self.register_buffer("mean", torch.tensor(how.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(how.std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        call: Any = getattr(self.model, self._method)
        return scaled(call((x - self.mean) / self.std), self._normalize)


class SentenceTower(nn.Module):
    """ids and mask (B, L) int64 to embeddings (B, D) as a cache holds them."""

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.model, self._normalize = model, normalize

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found = self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return scaled(found, self._normalize)


class TowerSideBySide(nn.Module):
    """A text tower with several sets of weights in its last blocks: what comes before them runs once."""

    def __init__(self, tower: nn.Module, encoder: SideBySide) -> None:
        super().__init__()
        self.tower, self.blocks = tower, nn.ModuleList()
        self._ways: list[Any] = []
        for one in encoder.tuned:
            if one is None:
                self.blocks.append(nn.Identity())
                self._ways.append(None)
                continue
            way = last_blocks(encoder.encoder, one[0])
            own = way.module()
            own.load(one[1])
            self.blocks.append(own)
            self._ways.append(way)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """ids and mask (B, L) to the embeddings side by side (B, D)."""
        entered: dict[int, Tensor] = {}

        def keep(k: int, batch_first: bool) -> Any:
            return lambda _, given: entered.update({k: given[0] if batch_first else given[0].transpose(0, 1)})

        ways = {k: way for k, way in enumerate(self._ways) if way is not None}
        model: Any = self.tower.model
        hooks = [
            first.register_forward_pre_hook(keep(k, batch_first))
            for k, way in ways.items()
            for first, batch_first in [way.entrance(model)]
        ]
        try:
            whole = self.tower(ids) if mask is None else self.tower(ids, mask)
        finally:
            for hook in hooks:
                hook.remove()
        found = [
            blocks(entered[k], ways[k].mask(ids, mask), whole) if k in ways else whole
            for k, blocks in enumerate(self.blocks)
        ]
        return torch.cat(found, dim=1)


class ClipTextTower(nn.Module):
    """ids (B, L) int64, L the model's full context, to embeddings (B, D) as a cache holds them."""

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.model, self._normalize = model, normalize

    def forward(self, ids: Tensor) -> Tensor:
        call: Any = self.model.encode_text
        return scaled(call(ids), self._normalize)


def image_tower(encoder: ImageEncoder, normalize: bool) -> nn.Module:
    """An image encoder as a module; normalize: scale embeddings to length 1. Raises EncoderError on another kind."""
    if isinstance(encoder, TimmImageEncoder):
        return ImageTower(encoder.fp32_model, encoder.card.preprocess, normalize, "forward").eval()
    if isinstance(encoder, ClipImageEncoder):
        return ImageTower(encoder.clip.fp32_model, encoder.card.preprocess, normalize, "encode_image").eval()
    raise _not_exportable(encoder.card.name)


@dataclass(frozen=True)
class TextForm:
    """A text encoder for export: the tower; its tokenizer as JSON of the library tokenizers, which truncates, and pads
    to the longest text or, with `length`, to that many tokens; how a text is cleaned before it is tokenized."""

    tower: nn.Module
    tokenizer: str
    cleaning: Literal["none", "clip"]
    length: int | None


def text_form(encoder: TextEncoder, normalize: bool) -> TextForm:
    """A text encoder as a module with its tokenizer; normalize: scale embeddings to length 1. Raises EncoderError if
    the encoder is of another kind, or its tokenizer cannot be exported."""
    if isinstance(encoder, SideBySide):
        form = text_form(encoder.encoder, normalize)
        return replace(form, tower=TowerSideBySide(form.tower, encoder).eval())
    if isinstance(encoder, SentenceEncoder):
        fast = getattr(encoder.model.tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise EncoderError(
                f"{encoder.card.name} has no fast tokenizer, so it cannot be exported; export only the heads"
            )
        from tokenizers import Tokenizer

        copy: Any = Tokenizer.from_str(fast.to_str())
        copy.enable_truncation(encoder.card.max_tokens)
        padding = copy.padding or {}
        pad = encoder.model.tokenizer.pad_token_id or 0
        copy.enable_padding(pad_id=pad, pad_token=padding.get("pad_token") or encoder.model.tokenizer.pad_token)
        return TextForm(SentenceTower(encoder.fp32_model, normalize).eval(), copy.to_str(), "none", None)
    if isinstance(encoder, ClipTextEncoder):
        length = encoder.card.max_tokens
        tower = ClipTextTower(encoder.clip.fp32_model, normalize).eval()
        return TextForm(tower, _byte_pairs(encoder.clip.tokenizer, length, encoder.card.name), "clip", length)
    raise _not_exportable(encoder.card.name)


def _byte_pairs(tokenizer: Any, length: int, name: str) -> str:
    """open_clip's own tokenizer as tokenizers' JSON."""
    import open_clip
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    plain = isinstance(tokenizer, open_clip.tokenizer.SimpleTokenizer)
    if not plain or tokenizer.reduction_fn is not None or tokenizer.clean_fn("A\n b.") != "a b.":
        raise EncoderError(f"{name} has a tokenizer of its own, so it cannot be exported; export only the heads")
    merges = list(tokenizer.bpe_ranks)
    out: Any = Tokenizer(models.BPE(vocab=tokenizer.encoder, merges=merges, end_of_word_suffix="</w>"))
    start, end = (tokenizer.decoder[i] for i in (tokenizer.sot_token_id, tokenizer.eot_token_id))
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    out.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)],
    )
    # They are no special tokens of the file, so that a post which holds one is not cut there.
    out.enable_truncation(length)
    out.enable_padding(length=length, pad_id=0, pad_token="!")
    found: str = out.to_str()
    return found


def _not_exportable(name: str) -> EncoderError:
    return EncoderError(f"the encoder {name} cannot be exported; export only the heads, without --with-encoder")
