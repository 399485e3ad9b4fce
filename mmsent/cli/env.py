"""`mmsent env`: what a bug report needs, and nothing private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from mmsent.cli.options import Json, Only
from mmsent.cli.output import echo, echo_json, outline
from mmsent.cli.workspace import Workspace

# Settings from the environment that change what mmsent does; anything else, and what proxies are called, is private.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "GOMP_SPINCOUNT",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "MMSENT_DATA",
    "MMSENT_CACHE",
    "MMSENT_RUNS",
    "MMSENT_ENCODER",
    "MMSENT_DEVICE",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    "PYTHONUTF8",
    "LC_ALL",
    "LANG",
)
# Instruction sets that decide which kernels run and whether bf16 is native.
FLAGS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "sve", "bf16")


def env(where: Annotated[Workspace, Only("cache_at", "runs_at")], json: Json = False) -> None:
    """Print what a bug report needs.

    Versions, processor, devices, threads, which encoders' weights are on this machine, and the folders of caches and
    runs. Loads no model, asks no network, writes nothing; your home folder is shown as ~.
    """
    facts = environment_facts(where.cache_at, where.runs_at)
    echo_json(facts) if json else echo(outline(facts))


def environment_facts(cache: Path, runs: Path) -> dict[str, Any]:
    """All that `mmsent env` prints, as plain values. Paths below the home folder begin with ~."""
    import torch

    from mmsent.config import PRESETS
    from mmsent.encoders.availability import presence
    from mmsent.system import provenance

    machine = provenance.machine("cpu")
    machine.pop("device")
    return {
        "versions": provenance.versions(),
        "code": provenance.code() | {"folder": private(provenance.PACKAGE)},
        "machine": machine | {"cpu_flags": _cpu_flags(), "memory_gb": _memory()},
        "devices": {
            "cpu": "yes",
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or "none",
            "mps": "yes" if torch.backends.mps.is_available() else "none",
        },
        "environment": {name: private(os.environ[name]) for name in VARIABLES if name in os.environ},
        "encoders": {preset: presence(preset) for preset in PRESETS},
        "folders": {"cache": _caches(cache), "runs": _runs(runs)},
    }


def private(path: Path | str) -> str:
    """A path or text with the home folder as ~, for it often holds the user's name."""
    text, home = str(path), os.path.expanduser("~")  # stays ~ for a user without a home
    return text if home in ("", os.sep) else text.replace(home, "~")


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            has = set(value.split())
            return [flag for flag in FLAGS if flag in has]
    return []


def _memory() -> float | None:
    from mmsent.system.process import memory

    allowed = memory()
    return round(allowed / 1e9, 1) if allowed else None


def _caches(where: Path) -> dict[str, Any]:
    from mmsent.features.cache.finding import list_caches

    folder = where.parent if where.is_file() else where
    files = sorted(folder.glob("*.h5")) if folder.is_dir() else []
    readable = list_caches(folder) if folder.is_dir() else []
    return {
        "path": private(where),
        "files": len(files),
        "unreadable": len(files) - len(readable),
        "unfinished": len(list(folder.glob("*.h5.journal"))) if folder.is_dir() else 0,
        "caches": [f"{c.encoder} {c.fingerprint[:8]} {c.rows}" for c in readable],
    }


def _runs(folder: Path) -> dict[str, Any]:
    from mmsent.training.runs import list_runs

    entries = [p for p in folder.iterdir() if (p / "run.json").is_file()] if folder.is_dir() else []
    return {"path": private(folder), "runs": len(entries), "unreadable": len(entries) - len(list_runs(folder))}
