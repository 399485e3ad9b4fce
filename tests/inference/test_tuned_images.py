"""Heads that tune the last block of a vision transformer, from extraction to labels, with a tiny open_clip model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsent.cli.main import main
from mmsent.data.dataset import Post
from mmsent.errors import CacheError, RunError
from mmsent.features.cache import Cache
from mmsent.features.cache.journal import Journal
from mmsent.features.cache.states import load_states, states_path
from mmsent.features.new_posts import NewPost
from mmsent.inference.explain import explain
from mmsent.inference.logits import head_logits
from mmsent.inference.predict import predict
from mmsent.inference.tuned import baked, cached_texts
from tests.helpers.tuned import tuned_world


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture
def copied(tmp_path: Path) -> tuple[list[str], Cache]:
    """A copy of the cache with its states, and the options that name data, cache and encoder."""
    world = tuned_world()
    shutil.copytree(world.cache.path.parent, tmp_path / "cache")
    chosen = world.cache.encoder_settings
    where = ["--data", str(world.data.root), "--cache", str(tmp_path / "cache")]
    where += ["--encoder", chosen.encoder, "--weights", str(chosen.weights), "--device", "cpu", "--precision", "fp32"]
    return where, Cache.open(tmp_path / "cache" / world.cache.path.name)


def posts_of(split: str = "test") -> list[NewPost]:
    world = tuned_world()
    posts: Sequence[Post] = [post for post in world.data.posts if post.split == split]
    return [NewPost(post.id, world.data.text_of(post), post.image) for post in posts]


def test_the_size_is_said_before_and_only_what_is_missing_is_encoded(
    copied: tuple[list[str], Cache], capsys: pytest.CaptureFixture[str]
) -> None:
    where, cache = copied
    wanted = load_states(cache, "train", "image:1")
    assert set(wanted.lengths) == {17}
    assert wanted.values.shape == (40 * 17, 32)
    states_path(cache, "image:1").unlink()
    before = cache.path.read_bytes()
    assert run("extract", *where, "--views", "0", "--tokens", "image:1") == 0
    said = capsys.readouterr()
    assert 52 * 17 * 32 * 2 == 56576
    assert "the states of 52 images for image:1 will take about 0.06 MB beside the cache" in said.err
    assert "states that enter the last blocks (image:1): 52 images encoded" in said.out
    assert cache.path.read_bytes() == before
    np.testing.assert_array_equal(load_states(cache, "train", "image:1").values, wanted.values)
    assert run("extract", *where, "--views", "0", "--tokens", "image:1") == 0
    said = capsys.readouterr()
    assert "0 images encoded" in said.out
    assert "will take" not in said.err


def test_stopped_and_continued_gives_the_same_states(
    copied: tuple[list[str], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, cache = copied
    wanted = load_states(cache, "train", "image:1")
    states_path(cache, "image:1").unlink()
    put, seen = Journal.put, []

    def stop_after_the_first(self: Journal, split: str, half: Any, entries: Any) -> None:
        put(self, split, half, entries)
        seen.append(half)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stop_after_the_first)
    assert run("extract", *where, "--views", "0", "--tokens", "image:1") == 130
    assert seen == ["image"]
    monkeypatch.setattr(Journal, "put", put)
    with pytest.raises(CacheError, match=r"lacks the states of \d+ train images"):
        load_states(cache, "train", "image:1")
    assert run("extract", *where, "--views", "0", "--tokens", "image:1") == 0
    np.testing.assert_array_equal(load_states(cache, "train", "image:1").values, wanted.values)


def test_a_flipped_byte_is_found_by_verify_and_mended_by_repair(
    copied: tuple[list[str], Cache], capsys: pytest.CaptureFixture[str]
) -> None:
    where, cache = copied
    wanted, name = load_states(cache, "train", "image:1"), cache.index("train").ids[3]
    path = states_path(cache, "image:1")
    raw = bytearray(path.read_bytes())
    raw[raw.index(wanted.values[wanted.offsets[3] : wanted.offsets[4]].tobytes()[:64])] ^= 1
    path.write_bytes(bytes(raw))
    assert run("cache", "verify", *where[:4], "--sample", "0") == 1
    assert f"states of image:1: 1 image ({name})" in capsys.readouterr().out
    assert run("cache", "repair", *where[:4]) == 0
    assert "states of image:1: 1 image encoded again" in capsys.readouterr().out
    assert run("cache", "verify", *where[:4], "--sample", "0") == 0
    np.testing.assert_array_equal(load_states(cache, "train", "image:1").values, wanted.values)


def test_the_block_has_moved_and_matters() -> None:
    world = tuned_world()
    one, features = world.image, world.cache.load("train")
    assert one.tune == "image:1"
    assert sum(values.numel() for values in one.blocks().values()) > 10_000
    texts = cached_texts([one], world.cache, "train", features.text)
    image, text = texts.of(one, features.image[:, 0])  # type: ignore[union-attr]
    np.testing.assert_array_equal(text, features.text)
    assert np.abs(image - features.image[:, 0]).max() > 0.01
    with pytest.raises(RunError, match="needs the posts' states"):
        head_logits(one, features.image[:, 0], features.text)


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_evaluate_vote_and_predict_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a head that tunes texts and a frozen one; labels from the cache are those of the posts encoded anew."""
    world = tuned_world()
    runs = [world.image, world.runs[0], world.runs[2]]
    names = [str(one.path) for one in runs]
    where = ["--data", str(world.data.root), "--cache", str(world.cache.path.parent)]
    assert run("evaluate", *where, *names, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["evaluations"]
    assert rows[0]["scores"]["accuracy"] == pytest.approx(world.image.info["metrics"]["accuracy"])
    assert run("vote", *where, *names, "--soft", "--out", str(tmp_path / "vote.txt")) == 0
    voted, posts = table(tmp_path / "vote.csv"), posts_of()
    for batch, found in (("one", predict(posts, runs, encoders=world.encoders, soft=True)),):
        assert {one.id for one in found} == voted.keys(), batch
        for one in found:
            assert one.label == voted[one.id]["predicted"]
            for label, share in one.probabilities.items():
                assert float(voted[one.id][f"p_{label}"]) == pytest.approx(share, abs=2e-3)


def test_posts_that_lack_an_image_and_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tuned_world()
    posts = posts_of()[:4]
    posts[1] = NewPost("none", "what a day", None)
    whole = predict(posts, [world.image], encoders=world.encoders)
    assert whole[1].label is None
    monkeypatch.setattr("mmsent.inference.predict.BATCH", 2)
    for one, other in zip(predict(posts, [world.image], encoders=world.encoders), whole, strict=True):
        assert (one.label, one.problem) == (other.label, other.problem)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_replay_is_bit_identical(capsys: pytest.CaptureFixture[str]) -> None:
    world = tuned_world()
    assert run("replay", str(world.image.path), "--cache", str(world.cache.path.parent), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["identical"], found


def test_explained_through_the_tuned_block() -> None:
    """The logit is that of the head on what the tuned block gives; Grad-CAM differs from the frozen path's."""
    world, post = tuned_world(), posts_of()[0]
    found = explain(world.image, world.encoders, post, occlude=False)
    (wanted,) = predict([post], [world.image], encoders=world.encoders)
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-3)
    own, pair = baked(world.image, world.encoders)
    assert own.tune == ""
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    slopes = []
    for encoders in (pair, world.encoders):
        encoder: Any = encoders.image
        (slope,) = torch.autograd.grad(encoder.features(pixels).square().sum(), pixels)
        slopes.append(slope)
    assert float((slopes[0] - slopes[1]).abs().max()) > 1e-3
