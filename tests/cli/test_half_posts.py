"""Posts without an image or a text on their way through the commands, and data sets of one half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.made import LABELS, make_picture
from tests.helpers.reading import Commands

N = 60
QUICK = ("--epochs", "2", "--recipe", "paper")


def manifest(folder: Path, halves: str) -> Path:
    """N posts of three labels, all of which have `halves`: image, text, or both by turns."""
    rng = np.random.default_rng(0)
    (folder / "d").mkdir()
    rows: list[dict[str, Any]] = []
    for i in range(N):
        label = LABELS[i % 3]
        has = {"mixed": ("image text", "image", "text")[i // 3 % 3]}.get(halves, halves).split()
        row: dict[str, Any] = {"id": f"p{i}", "label": label if i < 48 else None}
        if "image" in has:
            make_picture(label, 32, rng).save(folder / "d" / f"{i}.png")
            row["image"] = f"{i}.png"
        if "text" in has:
            row["text"] = f"{label} {i}"
        rows.append(row)
    path = folder / "d" / f"{halves}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_half_posts_are_counted_trained_on_and_scored(commands: Commands, tmp_path: Path) -> None:
    data = manifest(tmp_path, "mixed")
    where = ("--data", data, "--cache", commands.folder)
    found = {one["kind"]: (one["severity"], one["count"]) for one in commands.check(data)["findings"]}
    assert found["posts with no picture"] == ("note", 18)
    assert found["posts with no text"] == ("note", 21)
    _, facts = commands.extract(data)
    assert sum(facts["halves"].values()) == len(facts["quarantined"])
    fitted = json.loads(commands.run(0, "fit", *where, *QUICK, "--fusion", "concat", "--json"))
    assert sum(fitted["rows"][0].values()) == 48
    assert set(fitted["lacking"]) == {"image", "text"}
    assert fitted["left_out"] == [""]
    assert set(fitted["validation"][0]["kinds"]) <= {"both halves", "image only", "text only"}
    without = json.loads(commands.run(0, "fit", *where, *QUICK, "--modality-dropout", "0", "--json"))
    whole = 48 - sum(fitted["lacking"].values())
    assert sum(without["rows"][0].values()) == whole
    assert without["left_out"][0].startswith("of 48 labelled rows ")
    for half in ("image", "text"):
        one = json.loads(commands.run(0, "fit", *where, *QUICK, "--fusion", half, "--json"))
        assert sum(one["rows"][0].values()) == 48 - fitted["lacking"][half]
    run = Path(fitted["runs"][0]).name
    scored = json.loads(commands.run(0, "evaluate", run, *where, "--json"))["evaluations"][0]
    assert scored["kinds"] == fitted["validation"][0]["kinds"]
    assert sum(kind["n"] for kind in scored["kinds"].values()) == scored["scores"]["n"]
    folds = json.loads(commands.run(0, "fit", *where, *QUICK, "--folds", "3", "--json"))
    assert folds["runs"][0]["rows"] == 48
    # heads that cannot serve a post are left out of its vote
    both = [Path(one).name for one in (fitted["runs"][0], without["runs"][0])]
    commands.run(0, "vote", *both, *where, "--out", "labels.txt")
    assert len(Path("labels.txt").read_text(encoding="utf-8").splitlines()) >= 12


@pytest.mark.parametrize("half", ["image", "text"])
def test_a_data_set_of_one_half_needs_no_stub(commands: Commands, tmp_path: Path, half: str) -> None:
    data = manifest(tmp_path, half)
    where = ("--data", data, "--cache", commands.folder)
    assert not [one for one in commands.check(data)["findings"] if one["severity"] == "error"]
    cache, _ = commands.extract(data)
    features = cache.load("train")
    other = features.text if half == "image" else features.image
    assert not other.any()
    fitted = json.loads(commands.run(0, "fit", *where, *QUICK, "--fusion", half, "--json"))
    assert sum(fitted["rows"][0].values()) == 48
    said = commands.run(1, "fit", *where, *QUICK)
    assert f"--fusion {half}" in said
    commands.run(0, "evaluate", *where)
    commands.run(0, "vote", Path(fitted["runs"][0]).name, *where, "--out", "labels.txt")


def test_a_column_of_another_name_is_still_refused(commands: Commands, tmp_path: Path) -> None:
    data = manifest(tmp_path, "mixed")
    data.write_text(data.read_text(encoding="utf-8").replace('"text"', '"tweet_text"'), encoding="utf-8")
    said = commands.run(1, "extract", "--data", data, "--cache", commands.folder)
    assert "did you mean 'tweet_text'? add --columns text=tweet_text" in " ".join(said.split())
