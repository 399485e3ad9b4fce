"""The quickstart, small: everything from drawn posts to labels, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mmsent.cli.main import main
from mmsent.config import Fusion


@pytest.mark.slow
def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["quickstart", "--folder", "first", "--posts", "60", "--json"])
    assert not stopped.value.code
    found = json.loads(capsys.readouterr().out)
    assert {one["fusion"] for one in found["validation"]} >= {*Fusion, "majority"}
    assert 0.5 < found["best_accuracy"] <= 1
    assert 0.2 < found["test"]["accuracy"] <= 1
    with (tmp_path / "first" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {row["predicted"] for row in rows} <= {"negative", "neutral", "positive"}
    assert sum(1 for path in (tmp_path / "first" / "runs").iterdir() if (path / "run.json").is_file()) == 6
    with pytest.raises(SystemExit) as stopped:
        main(["quickstart", "--folder", "second", "--posts", "60"])
    assert not stopped.value.code
    out = capsys.readouterr().out
    assert "60 drawn posts to learn from, 30 to label" in out
    assert "mmsent predict --cache " in out
    assert "majority class" in out
    # The same seed draws the same posts and gives the same labels.
    assert (tmp_path / "second" / "predictions.txt").read_bytes() == (
        tmp_path / "first" / "predictions.txt"
    ).read_bytes()
