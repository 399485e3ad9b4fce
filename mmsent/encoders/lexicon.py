"""Sentiment lexicons as text encoders: a few numbers per text, no model. So far there is VADER (Hutto and Gilbert
2014), made for posts: words, emoticons and emoji have valences; rules handle negation, capitals and exclamation
marks."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.encoders.base import Embeddings, TextCard
from mmsent.encoders.common import versions, weights_sha256
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError, UsageError

LEXICONS = ("vader",)
UNLIMITED = 1_000_000  # words; a lexicon does not truncate

# The divisor of each number: about its root mean square over the posts of mvsa-single, so that all have equal weight.
SCALES = {
    "compound": 0.5,
    "pos": 0.22,
    "neg": 0.18,
    "strongest": 1.6,
    "weakest": 1.4,
    "up": 3.2,
    "down": 2.2,
}
WORD = re.compile(r"[\w']+")


class LexiconEncoder:
    """VADER's scores of a text, (B, 7): its compound score and its shares of positive and of negative words, and of the
    valences of its words the highest, the lowest, the sum of the positive and that of the negative ones. Each is
    divided by its scale and bounded by tanh, so that one strong word cannot dominate; a text without a word of the
    lexicon gets zeros.
    """

    def __init__(self, spec: Spec) -> None:
        """Raises UsageError on an unknown lexicon, EncoderError if its package is missing."""
        if spec.name not in LEXICONS:
            raise UsageError(f"unknown lexicon {spec.name!r}; choose from {', '.join(LEXICONS)}")
        data = b"".join(bytes.fromhex(weights_sha256(path)) for path in lexicon_files()) + json.dumps(SCALES).encode()
        self.card = TextCard(
            library="lexicon",
            name=spec.name,
            weights_sha256=hashlib.sha256(data).hexdigest(),
            width=len(SCALES),
            precision="fp32",
            libraries={"vaderSentiment": versions("vaderSentiment")["vaderSentiment"]},
            max_tokens=UNLIMITED,
        )

    @functools.cached_property
    def _analyzer(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()

    def lengths(self, texts: list[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts to (B, 7)."""
        return np.array([self._row(text) for text in texts], np.float32).reshape(len(texts), len(SCALES))

    def _row(self, text: str) -> list[float]:
        found = self._analyzer.polarity_scores(text)
        valences = np.array([self._analyzer.lexicon.get(word.lower(), 0.0) for word in WORD.findall(text)] or [0.0])
        values = {
            **found,
            "strongest": max(valences.max(), 0.0),
            "weakest": min(valences.min(), 0.0),
            "up": valences.clip(min=0).sum(),
            "down": valences.clip(max=0).sum(),
        }
        return [math.tanh(values[name] / size) for name, size in SCALES.items()]


def lexicon_files() -> list[Path]:
    """The lexicon's files in its installed package, which is located but not imported."""
    import importlib.util

    package = importlib.util.find_spec("vaderSentiment")
    if package is None or package.origin is None:
        raise EncoderError("lexicon:vader needs its package: pip install vaderSentiment")
    folder = Path(package.origin).parent
    return [folder / name for name in ("vader_lexicon.txt", "emoji_utf8_lexicon.txt", "vaderSentiment.py")]
