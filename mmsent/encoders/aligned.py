"""Aligned encoders: the image and the text tower of one model, whose embeddings of images and texts can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mmsent.encoders.base import Card, Encoders, TextEncoder
from mmsent.encoders.joined import label
from mmsent.encoders.specs import own_name, parse_spec, parts_of
from mmsent.errors import UsageError


@dataclass(frozen=True)
class Aligned:
    """The two towers of one model in an encoder pair. text: the text tower; image_columns, text_columns: (start, stop)
    of the towers' embeddings among the pair's features, all of them unless encoders are joined; scale: what the model
    multiplies cosines by before a softmax."""

    text: TextEncoder
    image_columns: tuple[int, int]
    text_columns: tuple[int, int]
    scale: float


def require_aligned(image: Card, text: Card) -> None:
    """Raise UsageError, with the reason, unless both halves hold a tower of one open_clip model."""
    both = set(_names(image)) & set(_names(text))
    joined = "joined" in (image.library, text.library)
    if not any(name.startswith("open_clip:") for name in both) or not (
        joined or image.weights_sha256 == text.weights_sha256
    ):
        raise UsageError(
            "zero-shot labels need an image and a text encoder that were trained together, as the two towers of one "
            f"CLIP or SigLIP model are, so that images and prompts can be compared; {' and '.join(_names(image))} and "
            f"{' and '.join(_names(text))} were not. Encode the posts with such a pair: "
            "mmsent extract --encoder clip-l14-336"
        )


def aligned(encoders: Encoders) -> Aligned:
    """The two towers of one model in a pair of encoders. Raises UsageError where there are none."""
    from mmsent.encoders.clip import ClipImageEncoder, ClipTextEncoder

    require_aligned(encoders.image.card, encoders.text.card)
    images, texts = _parts(encoders.image), _parts(encoders.text)
    for image, image_columns in zip(images, _columns(images), strict=True):
        for text, text_columns in zip(texts, _columns(texts), strict=True):
            if isinstance(image, ClipImageEncoder) and isinstance(text, ClipTextEncoder) and image.clip is text.clip:
                return Aligned(text, image_columns, text_columns, text.clip.scale)
    raise UsageError(f"{encoders.image.card.name} and {encoders.text.card.name} share no model")


def _names(card: Card) -> list[str]:
    """The specs of a card's encoder, or of the encoders that it joins."""
    if card.library != "joined":
        return [label(card)]
    return [own_name(part) for part in parts_of(parse_spec(card.name))]


def _parts(encoder: Any) -> Sequence[Any]:
    """The encoders that one joins, or itself."""
    found: Sequence[Any] = getattr(encoder, "parts", [encoder])
    return found


def _columns(parts: Sequence[Any]) -> list[tuple[int, int]]:
    widths = [part.card.width for part in parts]
    stops = list(accumulate(widths))
    return [(stop - width, stop) for stop, width in zip(stops, widths, strict=True)]
