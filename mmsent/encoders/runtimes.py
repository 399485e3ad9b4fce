"""Which runtime computes an encoder: torch, or on a CPU ONNX Runtime in fp32, or OpenVINO in fp32, in bf16 where the
processor multiplies it, or in int8. See mmsent.encoders.converted for how.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from mmsent.config import EncoderSettings
from mmsent.encoders.base import Embeddings, TextEncoder
from mmsent.encoders.common import versions
from mmsent.encoders.converted import INT8, TURN, start_runtime
from mmsent.encoders.specs import parts_of, specs
from mmsent.errors import UsageError
from mmsent.system.devices import cpu_multiplies_bf16, pick_device, processor
from mmsent.system.process import memory

RUNTIMES = ("onnxruntime", "openvino", INT8)
# What was timed, and is faster on these runtimes (docs/benchmarks.md): image encoders, -quickgelu twins included, on
# processors by what torch calls them; and text encoders, on ONNX Runtime, on others of these.
_PROCESSORS = ("AVX512", "AVX2")
_SMALL = ("efficientnet-lite2",)
_IN_BF16 = ("ViT-L-14", "ViT-L-14-336")  # on OpenVINO
_IN_FP32, _FP32_PROCESSORS = (*_IN_BF16, "ViT-B-16", "ViT-B-32"), ("AVX2",)  # on ONNX Runtime
_TEXTS, _TEXT_PROCESSORS = ("minilm-l6",), ("AVX2",)
_ROOM = 12 * 10**9  # bytes of memory with which a large encoder is converted unasked: ViT-L-14-336 took 7.0 GB in fp32


def with_runtime(settings: EncoderSettings) -> EncoderSettings:
    """The settings with the runtime that `auto` means here: of those installed the one that was fastest for these
    images on this kind of processor (docs/benchmarks.md), torch where nothing was timed."""
    if settings.runtime != "auto":
        return settings
    return settings.model_copy(update={"runtime": _fastest(settings)})


def usable(runtime: str, precision: str, device: str | None) -> str:
    """A cache's runtime where it can be used for more of its posts, else torch, whose features differ by rounding."""
    if runtime not in RUNTIMES or runtime == INT8:
        return runtime
    on_cpu = device in (None, "auto", "cpu")
    here = on_cpu and not _missing(runtime) and (precision != "bf16" or cpu_multiplies_bf16())
    return runtime if here else "torch"


def precision_on(runtime: str, precision: str) -> str:
    """The precision of open_clip models beside a runtime: `auto` is fp32 where it has no other."""
    return "fp32" if precision == "auto" and runtime in ("onnxruntime", INT8) else precision


def takes_texts(runtime: str, encoder: TextEncoder) -> bool:
    """Whether a runtime computes this encoder's texts too; else torch does."""
    return runtime == "onnxruntime" and encoder.card.name in _TEXTS and processor() in _TEXT_PROCESSORS


def _fastest(settings: EncoderSettings) -> str:
    if processor() not in _PROCESSORS or pick_device(settings.device) != "cpu":
        return "torch"
    names = {spec.name.removesuffix("-quickgelu") for spec in parts_of(specs(settings)[0])}
    order: tuple[str, ...] = ()
    if names <= set(_SMALL):
        order = ("onnxruntime", "openvino") if settings.precision in ("auto", "fp32") else ()
    elif (memory() or _ROOM) < _ROOM:
        order = ()
    elif cpu_multiplies_bf16():
        order = ("openvino",) if names <= set(_IN_BF16) and settings.precision in ("auto", "bf16") else ()
    elif names <= set(_IN_FP32) and processor() in _FP32_PROCESSORS and settings.precision in ("auto", "fp32"):
        order = ("onnxruntime",)
    return next((name for name in order if not _missing(name)), "torch")


def _missing(runtime: str) -> list[str]:
    own = ("openvino", "nncf") if runtime == INT8 else (runtime,)
    return [name for name in own if importlib.util.find_spec(name) is None]


def run_on(encoder: Any, runtime: str) -> Any:
    """A timm or open_clip image encoder, or a text encoder that `takes_texts` allows, that computes on `runtime` (of
    RUNTIMES) from now on; nothing is loaded yet. Raises UsageError where its packages are missing, or it has not the
    encoder's precision on this processor."""
    for needed in _missing(runtime):
        package = "'mmsent[int8]'" if runtime == INT8 else needed
        raise UsageError(f"--runtime {runtime} needs the package {needed}: pip install {package}")
    half = runtime == "openvino" and encoder.card.precision != "fp32" and cpu_multiplies_bf16()
    if encoder.card.precision not in ("fp32", "bf16") if half else encoder.card.precision != "fp32":
        raise UsageError(
            f"--runtime {runtime} computes in {'fp32 or bf16' if half else 'fp32'} here; leave --precision out"
        )
    new: dict[str, Any] = {"precision": "int8"} if runtime == INT8 else {}
    own = versions("openvino", "nncf") if runtime == INT8 else versions(runtime)
    encoder.card = encoder.card.model_copy(update=new | {"libraries": encoder.card.libraries | own})
    start = functools.cache(start_runtime)

    def started() -> Callable[[Any], Embeddings]:
        with TURN:
            return start(encoder, runtime)

    encoder.on_runtime = started
    return encoder
