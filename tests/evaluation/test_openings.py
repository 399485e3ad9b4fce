"""Test labels: nothing that selects can reach them, and each opening is written down."""

from __future__ import annotations

import ast
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mmsent.errors import RunError
from mmsent.evaluation.openings import LOG, ordinal, read_openings, record_opening
from mmsent.features.cache import NO_LABEL
from mmsent.features.cache.finding import list_caches
from mmsent.report import validation
from mmsent.report.study import open_study
from mmsent.training.runs import list_runs
from tests.cli.test_cli import run, three, work  # noqa: F401
from tests.helpers.made import make_guid

PACKAGE = Path(__file__).parent.parent.parent / "mmsent"
QUICK = ("--epochs", "3", "--lr", "0.01", "--hidden", "16", "--val-size", "0.2")


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes' pictures of one colour are all near each other; here only like ones are duplicates."""
    monkeypatch.setattr("mmsent.features.cache.groups.near_cosine", lambda *_: 0.9999999)


def results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Everything that selection and prediction make of the data set in `folder`/data."""
    monkeypatch.chdir(folder)
    (folder / "mmsent.toml").write_text('[extract]\nencoder = "offline"\n[check]\nencoder = "offline"\n')
    assert run("check") == 0
    assert run("extract", "--views", "1") == 0
    assert run("fit", "--fusion", "concat,weighted", *QUICK) == 0
    assert run("fit", "--folds", "3", *QUICK) == 0
    assert run("evaluate") == 0
    assert run("audit") == 0
    assert run("vote") == 0
    (cache,) = list_caches(folder / "cache")
    assert set(cache.index("test").labels.tolist()) == {NO_LABEL}
    image, text = cache.embeddings("test", range(cache.rows["test"]))
    out = {"cache": image.tobytes() + text.tobytes(), "audit": (folder / "audit" / "audit.csv").read_bytes()}
    out["vote"] = (folder / "predictions.txt").read_bytes()
    out["votes"] = b"\n".join((folder / "predictions.csv").read_bytes().splitlines()[1:])  # below the runs' names
    for path in sorted((folder / "runs").iterdir()):
        kind = path.name.split("-", 2)[2]
        files = ("head.safetensors", "history.json", "validation.csv", "oof.csv")
        out |= {f"{kind}/{name}": (path / name).read_bytes() for name in files if (path / name).exists()}
        info = json.loads((path / ("run.json" if (path / "run.json").exists() else "folds.json")).read_text())
        out[f"{kind}/temperature"] = json.dumps([info.get("temperature"), info.get("heads")]).encode()
    return out


def test_other_test_labels_change_nothing(
    work: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two data sets that differ in their test labels alone give the same bytes everywhere."""
    found = []
    for name, seed in (("one", None), ("other", 1)):
        root = make_guid(tmp_path / name / "data", n_train=60, n_test=20, test_labels=True)
        if seed is not None:
            listed = root / "test_without_label.txt"
            turn = {"negative": "positive", "neutral": "negative", "positive": "neutral"}
            lines = [line.split(",") for line in listed.read_text().splitlines()]
            listed.write_text("\n".join(f"{i},{turn.get(label, label)}" for i, label in lines) + "\n")
        found.append(results(root.parent, monkeypatch))
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 10
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_two_places_alone_open_test_labels() -> None:
    """`with_test_labels` is asked for in `cli.evaluate` and `cli.predict`, behind the log, and nowhere else in the
    package."""
    asking = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(keyword.arg == "with_test_labels" for call in calls for keyword in call.keywords):
                    asking.append((path.relative_to(PACKAGE).as_posix(), function.name))
    assert asking == [("cli/evaluate.py", "_on_test_labels"), ("cli/predict.py", "_open")]


def labelled(root: Path) -> None:
    """Give the test list labels; the fixture's has none."""
    listed = root / "data" / "test_without_label.txt"
    listed.write_text(listed.read_text().replace("null", "positive"))


def test_each_opening_is_written_down(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    three("concat", "weighted")
    (cache,) = list_caches(work / "cache")
    assert run("evaluate", "--split", "test") == 1  # no labels to open
    assert run("evaluate") == 0
    assert not (work / "runs" / LOG).exists()
    labelled(work)
    capsys.readouterr()
    assert run("evaluate", "--split", "test") == 0
    assert "opened, for the 1st time" in capsys.readouterr().err
    assert run("evaluate", "--split", "test", "--json") == 0
    shown = capsys.readouterr()
    assert "for the 2nd time" in shown.err
    found = json.loads(shown.out)["evaluations"]
    entries = read_openings([work / "runs"], cache)
    assert len(entries) == 2
    runs = list_runs(work / "runs")
    assert {run["name"] for run in entries[1].runs} == {run.name for run in runs}
    assert entries[1].rows == 10
    assert entries[1].fingerprint == cache.fingerprint
    assert entries[1].scores == {e["name"]: {k: e["scores"][k] for k in ("accuracy", "f1_weighted")} for e in found}
    assert entries[0].time <= entries[1].time
    table = validation.openings(open_study(runs, cache, None))["table"]
    assert table is not None
    assert len(table.rows) == 3
    assert f"{found[0]['scores']['f1_weighted']:.3f}" in table.rows[2][3]


def test_the_report_says_that_nothing_was_opened(work: Path) -> None:  # noqa: F811
    three("concat")
    (cache,) = list_caches(work / "cache")
    study = open_study(list_runs(work / "runs"), cache, None)
    said = validation.selection(study)
    assert said["openings"]["note"].startswith("The test labels were never opened")
    assert said["folds"]["table"] is None
    assert len(said["duplicates"]["table"].rows) == 7
    assert run("fit", "--folds", "3", *QUICK) == 0
    assert [row[2:6] for row in validation.folds(study)["table"].rows[1:]] == [["3", "near", "0", "40"]]


def test_without_the_log_nothing_is_opened(
    work: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    three("concat")
    labelled(work)
    (work / "runs" / LOG).mkdir()  # in the way
    monkeypatch.setattr(
        "mmsent.evaluation.evaluate.evaluate_labelled", lambda *a, **k: pytest.fail("scored without a log")
    )
    capsys.readouterr()
    assert run("evaluate", "--split", "test") == 1
    assert "so the test labels stay closed" in capsys.readouterr().err


def test_an_evaluation_cut_short_leaves_its_trace(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    three("concat")
    labelled(work)

    def stop(*_: Any, **__: Any) -> Any:
        raise RunError("stopped")

    monkeypatch.setattr("mmsent.evaluation.evaluate.evaluate_labelled", stop)
    assert run("evaluate", "--split", "test") == 1
    (entry,) = read_openings([work / "runs"])
    assert entry.scores is None
    (cache,) = list_caches(work / "cache")
    study = open_study(list_runs(work / "runs"), cache, None)
    assert validation.openings(study)["table"].rows[1][3] == "not finished"


def test_the_log_stands_damage_and_many_writers(work: Path) -> None:  # noqa: F811
    three("concat")
    (cache,) = list_caches(work / "cache")
    runs = list_runs(work / "runs")
    path = work / "runs" / LOG
    path.write_bytes(b'{"opening": "cut sho')
    writers = [threading.Thread(target=record_opening, args=(runs, work / "data", 3, cache)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_openings([work / "runs"], cache)) == 8
    path.write_bytes(path.read_bytes() + b"\xff\xfe no json\n[1]\n")
    assert len(read_openings([work / "runs", work / "runs"], cache)) == 8
    assert read_openings([work]) == []


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 113)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "113th"]
    )
