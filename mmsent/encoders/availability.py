"""Whether the weights of the presets are on this machine. Loads no model and no encoder library, uses no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmsent.config import PRESETS
from mmsent.encoders.common import weights_sha256
from mmsent.encoders.specs import own_name, parse_spec, parts_of
from mmsent.errors import EncoderError

# Where the default pair's weights are on the hub. A test compares this with open_clip's own table, which is slow to
# import.
CLIP_REPOSITORY = "timm/vit_large_patch14_clip_336.openai"
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def presence(preset: str) -> dict[str, str]:
    """The encoders of a preset, each with `found`, `not on this machine`, or what is wrong with its weights."""
    chosen = PRESETS[preset]
    names = [own_name(part) for half in (chosen.image, chosen.text) for part in parts_of(parse_spec(half))]
    return {name: _state(name) for name in dict.fromkeys(names)}


def _state(spec: str) -> str:
    name = parse_spec(spec).name
    if name == "efficientnet-lite2":
        from mmsent.encoders.timm import LITE2_SHA256, lite2_file

        return _checked(lite2_file, LITE2_SHA256)
    if name == "minilm-l6":
        from mmsent.encoders.sentences import MINILM_SHA256, minilm_folder

        return _checked(lambda: minilm_folder() / "model.safetensors", MINILM_SHA256)
    if parse_spec(spec).library == "lexicon":
        from mmsent.encoders.lexicon import lexicon_files

        return _present(lexicon_files)
    from huggingface_hub import try_to_load_from_cache

    cached = any(isinstance(try_to_load_from_cache(CLIP_REPOSITORY, file), str) for file in CLIP_FILES)
    return "found" if cached else "not on this machine"


def _present(find: Callable[[], object]) -> str:
    try:
        find()
    except EncoderError as error:
        return str(error)
    return "found"


def _checked(find: Callable[[], Path], sha256: str) -> str:
    try:
        return "found" if weights_sha256(find()) == sha256 else "damaged: its SHA-256 is not the expected one"
    except EncoderError as error:
        return str(error)
