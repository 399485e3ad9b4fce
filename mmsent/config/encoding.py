"""How posts become features: encoders, views, extraction."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from mmsent.config.fields import ENCODE, RUN, OnCommandLine, Panel, Settings, setting
from mmsent.config.presets import PRESETS

TUNE = r"^((image|text):[1-9][0-9]*)?$"  # `text:2`: the last two blocks of the text encoder; empty: none


def tuned_blocks(tune: str) -> tuple[str, int]:
    """The half and the number of blocks that `text:2` means; of an empty one ("", 0)."""
    return tune.partition(":")[0], int(tune.partition(":")[2] or 0)


class EncoderSettings(Settings):
    """Which frozen encoders make the features. Specs read `library:name[:tag]`; see mmsent.encoders."""

    encoder: str = setting(
        "clip-l14-336",
        f"Encoder pair: {', '.join(PRESETS)}, or open_clip:ARCH[:TAG].",
        OnCommandLine(panel=Panel.encoding, env="MMSENT_ENCODER"),
    )
    image_encoder: str | None = setting(None, "Image encoder alone: timm:NAME or open_clip:ARCH[:TAG].", ENCODE)
    text_encoder: str | None = setting(
        None, "Text encoder alone: sentence-transformers:NAME or open_clip:ARCH[:TAG].", ENCODE
    )
    text_folder: str | None = setting(None, "Where own folders of the text encoder lie; no part of what it is.")
    weights: str | None = setting(None, "Local checkpoint of the open_clip or timm model; needs no network.", ENCODE)
    normalize: bool = setting(
        False,
        "Scale embeddings to length 1, or keep them raw.",
        OnCommandLine("--normalize/--raw", None, Panel.encoding),
    )
    device: Literal["auto", "cpu", "cuda", "mps"] | str = setting(
        "auto", "auto, cpu, cuda, cuda:1 or mps.", OnCommandLine(panel=Panel.running, env="MMSENT_DEVICE")
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto", "auto, fp32, bf16 or fp16.", RUN)
    runtime: Literal["auto", "torch", "onnxruntime", "openvino", "openvino-int8"] = setting(
        "auto",
        "What computes features: torch; on a CPU onnxruntime or openvino, or openvino-int8, faster and less exact.",
        RUN,
    )


class ViewSettings(Settings):
    """The K augmented views of each image (report, section 2). View 0 is always the clean image.

    Angles in degrees, translation as a fraction of the side, colour strengths as in torchvision's ColorJitter.
    """

    count: int = setting(
        4,
        "Augmented views per image, besides the clean one.",
        OnCommandLine("--views", None, Panel.encoding),
        ge=0,
        le=64,
    )
    seed: int = setting(0, "Seed of the views.", OnCommandLine("--views-seed", None, Panel.encoding), ge=0)
    rotation: float = setting(15.0, "Largest rotation.", ge=0, le=180)
    flip: float = setting(0.5, "Probability of a horizontal flip.", ge=0, le=1)
    translate: float = setting(0.1, "Largest translation.", ge=0, le=0.5)
    scale: tuple[float, float] = setting((0.9, 1.1), "Range of the scale.")
    shear: float = setting(5.0, "Largest shear.", ge=0, le=45)
    brightness: float = setting(0.2, "Change of brightness.", ge=0, le=1)
    contrast: float = setting(0.2, "Change of contrast.", ge=0, le=1)
    saturation: float = setting(0.2, "Change of saturation.", ge=0, le=1)
    hue: float = setting(0.05, "Change of hue.", ge=0, le=0.5)

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("needs 0 < low <= high")
        return value


class ExtractSettings(Settings):
    """How extraction runs; nothing here changes the numbers beyond the last bits."""

    batch_size: int | None = setting(
        None, "Images per forward pass.", OnCommandLine(shown="chosen for the device", panel=Panel.running), ge=1
    )
    workers: int | None = setting(
        None, "Threads that decode images.", OnCommandLine(shown="one per core, at most 8", panel=Panel.running), ge=1
    )
    max_bad: float = setting(0.01, "Share of the rows that may be quarantined.", RUN, ge=0, le=1)
    storage: Literal["float32", "float16"] = setting("float32", "float32 or float16 in the cache.", ENCODE)
    tokens: str | None = setting(
        None,
        "Also store what enters the last blocks of an encoder, as in text:2 or image:1, for --tune of `mmsent fit`.",
        OnCommandLine(shown="the preset's", panel=Panel.encoding),
        pattern=TUNE,
    )
    wait: bool = setting(
        False,
        "Wait for another extraction that holds the cache, instead of refusing.",
        OnCommandLine("--wait", None, Panel.running),
    )
    engine: Literal["local", "ray"] = setting(
        "local", "local: this process. ray: actors on a Ray cluster (needs the extra `ray`).", RUN
    )
    address: str | None = setting(
        None,
        "Ray cluster: HOST:PORT or auto.",
        OnCommandLine(shown="RAY_ADDRESS, or a cluster of this machine", panel=Panel.running),
    )
    actors: int | None = setting(
        None,
        "Encoder pairs on the Ray cluster.",
        OnCommandLine(shown="one per GPU or per CPU slot", panel=Panel.running),
        ge=1,
    )


def preset_tokens(settings: EncoderSettings) -> str:
    """The states that a preset stores beside its features, as in text:2; empty for a pair that is no preset."""
    own = settings.encoder in PRESETS and settings.text_encoder is None
    return PRESETS[settings.encoder].tokens if own else ""
