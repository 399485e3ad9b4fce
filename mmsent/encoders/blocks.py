"""The last blocks of a text encoder apart from the rest: the hidden states that enter them, and the blocks as a module
that can be trained. Blocks on states give the encoder's own embedding.

Shapes: B texts, L tokens, D_token width of a state, D_text width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsent.encoders.base import Embeddings, TextEncoder
from mmsent.encoders.clip import ClipTextEncoder
from mmsent.encoders.joined import JoinedTextEncoder
from mmsent.encoders.sentences import SentenceEncoder
from mmsent.encoders.tokens import token_embedding
from mmsent.errors import EncoderError, UsageError
from mmsent.system.hashing import json_sha256

States = NDArray[np.float16]


class Blocks(Protocol):
    """The last blocks of one text encoder."""

    def caught(self) -> AbstractContextManager[list[States]]:
        """While it is open, the list takes what enters the blocks of each text that the encoder encodes, in order:
        (L, D_token), without padding."""

    def module(self) -> TextBlocks:
        """The blocks with the encoder's own weights, on the CPU in fp32; each call gives a copy of its own."""

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        """The first of the blocks in a model of the encoder, and whether the batch is the first axis of its input."""

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Which tokens count, (B, L) int64, of the ids and the mask (B, L) that the encoder reads."""


class TextBlocks(nn.Module):
    """The last blocks of a text encoder: states (B, L, D_token) and the mask of their tokens (B, L) int64, which starts
    with ones, to embeddings (B, D_text) as a cache holds them. `trained`: the blocks' parameters, in order."""

    def __init__(self, body: nn.Module, trained: Sequence[nn.Module], part: _Part) -> None:
        super().__init__()
        self.body, self._part = body, part
        self._trained = nn.ModuleList(trained)
        self.requires_grad_(False)
        self._trained.requires_grad_(True)

    @property
    def trained(self) -> list[nn.Parameter]:
        """What training changes: the blocks' parameters."""
        return list(self._trained.parameters())

    def weights(self) -> dict[str, Tensor]:
        """The blocks' weights by name."""
        return self._trained.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the weights that `weights` gave. Raises RuntimeError where they are of other blocks."""
        self._trained.load_state_dict(weights)

    def forward(self, states: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        """text (B, D_text): the cached embeddings, of which this encoder's part is replaced."""
        found = self._part.scale(self.body(states, mask))
        start, stop = self._part.place
        if (start, stop) == (0, text.shape[1]):
            return found
        return torch.cat([text[:, :start], found, text[:, stop:]], dim=1)


@dataclass(frozen=True)
class _Part:
    """Where an encoder's embedding stands in the cached one, and how the cache scales it."""

    place: tuple[int, int]
    scale: Callable[[Tensor], Tensor]


def text_blocks(encoder: TextEncoder, count: int, *, normalize: bool = False) -> Blocks:
    """The last `count` blocks of a text encoder; of several joined ones, of the one that has blocks. normalize: whether
    the cache scales embeddings to length 1. Raises UsageError where the encoder has fewer, EncoderError where it has
    none that can be taken apart."""
    if isinstance(encoder, JoinedTextEncoder):
        if normalize:
            raise UsageError("blocks of joined encoders are tuned on raw features; extract without --normalize")
        at, found = 0, []
        for one in encoder.parts:
            if isinstance(one, SentenceEncoder | ClipTextEncoder):
                found.append((one, _Part((at, at + one.card.width), _unit)))
            at += one.card.width
        if len(found) != 1:
            raise EncoderError(f"{encoder.card.name} has {len(found)} encoders with blocks; tuning needs exactly one")
        return _blocks(*found[0], count)
    return _blocks(encoder, _Part((0, encoder.card.width), _unit if normalize else _as_is), count)


def states_of(encoder: TextEncoder, count: int, texts: Sequence[str]) -> list[States]:
    """What enters the last `count` blocks, of each text (L, D_token), without padding. One batch. Errors as of
    `text_blocks`."""
    with text_blocks(encoder, count).caught() as found:
        encoder.encode(list(texts))
    return found


def with_blocks(encoder: TextEncoder, count: int, weights: dict[str, Tensor], digest: str) -> TextEncoder:
    """The whole encoder with tuned weights in its last `count` blocks, in fp32: for gradients and for export. digest:
    of these weights; the card says that it is another encoder. Raises EncoderError where it is of a kind without
    blocks."""
    if isinstance(encoder, JoinedTextEncoder):
        raise EncoderError(
            f"{encoder.card.name} is several encoders joined, whose tuned blocks can be neither explained nor exported "
            "to ONNX; export with --format hf, or tune one encoder alone (--encoder offline)"
        )
    tuned = copy.copy(encoder)
    tuned.card = encoder.card.model_copy(update={"weights_sha256": json_sha256([encoder.card.weights_sha256, digest])})
    if isinstance(tuned, SentenceEncoder):
        owner, name = _layers(tuned.fp32_model, encoder.card.name)
        last = _last(getattr(owner, name), count, encoder.card.name)
        model = _with(tuned.fp32_model, last, weights)
        vars(tuned).update(model=model, fp32_model=model)
        return tuned
    if isinstance(tuned, ClipTextEncoder):
        tuned.clip = copy.copy(tuned.clip)
        model = tuned.clip.fp32_model
        last = _last(getattr(model, "text", model).transformer.resblocks, count, encoder.card.name)
        model = _with(model, last, weights)
        vars(tuned.clip).update(model=model, fp32_model=model)
        return tuned
    raise EncoderError(f"{encoder.card.name} has no blocks of its own that could be tuned")


def _with(model: Any, blocks: nn.ModuleList, weights: dict[str, Tensor]) -> Any:
    """A copy of a model whose `blocks` have these weights; all other weights are the model's own, not copied."""
    changed = {id(p) for p in blocks.parameters()}
    kept = [p for p in (*model.parameters(), *model.buffers()) if id(p) not in changed]
    own = copy.deepcopy(blocks)
    own.load_state_dict(weights)
    memo: dict[int, Any] = {id(p): p for p in kept}
    memo |= {id(old): new for old, new in zip(blocks.parameters(), own.parameters(), strict=True)}
    return copy.deepcopy(model, memo)


class SideBySide:
    """One text encoder with several sets of weights in its last blocks: B texts to the embeddings of each, (B, sum of
    widths). tuned: of each set how many blocks, and their weights; None: the encoder as it is. For export."""

    def __init__(self, encoder: TextEncoder, tuned: Sequence[tuple[int, dict[str, Tensor], str] | None]) -> None:
        self.encoder, self.tuned, own = encoder, list(tuned), encoder.card
        self.parts = [encoder if one is None else with_blocks(encoder, *one) for one in tuned]
        digest = json_sha256([part.card.weights_sha256 for part in self.parts])
        self.card = own.model_copy(update={"weights_sha256": digest, "width": own.width * len(self.parts)})
        self.lengths = encoder.lengths

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts to (B, D_text)."""
        return np.concatenate([part.encode(texts) for part in self.parts], axis=1)


def _blocks(encoder: TextEncoder, part: _Part, count: int) -> Blocks:
    if isinstance(encoder, SentenceEncoder):
        return _SentenceBlocks(encoder, part, count)
    if isinstance(encoder, ClipTextEncoder):
        return _ClipBlocks(encoder, part, count)
    raise EncoderError(f"{encoder.card.name} has no blocks to tune")


def _unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=1)


def _as_is(x: Tensor) -> Tensor:
    return x


def _last(layers: nn.ModuleList, count: int, name: str) -> nn.ModuleList:
    if count > len(layers):
        raise UsageError(f"{name} has {len(layers)} blocks; got {count}")
    return nn.ModuleList(list(layers)[len(layers) - count :])


class _SentenceBlocks:
    """Of a sentence-transformers model, in the families whose layers stand in one list (BERT, MiniLM, RoBERTa, XLM-R,
    MPNet, DistilBERT)."""

    def __init__(self, encoder: SentenceEncoder, part: _Part, count: int) -> None:
        self._encoder, self._part, self._count = encoder, part, count
        owner, name = _layers(encoder.fp32_model, encoder.card.name)
        _last(getattr(owner, name), count, encoder.card.name)

    def caught(self) -> AbstractContextManager[list[States]]:
        model = self._encoder.model
        return _caught(*self.entrance(model), model, lambda batch: batch["attention_mask"].sum(dim=1))

    def entrance(self, model: Any) -> tuple[nn.Module, bool]:
        owner, name = _layers(model, self._encoder.card.name)
        return list(getattr(owner, name))[-self._count], True

    def mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        return mask

    def module(self) -> TextBlocks:
        model = copy.deepcopy(self._encoder.fp32_model).cpu()
        owner, name = _layers(model, self._encoder.card.name)
        kept = _last(getattr(owner, name), self._count, self._encoder.card.name)
        setattr(owner, name, kept)
        transformer = model[0].auto_model
        transformer.embeddings = _Given()
        return TextBlocks(_SentenceBody(transformer, list(model)[1:]), list(kept), self._part).eval()


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


def _layers(model: Any, name: str) -> tuple[nn.Module, str]:
    """The module that holds the list of a transformer's layers, and the list's name in it."""
    transformer = getattr(model[0], "auto_model", None)
    wanted = getattr(getattr(transformer, "config", None), "num_hidden_layers", None)
    if transformer is not None and hasattr(transformer, "embeddings"):
        for owner in transformer.modules():
            for child, module in owner.named_children():
                if isinstance(module, nn.ModuleList) and len(module) == wanted:
                    return owner, child
    raise EncoderError(f"{name} has no list of layers that could be tuned")


class _ClipBlocks:
    """Of an open_clip text tower: causal and pooled at the end token, or pooled at the last of all tokens (SigLIP)."""

    def __init__(self, encoder: ClipTextEncoder, part: _Part, count: int) -> None:
        self._encoder, self._part, self._count = encoder, part, count
        tower = self._tower(encoder.clip.fp32_model)
        self._pool = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", "argmax")
        if self._pool not in ("argmax", "eos", "last") or getattr(tower, "cls_emb", None) is not None:
            raise EncoderError(f"{encoder.card.name} pools its texts by {self._pool!r}, which cannot be tuned")
        self._end = getattr(tower, "eos_id", -1)
        _last(tower.transformer.resblocks, count, encoder.card.name)

    def _tower(self, model: Any) -> Any:
        tower = getattr(model, "text", model)
        if not hasattr(getattr(tower, "transformer", None), "resblocks"):
            raise EncoderError(f"{self._encoder.card.name} has no list of blocks that could be tuned")
        return tower

    def caught(self) -> AbstractContextManager[list[States]]:
        model = self._encoder.clip.model
        return _caught(*self.entrance(model), token_embedding(self._tower(model)), self._lengths)

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

    def module(self) -> TextBlocks:
        tower = copy.deepcopy(self._tower(self._encoder.clip.fp32_model)).cpu()
        kept = _last(tower.transformer.resblocks, self._count, self._encoder.card.name)
        tower.transformer.resblocks = kept
        return TextBlocks(_ClipBody(tower), list(kept), self._part).eval()


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


@contextmanager
def _caught(
    first: nn.Module, batch_first: bool, reader: nn.Module, lengths: Callable[[Any], Tensor]
) -> Iterator[list[States]]:
    """The states that enter the layer `first`, without padding, which stands at the end. lengths: tokens of each text
    (B,) by what the module `reader` is given before."""
    read: list[Tensor] = []
    found: list[States] = []

    def take(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        states = given[0] if batch_first else given[0].transpose(0, 1)
        whole = states.float().cpu().numpy()
        found.extend(row[:n].astype(np.float16) for row, n in zip(whole, read.pop().tolist(), strict=True))

    hooks = [
        reader.register_forward_pre_hook(lambda _, given: read.append(lengths(given[0]))),
        first.register_forward_pre_hook(take),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
