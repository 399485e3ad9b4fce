"""Which device and which precision to compute with."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmsent.errors import UsageError, first_line

if TYPE_CHECKING:
    import torch


def pick_device(device: str) -> str:
    """The torch device that `auto` means here, or the device itself. Raises UsageError if it is not available."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} cannot be used here: {first_line(error)}") from error
    return device


def half_precision_for(device: str) -> str:
    """The fastest precision that keeps a vision transformer's embeddings (cosine >= 0.999): bf16 where native."""
    import torch

    if device.startswith("cuda"):
        with torch.cuda.device(device):  # the chosen one of several; before Ampere bf16 is only emulated, and slow
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "fp32"
    return "fp32"


@functools.cache
def processor() -> str:
    """The kind of processor, as torch calls it: AVX512, AVX2 or another name. Linux is asked itself, without torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = set(next(line for line in lines if line.startswith("flags")).split())
    except (OSError, StopIteration):
        import torch

        return str(torch.backends.cpu.get_cpu_capability())
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"} <= flags:
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags else "DEFAULT"


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has instructions for products of bf16 numbers."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def torch_dtype(precision: str) -> torch.dtype:
    """The torch dtype of `fp32`, `bf16` or `fp16`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


_TURN = threading.Lock()
_inside: list[tuple[bool, bool]] = []  # one for each thread that wants TF32 off: how the caller had it


@contextmanager
def without_tf32(device: str) -> Iterator[None]:
    """fp32 as such on a CUDA device, whose convolutions would otherwise round to TF32's 10 bits. The process's switches
    come back when the last of several threads has left."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    with _TURN:
        _inside.append(_inside[0] if _inside else (products.allow_tf32, convolutions.allow_tf32))
        products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        with _TURN:
            before = _inside.pop()
            if not _inside:
                products.allow_tf32, convolutions.allow_tf32 = before
