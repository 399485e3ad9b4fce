"""Odd sets of labels on their way through the commands: each works, or ends with one clear line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmsent.cli.main import main
from tests.helpers.made import LABELS, make_picture
from tests.helpers.reading import Commands

QUICK = ("--epochs", "1", "--recipe", "paper", "--fusion", "concat", "--fusion", "image", "--fusion", "text")

# how many posts each class has, and the commands that end with one line
SETS: dict[str, tuple[list[int], set[str]]] = {
    "two classes": ([15, 15], set()),
    "five": ([8] * 5, set()),
    "thirty": ([4] * 30, set()),
    "one class of one row": ([15, 15, 1], {"folds"}),
    "one class of two rows": ([15, 15, 2], set()),
    "all classes of two rows": ([2, 2, 2], set()),
    "a single class": ([20], {"check", "extract", "fit", "folds", "vote", "evaluate"}),
}


@pytest.mark.parametrize(("sizes", "refused"), SETS.values(), ids=SETS.keys())
def test_commands_work_or_say_why_not(
    commands: Commands, tmp_path: Path, sizes: list[int], refused: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "d").mkdir()
    wanted = [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)] + [None] * 3
    for i, label in enumerate(wanted):
        make_picture(LABELS[i % 3], 16, rng).save(tmp_path / "d" / f"{i}.png")
        rows.append({"id": f"p{i}", "image": f"{i}.png", "text": f"{label} says {i}", "label": label})
    data = tmp_path / "d" / "posts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labels = ["--labels", ",".join(f"c{number}" for number in range(len(sizes)))]
    where = ["--data", str(data), "--cache", str(commands.folder)]
    ended = set()
    for name, words in {
        "check": ["check", "--data", str(data), *labels, "--no-tokens"],
        "extract": ["extract", *where, *labels, "--views", "1"],
        "fit": ["fit", *where, *QUICK],
        "folds": ["fit", *where, *QUICK, "--folds", "3", "--group", "exact"],
        "vote": ["vote", *where, "--out", "labels.txt"],
        "evaluate": ["evaluate", *where],
    }.items():
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        assert not re.search("Traceback|bug", out + err), err
        if end.value.code:
            ended.add(name)
            assert end.value.code in (1, 2)
            assert err.splitlines()[-1].startswith("mmsent: "), err
        if name == "fit" and 1 in sizes:
            assert "no row that validates is labelled c2: scores say nothing of it" in err
    assert ended == refused
