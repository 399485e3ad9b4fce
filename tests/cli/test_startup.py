"""Which large libraries each command loads: importing torch alone takes longer than most commands do."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
HEAVY = [
    *("torch", "torchvision", "timm", "open_clip", "sentence_transformers", "transformers", "tokenizers", "captum"),
    *("scipy", "sklearn", "pandas", "matplotlib", "optuna", "sqlalchemy", "ray", "pyarrow", "fastapi"),
    *("onnx", "onnxruntime", "openvino", "h5py", "numpy", "PIL"),
]
ARRAYS = {"numpy", "PIL"}
CACHE = ARRAYS | {"h5py"}
OURS = "--data posts/posts.jsonl --cache cache"

# One process runs all of them in this order, so what one may load, those below it may have loaded too.
COMMANDS = (
    ("--help", set()),
    ("--version", set()),
    *((f"{name} --help", set()) for name in ("fit", "vote", "evaluate", "check", "sweep", "cache", "report", "serve")),
    ("encoders", ARRAYS),
    ("cache ls --cache cache", CACHE),
    (f"cache info {OURS}", CACHE),
    (f"cache verify {OURS} --sample 0", CACHE),
    (f"cache repair {OURS}", CACHE),
    (f"cache export {OURS} --out out.npz", CACHE),
    ("prepare --data posts/posts.jsonl --out copy", CACHE),
    ("sweep --show-space", CACHE),
    (f"evaluate {OURS}", CACHE),
    (f"evaluate {OURS} --split test", CACHE),
    (f"vote {OURS}", CACHE),
    (f"vote {OURS} --runs committee", CACHE),
    (f"vote hub {OURS} --soft", CACHE),
    (f"vote {OURS} --twins", CACHE),
    ("check --data posts/posts.jsonl --no-tokens", CACHE | {"scipy"}),
    (f"cache duplicates {OURS}", CACHE | {"scipy"}),
    ("check --data posts/posts.jsonl --encoder offline", CACHE | {"scipy", "tokenizers"}),
    ("check --data posts/posts.jsonl", CACHE | {"scipy", "tokenizers"}),  # CLIP, whose weights are not here
)

RUN = """
import contextlib, io, json, sys
from mmsent.cli.main import main
heavy, commands = json.loads(sys.argv[1])
found = []
for command in commands:
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            main(command.split())
    except SystemExit as stop:
        found.append([stop.code or 0, [name for name in heavy if name in sys.modules], told.getvalue()[-300:]])
print(json.dumps(found))
"""


def test_commands_load_what_they_need(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "tests" / "fixtures" / "v0" / "files.tar.gz") as files:
        files.extractall(tmp_path, filter="data")
    asked = json.dumps([HEAVY, [command for command, _ in COMMANDS]])
    done = subprocess.run(
        [sys.executable, "-c", RUN, asked], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    allowed: set[str] = set()
    for (command, more), (status, loaded, told) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        allowed |= more
        assert status == int(command.startswith("check --data")), f"mmsent {command}: {told}"
        assert set(loaded) <= allowed, f"mmsent {command} loads {', '.join(sorted(set(loaded) - allowed))}"
