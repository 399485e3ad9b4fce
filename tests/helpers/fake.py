"""Encoders made up for tests: no weights, microseconds a row, and informative about the data of made.py."""

from __future__ import annotations

import hashlib

import numpy as np

from mmsent.data.images import Pixels
from mmsent.data.preprocess import Preprocess
from mmsent.encoders.base import Embeddings, Encoders, ImageCard, TextCard

SIZE = 16
PREPROCESS = Preprocess(size=SIZE, resize_to=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LIBRARIES = {"fake": "1"}


class FakeImageEncoder:
    """(B, 16, 16, 3) bytes to the means of a 4 x 4 grid a channel, 48-d. Counts pictures; can fail after some."""

    batch_size = 8

    def __init__(self, seed: int = 0, fail_after: int | None = None) -> None:
        self.card = ImageCard(
            library="fake",
            name="grid",
            weights_sha256=hashlib.sha256(str(seed).encode()).hexdigest(),
            width=48,
            precision="fp32",
            libraries=LIBRARIES,
            preprocess=PREPROCESS,
        )
        self.seen = 0
        self.batches: list[int] = []
        self.fail_after = fail_after

    def encode(self, pixels: Pixels) -> Embeddings:
        if self.fail_after is not None and self.seen >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        self.batches.append(len(pixels))
        x = pixels.astype(np.float32) / 255
        return x.reshape(len(x), 4, 4, 4, 4, 3).mean(axis=(2, 4)).reshape(len(x), 48)


class FakeTextEncoder:
    """Texts to a hashed bag of words, 32-d. A token is a word; 12 are kept."""

    def __init__(self) -> None:
        self.card = TextCard(
            library="fake",
            name="bag",
            weights_sha256="0" * 64,
            width=32,
            precision="fp32",
            libraries=LIBRARIES,
            max_tokens=12,
        )
        self.seen = 0
        self.batches: list[list[str]] = []

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: list[str]) -> Embeddings:
        self.seen += len(texts)
        self.batches.append(list(texts))
        out = np.zeros((len(texts), 32), np.float32)
        for i, text in enumerate(texts):
            for word in text.lower().split()[:12]:
                out[i, hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[0] % 32] += 1
        return out


def fake_encoders(seed: int = 0, fail_after: int | None = None) -> Encoders:
    """A pair of fakes. seed changes the image weights' hash; fail_after: pictures before a KeyboardInterrupt."""
    return Encoders(FakeImageEncoder(seed, fail_after), FakeTextEncoder())
