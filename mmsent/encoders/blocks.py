"""The last blocks of an encoder apart from the rest: the hidden states that enter them, and the blocks as a module that
can be trained. Blocks on states give the encoder's own embedding.

Shapes: B texts or images, L tokens, D_token width of a state, D width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsent.encoders.base import Embeddings, ImageEncoder, TextEncoder
from mmsent.encoders.blocks_base import Blocks, Part, States, as_is, last, load_weights, unit
from mmsent.encoders.clip import ClipImageEncoder, ClipTextEncoder
from mmsent.encoders.image_blocks import ImageBlocks, vision_transformer
from mmsent.encoders.joined import JoinedImageEncoder, JoinedTextEncoder
from mmsent.encoders.sentences import SentenceEncoder
from mmsent.encoders.text_blocks import ClipBlocks, SentenceBlocks, sentence_layers
from mmsent.encoders.timm import TimmImageEncoder
from mmsent.errors import EncoderError, UsageError
from mmsent.system.hashing import json_sha256

Encoder = TextEncoder | ImageEncoder
APART = 0.15  # of an embedding's length: what states and blocks give is nearer, also in half precision


def last_blocks(encoder: Encoder, count: int, *, normalize: bool = False) -> Blocks:
    """The last `count` blocks of an encoder; of several joined ones, of the one that has blocks. normalize: whether the
    cache scales embeddings to length 1. Raises UsageError where the encoder has fewer, or computes in int8;
    EncoderError where it has none that can be taken apart."""
    if isinstance(encoder, JoinedTextEncoder | JoinedImageEncoder):
        if normalize:
            raise UsageError("blocks of joined encoders are tuned on raw features; extract without --normalize")
        at, found = 0, []
        for one in encoder.parts:
            with suppress(EncoderError):
                found.append(_blocks(one, Part((at, at + one.card.width), unit), count))
            at += one.card.width
        if len(found) != 1:
            raise EncoderError(f"{encoder.card.name} has {len(found)} encoders with blocks; tuning needs exactly one")
        return found[0]
    return _blocks(encoder, Part((0, encoder.card.width), unit if normalize else as_is), count)


def states_of(encoder: Encoder, count: int, given: Any) -> list[States]:
    """What enters the last `count` blocks, of each text or image (L, D_token), without padding. One batch, as the
    encoder takes it. Errors as of `last_blocks`."""
    with last_blocks(encoder, count).caught() as found:
        encoder.encode(given)
    return found


def require_blocks(encoder: Encoder, count: int) -> tuple[int, int]:
    """How many tokens a probe has, and how wide a state is. Errors as of `last_blocks`; EncoderError also where states
    and blocks do not give the encoder's own embedding."""
    given: Any = ["a"]
    if (how := getattr(encoder.card, "preprocess", None)) is not None:
        given = np.random.default_rng(0).integers(0, 256, (1, how.size, how.size, 3), dtype=np.uint8)
    with last_blocks(encoder, count).caught() as states:
        own = torch.from_numpy(encoder.encode(given))
    with torch.no_grad():
        here = torch.from_numpy(states[0].astype(np.float32))[None]
        again = last_blocks(encoder, count).module()(here, torch.ones(here.shape[:2], dtype=torch.int64), own)
    if not float((again - own).norm() / own.norm()) < APART:
        raise EncoderError(f"{encoder.card.name} has blocks that do not give its embedding; they cannot be tuned")
    return states[0].shape


def with_blocks(encoder: Any, count: int, weights: dict[str, Tensor], digest: str) -> Any:
    """The whole encoder with tuned weights in its last `count` blocks, in fp32: for gradients and for export. digest:
    of these weights; the card says that it is another encoder. Raises EncoderError where it is of a kind without
    blocks."""
    if isinstance(encoder, JoinedTextEncoder | JoinedImageEncoder):
        raise EncoderError(
            f"{encoder.card.name} is several encoders joined, whose tuned blocks can be neither explained nor exported "
            "to ONNX; export with --format hf, or tune one encoder alone (--encoder offline)"
        )
    tuned, name = copy.copy(encoder), encoder.card.name
    tuned.card = encoder.card.model_copy(update={"weights_sha256": json_sha256([encoder.card.weights_sha256, digest])})
    if isinstance(tuned, ClipTextEncoder | ClipImageEncoder):
        tuned.clip = copy.copy(tuned.clip)
    elif not isinstance(tuned, SentenceEncoder | TimmImageEncoder):
        raise EncoderError(f"{name} has no blocks of its own that could be tuned")
    holder: Any = getattr(tuned, "clip", tuned)
    model = holder.fp32_model
    if isinstance(tuned, SentenceEncoder):
        layers: Any = getattr(*sentence_layers(model, name))
    elif isinstance(tuned, ClipTextEncoder):
        layers = getattr(model, "text", model).transformer.resblocks
    else:
        _, layers = vision_transformer(getattr(model, "visual", model), name)
    model = _with(model, last(layers, count, name), weights)
    precision = dict.fromkeys({"precision", "_precision"} & vars(holder).keys(), "fp32")
    vars(holder).update(model=model, fp32_model=model, **precision)
    vars(tuned).update(dict.fromkeys({"on_runtime"} & vars(tuned).keys()))  # it has the other weights
    return tuned


def _with(model: Any, blocks: nn.ModuleList, weights: dict[str, Tensor]) -> Any:
    """A copy of a model whose `blocks` have these weights; all other weights are the model's own, not copied."""
    changed = {id(p) for p in blocks.parameters()}
    kept = [p for p in (*model.parameters(), *model.buffers()) if id(p) not in changed]
    own = copy.deepcopy(blocks)
    load_weights(own, weights)
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


def _blocks(encoder: Encoder, part: Part, count: int) -> Blocks:
    if isinstance(encoder, ClipImageEncoder | TimmImageEncoder):
        return ImageBlocks(encoder, part, count)
    if isinstance(encoder, SentenceEncoder):
        return SentenceBlocks(encoder, part, count)
    if isinstance(encoder, ClipTextEncoder):
        return ClipBlocks(encoder, part, count)
    raise EncoderError(f"{encoder.card.name} has no blocks to tune")
