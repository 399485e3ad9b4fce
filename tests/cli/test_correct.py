from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsent.data.dataset import load_dataset
from tests.cli.test_cli import fails, run, work  # noqa: F401


def save(path: Path, annotator: str, **labels: str) -> str:
    path.write_text(json.dumps({"annotator": annotator, "labels": {k[1:]: v for k, v in labels.items()}}))
    return str(path)


def labels_of(path: Path) -> dict[str, str]:
    return dict(line.split(",") for line in path.read_text().splitlines()[1:])


def test_labels_of_one_person_go_into_the_list(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    old = labels_of(work / "data" / "train.txt")
    other = next(one for one in ("negative", "positive") if one != old["1"])
    given = save(work / "labels.json", "", _1=other, _2=old["2"])
    assert run("correct", given) == 0
    assert "corrected-train.txt: 1 label changed; put it in the place of train.txt" in capsys.readouterr().out
    assert labels_of(work / "corrected-train.txt") == old | {"1": other}
    assert {post.id: post.label for post in load_dataset(work / "data").posts}["1"] == old["1"]


def test_most_people_decide(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    old = labels_of(work / "data" / "train.txt")
    new = next(one for one in ("negative", "positive") if one != old["1"])
    files = [
        save(work / "a.json", "anna", _1=new, _2=new),
        save(work / "b.json", "ben", _1=new, _2="neutral"),
        save(work / "c.json", "", _1=old["1"]),
    ]
    assert run("correct", *files, "--out", "new.txt", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["people"], found["posts"], list(found["conflicts"])) == (["anna", "ben", "c"], 1, ["1", "2"])
    assert labels_of(work / "new.txt") == old | {"1": new}
    assert run("correct", *files) == 0
    assert "2 posts got several labels. Agreement (kappa): anna and ben " in capsys.readouterr().out


def test_what_holds_no_labels_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    (work / "labels.json").write_text('{"labels": {"1": 2}}')
    assert "holds no labels" in fails(capsys, "correct", "labels.json")[1]
    (work / "labels.json").write_text("[]")
    assert "holds no labels" in fails(capsys, "correct", "labels.json")[1]
    assert "cannot be read" in fails(capsys, "correct", "none.json")[1]
    test = next(post.id for post in load_dataset(work / "data").posts if post.split == "test")
    save(work / "labels.json", "", **{f"_{test}": "neutral"})
    assert "belongs to the test split" in fails(capsys, "correct", "labels.json")[1]
    save(work / "labels.json", "", _1="neutral")
    told = fails(capsys, "correct", "labels.json", "--out", "data/train.txt")[1]
    assert "would replace a file of the data set" in told
