"""Opening the two encoders that settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsent.config import EncoderSettings
from mmsent.encoders.base import Encoders, ImageEncoder, TextEncoder
from mmsent.encoders.runtimes import precision_on, run_on, takes_texts, with_runtime
from mmsent.encoders.specs import WHEELS, Spec, own_folders, parts_of, specs
from mmsent.errors import UsageError
from mmsent.system.process import survive_forks


def open_encoders(settings: EncoderSettings) -> Encoders:
    """Find the weights of both encoders and read their cards; nothing is loaded into memory yet.

    Raises EncoderError if weights are missing, UsageError if the specs are invalid. `settings.weights` belong to the
    open_clip model, or else to the timm one; no network is used for that encoder.
    """
    survive_forks()
    settings = with_runtime(settings)
    image_spec, text_spec = specs(settings)
    options: dict[str, Any] = {"device": settings.device, "precision": settings.precision}
    if settings.runtime != "torch":
        if settings.device not in ("auto", "cpu"):
            raise UsageError(f"--runtime {settings.runtime} computes on the CPU, not on {settings.device}")
        options["device"] = "cpu"
    weights = Path(settings.weights) if settings.weights else None
    images, texts = parts_of(image_spec), parts_of(text_spec)
    clips: dict[Spec, tuple[ImageEncoder, TextEncoder]] = {}
    for spec in dict.fromkeys((*images, *texts)):
        if spec.library == "open_clip":
            from mmsent.encoders import clip

            own = options | {"precision": precision_on(settings.runtime, settings.precision)}
            clips[spec] = clip.open_pair(spec, weights=weights, **own)
    if weights and not clips and all(spec.name in WHEELS for spec in images):
        raise UsageError(f"--weights is for open_clip and timm models; {image_spec.name} has its own weights")

    def image_of(spec: Spec) -> ImageEncoder:
        if spec in clips:
            return clips[spec][0]
        from mmsent.encoders import timm

        other = None if any(text in clips for text in texts) else weights
        return timm.TimmImageEncoder(spec, weights=other, **options)

    def text_of(spec: Spec, folder: Path | None) -> TextEncoder:
        if spec in clips:
            return clips[spec][1]
        if spec.library == "lexicon":
            from mmsent.encoders import lexicon

            return lexicon.LexiconEncoder(spec)
        from mmsent.encoders import sentences

        return sentences.SentenceEncoder(spec, folder=folder, **options)

    image = [image_of(spec) for spec in images]
    if settings.runtime != "torch":
        image = [run_on(one, settings.runtime) for one in image]
    text = [text_of(spec, folder) for spec, folder in zip(texts, own_folders(settings), strict=True)]
    text = [run_on(one, settings.runtime) if takes_texts(settings.runtime, one) else one for one in text]
    if len(image) == len(text) == 1:
        return Encoders(image[0], text[0])
    from mmsent.encoders import joined

    return Encoders(
        image[0] if len(image) == 1 else joined.JoinedImageEncoder(image),
        text[0] if len(text) == 1 else joined.JoinedTextEncoder(text),
    )
