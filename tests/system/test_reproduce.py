"""The script that makes the coursework report again, on 200 real posts and a small CLIP that was not trained."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmsent.config import Fusion
from mmsent.report.figure_set import FIGURES
from tests.encoders.test_clip import CONFIG, make_tiny

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_report.sh"
POSTS = {"train.txt": 160, "test_without_label.txt": 40}

# mmsent as the script finds it, in a process that knows the small architecture.
COMMAND = """#!{python}
import open_clip
from mmsent.cli.main import main

open_clip.add_model_config({description!r})
main()
"""


def some_posts(source: Path, target: Path) -> Path:
    """The first posts of each list."""
    (target / "data").mkdir(parents=True)
    for name, n in POSTS.items():
        lines = (source / name).read_text().splitlines()[: n + 1]
        (target / name).write_text("\n".join(lines) + "\n")
        for guid in (line.split(",")[0] for line in lines[1:]):
            for ending in ("jpg", "txt"):
                shutil.copy2(source / "data" / f"{guid}.{ending}", target / "data")
    return target


@pytest.mark.mvsa
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_coursework_report_is_made_again(mvsa: Path, tmp_path: Path) -> None:
    data, out, programs = some_posts(mvsa, tmp_path / "posts"), tmp_path / "out", tmp_path / "bin"
    tiny = make_tiny(tmp_path, "mmsent-tiny-report", CONFIG)
    programs.mkdir()
    program = programs / "mmsent"
    program.write_text(COMMAND.format(python=sys.executable, description=str(tmp_path / f"{tiny.arch}.json")))
    program.chmod(0o755)
    surroundings = os.environ | {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    given = ["--encoder", f"open_clip:{tiny.arch}", "--weights", str(tiny.safetensors), "--device", "cpu"]
    done = subprocess.run(
        [str(SCRIPT), str(data), str(out), *given], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    listed = [line.split(",")[0] for line in (data / "test_without_label.txt").read_text().splitlines()]
    labelled = [line.split(",") for line in (out / "predictions.txt").read_text().splitlines()]
    assert [guid for guid, _ in labelled] == listed
    assert {label for _, label in labelled[1:]} <= {"negative", "neutral", "positive"}
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == POSTS["test_without_label.txt"]

    scores = json.loads((out / "scores.json").read_text())
    found = {one["fusion"]: one["scores"] for one in scores["evaluations"]}
    assert found.keys() >= {*Fusion, "vote", "majority"}  # image and text are the ablations
    assert {found[fusion]["n"] for fusion in Fusion} == {20}
    table = [line.split() for line in (out / "scores.txt").read_text().splitlines()]
    assert {words[1] for words in table[1:9]} >= {*Fusion}

    figures = {path.name for path in (out / "report" / "figures").iterdir()}
    names = [f"{number:02d}-{name}" for number, (name, _, _) in enumerate(FIGURES, 1)]
    assert figures == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert (out / "report" / "report.html").is_file()


def test_what_is_not_a_data_set_is_said(tmp_path: Path) -> None:
    done = subprocess.run([str(SCRIPT), str(tmp_path / "none"), "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: " in done.stderr
