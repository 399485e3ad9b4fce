"""What an explanation holds: maps of the image, scores of the words, shares of the two halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsent.data.images import Pixels

Map = NDArray[np.float32]
CamOf = Literal["logit", "loss"]


@dataclass(frozen=True)
class CamMap:
    """Grad-CAM at one layer. values (h, w): shares of `maximum`, the largest value in units of what is differentiated
    (0 where nothing supports the target); correlation: Spearman's, with occlusion on the same grid; None where
    constant, or without occlusion."""

    layer: str
    values: Map
    maximum: float
    correlation: float | None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def peak(self) -> tuple[int, int]:
        """(row, column) of the largest value."""
        return peak_of(self.values)


@dataclass(frozen=True)
class PictureExplanation:
    """pixels (size, size, 3): the picture as the encoder sees it. occlusion (n, n): mean loss of logit where a window
    of the mean colour covers a place, None where that was not asked for; window and stride in pixels."""

    pixels: Pixels
    maps: tuple[CamMap, ...]
    occlusion: Map | None
    window: int
    stride: int


@dataclass(frozen=True)
class WordScore:
    """How a word changes the target's logit, by each method, summed over the word's tokens.

    grad_cam: Grad-CAM at the token embedding, signed (report, Figure 16). gradient: gradient x input, which a layer
    norm right after the embedding, as in BERT, makes nearly zero whatever the word does. gradient_norm: L2 norm of the
    products. integrated: integrated gradients. occlusion: loss of logit without the word.
    """

    word: str
    grad_cam: float
    gradient: float
    gradient_norm: float
    integrated: float
    occlusion: float


METHODS = ("grad_cam", "integrated", "occlusion")  # those that are shown
TOP = 4  # words that support and that oppose the target, by each method


class Word(Protocol):
    """A word with a value by each method."""

    @property
    def word(self) -> str: ...


W = TypeVar("W", bound=Word)


def strongest(words: Sequence[W], method: str, sign: int, n: int = TOP) -> list[W]:
    """At most n words, the strongest first, that support the target (sign 1) or oppose it (sign -1) by a method."""

    def value(word: W) -> float:
        return sign * float(getattr(word, method))

    return sorted((word for word in words if value(word) > 0), key=lambda word: -value(word))[:n]


@dataclass(frozen=True)
class TextExplanation:
    """text as it was encoded, its words in order. correlations: Spearman's of the gradient methods with occlusion.
    delta: what the integral misses of the difference of logits. tokens counts the special ones too; cut: the text was
    longer than the encoder takes."""

    text: str
    words: tuple[WordScore, ...]
    correlations: dict[str, float | None]
    delta: float
    tokens: int
    cut: bool

    def ranked(self, method: str) -> list[WordScore]:
        """The words, those that support the target most first. method: any field of a WordScore."""
        return sorted(self.words, key=lambda w: -float(getattr(w, method)))


@dataclass(frozen=True)
class Modality:
    """Loss of logit when the image's or the text's features give way to the training rows' mean: a positive one
    supports the target, a negative one opposes it."""

    image: float
    text: float


@dataclass(frozen=True)
class Explanation:
    """One post, one head, one target. probabilities are those that `predict` gives, calibrated by `temperature` where
    the run has one. picture or text is None where the post lacks it or the head does not read it. difference: the
    largest gap in probability between the path explained and the features that `encode` gives (rounding, in half
    precision). missing: which halves, "picture" or "text", the post lacks. cam_of: what Grad-CAM differentiates, see
    `explain`."""

    id: str
    run: str
    fusion: str
    label: str
    target: str
    logit: float
    probabilities: dict[str, float]
    temperature: float | None
    difference: float
    modality: Modality
    picture: PictureExplanation | None
    text: TextExplanation | None
    problem: str = ""
    missing: tuple[str, ...] = ()
    cam_of: CamOf = "logit"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; maps as rows, to four digits. The picture itself is left out."""
        out = {k: v for k, v in vars(self).items() if k not in {"modality", "picture", "text"}}
        out |= {"modality": asdict(self.modality), "picture": None, "text": None, "missing": list(self.missing)}
        if self.text is not None:
            out["text"] = {**asdict(self.text), "words": [asdict(word) for word in self.text.words]}
        if self.picture is not None:
            occlusion = self.picture.occlusion
            out["picture"] = {
                "size": len(self.picture.pixels),
                "window": self.picture.window,
                "stride": self.picture.stride,
                "grad_cam": [
                    {
                        "layer": m.layer,
                        "grid": list(m.grid),
                        "peak": list(m.peak),
                        "maximum": m.maximum,
                        "correlation": m.correlation,
                        "values": np.round(m.values.astype(np.float64), 4).tolist(),
                    }
                    for m in self.picture.maps
                ],
                "occlusion": None
                if occlusion is None
                else {
                    "grid": list(occlusion.shape),
                    "peak": list(peak_of(occlusion)),
                    "values": np.round(occlusion.astype(np.float64), 4).tolist(),
                },
            }
        return out


def peak_of(values: Map) -> tuple[int, int]:
    """(row, column) of the largest value."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)
