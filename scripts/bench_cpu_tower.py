"""CLIP's picture tower on a CPU: mmsent's own blocks beside open_clip's, torch.compile and, where they are installed,
OpenVINO and ONNX Runtime, on the same random weights.

    python scripts/bench_cpu_tower.py                     # ViT-L-14-336-quickgelu, batches of 4, bf16
    python scripts/bench_cpu_tower.py --precision fp32    # as on processors with AVX2 alone
    python scripts/bench_cpu_tower.py --short             # ViT-B-32, a few seconds, for CI

One line per part, the median of alternating rounds: first whole towers, then the attention of one layer. ONNX Runtime
has no bf16 on a CPU and stays in fp32.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from bench_common import machine, table
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from mmsent.encoders import cpu_tower
from mmsent.encoders.clip_model import fold_quickgelu

SLOW = 1000  # ms after which a single run is told


def median_ms(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of each part; a first round, which warms up, is left out."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, run in parts.items():
                started = time.perf_counter()
                run()
                found[name].append(1e3 * (time.perf_counter() - started))
                if found[name][-1] > SLOW:
                    print(f"  {name}: {found[name][-1] / 1e3:.1f} s", flush=True)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def in_chunks(q: Any, k: Any, v: Any, heads: int) -> Any:
    kept, cpu_tower.SCORES_AT_ONCE = cpu_tower.SCORES_AT_ONCE, heads * q.shape[1] * k.shape[1]
    try:
        return cpu_tower.attention(q, k, v)
    finally:
        cpu_tower.SCORES_AT_ONCE = kept


def on_runtimes(model: Any, x: Any, folder: Path, bf16: bool) -> dict[str, Callable[[Any], Any]]:
    """The image tower on OpenVINO and ONNX Runtime, where they are installed."""
    from mmsent.encoders.onnx_file import write_onnx
    from mmsent.encoders.runtimes import quiet_openvino

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Any) -> Any:
            return self.model.encode_image(images)

    file, threads, found = folder / "tower.onnx", torch.get_num_threads(), {}
    write_onnx(Tower().eval(), (x[:2],), ["images"], ["image"], file, {})
    if importlib.util.find_spec("openvino"):
        core = quiet_openvino().Core()
        options = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = core.compile_model(str(file), "CPU", options)
        found["openvino"] = lambda images: torch.from_numpy(compiled([images.float().numpy()])[0])
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        chosen = onnxruntime.SessionOptions()
        chosen.intra_op_num_threads, chosen.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(str(file), chosen, providers=["CPUExecutionProvider"])
        found["onnxruntime, fp32"] = lambda images: torch.from_numpy(
            session.run(None, {"images": images.float().numpy()})[0]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="ViT-L-14-336-quickgelu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.short:
        given.arch, given.rounds = "ViT-B-32-quickgelu", 1
    machine()
    logging.disable(logging.WARNING)  # that the weights are random is the point
    torch.manual_seed(0)
    model = open_clip.create_model(given.arch, pretrained=None).eval().requires_grad_(False)
    size = model.visual.image_size[0]
    x = torch.randn(given.batch, 3, size, size)
    with torch.inference_mode():
        wanted = model.encode_image(x)
    with tempfile.TemporaryDirectory() as folder:
        others = on_runtimes(model, x, Path(folder), given.precision == "bf16")
        compare(given, model, x, wanted, others)


def compare(given: Any, model: Any, x: Any, wanted: Any, others: dict[str, Callable[[Any], Any]]) -> None:
    """Print the tables."""
    kind = torch.bfloat16 if given.precision == "bf16" else torch.float32
    fold_quickgelu(model)
    model = model.to(kind).to(memory_format=torch.channels_last)
    x = x.to(kind).to(memory_format=torch.channels_last)
    quick = cpu_tower.quick_tower(model)
    assert quick is not None, f"{given.arch} has no plain vision transformer"
    packing, cpu_tower._packed = cpu_tower._packed, lambda weight: None
    unpacked = cpu_tower.quick_tower(model)
    assert unpacked is not None
    cpu_tower._packed = packing
    towers: dict[str, Any] = {"open_clip": model.encode_image, "mmsent": quick, "mmsent, unpacked": unpacked}
    if not given.short:
        towers["torch.compile"] = torch.compile(model.encode_image)
    towers |= others
    found = median_ms({name: (lambda run=run: run(x)) for name, run in towers.items()}, given.rounds)
    rows = [["", "ms a batch", "to open_clip", "cosine to fp32"]]
    with torch.inference_mode():
        for name, run in towers.items():
            like = float(cosine_similarity(run(x).float(), wanted).min())
            rows.append([name, f"{found[name]:.0f}", f"{found[name] / found['open_clip']:.2f}", f"{like:.5f}"])
    print(f"\n{given.arch}, batches of {given.batch}, {given.precision}")
    print(table(rows))

    block: Any = model.visual.transformer.resblocks[0]
    heads, tokens = block.attn.num_heads, int(model.visual.positional_embedding.shape[0])
    width = block.attn.embed_dim // heads
    n = given.batch * heads
    q, k, v = (torch.randn(n, tokens, width, dtype=kind) for _ in range(3))
    parts: dict[str, Callable[[], Any]] = {
        f"{at} heads at a time": lambda at=at: in_chunks(q, k, v, at) for at in (1, 2, 4, 8, n)
    }
    four = [one.view(given.batch, heads, tokens, width) for one in (q, k, v)]
    parts["scaled_dot_product_attention"] = lambda: scaled_dot_product_attention(*four)
    found = median_ms(parts, 3 * given.rounds)
    print(f"\nattention of one layer: {n} heads of {tokens} tokens, {width} wide")
    print(table([["", "ms"], *([name, f"{value:.1f}"] for name, value in found.items())]))


if __name__ == "__main__":
    main()
