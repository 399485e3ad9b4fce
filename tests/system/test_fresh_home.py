"""Every command under a fresh HOME: what appears there is listed, and nothing of a library's telemetry is among it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.made import make_guid

ENCODER = ("--data", "data", "--encoder", "offline")
COMMANDS = (
    ("check", *ENCODER),
    ("extract", *ENCODER, "--views", "0"),
    ("fit", "--data", "data", "--fusion", "vote", "--epochs", "2"),
    ("evaluate", "--data", "data"),
    ("vote", "--data", "data"),
    ("predict", "--data", "data", "--text", "a happy day", "--image", "data/data/1.jpg"),
    ("explain", "--data", "data", "--text", "a happy day", "--image", "data/data/1.jpg"),
    ("fit", "--data", "data", "--folds", "3", "--epochs", "2"),
    ("audit", "--data", "data"),
    ("sweep", "--data", "data", "--trials", "1", "--workers", "1"),
    ("report", "--data", "data"),
    ("export", "--data", "data"),
    ("export", "--data", "data", "--format", "hf", "--out", "hub"),
    ("cache", "ls"),
    ("cache", "verify", "--data", "data"),
    ("env",),
)
# What is kept for the next time and says nothing to anyone: the converted encoder, and matplotlib's list of fonts.
KEPT = (".cache/mmsent", ".cache/matplotlib", ".config/matplotlib")


@pytest.mark.slow
def test_no_command_leaves_anything_in_a_fresh_home(tmp_path: Path) -> None:
    work, home, temporary = (tmp_path / name for name in ("work", "home", "temporary"))
    for folder in (work, home, temporary):
        folder.mkdir()
    make_guid(work / "data")
    before = set((work / "data").rglob("*"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "HF_", "ORT_", "RAY_", "MPL"))}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    for command in COMMANDS:
        run = subprocess.run(
            [sys.executable, "-m", "mmsent", *command], cwd=work, env=environment, capture_output=True, timeout=400
        )
        assert run.returncode == 0, (command, run.stderr.decode())
        left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
        assert [name for name in left if not name.startswith(KEPT)] == [], command
    assert set((work / "data").rglob("*")) == before
    assert [path.name for path in temporary.iterdir() if path.name.startswith("mmsent")] == []


def test_telemetry_is_off_before_any_library_is_imported() -> None:
    names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    code = f"import mmsent, os; print(*(os.environ[name] for name in {names}))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ORT_", "RAY_"))}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "1", "0"]


def test_openvino_leaves_nothing_in_a_fresh_home(tmp_path: Path) -> None:
    pytest.importorskip("openvino_telemetry")
    code = """
from pathlib import Path
import numpy as np, sys
from mmsent.encoders import converted
try:
    converted._load(Path("nothing.onnx"), "openvino", "fp32", 1, 1)
except Exception as error:
    print(type(error).__name__)
assert "openvino" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "EncoderError"), run.stderr
    assert list(tmp_path.rglob("*")) == []
