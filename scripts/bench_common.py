"""What the benchmarks share: the machine's name, tables, a matrix-product rate, peak memory."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mmsent.system.process import tune_process

# As the command line does it, and before torch: the benchmarks measure what users get, for both sides alike.
tune_process()


def machine() -> None:
    """Print what was measured on what: processor, cores, versions, command."""
    import torch

    names = ("torch", "numpy", "scikit-learn", "open_clip_torch", "timm", "sentence-transformers", "mmsent")
    print(
        f"{processor()} ({kind_of_processor()}), {torch.get_num_threads()} threads; python {platform.python_version()}",
        end="",
    )
    print("".join(f", {name} {metadata.version(name)}" for name in names))
    print("command: python " + " ".join([f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]))


def processor() -> str:
    """The processor's or the GPU's name."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def kind_of_processor() -> str:
    """The vector instructions that torch uses, and whether it multiplies bf16 numbers in hardware."""
    import torch

    from mmsent.system.devices import cpu_multiplies_bf16

    return torch.backends.cpu.get_cpu_capability() + (" with bf16" if cpu_multiplies_bf16() else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, ready for docs/benchmarks.md."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def product_rate(m: int, k: int, n: int, dtype: str, device: str = "cpu", seconds: float = 1.0) -> float:
    """FLOP/s of (m, k) @ (k, n) in a dtype, best of several bursts."""
    import torch

    a = torch.randn(m, k, device=device).to(getattr(torch, dtype))
    b = torch.randn(n, k, device=device).to(getattr(torch, dtype)).T
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = max(best, 8 * m * k * n / (time.perf_counter() - started))
    return best


def peak_bytes() -> int:
    """Largest resident memory of this process so far. The kernel's VmHWM where there is one: getrusage also counts what
    the parent held when it started this process."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
