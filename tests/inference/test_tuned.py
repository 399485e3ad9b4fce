"""Heads that tune the last blocks of the text encoder, from extraction to labels, with the offline encoders."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsent
from mmsent.cli.main import main
from mmsent.config import EncoderSettings
from mmsent.data.dataset import Split
from mmsent.encoders.factory import open_encoders
from mmsent.errors import CacheError, RunError
from mmsent.export.onnx_runtime import OnnxModel
from mmsent.features.cache import Cache
from mmsent.features.cache.journal import Journal
from mmsent.features.cache.states import load_states, states_path
from mmsent.features.new_posts import NewPost
from mmsent.inference import tuned
from mmsent.inference.logits import head_logits
from mmsent.inference.predict import predict
from mmsent.inference.tuned import baked, cached_texts, run_blocks
from mmsent.serve.service import Limits, Service
from mmsent.training.runs import Run, list_runs
from tests.helpers.small import encoder_options

SPLITS: tuple[Split, ...] = ("train", "test")
FIT = ["--epochs", "2", "--val-size", "0.34", "--no-group", "--recipe", "offline"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def made(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set's cache with its states, and runs of a tuned and of a frozen head."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(small / "cache", folder / "cache")
    where = options(small, folder)
    before = {path.name: path.read_bytes() for path in folder.glob("cache/*.h5")}
    assert run("extract", *where[:-2], *encoder_options(small), "--tokens", "text:1") == 0
    assert {path.name: path.read_bytes() for path in folder.glob("cache/*.h5")} == before  # the cache is as it was
    assert run("fit", *where, *FIT, "--tune", "text:1", "--fusion", "concat") == 0
    assert run("fit", *where, *FIT, "--fusion", "weighted") == 0
    return folder


def options(small: Path, folder: Path) -> list[str]:
    data = str(small / "posts" / "posts.jsonl")
    return ["--data", data, "--cache", str(folder / "cache"), "--runs", str(folder / "runs")]


def runs_of(made: Path) -> tuple[Run, Run]:
    found = {one.fusion.value: one for one in list_runs(made / "runs")}
    return found["concat"], found["weighted"]


def cache_of(made: Path) -> Cache:
    return Cache.open(next((made / "cache").glob("*.h5")))


def test_states_are_stored_once(small: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = cache_of(made)
    states = load_states(cache, "train", "text:1")
    assert len(states) == cache.rows["train"]
    assert states.values.shape == (states.offsets[-1], 384)
    assert states.values.dtype == np.float16
    arguments = [*options(small, made)[:-2], *encoder_options(small), "--tokens", "text:1", "--json"]
    capsys.readouterr()
    assert run("extract", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == {"blocks": "text:1", "encoded": {"train": 0, "test": 0}}


def test_a_run_holds_its_blocks(made: Path) -> None:
    tuned, frozen = runs_of(made)
    assert (tuned.tune, frozen.tune) == ("text:1", "")
    assert not (frozen.path / "blocks.safetensors").exists()
    assert sum(values.numel() for values in tuned.blocks().values()) == 1_774_464  # one layer of MiniLM
    assert "blocks_sha256" not in frozen.info


def test_the_blocks_have_moved_and_matter(made: Path) -> None:
    cache, (tuned, _) = cache_of(made), runs_of(made)
    features = cache.load("train")
    texts = cached_texts([tuned], cache, "train", features.text)
    _, own = texts.of(tuned, features.image[:, 0])  # type: ignore[union-attr]
    good = features.index.good
    cosine = (own * features.text).sum(axis=1)[good] / np.linalg.norm(own[good], axis=1)
    assert cosine.max() < 0.99999
    assert cosine.min() > 0.5
    with pytest.raises(RunError, match="needs the posts' states"):
        head_logits(tuned, features.image[:, 0], features.text)


def predictions(path: Path) -> dict[str, dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_vote_evaluate_and_predict_agree(small: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The labels from the cache are those of the same posts when they are encoded anew."""
    tuned, frozen = runs_of(made)
    names = [str(tuned.path), str(frozen.path)]
    where = options(small, made)
    assert run("evaluate", *where, *names, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["evaluations"]
    assert rows[0]["scores"]["accuracy"] == pytest.approx(tuned.info["metrics"]["accuracy"])
    assert run("vote", *where, *names, "--soft", "--out", str(made / "vote.txt")) == 0
    data = small / "posts" / "posts.jsonl"
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    manifest = data.with_name("tuned-test.jsonl")
    manifest.write_text("".join(json.dumps(one) + "\n" for one in lines if one["label"] is None), encoding="utf-8")
    out = made / "predicted.csv"
    assert run("predict", *names, "--soft", "--manifest", str(manifest), "--out", str(out)) == 0
    voted, found = predictions(made / "vote.csv"), predictions(out)
    assert voted.keys() == found.keys()
    for row_id, row in voted.items():
        assert found[row_id]["predicted"] == row["predicted"]
        for column in ("p_negative", "p_neutral", "p_positive"):
            assert float(found[row_id][column]) == pytest.approx(float(row[column]), abs=2e-3)


def test_replay_is_bit_identical(small: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned, _ = runs_of(made)
    assert run("replay", str(tuned.path), "--cache", str(made / "cache"), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["identical"], found


def test_a_low_rank_run_is_small_and_replays(
    small: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [*options(small, made)[:-1], str(tmp_path / "runs")]
    assert run("fit", *where, *FIT, "--tune", "text:1", "--lora", "2", "--fusion", "concat") == 0
    (low,), (whole, _) = list_runs(tmp_path / "runs"), runs_of(made)
    assert sum(values.numel() for values in low.blocks().values()) == 2 * (4 * 2 * 384 + 2 * (384 + 1536))
    assert (low.path / "blocks.safetensors").stat().st_size < (whole.path / "blocks.safetensors").stat().st_size / 100
    capsys.readouterr()
    assert run("replay", str(low.path), "--cache", str(made / "cache"), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["identical"], found
    assert run("fit", *where, *FIT, "--lora", "2", "--fusion", "concat") == 2
    assert "--lora 2 is for blocks that are tuned; add --tune text:2" in capsys.readouterr().err


def test_explain(small: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gradient goes through the tuned blocks: the logits are those of the head on tuned features."""
    tuned, _ = runs_of(made)
    image = next((small / "posts").glob("*.png"))
    arguments = ["--text", "what a lovely day", "--image", str(image), "--out", str(made / "why"), "--json"]
    assert run("explain", str(tuned.path), *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == tuned.name


@pytest.mark.slow
def test_onnx(small: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a frozen head, with their encoder: the probabilities of ONNX are those of torch with the tuned blocks in
    the encoder, and no other features are taken."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    both = tuned, frozen = runs_of(made)
    arguments = ["--format", "onnx", "--out", str(made / "onnx")]
    assert run("export", str(tuned.path), *arguments) == 2
    assert "takes no cached features: add --with-encoder" in capsys.readouterr().err
    assert run("export", str(tuned.path), str(frozen.path), *arguments, "--with-encoder", "--soft") == 0
    model = OnnxModel.open(made / "onnx")
    assert model.contract != tuned.contract
    image = sorted((small / "posts").glob("*.png"))[1]
    posts = [
        NewPost(str(i), text, image) for i, text in enumerate(["what a lovely day", "sad", "a long, long walk home"])
    ]
    encoders = open_encoders(tuned.encoder_settings.model_copy(update={"precision": "fp32", "device": "cpu"}))
    alike = [predict(posts, [own], encoders=pair) for own, pair in (baked(one, encoders) for one in both)]
    served = predict(posts, both, device="cpu", soft=True)  # whose states are float16
    for i, found in enumerate(model.predict(posts)):
        assert found.label == served[i].label
        for label, share in found.probabilities.items():
            assert share == pytest.approx(np.mean([one[i].probabilities[label] for one in alike]), abs=1e-4)
            assert share == pytest.approx(served[i].probabilities[label], abs=2e-3)


def test_hub_folder(small: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned, frozen = runs_of(made)
    out = made / "hub"
    assert run("export", str(tuned.path), str(frozen.path), "--format", "hf", "--out", str(out)) == 0
    image = sorted((small / "posts").glob("*.png"))[1]
    weights = str(small / "test_efficientnet.pt")  # a path on one machine is not written into the folder
    found = mmsent.load(out, device="cpu", weights=weights).predict(["what a lovely day"], [image])
    wanted = predict([NewPost("0", "what a lovely day", image)], [tuned, frozen], device="cpu")
    assert found[0].probabilities == wanted[0].probabilities


def test_the_server_answers_alike(small: Path, made: Path) -> None:
    tuned, frozen = runs_of(made)
    service = Service([tuned, frozen], Limits(), device="cpu")
    image = sorted((small / "posts").glob("*.png"))[1]
    posts = [NewPost("0", "what a lovely day", image), NewPost("1", "sad", image)]
    answers = service.answer([(post.id, service.prepare(post)) for post in posts])
    for answer, wanted in zip(answers, predict(posts, [tuned, frozen], device="cpu"), strict=True):
        assert answer["label"] == wanted.label
        assert answer["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


def test_the_encoder_and_each_runs_blocks_run_once_per_batch(
    small: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs there are; and what is labelled in several batches is what one batch gives."""
    tuned, frozen = runs_of(made)
    again = Run(shutil.copytree(tuned.path, tmp_path / "again"), tuned.info | {"name": "again"})
    service = Service([tuned, frozen, again], Limits(), device="cpu")
    calls: list[str] = []
    watched = {"encoder": service.encoders.text.model}  # type: ignore[attr-defined]
    watched |= {one.path.name: run_blocks(one, service.encoders) for one in (tuned, again)}
    for name, module in watched.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    image = sorted((small / "posts").glob("*.png"))[1]
    words = ["what a lovely day", None, "sad", "a long, long walk home", None]
    posts = [NewPost(str(i), text, image) for i, text in enumerate(words)]
    service.answer([(post.id, service.prepare(post)) for post in posts])
    assert sorted(calls) == sorted(watched)
    whole = predict(posts, service.runs, encoders=service.encoders)
    calls.clear()
    monkeypatch.setattr("mmsent.inference.predict.BATCH", 2)
    parts = predict(posts, service.runs, encoders=service.encoders)
    assert [calls.count(name) for name in watched] == [2, 2, 2]  # the third batch has no text
    for one, other in zip(parts, whole, strict=True):
        assert (one.label, one.problem) == (other.label, other.problem)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_stopped_and_continued_gives_the_same_states(
    small: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load_states(cache_of(made), "train", "text:1")
    shutil.copytree(made, tmp_path / "copy")
    cache = cache_of(tmp_path / "copy")
    states_path(cache, "text:1").unlink()
    arguments = [*options(small, tmp_path / "copy")[:-2], *encoder_options(small), "--tokens", "text:1"]
    put, seen = Journal.put, []

    def stop_after_the_first(self: Journal, split: str, half: Any, entries: Any) -> None:
        put(self, split, half, entries)
        seen.append(len(entries))
        if len(seen) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stop_after_the_first)
    assert run("extract", *arguments) == 130
    assert states_path(cache, "text:1").is_file()
    monkeypatch.setattr(Journal, "put", put)
    assert run("extract", *arguments) == 0
    found = load_states(cache, "train", "text:1")
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.values, wanted.values)


@pytest.mark.slow
def test_killed_and_continued(small: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kill while the second split is written keeps the first; the next extraction goes on to the same states."""
    wanted = {split: load_states(cache_of(made), split, "text:1") for split in SPLITS}
    shutil.copytree(made / "cache", tmp_path / "cache")
    cache = cache_of(tmp_path)
    states_path(cache, "text:1").unlink()
    arguments = [*options(small, tmp_path)[:-2], *encoder_options(small), "--tokens", "text:1"]
    script = """
import os, signal, sys
from mmsent.cli.main import main
from mmsent.features.cache import journal
from mmsent.features.cache.journal import Journal
journal.COMMIT_SECONDS = 1e9  # at the end of each split alone, however slow the machine is
put = Journal.put
def put_or_die(self, split, half, entries):
    if self.path.suffix == ".states" and split == "test":
        put(self, split, half, entries)
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, split, half, entries)
Journal.put = put_or_die
main(sys.argv[1:])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script, "extract", *arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert run("extract", *arguments, "--json") == 0
    encoded = json.loads(capsys.readouterr().out)["tokens"]["encoded"]
    assert encoded == {"train": 0, "test": int(cache.index("test").good.sum())}
    for split in SPLITS:
        found = load_states(cache, split, "text:1")
        np.testing.assert_array_equal(found.offsets, wanted[split].offsets)
        np.testing.assert_array_equal(found.values, wanted[split].values)


def test_a_flipped_byte_is_found_by_verify_and_mended_by_repair(
    small: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "cache", tmp_path / "cache")
    cache = cache_of(tmp_path)
    wanted, name = load_states(cache, "train", "text:1"), cache.index("train").ids[3]
    path = states_path(cache, "text:1")
    where = options(small, tmp_path)[:-2]
    assert run("cache", "verify", *where, "--sample", "0") == 0
    piece = wanted.values[wanted.offsets[3] : wanted.offsets[4]].tobytes()[:64]
    raw = bytearray(path.read_bytes())
    raw[raw.index(piece)] ^= 1
    path.write_bytes(bytes(raw))
    capsys.readouterr()
    assert run("cache", "verify", *where, "--sample", "0") == 1
    said = capsys.readouterr()
    assert f"states of text:1: 1 text ({name})" in said.out
    assert "mmsent cache repair" in said.err
    assert path.read_bytes() == bytes(raw)  # verifying writes nothing
    assert run("cache", "repair", *where) == 0
    assert "states of text:1: 1 text encoded again" in capsys.readouterr().out
    assert run("cache", "verify", *where, "--sample", "0") == 0
    np.testing.assert_array_equal(load_states(cache, "train", "text:1").values, wanted.values)


def test_missing_states_say_what_to_type(small: Path, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    cache = cache_of(tmp_path / "copy")
    states_path(cache, "text:1").unlink()
    with pytest.raises(CacheError, match="no states for text:1; run `mmsent extract --tokens text:1`"):
        load_states(cache, "train", "text:1")
    with pytest.raises(CacheError, match="no states for text:2"):
        load_states(cache, "train", "text:2")


def test_a_flipped_byte_is_found(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    cache = cache_of(tmp_path / "copy")
    path = states_path(cache, "text:1")
    raw = bytearray(path.read_bytes())
    for at in range(len(raw) // 2, len(raw), len(raw) // 20):
        raw[at] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(CacheError, match=r"damaged|cannot be used|lacks the states"):
        load_states(cache, "train", "text:1")


def test_damaged_blocks_are_refused(
    small: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "copy")
    tuned, _ = runs_of(tmp_path / "copy")
    path = tuned.path / "blocks.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    assert run("vote", *options(small, tmp_path / "copy"), str(tuned.path), "--out", str(tmp_path / "v.txt")) == 1
    assert "is not the file this run wrote" in capsys.readouterr().err


def test_blocks_are_taken_from_torch_where_a_runtime_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[EncoderSettings] = []
    monkeypatch.setattr(tuned, "open_encoders", opened.append)
    monkeypatch.setattr("mmsent.encoders.runtimes._missing", lambda runtime: [runtime])
    tuned._opened.__wrapped__(EncoderSettings(encoder="offline", runtime="onnxruntime"))
    assert opened == [EncoderSettings(encoder="offline", runtime="torch")]
