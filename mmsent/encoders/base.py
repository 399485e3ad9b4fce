"""The protocols of image and text encoders, their cards, and a pair of encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Settings
from mmsent.data.images import Pixels
from mmsent.data.preprocess import Preprocess

Embeddings = NDArray[np.float32]
# They start another runtime than torch (see encoders.runtimes).
OnRuntime = Callable[[], Callable[[Pixels], Embeddings]]
TextOnRuntime = Callable[[], Callable[[list[str]], Embeddings]]


class Card(Settings):
    """Everything about an encoder that determines its embeddings; part of the fingerprint."""

    library: str
    name: str
    tag: str | None = None
    weights_sha256: str
    width: int
    precision: str
    libraries: dict[str, str]  # package -> version


class ImageCard(Card):
    """An image encoder's card."""

    preprocess: Preprocess


class TextCard(Card):
    """A text encoder's card. max_tokens includes the special tokens."""

    max_tokens: int


class ImageEncoder(Protocol):
    """A frozen image encoder."""

    card: ImageCard

    @property
    def batch_size(self) -> int:
        """How many images per forward pass suit the device."""

    def encode(self, pixels: Pixels) -> Embeddings:
        """(B, size, size, 3) bytes, already resized and cropped, to (B, D_image) raw embeddings."""


class TextEncoder(Protocol):
    """A frozen text encoder."""

    card: TextCard

    def lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text before truncation, special tokens included."""

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts, truncated to max_tokens and padded to the longest one, to (B, D_text) raw embeddings."""


@dataclass(frozen=True)
class Encoders:
    """The two encoders of a cache."""

    image: ImageEncoder
    text: TextEncoder
