"""Files that an earlier version wrote (tests/fixtures/v0, see its README) still open and give the numbers they gave.

Everything goes through the command line and `import mmsent`, so it holds whatever the modules are called.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
import runpy
import shutil
import signal
import sqlite3
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsent

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
V0 = ROOT / "tests" / "fixtures" / "v0"


def _unpack(folder: Path) -> None:
    with tarfile.open(V0 / "files.tar.gz") as files:
        files.extractall(folder, filter="data")


def _expected() -> dict[str, Any]:
    with tarfile.open(V0 / "files.tar.gz") as files, files.extractfile("expected.json") as file:  # type: ignore[union-attr]
        found: dict[str, Any] = json.load(file)
        return found


EXPECTED = _expected()
HEADS: dict[str, Any] = EXPECTED["heads"]
APART = 0.15  # of a weighted F1 over 17 rows, where one row is 0.06
CLOSE = 1e-4  # of scores, probabilities and logits
WORDS = {"problem", "what", "why"}  # told to people: the wording may change
COMMANDS = [pytest.param(one, id=f"{i}-{one['arguments'][0]}") for i, one in enumerate(EXPECTED["commands"])]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image encoder's weights, made anew."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    found = runpy.run_path(str(V0 / "weights.py"))["write_weights"](path)
    assert found == EXPECTED["weights_sha256"], "timm's test_convnext is no longer the model of these fixtures"
    return path


@pytest.fixture
def work(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of the fixtures and the weights."""
    folder = tmp_path / "work"
    folder.mkdir()
    _unpack(folder)
    shutil.copyfile(weights, folder / "weights.safetensors")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """The command line sets handlers of its own."""
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for name, handler in before.items():
        signal.signal(name, handler)


def run(arguments: list[str], status: int = 0) -> None:
    """`python -m mmsent ARGUMENTS` in this process; it must end with that status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmsent", *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("mmsent", run_name="__main__")
    assert (stopped.value.code or 0) == status, arguments


def compare(found: Any, expected: Any, where: str = "output") -> None:
    """All that is expected is there, numbers within CLOSE; what a later version tells besides is no difference."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        for name, value in expected.items():
            assert name in found, f"{where} has no {name!r}"
            if name in WORDS:
                assert bool(found[name]) == bool(value), f"{where}.{name}"
                continue
            compare(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        more = where == "output.evaluations"  # baselines stand behind the rows that there were
        assert (len(found) >= len(expected)) if more else (len(found) == len(expected)), where
        for i, value in enumerate(expected):
            compare(found[i], value, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE), f"{where}: {found}, not {expected}"
    else:
        assert found == expected, where


def cells(text: str) -> list[list[str | float]]:
    """A table as text, its numbers as numbers."""

    def cell(value: str) -> str | float:
        try:
            return float(value)
        except ValueError:
            return value

    return [[cell(value) for value in row] for row in csv.reader(text.splitlines())]


def compare_cache(folder: str, expected: dict[str, Any], tolerance: float | None) -> None:
    """What a cache holds. tolerance: of the sums of its embeddings; None: all is the same to the byte."""
    cache = mmsent.open_cache(folder)
    about = {"labels": list(cache.labels), "splits": cache.splits, "contract": cache.contract}
    about |= {"fingerprint": cache.fingerprint, "widths": [cache.image_width, cache.text_width]}
    compare(about | {"groups": cache.groups("train").tolist()}, {name: expected[name] for name in (*about, "groups")})
    for split in cache.splits:
        rows, known = cache.arrays(split, views=True, all_rows=True), expected[split]
        assert rows.ids.tolist() == known["ids"]
        assert rows.target.tolist() == known["target"]
        assert rows.problems == known["problems"]
        if tolerance is None:
            assert [hashlib.sha256(part.tobytes()).hexdigest() for part in (rows.image, rows.text)] == known["sha256"]
        np.testing.assert_allclose(rows.image.astype(float).sum(axis=2), known["image_sums"], atol=tolerance or 1e-9)
        np.testing.assert_allclose(rows.text.astype(float).sum(axis=1), known["text_sums"], atol=tolerance or 1e-9)


def centred_logits(folder: Path) -> Any:
    """A head's logits on the whole test posts, less their mean in each row, from its calibrated probabilities."""
    model, cache = mmsent.load(folder), mmsent.open_cache("cache")
    temperature = json.loads((folder / "run.json").read_text(encoding="utf-8"))["temperature"]
    probabilities = model.vote(cache, "test", soft=True).probabilities[cache.arrays("test", all_rows=True).good]
    logits = temperature * np.log(probabilities)
    return logits - logits.mean(axis=1, keepdims=True)


def centred(logits: list[list[float]]) -> Any:
    return np.array(logits) - np.mean(logits, axis=1, keepdims=True)


def test_the_cache_holds_the_same_bytes(work: Path) -> None:
    compare_cache("cache", EXPECTED["cache"], None)


def test_an_unfinished_extraction_goes_on_from_its_journal(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_with = EXPECTED["made_with"]["versions"]
    now = {name: metadata.version(name) for name in ("torch", "pillow", "timm", "vaderSentiment")}
    if other := [f"{name} {made_with[name]}" for name, version in now.items() if version != made_with[name]]:
        pytest.skip(f"a journal belongs to the versions of its encoders: {', '.join(other)}")
    run(EXPECTED["extract"]["arguments"])
    expected = EXPECTED["extract"]["output"]
    assert expected["encoded"]["train"] < expected["rows"]["train"]  # the rest is in the journal
    compare(json.loads(capsys.readouterr().out), expected)
    assert not list((work / "unfinished").glob("*.journal"))
    compare_cache("unfinished", EXPECTED["extract"]["cache"], 0.02)  # of sums of 64 numbers in float16


@pytest.mark.parametrize("fusion", HEADS)
def test_a_head_gives_the_same_logits(work: Path, fusion: str) -> None:
    folder = work / HEADS[fusion]["folder"]
    np.testing.assert_allclose(centred_logits(folder), centred(HEADS[fusion]["logits"]), atol=CLOSE)


def _of_both_halves(output: dict[str, Any]) -> dict[str, Any]:
    """What `evaluate` says without its rows of heads on one half."""
    kept = [one for one in output["evaluations"] if not {"image", "text"} & set(one["name"].split("-"))]
    return output | {"evaluations": kept}


def trials() -> list[tuple[int, str]]:
    """Numbers and times of the study's trials."""
    with closing(sqlite3.connect("sweeps/sweep/study.db")) as study:
        return study.execute("SELECT number, datetime_start FROM trials ORDER BY number").fetchall()


@pytest.mark.parametrize("entry", COMMANDS)
def test_a_command_says_the_same(work: Path, entry: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = trials()
    # Which trials stop early is decided in another way since then.
    run(entry["arguments"] + ["--no-prune"] * (entry["arguments"][0] == "sweep"))
    assert trials()[: len(before)] == before  # a sweep goes on, it does not begin again
    said = capsys.readouterr()
    expected_output = entry["output"]
    if entry["arguments"][0] == "audit":  # which labels are marked is decided in another way since then
        expected_output = {name: value for name, value in expected_output.items() if name != "likely_wrong"}
    found_output = json.loads(said.out)
    if entry["arguments"][0] == "evaluate":  # heads of one half are scored on all rows that have it since then
        found_output, expected_output = map(_of_both_halves, (found_output, expected_output))
    compare(found_output, expected_output)
    if "test" in entry["arguments"]:
        assert "2nd" in said.err  # opening of the test labels; the log holds the first
    for name, text in entry.get("files", {}).items():
        written = (work / name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            expected, found = cells(text), cells(written)
            kept = [i for i, title in enumerate(found[0]) if title in expected[0]]  # a table may get more columns
            if "likely_wrong" in expected[0]:
                drop = expected[0].index("likely_wrong")
                kept.remove(found[0].index("likely_wrong"))
                expected = [[value for i, value in enumerate(row) if i != drop] for row in expected]
            compare([[row[i] for i in kept] for row in found], expected, name)
        else:
            assert written == text


def test_heads_fitted_again_score_alike(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training step draws other random numbers since then, so weights differ; the scores stay close. Posts that
    lack a half train too since then, unless modality dropout is off."""
    run([*EXPECTED["fit"], "--modality-dropout", "0"])
    found = json.loads(capsys.readouterr().out)["runs"]
    assert len(found) == len(HEADS)
    for folder in map(Path, found):
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        expected = HEADS[info["fit"]["fusion"]]
        assert info["metrics"]["support"] == expected["metrics"]["support"], folder.name
        assert abs(info["metrics"]["f1_weighted"] - expected["metrics"]["f1_weighted"]) < APART, folder.name
        assert centred_logits(folder).shape == centred(expected["logits"]).shape


def test_a_replay_says_that_the_code_is_another(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["replay", *(head["folder"] for head in HEADS.values()), "--cache", "cache", "--json"], status=1)
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["run"]).name for one in found["runs"]] == [Path(head["folder"]).name for head in HEADS.values()]
    for one in found["runs"]:
        assert not one["identical"]
        assert "code" in {difference["kind"] for difference in one["differences"]}
        assert abs(one["apart"]["f1"]) < APART


def test_the_exported_graph_gives_the_same(work: Path) -> None:
    """To onnxruntime itself, and to mmsent's own reader, wherever its module is."""
    onnxruntime = pytest.importorskip("onnxruntime")
    rows = mmsent.open_cache("cache").arrays("test", all_rows=True)
    about = json.loads((work / "onnx" / "mmsent.json").read_text(encoding="utf-8"))
    assert (about["contract"], about["labels"]) == (rows.contract, list(rows.labels))
    missing = np.stack([~rows.good, np.zeros(len(rows), bool)], axis=1)
    session = onnxruntime.InferenceSession("onnx/heads.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": rows.image, "text": rows.text, "missing": missing})
    names = [one.name for one in session.get_outputs()]
    compare({name: value.tolist() for name, value in zip(names, found, strict=True)}, EXPECTED["onnx"])
    package = Path(mmsent.__file__).parent
    (file,) = package.rglob("onnx_runtime.py")
    module = importlib.import_module(".".join(file.with_suffix("").relative_to(package.parent).parts))
    read = module.OnnxModel.open("onnx").classify(rows.image, rows.text, missing, contract=rows.contract)
    read_as = {"label": read.labels, "probabilities": read.probabilities, "head_probabilities": read.of_heads}
    compare(
        {name: value.tolist() for name, value in read_as.items()}, {name: EXPECTED["onnx"][name] for name in read_as}
    )
