"""Whether the weights of the presets are on this machine, and where else they come from. Loads no model and no encoder
library, uses no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmsent.config import PRESETS
from mmsent.encoders import mpnet
from mmsent.encoders.common import weights_sha256
from mmsent.encoders.sentences import repository_of
from mmsent.encoders.specs import Spec, own_name, parse_spec, parts_of
from mmsent.errors import EncoderError

FOUND = "found"
# Where the presets' weights are on the hub, by the library of their encoders. A test compares this with the tables of
# open_clip and timm, which are slow to import.
OPEN_CLIP = {
    "ViT-L-14-336-quickgelu:openai": "timm/vit_large_patch14_clip_336.openai",
    "ViT-L-16-SigLIP2-384:webli": "timm/ViT-L-16-SigLIP2-384",
    "MobileCLIP2-S2:dfndr2b": "timm/MobileCLIP2-S2-OpenCLIP",
}
FILES = {
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "timm": ("model.safetensors",),
    "sentence-transformers": ("model.safetensors", "pytorch_model.bin"),
}


def presence(preset: str) -> dict[str, str]:
    """The encoders of a preset, each with `found`, `not on this machine`, or what is wrong with its weights."""
    return {own_name(spec): state(spec) for spec in _encoders(preset)}


def sources(preset: str) -> dict[str, str]:
    """The encoders of a preset, each with its repository on the hub and what else brings its weights, or `installed`
    where they come with mmsent's own packages."""
    return {own_name(spec): _source(spec) for spec in _encoders(preset)}


def _source(spec: Spec) -> str:
    where = repository(spec) or "installed"
    return f"{where} or {mpnet.INSTALL}" if where == mpnet.REPOSITORY else where


def repository(spec: Spec) -> str | None:
    """The repository of a preset's encoder on the hub; None for those whose weights come with a package."""
    if own_name(spec) in _INSTALLED:
        return None
    if spec.library == "open_clip":
        return OPEN_CLIP[f"{spec.name}:{spec.tag}"]
    return f"timm/{spec.name}" if spec.library == "timm" else repository_of(spec.name)


def _encoders(preset: str) -> list[Spec]:
    chosen = PRESETS[preset]
    return list(dict.fromkeys(part for half in (chosen.image, chosen.text) for part in parts_of(parse_spec(half))))


def state(spec: Spec) -> str:
    """`found`, `not on this machine`, or what is wrong with the weights of a preset's encoder."""
    where = repository(spec)
    if where is None:
        return _INSTALLED[own_name(spec)]()
    if where == mpnet.REPOSITORY and mpnet.mpnet_parts():
        return FOUND
    from huggingface_hub import try_to_load_from_cache

    cached = any(isinstance(try_to_load_from_cache(where, file), str) for file in FILES[spec.library])
    return FOUND if cached else "not on this machine"


def _lite2() -> str:
    from mmsent.encoders.timm import LITE2_SHA256, lite2_file

    return _checked(lite2_file, LITE2_SHA256)


def _minilm() -> str:
    from mmsent.encoders.sentences import MINILM_SHA256, minilm_folder

    return _checked(lambda: minilm_folder() / "model.safetensors", MINILM_SHA256)


def _vader() -> str:
    from mmsent.encoders.lexicon import lexicon_files

    try:
        lexicon_files()
    except EncoderError as error:
        return str(error)
    return FOUND


_INSTALLED: dict[str, Callable[[], str]] = {"efficientnet-lite2": _lite2, "minilm-l6": _minilm, "lexicon:vader": _vader}


def _checked(find: Callable[[], Path], sha256: str) -> str:
    try:
        return FOUND if weights_sha256(find()) == sha256 else "damaged: its SHA-256 is not the expected one"
    except EncoderError as error:
        return str(error)
