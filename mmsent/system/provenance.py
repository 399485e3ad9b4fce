"""Where numbers come from: the versions, the machine, the code and the data behind a cache or a run, and how two such
records differ. Records are plain JSON; values that an older mmsent did not write read as NOT_RECORDED.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mmsent.system.process import cores
from mmsent.version import __version__

NOT_RECORDED = "not recorded"
PACKAGE = Path(__file__).parent.parent
# Libraries that may change numbers or explain errors; those that are not installed are left out.
LIBRARIES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "h5py",
    "pillow",
)
# These choose the kernels and so change the low bits; torch tells the number of threads.
KERNEL_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "CUBLAS_WORKSPACE_CONFIG")
# Facts of a machine that cannot change numbers: shown to people, not compared.
SHOWN_ONLY = {"platform", "cores"}

Kind = Literal["settings", "data", "cache", "versions", "code", "machine"]


@dataclass(frozen=True)
class Difference:
    """One difference from a record: its kind and name, the value then and now."""

    kind: Kind
    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name} {self.then} -> {self.now}"

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


def versions() -> dict[str, str]:
    """The versions of mmsent, Python and every installed library of LIBRARIES, without importing them."""
    found = {"mmsent": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine(device: str | None = None) -> dict[str, Any]:
    """The facts of this machine that change numbers: processor, vector instructions, threads, torch's build and its
    BLAS; for a CUDA device the card, CUDA and cuDNN. torch is only used if it is already loaded."""
    facts: dict[str, Any] = {"platform": platform.platform(), "cpu": _cpu(), "cores": cores()}
    on_gpu = device is not None and device.startswith("cuda")
    named = [name for name in KERNEL_VARIABLES if on_gpu or not name.startswith("CUBLAS")]
    facts["environment"] = {name: os.environ[name] for name in named if name in os.environ}
    if "torch" not in sys.modules:
        return facts
    import torch

    built = torch.__config__.show()
    facts |= {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch_build": f"{torch.__version__} {(torch.version.git_version or '')[:12]}".strip(),
        "blas": _blas(built),
        "onednn": _named(built, "MKL-DNN"),
    }
    if device is not None:
        facts["device"] = device.partition(":")[0]
        if on_gpu:
            facts["tf32"] = False  # encoders switch it off, see mmsent.system.devices.without_tf32
            facts["gpu"] = torch.cuda.get_device_name(device)
            facts["cuda"] = torch.version.cuda
            facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def _cpu() -> str:
    """The processor's name with family, model and stepping."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or platform.machine()
    number = "/".join(fields[key] for key in ("cpu family", "model", "stepping") if key in fields)
    return f"{name} ({number})" if number else name


def _blas(built: str) -> str:
    """The library of matrix products, by torch's description of itself."""
    name = _named(built, "BLAS_INFO=") or "unknown"
    version = _named(built, "Math Kernel Library Version") if name == "mkl" else None
    return f"{name} {version}" if version else name


def _named(text: str, mark: str) -> str | None:
    """The text after a mark, up to a comma, a bracket or a build."""
    if mark not in text:
        return None
    return re.split(r",|\(|-Product| Build|\n", text.split(mark, 1)[1], maxsplit=1)[0].strip()


@functools.cache
def code() -> dict[str, Any]:
    """sha256: over the names and bytes of mmsent's modules; commit: of a git checkout, with `modified` if the
    modules differ from it."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: p.relative_to(PACKAGE).as_posix()):
        name, content = path.relative_to(PACKAGE).as_posix().encode(), path.read_bytes()
        digest.update(b"%d %s %d\n" % (len(name), name, len(content)) + content)
    found: dict[str, Any] = {"sha256": digest.hexdigest()}
    # An installed package may be inside another repository, so git must know its files.
    if _git("ls-files", "--error-unmatch", "--", "__init__.py") and (commit := _git("rev-parse", "HEAD")):
        found["commit"] = commit
        found["modified"] = bool(_git("status", "--porcelain", "--", "."))
    return found


def _git(*arguments: str) -> str:
    """The output of git for the package's folder; empty if git fails or is not installed."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=10, env=quiet, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(device: str | None = None) -> dict[str, Any]:
    """Command, versions, machine and code of this process."""
    return {"command": command(), "versions": versions(), "machine": machine(device), "code": code()}


def command() -> list[str]:
    """The words of this process's command, without passwords."""
    return [without_passwords(word) for word in sys.argv]


def without_passwords(word: str) -> str:
    """A word of a command line without the password of a URL in it."""
    return re.sub(r"(//[^/:@]*:)[^@]*@|(\bpassword=)[^&]*", lambda found: _hidden(*found.groups()), word)


def _hidden(user: str | None, query: str | None) -> str:
    return f"{user}***@" if user is not None else f"{query}***"


# --- comparison


def recorded(record: Mapping[str, Any], name: str, otherwise: str = NOT_RECORDED) -> str:
    """A value of a record for people; `otherwise` if there is none, for example in a record of an older mmsent."""
    value = record.get(name)
    return otherwise if value is None else _shown(value)


def origin(record: Mapping[str, Any]) -> dict[str, str]:
    """Machine, code and data of a run's or an extraction's record, one line each for people."""
    where, made, rows = (record.get(name) or {} for name in ("machine", "code", "data"))
    kernel = ", ".join(recorded(where, name) for name in ("cpu", "gpu", "cpu_capability", "blas") if where.get(name))
    threads = f", {where['threads']} threads" if where.get("threads") else ""
    commit = (
        f", commit {made['commit'][:12]}{' (modified)' if made.get('modified') else ''}" if "commit" in made else ""
    )
    digests = ", ".join(f"{name} {rows[name][:12]}" for name in ("ids", "labels", "contents") if name in rows)
    return {
        "machine": kernel + threads if where else NOT_RECORDED,
        "code, SHA-256": made["sha256"][:16] + "…" + commit if made else NOT_RECORDED,
        "data, SHA-256": digests or NOT_RECORDED,
    }


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) in (40, 64) and set(value) <= set("0123456789abcdef"):
        return value[:12]  # a digest or a commit
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def differences(kind: Kind, then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[Difference]:
    """The differences of two flat records of one kind. then None: one difference, that nothing was recorded."""
    if then is None:
        return [Difference(kind, kind, NOT_RECORDED, "known")]
    known = [n for n in {**then, **now} if kind != "machine" or n not in SHOWN_ONLY]
    found = [
        Difference(kind, name, _shown(then[name]), recorded(now, name, "none"))
        for name in known
        if then.get(name) is not None and then[name] != now.get(name)
    ]
    if absent := [name for name in known if then.get(name) is None and now.get(name) is not None]:
        found.append(Difference(kind, ", ".join(absent), NOT_RECORDED, "known"))
    return found
