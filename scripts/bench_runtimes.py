"""One image encoder on every runtime that is installed, and through torch.compile, beside torch as it is.

    python scripts/bench_runtimes.py                                  # offline: EfficientNet-Lite2, batches of 16
    python scripts/bench_runtimes.py ViT-L-14-336-quickgelu           # of open_clip, random weights, batches of 4
    python scripts/bench_runtimes.py ViT-B-32 --precision bf16        # by default fp32, as with AVX2 alone
    python scripts/bench_runtimes.py --short                          # a few seconds, for CI

The median of alternating rounds on pixels that are ready, each runtime as `mmsent extract --runtime` uses it. ONNX
Runtime has no bf16 on a CPU and stays in fp32. torch.compile takes minutes; --no-compile leaves it out.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_common import machine, table

from mmsent.config import EncoderSettings
from mmsent.encoders.common import normalized
from mmsent.encoders.factory import open_encoders
from mmsent.system.devices import cpu_multiplies_bf16, torch_dtype
from mmsent.system.process import tune_process

OFFLINE = "offline"


def made_weights(arch: str, folder: Path) -> Path:
    """Random weights of an open_clip architecture in a file, as people have theirs."""
    import open_clip

    torch.manual_seed(0)
    file = folder / "weights.pt"
    torch.save(open_clip.create_model(arch, pretrained=None).state_dict(), file)
    return file


def opened(name: str, weights: Path | None, runtime: str, precision: str) -> Any:
    chosen: dict[str, Any] = {"encoder": name, "precision": precision if name != OFFLINE else "auto"}
    if weights is not None:
        chosen |= {"encoder": f"open_clip:{name}", "weights": str(weights)}
        if runtime == "onnxruntime":
            chosen["precision"] = "fp32"
    return open_encoders(EncoderSettings.model_validate(chosen | {"runtime": runtime, "device": "cpu"})).image


def compiled(encoder: Any) -> Callable[[Any], Any]:
    """A torch encoder through torch.compile."""
    model = torch.compile(encoder.clip.model.encode_image if hasattr(encoder, "clip") else encoder.model)

    def encode(pixels: Any) -> Any:
        with torch.inference_mode():
            x = normalized(pixels, encoder.card.preprocess, "cpu", torch_dtype(encoder.card.precision))
            return model(x).float().numpy()

    return encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", default=OFFLINE, help="offline, or an open_clip architecture")
    parser.add_argument("--batch", type=int, help="by default 16 of offline, 4 of open_clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32", help="of open_clip")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.short:
        given.rounds, given.batch, given.no_compile = 1, 4, True
    tune_process()
    machine()
    logging.disable(logging.WARNING)  # that the weights are random is the point
    batch = given.batch or (16 if given.encoder == OFFLINE else 4)
    with tempfile.TemporaryDirectory() as folder:
        weights = None if given.encoder == OFFLINE else made_weights(given.encoder, Path(folder))
        plain = opened(given.encoder, weights, "torch", given.precision)
        towers: dict[str, Callable[[Any], Any]] = {f"torch, {plain.card.precision}": plain.encode}
        if not given.no_compile:
            towers[f"torch.compile, {plain.card.precision}"] = compiled(plain)
        for runtime in ("onnxruntime", "openvino"):
            lacks_bf16 = runtime == "openvino" and given.precision == "bf16" and not cpu_multiplies_bf16()
            if lacks_bf16 or find_spec(runtime) is None:
                continue
            encoder = opened(given.encoder, weights, runtime, given.precision)
            towers[f"{runtime}, {encoder.card.precision}"] = encoder.encode
        size = plain.card.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        wanted = opened(given.encoder, weights, "torch", "fp32").encode(pixels)
        took: dict[str, list[float]] = {name: [] for name in towers}
        alike: dict[str, float] = {}
        for _ in range(given.rounds + 1):  # the first warms up
            for name, encode in towers.items():
                started = time.perf_counter()
                found = encode(pixels)
                took[name].append(1e3 * (time.perf_counter() - started) / batch)
                norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
                alike[name] = float(((found * wanted).sum(axis=1) / norms).min())
                if took[name][-1] > 500:
                    print(f"  {name}: {took[name][-1]:.0f} ms per image", flush=True)
    middle = {name: statistics.median(values[1:]) for name, values in took.items()}
    first = next(iter(middle.values()))
    print(f"\n{given.encoder}, batches of {batch}, median of {given.rounds}")
    rows = [["", "ms per image", "to torch", "least", "most", "cosine to fp32"]]
    for name, ms in middle.items():
        spread = [f"{edge(took[name][1:]):.1f}" for edge in (min, max)]
        rows.append([name, f"{ms:.1f}", f"{ms / first:.2f}", *spread, f"{alike[name]:.5f}"])
    print(table(rows))


if __name__ == "__main__":
    main()
