"""Run folders: written whole, read back alike, and refused where damaged or foreign."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmsent.config import DataSettings, EncoderSettings, FitSettings, Fusion, SplitSettings
from mmsent.errors import RunError
from mmsent.training.fit import read_history
from mmsent.training.head_config import head_config
from mmsent.training.heads import Head
from mmsent.training.runs import Run, calibration_note, list_runs, open_run, save_run
from mmsent.training.train import Trained

FILES = ["head.safetensors", "history.json", "run.json", "validation.csv"]
HISTORY = [{"epoch": 1, "val_loss": 0.5, "image_share": None}]
TABLE = "id,label,predicted\n1,负面,负面\n"


def make_head(fusion: Fusion = Fusion.weighted, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    head = Head(head_config(FitSettings(fusion=fusion, hidden=4, heads=2, common_width=6, standardize=True), 5, 4, 3))
    head.set_statistics(torch.randn(8, 5), torch.randn(8, 4))
    return head


def make_info(finished: str = "2026-01-01T00:00:00+00:00", **cache: Any) -> dict[str, Any]:
    facts = {
        "path": "cache/x.h5",
        "fingerprint": "f" * 64,
        "contract": "c" * 64,
        "data_name": "posts",
        "encoder": "offline",
        "encoder_settings": EncoderSettings(encoder="offline", normalize=True).model_dump(mode="json"),
        "data_settings": DataSettings(labels=("bad", "good")).model_dump(mode="json"),
    }
    return {
        "fit": FitSettings(fusion=Fusion.weighted, seed=3).model_dump(mode="json"),
        "split": SplitSettings(val_size=7, group=False).model_dump(mode="json"),
        "labels": ["负面", "中", "good"],
        "cache": {**facts, **cache},
        "metrics": {"accuracy": 0.1 + 0.2},
        "finished": finished,
    }


def save(folder: Path, name: str = "one", info: dict[str, Any] | None = None, head: Head | None = None) -> Run:
    trained = Trained(head or make_head(), HISTORY, 1, np.zeros((0, 3), np.float32), 0.0)
    return save_run(folder, name, info or make_info(), trained, TABLE)


# --- round trip


def test_round_trip(tmp_path: Path) -> None:
    run = save(tmp_path / "deep" / "runs")
    assert run.path == tmp_path / "deep" / "runs" / "one"
    again = open_run(run.path)
    assert again == run
    digest = hashlib.sha256((run.path / "head.safetensors").read_bytes()).hexdigest()
    assert again.info == {"format_version": 1, **make_info(), "head_sha256": digest}
    assert (again.name, again.fusion, again.labels) == ("one", Fusion.weighted, ["负面", "中", "good"])
    assert again.fit == FitSettings(fusion=Fusion.weighted, seed=3)
    assert again.split == SplitSettings(val_size=7, group=False)
    assert again.contract == "c" * 64
    assert again.encoder_settings == EncoderSettings(encoder="offline", normalize=True)
    assert again.data_settings == DataSettings(labels=("bad", "good"))
    assert json.loads((run.path / "history.json").read_text()) == HISTORY
    assert (run.path / "validation.csv").read_text(encoding="utf-8") == TABLE


def test_a_folder_holds_no_pickle(tmp_path: Path) -> None:
    run = save(tmp_path)
    assert sorted(p.name for p in run.path.iterdir()) == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["one"]  # and nothing is left beside it
    assert {v.dtype for v in load_file(run.path / "head.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_head_reloads_with_identical_outputs(fusion: Fusion, tmp_path: Path) -> None:
    head = make_head(fusion)
    loaded = save(tmp_path, head=head).head()
    assert not loaded.training
    assert loaded.config == head.config
    head.eval()
    image, text = torch.randn(6, 5), torch.randn(6, 4)
    missing = torch.tensor([[True, False], [False, True], *[[False, False]] * 4])
    assert torch.equal(loaded(image, text, missing), head(image, text, missing))
    other = make_head(fusion, seed=1).eval()
    assert not torch.equal(loaded(image, text), other(image, text))


def test_the_same_head_is_the_same_file(tmp_path: Path) -> None:
    digests = {
        hashlib.sha256((save(tmp_path, f"r{i}").path / "head.safetensors").read_bytes()).digest() for i in range(12)
    }
    assert len(digests) == 1


def test_paths_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """As sys.argv brings them: lone surrogates, which no encoding takes."""
    info = {**make_info(path="caf\udce9/\\x.h5"), "command": ["mmsent", "--data", "\ud800\\ud800😀"]}
    saved = dict(save(tmp_path, info=info).info)
    assert len(saved.pop("head_sha256")) == 64
    assert saved == {"format_version": 1, **info}


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    first = save(tmp_path)
    before = (first.path / "head.safetensors").read_bytes()
    names = [save(tmp_path, head=make_head(seed=i)).name for i in (1, 2)]
    assert names == ["one-2", "one-3"]
    assert (first.path / "head.safetensors").read_bytes() == before
    (tmp_path / "one-4").mkdir()  # an empty folder is somebody's, too
    assert save(tmp_path).name == "one-5"


# --- nothing half-written


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def full_disk_in_rust(*_: Any, **__: Any) -> None:
    raise SafetensorError("I/O error: No space left on device")


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["history.json", "validation.csv", "run.json"])
@pytest.mark.parametrize(("failure", "error"), [(full_disk, RunError), (stopped, KeyboardInterrupt)])
def test_a_failed_write_leaves_nothing(
    name: str,
    failure: Callable[..., None],
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = Path.write_text

    def write_text(self: Path, *args: Any, **more: Any) -> int:
        if self.name == name:
            write(self, "half")
            failure()
        return write(self, *args, **more)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(error, match="No space left" if error is RunError else None):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [full_disk, full_disk_in_rust])
def test_a_failed_write_of_weights_leaves_nothing(
    failure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors.torch, "save_file", failure)
    with pytest.raises(RunError, match=r"cannot write a run in .*No space left"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.rename", full_disk)
    with pytest.raises(RunError, match="No space left"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a note")
    with pytest.raises(RunError, match=r"cannot write a run in .*runs"):
        save(tmp_path / "runs")


# --- damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def scramble(path: Path) -> None:
    path.write_bytes(b"not a safetensors file at all")


def without_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def other_shapes(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: torch.zeros(*v.shape, 2) for k, v in load_file(path).items()}, path, metadata)


@pytest.mark.parametrize("damage", [truncate, scramble, without_metadata, other_shapes, Path.unlink])
def test_a_damaged_head_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    run = save(tmp_path)
    path = run.path / "head.safetensors"
    damage(path)
    with pytest.raises(
        RunError, match=r"head\.safetensors (cannot be loaded|is not the file this run wrote).*run `mmsent fit` again"
    ):
        open_run(run.path).head()
    if path.exists():  # also where the digest was made to fit
        info = json.loads((run.path / "run.json").read_text())
        info["head_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (run.path / "run.json").write_text(json.dumps(info))
        with pytest.raises(RunError, match=r"head\.safetensors cannot be loaded .*run `mmsent fit` again"):
            open_run(run.path).head()


@pytest.mark.parametrize("labels", [["bad", "good"], ["good", "中", "负面"], ["a", "b", "c", "d"]])
def test_a_head_of_other_labels_is_refused(labels: list[str], tmp_path: Path) -> None:
    run = save(tmp_path)
    info = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(info | {"labels": labels}))
    with pytest.raises(RunError, match="was trained on other labels than"):
        open_run(run.path).head()


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
        open_run(tmp_path / "absent")
    run = save(tmp_path)
    (run.path / "run.json").unlink()
    with pytest.raises(RunError, match="is not a run folder"):
        open_run(run.path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fit": 3}, "cannot be read"),
        ({"fit": {"fusion": "odd"}}, "cannot be read: 'odd'"),
        ({"cache": {}}, "lacks cache.contract, cache.data_name"),
        ({"cache": []}, "cannot be read"),
        ({"labels": 3}, "does not name its labels"),
        ({"labels": [1, 2, 3]}, "does not name its labels"),
    ],
)
def test_a_run_json_of_another_form(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    run = save(tmp_path)
    (run.path / "run.json").write_text(json.dumps(run.info | change))
    with pytest.raises(RunError, match=reason):
        open_run(run.path)
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"text"', b"\xff", b'{"format_version": null}'])
def test_a_damaged_run_json(content: bytes, tmp_path: Path) -> None:
    run = save(tmp_path)
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        open_run(run.path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[1]", b"\xff", b"id\n", b"id\n1\n2\n"])
def test_damaged_tables_of_a_run(content: bytes, tmp_path: Path) -> None:
    run = save(tmp_path, info={**make_info(), "metrics": {"n": 3}})
    for name, read in (("history.json", lambda: read_history(run)), ("validation.csv", run.validation_ids)):
        (run.path / name).write_bytes(content)
        with pytest.raises(RunError, match=rf"{name} (cannot be read|holds no epochs).*; run `mmsent fit` again"):
            read()


def test_a_run_without_a_temperature_loads_as_uncalibrated(tmp_path: Path) -> None:
    old, null = save(tmp_path), save(tmp_path, info={**make_info(), "temperature": None})
    new = save(tmp_path, info={**make_info(), "temperature": 1.7})
    one = save(tmp_path, info={**make_info(), "temperature": 1})
    assert [(run.calibrated, run.temperature) for run in (old, null, new, one)] == [
        (False, 1.0),
        (False, 1.0),
        (True, 1.7),
        (True, 1.0),
    ]
    assert calibration_note([new, one]).startswith("probabilities are calibrated by temperature scaling")
    assert calibration_note([old, null]) == "probabilities are not calibrated; a new `mmsent fit` calibrates them"
    assert "not calibrated throughout: 1 of 3 runs have no temperature" in calibration_note([new, old, one])


@pytest.mark.parametrize("value", ["0", "-1.5", '"hot"', "NaN", "Infinity", "true", "[1]"])
def test_a_temperature_that_is_none(value: str, tmp_path: Path) -> None:
    run = save(tmp_path, info={**make_info(), "temperature": 1.25})
    file = run.path / "run.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"temperature": 1.25', f'"temperature": {value}'))
    with pytest.raises(
        RunError, match=r"run\.json has the temperature .*, which is not a number above 0; run `mmsent fit` again"
    ):
        open_run(run.path)


def test_a_newer_format(tmp_path: Path) -> None:
    run = save(tmp_path)
    (run.path / "run.json").write_text(json.dumps({**run.info, "format_version": 2}))
    with pytest.raises(RunError, match="written by a newer mmsent; upgrade"):
        open_run(run.path)


# --- finding runs


def test_list_runs_newest_first_and_by_cache(tmp_path: Path) -> None:
    save(tmp_path, "a", make_info("2026-01-02T00:00:00+00:00"))
    save(tmp_path, "z", make_info("2026-01-01T00:00:00+00:00", fingerprint="e" * 64))
    save(tmp_path, "m", make_info("2026-01-03T00:00:00.250000+00:00", data_name="others"))
    save(tmp_path, "k", make_info("2026-01-03T00:00:00+00:00"))
    shutil.copytree(tmp_path / "a", tmp_path / ".hidden.1.tmp")  # what a killed process may leave
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert [r.name for r in list_runs(tmp_path)] == ["m", "k", "a", "z"]
    assert [r.name for r in list_runs(tmp_path, fingerprint="f" * 64)] == ["m", "k", "a"]
    assert [r.name for r in list_runs(tmp_path, fingerprint="f" * 64, data_name="posts")] == ["k", "a"]
    assert [r.name for r in list_runs(tmp_path, data_name="others")] == ["m"]
    assert list_runs(tmp_path, fingerprint="d" * 64) == []
    assert list_runs(tmp_path / "absent") == []


def test_require_names_both_contracts(tmp_path: Path) -> None:
    run = save(tmp_path)
    run.require("c" * 64, "the cache", "offline")
    with pytest.raises(RunError) as caught:
        run.require("d" * 64, "cache/y.h5", "clip-l14-336")
    for part in ("one", "cccccccc", "dddddddd", "cache/y.h5", "offline", "clip-l14-336"):
        assert part in str(caught.value)
