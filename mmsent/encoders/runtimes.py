"""Image encoders on other runtimes than torch: the same weights as an ONNX file, on the CPU, in fp32 or int8.

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
from mmsent.system.devices import pick_device
from mmsent.system.hashing import file_sha256, json_sha256

APART = 1e-3  # of an embedding's length: converted encoders that are further from torch are refused
# The encoders, and the processors by what torch calls them, on which the runtimes were timed; the fastest first.
_TIMED = "efficientnet-lite2"
_FASTEST = {"AVX512": ("onnxruntime", "openvino"), "AVX2": ("openvino", "onnxruntime")}
_FILE, _DIGEST = "image.onnx", "image.onnx.sha256"
INT8 = "openvino-int8"
_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino", INT8: "int8"}
_CROPS = 100  # that int8 is calibrated on
_ALIKE = 0.9  # the least mean cosine of int8 to fp32, on other crops


def with_runtime(settings: EncoderSettings) -> EncoderSettings:
    """The settings with the runtime that `auto` means here: of those installed the one that was fastest for these
    images on this kind of processor (docs/benchmarks.md), torch where nothing was timed."""
    if settings.runtime != "auto":
        return settings
    return settings.model_copy(update={"runtime": _fastest(settings)})


def usable(runtime: str, device: str | None) -> str:
    """A cache's runtime where it can be used for more of its posts, else torch, whose features differ by rounding."""
    on_cpu = device in (None, "auto", "cpu")
    by_rounding = runtime in _EXTRAS and runtime != INT8
    return "torch" if by_rounding and not (on_cpu and not _missing(runtime)) else runtime


def _fastest(settings: EncoderSettings) -> str:
    timed = all(spec.name == _TIMED for spec in parts_of(specs(settings)[0])) and settings.precision in ("auto", "fp32")
    there = [name for name in _EXTRAS if not _missing(name)]
    if not (timed and there) or pick_device(settings.device) != "cpu":
        return "torch"
    import torch

    order = _FASTEST.get(torch.backends.cpu.get_cpu_capability(), ())
    return next((name for name in order if name in there), "torch")


def _missing(runtime: str) -> list[str]:
    own = ("openvino", "nncf") if runtime == INT8 else (runtime,)
    return [name for name in (*own, "onnx", "onnxscript") if importlib.util.find_spec(name) is None]


def run_on(encoder: Any, runtime: str) -> ImageEncoder:
    """A timm or open_clip image encoder that computes on `runtime` (a key of _EXTRAS) from now on; nothing is
    loaded yet. Raises UsageError where its packages are missing or the encoder is not one in fp32 on a CPU."""
    for needed in _missing(runtime):
        raise UsageError(f"--runtime {runtime} needs the package {needed}: pip install 'mmsent[{_EXTRAS[runtime]}]'")
    if encoder.card.precision != "fp32":
        raise UsageError(f"--runtime {runtime} takes fp32 weights; leave --precision out")
    new: dict[str, Any] = {"precision": "int8"} if runtime == INT8 else {}
    own = versions("openvino", "nncf") if runtime == INT8 else versions(runtime)
    encoder.card = encoder.card.model_copy(update=new | {"libraries": encoder.card.libraries | own})
    encoder.on_runtime = functools.cache(lambda: _started(encoder, runtime))
    found: ImageEncoder = encoder
    return found


def _started(encoder: ImageEncoder, runtime: str) -> Callable[[Pixels], Embeddings]:
    from mmsent.system.process import cores

    one = _load(_converted(encoder, runtime == INT8), runtime, cores())
    size = encoder.card.preprocess.size
    one(np.zeros((1, size, size, 3), np.uint8))  # the first calls of OpenVINO, in two threads at once, can wait forever
    run = _each_alone(one, cores())
    apart = _angle(encoder, run) if runtime == INT8 else _apart(encoder, run)
    if apart:
        raise EncoderError(f"{encoder.card.name} on {runtime} differs from torch by {apart}; use --runtime torch")
    return run


def _each_alone(run: Callable[[Pixels], Embeddings], threads: int) -> Callable[[Pixels], Embeddings]:
    """Each image of a batch by itself on a thread of its own: nothing waits for a core that another process holds, and
    the bytes depend neither on the batch nor on the number of threads."""

    def encode(pixels: Pixels) -> Embeddings:
        with ThreadPoolExecutor(min(threads, len(pixels))) as pool:  # not kept, so that a fork finds no dead threads
            return np.concatenate(list(pool.map(run, np.split(pixels, len(pixels)))))

    return encode


def _load(path: Path, runtime: str, threads: int) -> Callable[[Pixels], Embeddings]:
    try:
        if runtime != "onnxruntime":
            openvino = quiet_openvino()
            options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
            model = openvino.Core().compile_model(str(path), "CPU", options)
            return lambda pixels: np.asarray(model.create_infer_request().infer([pixels])[0])
        import onnxruntime

        chosen = onnxruntime.SessionOptions()
        chosen.log_severity_level = 3
        chosen.intra_op_num_threads = 1
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
    return there and file_sha256(folder / _FILE).encode() == (folder / _DIGEST).read_bytes()


def _write(encoder: ImageEncoder, int8: bool, folder: Path) -> None:
    import torch

    from mmsent.encoders.onnx_file import write_onnx
    from mmsent.encoders.towers import image_tower

    size = encoder.card.preprocess.size
    pixels = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    try:
        with torch.inference_mode(False):
            write_onnx(image_tower(encoder, False), (pixels,), ["pixels"], ["image"], folder / _FILE, {})
        if int8:
            _quantize(folder / _FILE, size)
        (folder / _DIGEST).write_bytes(file_sha256(folder / _FILE).encode())
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
    return "" if worst < APART else f"{worst:.2g} of the embedding's length"


def _angle(encoder: ImageEncoder, run: Callable[[Pixels], Embeddings]) -> str:
    """How far int8 embeddings are from torch's, in words; empty where that is close enough."""
    pixels = _crops(8, encoder.card.preprocess.size, 1)
    own, found = _own(encoder, pixels), run(pixels)
    mean = float(((own * found).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(found, axis=1)).mean())
    return "" if mean >= _ALIKE else f"a cosine of {mean:.2f} in the mean"
