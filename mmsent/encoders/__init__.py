"""Frozen encoders behind one protocol. Image and text encoder are chosen together (a preset or an open_clip pair) or
apart; their widths may differ.

A spec reads `library:name[:tag]`: `open_clip:ViT-B-32:laion2b_s34b_b79k`, `timm:resnet50`,
`sentence-transformers:all-MiniLM-L6-v2` (or a folder), `lexicon:vader`, or one of the wheels' own names
`efficientnet-lite2` and `minilm-l6`. Several joined by `+` make one wider encoder. Constructing an adapter finds the
weights and says what they are (its card); the model itself is loaded at the first `encode`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmsent.config import PRESETS, EncoderSettings, Settings
from mmsent.errors import UsageError
from mmsent.images import Pixels, Preprocess

Embeddings = NDArray[np.float32]


class Card(Settings):
    """Everything about an encoder that determines its numbers; part of the fingerprint."""

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
    """A text encoder's card. max_tokens counts the special tokens too."""

    max_tokens: int


class ImageEncoder(Protocol):
    """A frozen image encoder."""

    card: ImageCard

    @property
    def batch_size(self) -> int:
        """Pictures a forward pass that suit the device."""

    def encode(self, pixels: Pixels) -> Embeddings:
        """(B, size, size, 3) bytes, already resized and cropped, to (B, D_image) raw embeddings."""


class TextEncoder(Protocol):
    """A frozen text encoder."""

    card: TextCard

    def lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text before any cut, special tokens included."""

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts, cut at max_tokens and padded to the longest of them, to (B, D_text) raw embeddings."""


@dataclass(frozen=True)
class Spec:
    """One parsed encoder spec."""

    library: str
    name: str
    tag: str | None = None

    def __str__(self) -> str:
        if self.library == JOINED:
            return self.name
        return ":".join(part for part in (self.library, self.name, self.tag) if part)


@dataclass(frozen=True)
class Encoders:
    """The two encoders of a cache."""

    image: ImageEncoder
    text: TextEncoder


WHEELS = {"efficientnet-lite2": "timm", "minilm-l6": "sentence-transformers"}
IMAGE_LIBRARIES = ("open_clip", "timm")
TEXT_LIBRARIES = ("open_clip", "sentence-transformers", "lexicon")
JOINED = "joined"  # the library of several specs together; their texts, joined by +, are its name
# A + joins where a spec begins behind it: names of folders may have one too.
JOINT = re.compile(
    r"\+(?=(?:open_clip|timm|sentence-transformers|sentence_transformers|st|lexicon):|" + "|".join(WHEELS) + ")"
)


def parse_spec(spec: str) -> Spec:
    """Parse `library:name[:tag]`, a wheel's own name, or several of these joined by `+`. Raises UsageError with the
    known forms."""
    if len(parts := JOINT.split(spec)) > 1:
        return Spec(JOINED, "+".join(own_name(parse_spec(part)) for part in parts))
    if spec in WHEELS:
        return Spec(WHEELS[spec], spec)
    library, _, rest = spec.partition(":")
    library = {"st": "sentence-transformers", "sentence_transformers": "sentence-transformers"}.get(library, library)
    if library == "open_clip" and rest:
        name, _, tag = rest.partition(":")
        return Spec(library, name, tag or None)
    if library in {"timm", "sentence-transformers", "lexicon"} and rest:
        return Spec(library, rest)
    raise UsageError(
        f"unknown encoder {spec!r}; use a preset ({', '.join(PRESETS)}), open_clip:ARCH[:TAG], timm:NAME, "
        f"sentence-transformers:NAME, lexicon:vader, {' or '.join(WHEELS)}, or several of one half joined by +"
    )


def own_name(spec: Spec) -> str:
    """A spec as text, in the shortest form."""
    return spec.name if WHEELS.get(spec.name) == spec.library else str(spec)


def parts_of(spec: Spec) -> list[Spec]:
    """The specs that a joined one is made of; of another, itself."""
    return [parse_spec(part) for part in JOINT.split(spec.name)] if spec.library == JOINED else [spec]


def specs(settings: EncoderSettings) -> tuple[Spec, Spec]:
    """The image and the text spec that settings ask for. Raises UsageError on unknown names or wrong kinds."""
    if settings.encoder in PRESETS:
        preset = PRESETS[settings.encoder]
        image, text = preset.image, preset.text
    else:
        image = text = settings.encoder
    image_spec, text_spec = parse_spec(settings.image_encoder or image), parse_spec(settings.text_encoder or text)
    for spec in parts_of(image_spec):
        if spec.library not in IMAGE_LIBRARIES:
            raise UsageError(f"{spec} encodes no pictures; give an --image-encoder from {', '.join(IMAGE_LIBRARIES)}")
    for spec in parts_of(text_spec):
        if spec.library not in TEXT_LIBRARIES:
            raise UsageError(f"{spec} encodes no texts; give a --text-encoder from {', '.join(TEXT_LIBRARIES)}")
    return image_spec, text_spec


def encoder_label(settings: EncoderSettings) -> str:
    """A short name of the pair for file names and tables: the preset's, or both specs."""
    if settings.encoder in PRESETS and not settings.image_encoder and not settings.text_encoder:
        return settings.encoder
    image, text = specs(settings)
    return str(image) if image == text else f"{image}+{text}"


def recipe_for(label: str) -> str:
    """The training recipe that suits a pair's features, by the pair's label."""
    return PRESETS[label].recipe if label in PRESETS else "paper"


def open_encoders(settings: EncoderSettings) -> Encoders:
    """Find the weights of both encoders and read their cards; nothing is loaded into memory yet.

    Raises EncoderError where weights cannot be had, UsageError where the specs make no sense. Given `weights`, no
    network is touched for the encoder that they belong to: the open_clip model, or else the timm one.
    """
    image_spec, text_spec = specs(settings)
    options: dict[str, Any] = {"device": settings.device, "precision": settings.precision}
    weights = Path(settings.weights) if settings.weights else None
    images, texts = parts_of(image_spec), parts_of(text_spec)
    clips: dict[Spec, tuple[ImageEncoder, TextEncoder]] = {}
    for spec in dict.fromkeys((*images, *texts)):
        if spec.library == "open_clip":
            from mmsent.encoders import clip

            clips[spec] = clip.open_pair(spec, weights=weights, **options)
    if weights and not clips and all(spec.name in WHEELS for spec in images):
        raise UsageError(f"--weights is for open_clip and timm models; {image_spec.name} brings its own")

    def image_of(spec: Spec) -> ImageEncoder:
        if spec in clips:
            return clips[spec][0]
        from mmsent.encoders import timm

        other = None if any(text in clips for text in texts) else weights
        return timm.TimmImageEncoder(spec, weights=other, **options)

    def text_of(spec: Spec) -> TextEncoder:
        if spec in clips:
            return clips[spec][1]
        if spec.library == "lexicon":
            from mmsent.encoders import lexicon

            return lexicon.LexiconEncoder(spec)
        from mmsent.encoders import sentences

        return sentences.SentenceEncoder(spec, **options)

    image, text = [image_of(spec) for spec in images], [text_of(spec) for spec in texts]
    if len(image) == len(text) == 1:
        return Encoders(image[0], text[0])
    from mmsent.encoders import joined

    return Encoders(
        image[0] if len(image) == 1 else joined.JoinedImageEncoder(image),
        text[0] if len(text) == 1 else joined.JoinedTextEncoder(text),
    )
