"""Encoders as ONNX files with the same weights, for other runtimes than torch on the CPU. Where all is converted, torch
is not even imported.

The file is made once per encoder and version of torch (see mmsent.encoders.kept). int8 is calibrated by NNCF on crops
of the two photographs that scikit-learn brings: whoever uses a cache's heads elsewhere gets the same weights, and they
hold nothing of anybody's posts.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, ImageEncoder, TextCard, TextEncoder
from mmsent.encoders.common import versions
from mmsent.encoders.kept import kept_folder
from mmsent.errors import EncoderError, MmsentError, first_line
from mmsent.system.devices import processor
from mmsent.system.hashing import file_sha256, json_sha256
from mmsent.system.process import cores
from mmsent.system.progress import tell

if TYPE_CHECKING:
    from torch import Tensor, nn

INT8 = "openvino-int8"
# Of an embedding's length: converted encoders that are further from torch are refused. 0.04 is a cosine of 0.9992.
APART = {"fp32": 1e-3, "bf16": 0.04}
TURN = threading.Lock()  # torch's exporter fails in two threads at once, and standard output stays redirected
_LARGE = 10**8  # bytes of a file with which a single image is encoded by all threads
_TOGETHER = 16  # texts of similar length in one pass of a small encoder
_FILE, _DIGEST = "encoder.onnx", "encoder.onnx.sha256"
_CROPS = 100  # that int8 is calibrated on
_ALIKE = 0.9  # the least mean cosine of int8 to fp32, on other crops


def start_runtime(encoder: Any, runtime: str) -> Callable[[Any], Embeddings]:
    """Convert an encoder where that was not done yet, and load it; what encodes (B, size, size, 3) bytes or B texts
    then, to (B, D). Call it with TURN held. Raises EncoderError where it cannot be converted or differs from torch."""
    file = _converted(encoder, runtime == INT8)
    load = functools.cache(functools.partial(_load, file, runtime, encoder.card.precision, cores()))
    large = sum(path.stat().st_size for path in _files(file.parent)) > _LARGE
    if isinstance(encoder.card, TextCard):
        run: Callable[[Any], Embeddings] = _a_few_together(load(cores()), encoder.tokens, cores())
    else:
        at_once = cores() if not large else min(cores(), encoder.batch_size) if runtime == "onnxruntime" else 1
        if runtime != "onnxruntime":  # OpenVINO's first calls, in two threads at once, can wait forever
            size = encoder.card.preprocess.size
            load(at_once)(np.zeros((1, size, size, 3), np.uint8))
        run = _each_alone(load, at_once, 1 if large else at_once)
    _compare(encoder, runtime, run, file.parent)
    return run


def _each_alone(
    load: Callable[[int], Callable[[Pixels], Embeddings]], at_once: int, fewer: int
) -> Callable[[Pixels], Embeddings]:
    """Each image of a batch by itself: the bytes depend neither on the batch nor on the number of threads. `at_once`
    images at a time share the threads, so that few wait for a core that another process holds; of a smaller batch
    `fewer`, so that a single image has them all."""
    turn = threading.Lock()  # what is loaded twice takes gigabytes

    def encode(pixels: Pixels) -> Embeddings:
        together = at_once if len(pixels) >= at_once else fewer
        with turn:
            run = load(together)
        with ThreadPoolExecutor(min(together, len(pixels))) as pool:  # not kept: a fork finds no dead threads
            return np.concatenate(list(pool.map(run, np.split(pixels, len(pixels)))))

    return encode


def _a_few_together(
    run: Callable[..., Embeddings], tokens: Callable[[list[str]], Sequence[Sequence[int]]], at_once: int
) -> Callable[[list[str]], Embeddings]:
    """Texts of similar length together, as many parts at a time as there are threads; the bytes do not depend on
    these."""

    def encode(texts: list[str]) -> Embeddings:
        rows = tokens(texts)
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        parts = [order[start : start + _TOGETHER] for start in range(0, len(order), _TOGETHER)]

        def one(part: list[int]) -> Embeddings:
            ids = np.zeros((len(part), len(rows[part[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for place, i in enumerate(part):
                ids[place, : len(rows[i])], mask[place, : len(rows[i])] = rows[i], 1
            return run(ids, mask)

        with ThreadPoolExecutor(min(at_once, len(parts))) as pool:
            found = np.concatenate(list(pool.map(one, parts)))
        return found[np.argsort(order)]

    return encode


def _load(path: Path, runtime: str, precision: str, threads: int, at_once: int) -> Callable[..., Embeddings]:
    """A converted encoder that takes `at_once` images, or parts of texts, at a time on `threads` threads."""
    try:
        if runtime != "onnxruntime":
            hint = "bf16" if precision == "bf16" else "f32"
            options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": at_once}
            model = quiet_openvino().Core().compile_model(str(path), "CPU", options)
            return lambda *given: np.asarray(model.create_infer_request().infer(list(given))[0])
        import onnxruntime

        chosen = onnxruntime.SessionOptions()
        chosen.log_severity_level = 3
        chosen.intra_op_num_threads = max(1, threads // at_once)
        session = onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return lambda *given: np.asarray(session.run(None, dict(zip(names, given, strict=True)))[0])
    except Exception as error:  # neither library's errors have a public parent
        raise EncoderError(f"{path} does not load with {runtime} ({first_line(error)}); remove it") from error


def quiet_openvino() -> Any:
    """The module openvino without its telemetry, which writes into the home folder and has an address to send to."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its absence switches it off
    import openvino

    return openvino


def _converted(encoder: ImageEncoder | TextEncoder, int8: bool) -> Path:
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


def _write(encoder: Any, int8: bool, folder: Path) -> None:
    import torch

    from mmsent.encoders.onnx_file import write_onnx

    try:
        with torch.inference_mode(False):
            tower, given, free = _tower(encoder)
            large = sum(4 * weight.numel() for weight in tower.parameters()) > _LARGE
            takes = "two minutes" if large or int8 else "half a minute"
            tell(f"{encoder.card.name} is converted for other runtimes, once; this may take {takes}")
            write_onnx(tower, tuple(given.values()), list(given), ["features"], folder / _FILE, {}, free)
        if int8:
            _quantize(folder / _FILE, encoder.card.preprocess.size)
        (folder / _DIGEST).write_bytes(_digest(folder))
    except (MmsentError, OSError):
        raise
    except Exception as error:  # neither the exporter's nor NNCF's errors have a common parent
        raise EncoderError(
            f"{encoder.card.name} cannot be converted for other runtimes ({first_line(error)}); use --runtime torch"
        ) from error


def _tower(encoder: Any) -> tuple[nn.Module, dict[str, Tensor], dict[int, Any]]:
    """An encoder as a module, an example of what it is given, and which axes are free: an image is always alone."""
    import torch

    from mmsent.encoders.onnx_file import ROWS
    from mmsent.encoders.towers import SentenceTower, image_tower

    if isinstance(encoder.card, TextCard):
        ids = torch.ones((2, 5), dtype=torch.int64)
        free = ROWS | {1: torch.export.Dim("tokens", min=2, max=encoder.card.max_tokens)}
        return SentenceTower(encoder.fp32_model, False).eval(), {"ids": ids, "mask": ids.clone()}, free
    size = encoder.card.preprocess.size
    return image_tower(encoder, False), {"pixels": torch.zeros((1, size, size, 3), dtype=torch.uint8)}, {}


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


def _compare(encoder: Any, runtime: str, run: Callable[[Any], Embeddings], folder: Path) -> None:
    """Raise EncoderError where a runtime's embeddings are too far from torch's. It is asked once per version and kind
    of processor: a large encoder takes many seconds for it."""
    version = encoder.card.libraries[runtime.removesuffix("-int8")]
    passed = folder / f"{runtime}-{version}-{encoder.card.precision}-{processor().lower()}.passed".replace(" ", "")
    if passed.is_file():
        return
    if apart := _angle(encoder, run) if runtime == INT8 else _apart(encoder, run):
        raise EncoderError(f"{encoder.card.name} on {runtime} differs from torch by {apart}; use --runtime torch")
    with contextlib.suppress(OSError):  # somebody else's folder
        passed.touch()


def _own(encoder: Any, given: Any) -> Embeddings:
    """What torch makes of images or texts."""
    import torch

    with torch.inference_mode():
        if isinstance(encoder.card, TextCard):
            found: Embeddings = encoder.features_of(*encoder.batch(encoder.tokens(given))).numpy()
        else:
            found = encoder.features(encoder.prepared(given)).numpy()
    return found


def _apart(encoder: Any, run: Callable[[Any], Embeddings]) -> str:
    """How far the embeddings of noise, or of a few words, are from torch's, in words; empty where that is close
    enough."""
    given: Any = ["a day", "", "one two three " * 20]
    if not isinstance(encoder.card, TextCard):
        size = encoder.card.preprocess.size
        given = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    own = _own(encoder, given)
    worst = float((np.linalg.norm(run(given) - own, axis=1) / np.linalg.norm(own, axis=1)).max())
    return "" if worst < APART[encoder.card.precision] else f"{worst:.2g} of the embedding's length"


def _angle(encoder: ImageEncoder, run: Callable[[Pixels], Embeddings]) -> str:
    """How far int8 embeddings are from torch's, in words; empty where that is close enough."""
    pixels = _crops(8, encoder.card.preprocess.size, 1)
    own, found = _own(encoder, pixels), run(pixels)
    mean = float(((own * found).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(found, axis=1)).mean())
    return "" if mean >= _ALIKE else f"a cosine of {mean:.2f} in the mean"
