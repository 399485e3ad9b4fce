"""Replay: runs repeat to the bit here, and what is not as recorded is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.errors import CacheError, RunError
from mmsent.evaluation import replay as replay_module
from mmsent.evaluation.replay import HeadDistance, cache_of, replay
from mmsent.evaluation.replay_votes import replay_vote
from mmsent.features.cache import Cache
from mmsent.system.provenance import NOT_RECORDED
from mmsent.training.fit import Training, fit
from mmsent.training.runs import Run, open_run
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

FIT = FitSettings(epochs=3, hidden=16, lr=1e-2, common_width=16)
SPLIT = SplitSettings(val_size=20)
VOTING = (Fusion.concat, Fusion.weighted, Fusion.attention)


def encode(root: Path, folder: Path, seed: int = 0) -> Cache:
    return fake_cache(load_dataset(root), folder, views=1, encoders=fake_encoders(seed))


def build(folder: Path) -> Path:
    cache = encode(make_guid(folder / "posts", 90, 12), folder / "cache")
    fit(cache, folder / "runs", [FIT.model_copy(update={"fusion": f}) for f in VOTING], SPLIT)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with posts, their cache and three voting runs; tests that change something take a copy."""
    return build(tmp_path_factory.mktemp("replay"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Such a folder made anew, for tests that encode again or take the cache away."""
    return build(tmp_path / "fresh")


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def cache_in(folder: Path) -> Cache:
    return Cache.open(next((folder / "cache").glob("*.h5")))


def runs_in(folder: Path) -> list[Run]:
    found = {run.fusion: run for run in map(open_run, (folder / "runs").iterdir())}
    return [found[fusion] for fusion in VOTING]


def edit(run: Run, **changes: Any) -> Run:
    """The run with other words in its record; a value of None takes them out."""
    file = run.path / "run.json"
    info = {k: v for k, v in (json.loads(file.read_text()) | changes).items() if v is not None}
    file.write_text(json.dumps(info))
    return open_run(run.path)


def test_runs_repeat_to_the_bit(made: Path, tmp_path: Path) -> None:
    cache, features = cache_in(made), cache_in(made).load("train")
    for run in runs_in(made):
        found = replay(run, cache, tmp_path / "again", features=features)
        assert found.parts == {"head": True, "history": True, "validation": True, "temperature": True}
        assert found.identical
        assert found.ok
        assert found.apart is None
        assert found.differences == []
        assert (found.again.path / "head.safetensors").read_bytes() == (run.path / "head.safetensors").read_bytes()


def test_a_run_read_from_disk_is_read_from_disk_again(made: Path, tmp_path: Path) -> None:
    cache = cache_in(made)
    run = fit(cache, tmp_path / "runs", [FIT], SPLIT, Training(memory=5000))[0]
    found = replay(run, cache, tmp_path / "again", features=cache.load("train"))
    assert found.identical
    assert found.again.info["memory"] == 5000
    assert found.differences == []


def test_the_recorded_number_of_threads_is_used(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen = []
    real = replay_module.fit

    def spy(*arguments: Any, **named: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*arguments, **named)

    monkeypatch.setattr(replay_module, "fit", spy)
    torch.set_num_threads(1)
    try:
        run = fit(cache_in(made), tmp_path / "runs", [FIT], SPLIT)[0]
        torch.set_num_threads(2)
        found = replay(run, cache_in(made), tmp_path / "again")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
    assert found.identical
    assert found.differences == []


def test_another_head_is_found_out(here: Path, tmp_path: Path) -> None:
    """A run whose record and head do not belong together: nothing that was recorded differs, so it is a failure."""
    run = runs_in(here)[0]
    other = fit(cache_in(here), tmp_path / "other", [FIT.model_copy(update={"seed": 1})], SPLIT)[0]
    shutil.copy(other.path / "head.safetensors", run.path / "head.safetensors")
    found = replay(edit(run, head_sha256=other.info["head_sha256"]), cache_in(here), tmp_path / "again")
    assert not found.parts["head"]
    assert found.parts["history"]
    assert not found.ok
    assert found.differences == []
    assert found.apart is not None
    assert found.apart.largest_logit > 0
    assert found.apart.rows == 20
    assert json.loads(json.dumps(found.to_json()))["identical"] is False


def test_distance_is_counted_right(here: Path, tmp_path: Path) -> None:
    """Two heads by hand: the same but for a shift of the first logit that flips known rows."""
    run = runs_in(here)[0]
    found = replay(run, cache_in(here), tmp_path / "again")
    same = replay_module._apart(run, found.again, cache_in(here), None)
    assert same == HeadDistance(20, 1.0, 0.0, 0.0, 0.0, 0.0)
    head = run.head()
    with torch.no_grad():
        head.out.bias[0] += 100.0
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = found.again.path / "head.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: v.contiguous() for k, v in head.state_dict().items()}, path, metadata)
    import hashlib

    shifted = edit(found.again, head_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    apart = replay_module._apart(run, shifted, cache_in(here), cache_in(here).load("train"))
    truth = [line.split(",") for line in (run.path / "validation.csv").read_text().splitlines()[1:]]
    assert apart.labels == pytest.approx(sum(row[2] == "negative" for row in truth) / 20)
    assert apart.largest_logit == pytest.approx(100, abs=1e-3)
    assert 0.9 < apart.largest_probability <= 1
    assert not apart.within


@pytest.mark.parametrize(
    ("labels", "mean", "within"),
    [(1.0, 0.0, True), (0.99, 1e-3, True), (0.989, 0.0, False), (1.0, 1.01e-3, False)],
)
def test_tolerance(labels: float, mean: float, within: bool) -> None:
    assert HeadDistance(500, labels, mean, 0.5, 3.0, 0.0).within is within


def test_what_differs_is_named(here: Path, tmp_path: Path) -> None:
    run = runs_in(here)[0]
    info = run.info
    changed = edit(
        run,
        versions=info["versions"] | {"torch": "2.6.0"},
        machine=info["machine"] | {"cpu": "another", "platform": "elsewhere"},
        code=info["code"] | {"sha256": "0" * 64},
        data=info["data"] | {"features": "1" * 64},
    )
    found = replay(changed, cache_in(here), tmp_path / "again")
    assert found.identical
    assert found.ok
    named = [(d.kind, d.name, d.then) for d in found.differences]
    assert named == [
        ("cache", "embeddings", "1" * 12),
        ("versions", "torch", "2.6.0"),
        ("code", "sha256", "0" * 12),
        ("machine", "cpu", "another"),
    ]


def test_elsewhere_a_tolerance_holds(here: Path, tmp_path: Path) -> None:
    run = runs_in(here)[0]
    head = run.head()
    with torch.no_grad():
        head.out.bias += torch.tensor([1e-4, 0, 0])
    again = fit(cache_in(here), tmp_path / "other", [FIT], SPLIT)[0]
    import hashlib

    from safetensors import safe_open
    from safetensors.torch import save_file

    path = run.path / "head.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: v.contiguous() for k, v in head.state_dict().items()}, path, metadata)
    moved = {"head_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    here_too = replay(edit(run, **moved), cache_in(here), tmp_path / "a")
    assert here_too.apart is not None
    assert here_too.apart.within
    assert not here_too.ok, "on the same machine and versions only the same bits will do"
    elsewhere = edit(run, machine=again.info["machine"] | {"cpu": "another"}, **moved)
    found = replay(elsewhere, cache_in(here), tmp_path / "b")
    assert not found.identical
    assert found.ok
    assert 0 < found.apart.largest_logit < 1e-3 if found.apart else False


def test_a_run_of_an_older_mmsent(here: Path, tmp_path: Path) -> None:
    run = runs_in(here)[0]
    old = {"torch": run.info["versions"]["torch"], "numpy": run.info["versions"]["numpy"]}
    gone = dict.fromkeys(("machine", "code", "data", "weights", "memory", "temperature"))
    cache = {k: v for k, v in run.info["cache"].items() if k != "written"}
    found = replay(edit(run, versions=old, cache=cache, **gone), cache_in(here), tmp_path / "again")
    assert found.parts["head"]
    assert "temperature" not in found.parts
    assert {d.then for d in found.differences} == {NOT_RECORDED}
    assert {d.kind for d in found.differences} == {"data", "cache", "versions", "code", "machine"}


def test_settings_as_older_versions_wrote_them_do_not_differ(here: Path, tmp_path: Path) -> None:
    run = runs_in(here)[0]
    old = {k: v for k, v in run.info["split"].items() if k in {"val_size", "seed"}} | {"group": True}
    found = replay(edit(run, split=old), cache_in(here), tmp_path / "again")
    assert found.identical
    assert [d for d in found.differences if d.kind == "settings"] == []
    found = replay(edit(run, split=old | {"group": False}), cache_in(here), tmp_path / "again2")
    assert [(d.name, d.then, d.now) for d in found.differences if d.kind == "settings"] == []


def test_a_device_that_is_not_here(here: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    run = runs_in(here)[0]
    changed = edit(run, device="cuda", machine=run.info["machine"] | {"device": "cuda", "gpu": "H100"})
    found = replay(changed, cache_in(here), tmp_path / "again")
    assert {(d.name, d.then, d.now) for d in found.differences} == {("device", "cuda", "cpu"), ("gpu", "H100", "none")}


# --- the cache


def test_rows_that_changed_are_an_error(fresh: Path, tmp_path: Path) -> None:
    run = runs_in(fresh)[0]
    lines = (fresh / "posts" / "train.txt").read_text().splitlines()

    def message(text: str) -> str:
        (fresh / "posts" / "train.txt").write_text(text)
        cache = encode(fresh / "posts", fresh / "cache")
        with pytest.raises(CacheError, match=f"no longer those of run {run.name}") as raised:
            replay(run, cache, tmp_path / "again")
        return str(raised.value)

    other = "neutral" if lines[1].endswith("negative") else "negative"
    assert ": labels changed; restore" in message("\n".join([lines[0], f"1,{other}", *lines[2:]]) + "\n")
    assert ": their number, ids, labels, pictures or texts changed" in message("\n".join(lines[:-1]) + "\n")
    (fresh / "posts" / "data" / "5.txt").write_text("another text")
    assert ": pictures or texts changed" in message("\n".join(lines) + "\n")
    assert not (tmp_path / "again").exists(), "no head was fitted in vain"


def test_an_old_run_on_other_rows_is_an_error_too(fresh: Path, tmp_path: Path) -> None:
    run = edit(runs_in(fresh)[0], data=None)
    lines = (fresh / "posts" / "train.txt").read_text().splitlines()
    (fresh / "posts" / "train.txt").write_text("\n".join([lines[0], *lines[20:]]) + "\n")
    with pytest.raises(CacheError, match="which of them validate changed"):
        replay(run, encode(fresh / "posts", fresh / "cache"), tmp_path / "again")


def test_the_cache_is_found(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cache = runs_in(fresh)[0], cache_in(fresh)
    nowhere = tmp_path / "nowhere"
    elsewhere = edit(run, cache=run.info["cache"] | {"path": str(nowhere / "gone.h5")})
    assert cache_of(run, None, nowhere).fingerprint == cache.fingerprint
    assert cache_of(elsewhere, cache.path, nowhere).path == cache.path
    assert cache_of(elsewhere, fresh / "cache", nowhere).path == cache.path
    assert cache_of(elsewhere, None, fresh / "cache").path == cache.path
    with pytest.raises(
        CacheError,
        match=r"the cache of run .* is not in .*gone\.h5 and .*nowhere; name its file or folder with --cache",
    ):
        cache_of(elsewhere, None, nowhere)
    with pytest.raises(CacheError, match=r"is not in .*runs; name its file or folder with --cache"):
        cache_of(run, fresh / "runs", nowhere)
    with pytest.raises(CacheError, match=r"no cache at .*nowhere"):
        cache_of(run, nowhere, nowhere)
    other = encode(fresh / "posts", tmp_path / "other", seed=1)
    with pytest.raises(CacheError, match=rf"was fitted on features {cache.fingerprint[:8]}, and .* holds"):
        cache_of(run, other.path, nowhere)


def test_a_damaged_run_says_so_before_it_is_fitted(here: Path, tmp_path: Path) -> None:
    run = runs_in(here)[0]
    (run.path / "head.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="its SHA-256 differs"):
        replay(run, cache_in(here), tmp_path / "again")
    assert not (tmp_path / "again").exists()


# --- the command


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_the_command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(here)
    assert call("vote", "--data", "posts") == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert call("replay", "--data", "posts") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[1] for line in out[:3]] == ["bit-identical (head, history and 20 validation rows)"] * 3
    assert out[3:] == [
        "vote of 3 heads: 12 of 12 test labels are the same",
        "predictions.csv: 12 of its 12 labels are the same",
        "3 of 3 runs repeat to the bit",
    ]
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before, "nothing is written"


def test_the_command_on_one_run_as_json(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    name = runs_in(here)[1].name
    assert call("replay", name, "--out", "again", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["vote"] is None
    assert [run["identical"] for run in found["runs"]] == [True]
    assert [open_run(path).fusion for path in (here / "again").iterdir()] == [Fusion.weighted]


def test_the_command_fails_where_a_run_does_not_repeat(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    run = runs_in(here)[0]
    edit(run, fit=run.info["fit"] | {"seed": 5})
    assert call("replay", run.name) == 1
    out = capsys.readouterr().out
    assert f"{run.name}: not identical; " in out
    assert "please report this with what `mmsent env` prints" in out
    assert "0 of 1 runs repeat to the bit" in out
    assert call("replay", "--data", "posts", "--json") == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_the_command_refuses_what_makes_no_sense(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fresh)
    (fresh / "file").write_text("x")
    name = runs_in(fresh)[0].name
    for arguments, message in (
        (["--out", "file"], "--out file is a file; name a folder"),
        (["--out", "runs"], "--out runs is the folder of the runs themselves"),
        (["--predictions", "file"], "--predictions file is no table of a vote of"),
    ):
        assert call("replay", name, *arguments) == 2
        assert message in capsys.readouterr().err
    assert call("replay", "no-such-run") == 1
    assert "no-such-run is not a run folder" in capsys.readouterr().err
    shutil.rmtree(fresh / "cache")
    assert call("replay", name) == 1
    assert "name its file or folder with --cache" in capsys.readouterr().err


def test_many_differences_are_cut_short(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    run = runs_in(here)[0]
    edit(run, versions=dict.fromkeys(run.info["versions"], "0"))
    assert call("replay", run.name) == 0
    out = capsys.readouterr().out
    assert f"and {len(run.info['versions']) - 12} more; --json lists them" in out


@pytest.mark.mvsa
@pytest.mark.slow
def test_the_three_voting_runs_of_mvsa_repeat(
    mvsa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real posts, a part of mvsa-single: the voting heads, fitted and replayed, are bit-identical."""
    lines = (mvsa / "train.txt").read_text().splitlines()
    part = tmp_path / "part"
    part.mkdir()
    (part / "data").symlink_to(mvsa / "data")
    (part / "train.txt").write_text("\n".join(lines[:401]) + "\n")
    tests = (mvsa / "test_without_label.txt").read_text().splitlines()
    (part / "test_without_label.txt").write_text("\n".join(tests[:41]) + "\n")
    monkeypatch.chdir(tmp_path)
    assert call("extract", "--data", "part", "--encoder", "offline", "--views", "1") == 0
    fusions = [word for fusion in VOTING for word in ("--fusion", fusion.value)]
    assert call("fit", "--data", "part", *fusions) == 0
    capsys.readouterr()
    assert call("replay", "--data", "part", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["identical"] for run in found["runs"]] == [True] * 3
    assert [run["differences"] for run in found["runs"]] == [[]] * 3
    assert found["vote"]["same"] == found["vote"]["rows"] == 40


def test_float16_features_are_compared_as_they_are_trained_on(made: Path, tmp_path: Path) -> None:
    dataset = load_dataset(made / "posts")
    cache = fake_cache(dataset, tmp_path / "cache", ("train",), views=1, storage="float16")
    run = fit(cache, tmp_path / "runs", [FIT], SPLIT)[0]
    found = replay(run, cache, tmp_path / "again")
    assert found.identical
    apart = replay_module._apart(run, found.again, cache, None)
    assert apart.largest_logit == 0
    assert np.isfinite(apart.f1)
    assert replay_vote([found], [cache], None).split == "train"
