"""The rules that keep the code livable: imports go one way, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mmsent"

# A module imports only from those above it.
ORDER = [
    "mmsent",
    "errors",
    "packed",
    "posts",
    "process",
    "files",
    "config",
    "tables",
    "progress",
    "spreadsheet",
    "text",
    "lists",
    "dataset",
    "corrections",
    "split",
    "images",
    "duplicates",
    "check",
    "prepare",
    "views",
    "encoders",
    "fingerprint",
    "journal",
    "damage",
    "cache",
    "caches",
    "provenance",
    "batches",
    "pipeline",
    "engine",
    "units",
    "extract",
    "cache_tools",
    "grouping",
    "metrics",
    "calibration",
    "heads",
    "rows",
    "train",
    "estimator",
    "runs",
    "openings",
    "fit",
    "committee",
    "inference",
    "twins",
    "vote",
    "evaluate",
    "replay",
    "folds",
    "stacked",
    "sweep",
    "audit",
    "predict",
    "card",
    "hub",
    "onnx_runtime",
    "voting_graph",
    "onnx_export",
    "given",
    "feature_cache",
    "api",
    "figures",
    "explain",
    "study",
    "report",
    "drawing",
    "drawn",
    "quickstart",
    "serve",
    "distributed",
    "commands",
    "cli",
    "__main__",
]
ONLY_IN = {
    "h5py": {"cache"},
    "sqlite3": {"journal"},
    "open_clip": {"encoders"},
    "timm": {"encoders"},
    "sentence_transformers": {"encoders"},
    "typer": {"cli"},
    "imagehash": {"duplicates"},
    "cleanlab": {"audit"},
    "pandas": {"feature_cache"},
    "onnx": {"onnx_export"},
    "onnxscript": {"onnx_export"},
    "onnxruntime": {"onnx_runtime", "onnx_export"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "prometheus_client": {"serve"},
    "python_multipart": {"serve"},
    "optuna": {"sweep"},
    "ray": {"distributed", "sweep"},
    "vaderSentiment": {"encoders"},
    "pickle": set(),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """The first part of a module's name below mmsent; the package itself is `mmsent`."""
    return "mmsent" if path == PACKAGE / "__init__.py" else path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module == "mmsent" else {node.module}
    return found


def own(name: str) -> str | None:
    """The mmsent module behind an imported name, by its first part below mmsent."""
    parts = name.split(".")
    if parts[0] != "mmsent":
        return None
    known = {module_name(path) for path in modules()}
    return parts[1] if len(parts) > 1 and parts[1] in known else "mmsent"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = module_name(path)
    assert here in ORDER, f"{here} is new: give it a place in ORDER"
    if here == "mmsent":
        return  # the package names what it hands out, and imports it at first use; the last test here holds that
    for name in imports(path):
        target = own(name)
        if target is not None and target != here:
            assert ORDER.index(target) < ORDER.index(here), f"{here} imports {target}, which stands below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_modules(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        if library in ONLY_IN:
            assert module_name(path) in ONLY_IN[library], f"{library} is imported in {module_name(path)}"


def test_no_order_entry_is_stale() -> None:
    assert {module_name(path) for path in modules()} == set(ORDER)


@pytest.mark.parametrize("code", ["import mmsent", "import mmsent.cli", "import mmsent.commands"])
def test_light_imports_load_no_torch(code: str) -> None:
    heavy = "[m for m in ('torch', 'open_clip', 'timm', 'h5py', 'sklearn', 'transformers') if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
