"""Encoders on other runtimes than torch: the same weights as an ONNX file, on the CPU. ONNX Runtime computes in fp32,
OpenVINO in fp32, in bf16 where the processor multiplies it, or in int8.

The file is made once per encoder and version of torch (see mmsent.encoders.kept). int8 is calibrated by NNCF on crops
of the two photographs that scikit-learn brings: whoever uses a cache's heads elsewhere gets the same weights, and they
hold nothing of anybody's posts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mmsent.config import EncoderSettings
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, ImageEncoder
from mmsent.encoders.common import versions
from mmsent.encoders.kept import kept_folder
from mmsent.encoders.specs import parts_of, specs
from mmsent.errors import EncoderError, MmsentError, UsageError, first_line
from mmsent.system.devices import cpu_multiplies_bf16, pick_device
from mmsent.system.hashing import file_sha256, json_sha256
from mmsent.system.process import cores, memory
from mmsent.system.progress import tell

INT8 = "openvino-int8"
RUNTIMES = ("onnxruntime", "openvino", INT8)
# Of an embedding's length: converted encoders that are further from torch are refused. 0.04 is a cosine of 0.9992.
APART = {"fp32": 1e-3, "bf16": 0.04}
# What was timed, and is faster on these runtimes (docs/benchmarks.md): image encoders, -quickgelu twins included,
# and processors by what torch calls them.
_IN_FP32, _IN_BF16 = ("efficientnet-lite2",), ("ViT-L-14", "ViT-L-14-336")
_PROCESSORS = ("AVX512", "AVX2")
_ROOM = 12 * 10**9  # bytes of memory with which a large encoder is converted unasked: ViT-L-14-336 took 7.0 GB in fp32
_LARGE = 10**8  # bytes of a file whose images are encoded one after the other, each by all threads
_FILE, _DIGEST = "image.onnx", "image.onnx.sha256"
_CROPS = 100  # that int8 is calibrated on
_ALIKE = 0.9  # the least mean cosine of int8 to fp32, on other crops
_TURN = threading.Lock()  # torch's exporter fails in two threads at once, and standard output stays redirected


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


def _fastest(settings: EncoderSettings) -> str:
    import torch

    if pick_device(settings.device) != "cpu" or torch.backends.cpu.get_cpu_capability() not in _PROCESSORS:
        return "torch"
    names = {spec.name.removesuffix("-quickgelu") for spec in parts_of(specs(settings)[0])}
    order: tuple[str, ...] = ()
    if names <= set(_IN_FP32) and settings.precision in ("auto", "fp32"):
        order = ("onnxruntime", "openvino")
    elif names <= set(_IN_BF16) and settings.precision in ("auto", "bf16") and cpu_multiplies_bf16():
        order = ("openvino",) if (memory() or _ROOM) >= _ROOM else ()
    return next((name for name in order if not _missing(name)), "torch")


def _missing(runtime: str) -> list[str]:
    own = ("openvino", "nncf") if runtime == INT8 else (runtime,)
    return [name for name in own if importlib.util.find_spec(name) is None]


def run_on(encoder: Any, runtime: str) -> ImageEncoder:
    """A timm or open_clip image encoder that computes on `runtime` (of RUNTIMES) from now on; nothing is loaded yet.
    Raises UsageError where its packages are missing, or it has not the encoder's precision on this processor."""
    for needed in _missing(runtime):
        package = "'mmsent[int8]'" if runtime == INT8 else needed
        raise UsageError(f"--runtime {runtime} needs the package {needed}: pip install {package}")
    half = runtime == "openvino" and cpu_multiplies_bf16()
    if encoder.card.precision not in ("fp32", "bf16") if half else encoder.card.precision != "fp32":
        raise UsageError(
            f"--runtime {runtime} computes in {'fp32 or bf16' if half else 'fp32'} here; leave --precision out"
        )
    new: dict[str, Any] = {"precision": "int8"} if runtime == INT8 else {}
    own = versions("openvino", "nncf") if runtime == INT8 else versions(runtime)
    encoder.card = encoder.card.model_copy(update=new | {"libraries": encoder.card.libraries | own})
    start = functools.cache(_started)

    def started() -> Callable[[Pixels], Embeddings]:
        with _TURN:
            return start(encoder, runtime)

    encoder.on_runtime = started
    found: ImageEncoder = encoder
    return found


def _started(encoder: ImageEncoder, runtime: str) -> Callable[[Pixels], Embeddings]:
    file = _converted(encoder, runtime == INT8)
    at_once = 1 if sum(path.stat().st_size for path in _files(file.parent)) > _LARGE else cores()
    one = _load(file, runtime, encoder.card.precision, cores(), at_once)
    size = encoder.card.preprocess.size
    one(np.zeros((1, size, size, 3), np.uint8))  # the first calls of OpenVINO, in two threads at once, can wait forever
    run = _each_alone(one, at_once)
    _compare(encoder, runtime, run, file.parent)
    return run


def _each_alone(run: Callable[[Pixels], Embeddings], at_once: int) -> Callable[[Pixels], Embeddings]:
    """Each image of a batch by itself: the bytes depend neither on the batch nor on the number of threads. Small
    models take an image per thread, so that nothing waits for a core that another process holds."""

    def encode(pixels: Pixels) -> Embeddings:
        with ThreadPoolExecutor(min(at_once, len(pixels))) as pool:  # not kept, so that a fork finds no dead threads
            return np.concatenate(list(pool.map(run, np.split(pixels, len(pixels)))))

    return encode


def _load(path: Path, runtime: str, precision: str, threads: int, at_once: int) -> Callable[[Pixels], Embeddings]:
    """A converted encoder that takes `at_once` images at a time on `threads` threads."""
    try:
        if runtime != "onnxruntime":
            hint = "bf16" if precision == "bf16" else "f32"
            options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": at_once}
            model = quiet_openvino().Core().compile_model(str(path), "CPU", options)
            return lambda pixels: np.asarray(model.create_infer_request().infer([pixels])[0])
        import onnxruntime

        chosen = onnxruntime.SessionOptions()
        chosen.log_severity_level = 3
        chosen.intra_op_num_threads = max(1, threads // at_once)
        session = onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])
    except Exception as error:  # neither library's errors have a public parent
        raise EncoderError(f"{path} does not load with {runtime} ({first_line(error)}); remove it") from error


def quiet_openvino() -> Any:
    """The module openvino without its telemetry, which writes into the home folder and has an address to send to."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its absence switches it off
    import openvino

    return openvino


def _converted(encoder: ImageEncoder, int8: bool) -> Path:
    """The encoder's ONNX file; made where there is none yet, or it is not what was written."""
    write = functools.partial(_write, encoder, int8)
    made_by = versions("nncf") if int8 else versions()["torch"]
    key = json_sha256([encoder.card.model_dump(mode="json", exclude={"libraries"}), made_by])[:16]
    return kept_folder(f"{encoder.card.library}-{key}", _whole, write) / _FILE


def _whole(folder: Path) -> bool:
    there = (folder / _FILE).is_file() and (folder / _DIGEST).is_file()
    return there and _digest(folder) == (folder / _DIGEST).read_bytes()


def _digest(folder: Path) -> bytes:
    return json_sha256([file_sha256(path) for path in _files(folder)]).encode()


def _files(folder: Path) -> list[Path]:
    """The file, and the one beside it that holds the weights where they are larger than 2 GB."""
    return [path for path in sorted(folder.glob("*.onnx*")) if path.name != _DIGEST]


def _write(encoder: ImageEncoder, int8: bool, folder: Path) -> None:
    import torch

    from mmsent.encoders.onnx_file import write_onnx
    from mmsent.encoders.towers import image_tower

    size = encoder.card.preprocess.size
    pixels = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    try:
        with torch.inference_mode(False):
            tower = image_tower(encoder, False)
            if sum(4 * weight.numel() for weight in tower.parameters()) > _LARGE:
                tell(f"{encoder.card.name} is converted for other runtimes, once; this may take two minutes")
            write_onnx(tower, (pixels,), ["pixels"], ["image"], folder / _FILE, {})
        if int8:
            _quantize(folder / _FILE, size)
        (folder / _DIGEST).write_bytes(_digest(folder))
    except (MmsentError, OSError):
        raise
    except Exception as error:  # neither the exporter's nor NNCF's errors have a common parent
        raise EncoderError(
            f"{encoder.card.name} cannot be converted for other runtimes ({first_line(error)}); use --runtime torch"
        ) from error


def _quantize(file: Path, size: int) -> None:
    """An ONNX file's weights and activations in int8, in its place."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
    quiet_openvino()
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        crops = nncf.Dataset([{"pixels": crop[None]} for crop in _crops(_CROPS, size, 0)])
        found = nncf.quantize(onnx.load(file), crops, subset_size=_CROPS, preset=nncf.QuantizationPreset.MIXED)
    onnx.save(found, file)


def _crops(count: int, size: int, seed: int) -> Pixels:
    """(count, size, size, 3): squares from scikit-learn's two photographs, at random places and of random sizes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng, found = np.random.default_rng(seed), []
    photographs = load_sample_images().images
    for _ in range(count):
        whole = photographs[rng.integers(len(photographs))]
        side = int(rng.integers(120, min(whole.shape[:2])))
        top, left = (int(rng.integers(length - side + 1)) for length in whole.shape[:2])
        crop = Image.fromarray(whole[top : top + side, left : left + side])
        found.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(found)


def _compare(encoder: ImageEncoder, runtime: str, run: Callable[[Pixels], Embeddings], folder: Path) -> None:
    """Raise EncoderError where a runtime's embeddings are too far from torch's. It is asked once per version and kind
    of processor: a large encoder takes many seconds for it."""
    import torch

    kind, library = torch.backends.cpu.get_cpu_capability().lower(), runtime.removesuffix("-int8")
    version = encoder.card.libraries[library]
    passed = folder / f"{runtime}-{version}-{encoder.card.precision}-{kind}.passed".replace(" ", "")
    if passed.is_file():
        return
    if apart := _angle(encoder, run) if runtime == INT8 else _apart(encoder, run):
        raise EncoderError(f"{encoder.card.name} on {runtime} differs from torch by {apart}; use --runtime torch")
    with contextlib.suppress(OSError):  # somebody else's folder
        passed.touch()


def _own(encoder: Any, pixels: Pixels) -> Embeddings:
    import torch

    with torch.inference_mode():
        found: Embeddings = encoder.features(encoder.prepared(pixels)).numpy()
    return found


def _apart(encoder: ImageEncoder, run: Callable[[Pixels], Embeddings]) -> str:
    """How far the embeddings of noise are from torch's, in words; empty where that is close enough."""
    size = encoder.card.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    own = _own(encoder, pixels)
    worst = float((np.linalg.norm(run(pixels) - own, axis=1) / np.linalg.norm(own, axis=1)).max())
    return "" if worst < APART[encoder.card.precision] else f"{worst:.2g} of the embedding's length"


def _angle(encoder: ImageEncoder, run: Callable[[Pixels], Embeddings]) -> str:
    """How far int8 embeddings are from torch's, in words; empty where that is close enough."""
    pixels = _crops(8, encoder.card.preprocess.size, 1)
    own, found = _own(encoder, pixels), run(pixels)
    mean = float(((own * found).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(found, axis=1)).mean())
    return "" if mean >= _ALIKE else f"a cosine of {mean:.2f} in the mean"
