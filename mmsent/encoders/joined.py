"""Several encoders of one half joined: `minilm-l6+lexicon:vader`. Their features are concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmsent.data.images import Pixels
from mmsent.data.vectors import unit_length
from mmsent.encoders.base import Card, Embeddings, ImageCard, ImageEncoder, TextCard, TextEncoder
from mmsent.errors import UsageError
from mmsent.system.hashing import json_sha256


class JoinedImageEncoder:
    """Image encoders that take the same pixels: (B, size, size, 3) bytes to (B, sum of widths)."""

    def __init__(self, parts: Sequence[ImageEncoder]) -> None:
        """Raises UsageError if the parts preprocess images differently."""
        self.parts = list(parts)
        cards = [part.card for part in self.parts]
        for card in cards[1:]:
            if card.preprocess != cards[0].preprocess:
                raise UsageError(
                    f"{cards[0].name} and {card.name} preprocess images differently ({cards[0].preprocess.size} and "
                    f"{card.preprocess.size} pixels, or another crop or scale), so they cannot be joined; choose "
                    "encoders with the same preprocessing"
                )
        self.card = ImageCard(**_about(cards), preprocess=cards[0].preprocess)

    @property
    def batch_size(self) -> int:
        """How many images per forward pass suit the device: the smallest number of all parts."""
        return min(part.batch_size for part in self.parts)

    def encode(self, pixels: Pixels) -> Embeddings:
        """Pixels (B, size, size, 3) to (B, D_image)."""
        return np.concatenate([scaled_for_joining(part.encode(pixels), part.card) for part in self.parts], axis=1)


class JoinedTextEncoder:
    """Text encoders that read the same texts: B texts to (B, sum of widths)."""

    def __init__(self, parts: Sequence[TextEncoder]) -> None:
        self.parts = list(parts)
        cards = [part.card for part in self.parts]
        self._shortest = min(self.parts, key=lambda part: part.card.max_tokens)
        self.card = TextCard(**_about(cards), max_tokens=self._shortest.card.max_tokens)

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens as counted by the part with the smallest limit."""
        return self._shortest.lengths(texts)

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts to (B, D_text)."""
        return np.concatenate([scaled_for_joining(part.encode(texts), part.card) for part in self.parts], axis=1)


def scaled_for_joining(vectors: Embeddings, card: Card) -> Embeddings:
    """Features (B, D) scaled for joining, so that all parts have a similar size: embeddings to length 1, a lexicon's
    features, whose length carries information, to at most length 1."""
    if card.library == "lexicon":
        return vectors / np.float32(np.sqrt(card.width))
    return unit_length(vectors)


def _about(cards: Sequence[Card]) -> dict[str, Any]:
    """The fields of a joined card: the parts' names, widths and versions together, and for the weights a digest of all
    that determines the parts' embeddings except precision and versions, which have their own fields."""
    parts = [card.model_dump(mode="json", exclude={"precision", "libraries"}) for card in cards]
    return {
        "library": "joined",
        "name": "+".join(label(card) for card in cards),
        "weights_sha256": json_sha256(parts),
        "width": sum(card.width for card in cards),
        "precision": "+".join(dict.fromkeys(card.precision for card in cards)),
        "libraries": {name: version for card in cards for name, version in card.libraries.items()},
    }


def label(card: Card) -> str:
    """The spec of a card's encoder."""
    return ":".join(part for part in (card.library, card.name, card.tag) if part)
