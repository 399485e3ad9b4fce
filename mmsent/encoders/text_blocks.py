"""The last blocks of text encoders: sentence-transformers models and open_clip's text towers.

Shapes: B texts, L tokens, D_token width of a state, D_text width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmsent.encoders.blocks_base import EncoderBlocks, Part, States, caught_states, last, on_torch
from mmsent.encoders.clip import ClipTextEncoder
from mmsent.encoders.sentences import SentenceEncoder
from mmsent.encoders.tokens import token_embedding
from mmsent.errors import EncoderError


class SentenceBlocks:
    """Of a sentence-transformers model, in the families whose layers stand in one list (BERT, MiniLM, RoBERTa, XLM-R,
    MPNet, DistilBERT)."""

    def __init__(self, encoder: SentenceEncoder, part: Part, count: int) -> None:
        self._encoder, self._part, self._count = encoder, part, count
        owner, name = sentence_layers(encoder.fp32_model, encoder.card.name)
        last(getattr(owner, name), count, encoder.card.name)

    @contextmanager
    def caught(self) -> Iterator[list[States]]:
        model = self._encoder.model
        whole = caught_states(*self.entrance(model), model, model, lambda batch: batch["attention_mask"].sum(dim=1))
        with on_torch(self._encoder), whole as found:
            yield found

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        owner, name = sentence_layers(model, self._encoder.card.name)
        return list(getattr(owner, name))[-self._count], True

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        return mask

    def module(self) -> EncoderBlocks:
        model = copy.deepcopy(self._encoder.fp32_model).cpu()
        owner, name = sentence_layers(model, self._encoder.card.name)
        kept = last(getattr(owner, name), self._count, self._encoder.card.name)
        setattr(owner, name, kept)
        transformer = model[0].auto_model
        transformer.embeddings = _Given()
        return EncoderBlocks(_SentenceBody(transformer, list(model)[1:]), list(kept), self._part).eval()


class _SentenceBody(nn.Module):
    def __init__(self, transformer: nn.Module, after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.transformer, self.after = transformer, nn.ModuleList(after)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        out = self.transformer(inputs_embeds=states, attention_mask=mask)[0]
        found: dict[str, Any] = {"token_embeddings": out, "attention_mask": mask}
        for module in self.after:
            found = module(found)
        pooled: Tensor = found["sentence_embedding"]
        return pooled


class _Given(nn.Module):
    """In the place of the embeddings: hands on the states that the model was given."""

    def forward(self, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any) -> Tensor:
        return args[-1] if inputs_embeds is None else inputs_embeds


def sentence_layers(model: Any, name: str) -> tuple[nn.Module, str]:
    """The module that holds the list of a transformer's layers, and the list's name in it."""
    transformer = getattr(model[0], "auto_model", None)
    wanted = getattr(getattr(transformer, "config", None), "num_hidden_layers", None)
    if transformer is not None and hasattr(transformer, "embeddings"):
        for owner in transformer.modules():
            for child, module in owner.named_children():
                if isinstance(module, nn.ModuleList) and len(module) == wanted:
                    return owner, child
    raise EncoderError(f"{name} has no list of layers that could be tuned")


class ClipBlocks:
    """Of an open_clip text tower: causal and pooled at the end token, or pooled at the last of all tokens (SigLIP)."""

    def __init__(self, encoder: ClipTextEncoder, part: Part, count: int) -> None:
        self._encoder, self._part, self._count = encoder, part, count
        tower = self._tower(encoder.clip.fp32_model)
        self._pool = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", "argmax")
        if self._pool not in ("argmax", "eos", "last") or getattr(tower, "cls_emb", None) is not None:
            raise EncoderError(f"{encoder.card.name} pools its texts by {self._pool!r}, which cannot be tuned")
        self._end = getattr(tower, "eos_id", -1)
        last(tower.transformer.resblocks, count, encoder.card.name)

    def _tower(self, model: Any) -> Any:
        tower = getattr(model, "text", model)
        if not hasattr(getattr(tower, "transformer", None), "resblocks"):
            raise EncoderError(f"{self._encoder.card.name} has no list of blocks that could be tuned")
        return tower

    def caught(self) -> AbstractContextManager[list[States]]:
        model = self._encoder.clip.model
        tower = self._tower(model)
        return caught_states(*self.entrance(model), tower.transformer, token_embedding(tower), self._lengths)

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        tower = self._tower(model).transformer
        return tower.resblocks[-self._count], getattr(tower, "batch_first", True)

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        return (places[None] < self._lengths(ids)[:, None]).to(torch.int64)

    def _lengths(self, ids: Tensor) -> Tensor:
        """Tokens of each text up to the one that is pooled, of the ids (B, L)."""
        if self._pool == "last":
            return torch.full((ids.shape[0],), ids.shape[1], device=ids.device)
        marks = ids if self._pool == "argmax" else (ids == torch.tensor(self._end)).int()
        return marks.argmax(dim=1) + 1

    def module(self) -> EncoderBlocks:
        tower = copy.deepcopy(self._tower(self._encoder.clip.fp32_model)).cpu()
        kept = last(tower.transformer.resblocks, self._count, self._encoder.card.name)
        tower.transformer.resblocks = kept
        return EncoderBlocks(_ClipBody(tower), list(kept), self._part).eval()


class _ClipBody(nn.Module):
    causal: Tensor | None

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.transformer, self.norm = tower.transformer, tower.ln_final
        self.projection = tower.text_projection
        self.register_buffer("causal", getattr(tower, "attn_mask", None), persistent=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        length = states.shape[1]
        causal = None if self.causal is None else self.causal[:length, :length]
        out = self.norm(self.transformer(states, attn_mask=causal))
        pooled: Tensor = out[torch.arange(out.shape[0], device=out.device), mask.sum(dim=1) - 1]
        if self.projection is None:
            return pooled
        found: Tensor = self.projection(pooled) if isinstance(self.projection, nn.Module) else pooled @ self.projection
        return found
