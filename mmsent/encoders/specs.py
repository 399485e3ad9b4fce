"""Encoder specs: parsing `library:name[:tag]` and choosing the image and the text spec of a pair."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmsent.config import PRESETS, EncoderSettings
from mmsent.errors import UsageError


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


WHEELS = {"efficientnet-lite2": "timm", "minilm-l6": "sentence-transformers"}  # encoders installed from wheels
IMAGE_LIBRARIES = ("open_clip", "timm")
TEXT_LIBRARIES = ("open_clip", "sentence-transformers", "lexicon")
_SENTENCES = "sentence-transformers:"
JOINED = "joined"  # the library of several specs together; their texts, joined by +, are its name
# A + joins only if a spec follows it, because names of folders may contain one too.
JOINT = re.compile(
    r"\+(?=(?:open_clip|timm|sentence-transformers|sentence_transformers|st|lexicon):|" + "|".join(WHEELS) + ")"
)


def parse_spec(spec: str) -> Spec:
    """Parse `library:name[:tag]`, a wheel's own name, or several of these joined by `+`. Raises UsageError that
    lists the known forms."""
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
        f"sentence-transformers:NAME, lexicon:vader, {' or '.join(WHEELS)}, or several joined by +"
    )


def own_name(spec: Spec) -> str:
    """A spec as text, in the shortest form."""
    return spec.name if WHEELS.get(spec.name) == spec.library else str(spec)


def parts_of(spec: Spec) -> list[Spec]:
    """The parts of a joined spec; a list of itself for any other."""
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
            raise UsageError(
                f"{spec} does not encode images; choose an --image-encoder from {', '.join(IMAGE_LIBRARIES)}"
            )
    for spec in parts_of(text_spec):
        if spec.library not in TEXT_LIBRARIES:
            raise UsageError(f"{spec} does not encode texts; choose a --text-encoder from {', '.join(TEXT_LIBRARIES)}")
    return image_spec, text_spec


def text_folder_of(spec: str) -> Path | None:
    """The folder that a text encoder's spec or a path names; None where it names none here, or an installed encoder."""
    if spec in WHEELS:
        return None
    # unlike Path.expanduser it leaves ~ as it is where there is no home
    path = Path(os.path.expanduser(spec.partition(":")[2] if spec.startswith((_SENTENCES, "st:")) else spec))
    return path.resolve() if path.is_dir() else None


def named_apart(settings: EncoderSettings) -> EncoderSettings:
    """Settings whose text encoders, where they are folders of one's own, go by the folders' names, and where these lie
    is kept beside it: the features do not depend on the place, and the weights' hash says whether it is the same."""
    parts = JOINT.split(settings.text_encoder) if settings.text_encoder else []
    found = {
        i: folder for i, part in enumerate(parts) if (folder := text_folder_of(part)) and folder.name not in WHEELS
    }
    if not found:
        return settings
    names = [_SENTENCES + found[i].name if i in found else part for i, part in enumerate(parts)]
    return _placed(settings.model_copy(update={"text_encoder": "+".join(names)}), found)


def moved(settings: EncoderSettings, typed: str) -> EncoderSettings:
    """Settings whose text encoders' own folders lie elsewhere now. typed: a folder, or joined encoders as they were
    given to extraction. Raises UsageError if there is no such folder, or the encoder has none."""
    parts, folders = JOINT.split(settings.text_encoder or ""), [text_folder_of(part) for part in JOINT.split(typed)]
    if not any(folders):
        raise UsageError(f"--text-encoder {typed}: there is no such folder")
    own = [i for i, part in enumerate(parts) if part.startswith((_SENTENCES, "st:"))]
    if len(folders) != len(parts):  # a folder alone goes by its name where it could be several
        by_name = {folder.name: folder for folder in folders if folder}
        folders = [(folders[0] if len(own) == 1 else by_name.get(re.split("[:/]", part)[-1])) for part in parts]
    found = {i: folder for i in own if (folder := folders[i]) is not None}
    if not found:
        raise UsageError(
            f"--text-encoder {typed}: the features are of {encoder_label(settings)}; give its text encoder with each "
            "folder where it lies now"
        )
    return _placed(settings, found)


def own_folders(settings: EncoderSettings) -> list[Path | None]:
    """Where each part of the text encoder lies; None where no place was told."""
    if settings.text_folder is None:
        return [None] * len(parts_of(specs(settings)[1]))
    places = [Path(place.removeprefix(_SENTENCES)) for place in JOINT.split(settings.text_folder)]
    return [place if place.is_absolute() else None for place in places]


def _placed(settings: EncoderSettings, found: dict[int, Path]) -> EncoderSettings:
    """Settings that say where these parts of the text encoder lie: joined as the parts are, others by their names."""
    known = dict(enumerate(own_folders(settings))) | found
    parts = JOINT.split(settings.text_encoder or "")
    places = [f"{_SENTENCES}{known[i]}" if known[i] else part for i, part in enumerate(parts)]
    return settings.model_copy(update={"text_folder": "+".join(places).removeprefix(_SENTENCES)})


def encoder_label(settings: EncoderSettings) -> str:
    """A short name of the pair for file names and tables: the preset's, or both specs."""
    if settings.encoder in PRESETS and not settings.image_encoder and not settings.text_encoder:
        return settings.encoder
    image, text = specs(settings)
    return str(image) if image == text else f"{image}+{text}"
