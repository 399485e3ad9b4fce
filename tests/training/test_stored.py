"""Rows on disk: the same rows as in memory, each once an epoch, well mixed, within the memory they may take."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsent.training.stored
from mmsent.cli.main import main
from mmsent.config import FitSettings, SplitSettings, settings
from mmsent.errors import UsageError
from mmsent.features.cache import Cache
from mmsent.training.fit import Training, fit
from mmsent.training.loaders import Tensors, to_tensors
from mmsent.training.runs import Run
from mmsent.training.sides import sides
from mmsent.training.stored import Stored
from tests.helpers.sweeping import SPLIT, make_cache
from tests.helpers.tuning import FreshTinyBlocks, store_states

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))
from make_synthetic_cache import make

N, IMAGE, TEXT = 2000, 12, 8


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make(tmp_path_factory.mktemp("synthetic") / "s.h5", N, IMAGE, TEXT, signal=0.6)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 50 rows, so that a small cache has many."""
    monkeypatch.setattr(mmsent.training.stored, "READ_BYTES", 50 * 4 * (IMAGE + TEXT))


def stored(cache: Cache, positions: np.ndarray, memory: int) -> tuple[Stored, Tensors]:
    """The same rows on disk and in memory."""
    features = cache.load("train")
    labels = features.index.labels[positions]
    there = to_tensors(features.image[positions], features.text[positions], labels, "cpu")
    return Stored(cache, "train", positions, labels, memory, "cpu"), there


def numbers(image: torch.Tensor, there: Tensors) -> list[int]:
    """Which of our rows each row of a batch is."""
    known = {row.numpy().tobytes(): i for i, row in enumerate(there.image[:, 0])}
    return [known[row.numpy().tobytes()] for row in image]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("memory", [1, 10_000, 10**9])
@pytest.mark.parametrize("every", [1, 3])
def test_an_epoch_holds_each_row_once(cache: Cache, memory: int, every: int) -> None:
    positions = np.arange(0, N, every)
    disk, there = stored(cache, positions, memory)
    torch.manual_seed(0)
    order, sizes = [], []
    for image, text, labels, missing in disk.epoch(FitSettings(batch_size=64)):
        rows = numbers(image, there)
        assert torch.equal(text, there.text[rows])
        assert torch.equal(labels, there.labels[rows])
        assert missing is None
        assert image.dtype == text.dtype == torch.float32
        order += rows
        sizes.append(len(rows))
    assert sorted(order) == list(range(len(positions)))
    assert order != sorted(order)
    assert set(sizes[:-1]) == {64}  # as in memory, only the last batch is smaller
    assert len(sizes) == -(-len(positions) // 64)


@pytest.mark.usefixtures("small_blocks")
def test_more_memory_mixes_more(cache: Cache) -> None:
    """With one block at a time neighbours stay within their block; with all of them they do not."""
    spread = []
    for memory in (1, 10**9):
        disk, there = stored(cache, np.arange(N), memory)
        torch.manual_seed(0)
        batches = [numbers(image, there) for image, *_ in disk.epoch(FitSettings(batch_size=32))]
        spread.append(np.mean([len({row // 50 for row in batch}) for batch in batches[:-1]]))
    assert spread[0] < 4
    assert spread[1] > 15


@pytest.mark.usefixtures("small_blocks")
def test_epochs_differ_and_repeat_by_seed(cache: Cache) -> None:
    disk, there = stored(cache, np.arange(N), 10_000)

    def order(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        epochs = [disk.epoch(FitSettings()) for _ in range(2)]
        return [[row for image, *_ in epoch for row in numbers(image, there)] for epoch in epochs]

    first = order(1)
    assert first[0] != first[1]
    assert order(1) == first
    assert order(2) != first


@pytest.mark.usefixtures("small_blocks")
def test_parts_come_in_order(cache: Cache) -> None:
    positions = np.arange(1, N, 2)
    disk, there = stored(cache, positions, 1)
    parts = list(disk.parts())
    assert np.concatenate([part for part, *_ in parts]).tolist() == list(range(len(positions)))
    assert torch.equal(torch.cat([image for _, image, _, _ in parts]), there.image[:, 0])
    assert torch.equal(torch.cat([text for _, _, text, _ in parts]), there.text)


def test_the_weighted_draw_needs_memory(cache: Cache) -> None:
    disk, _ = stored(cache, np.arange(N), 1)
    with pytest.raises(UsageError, match="raise --memory"):
        next(disk.epoch(FitSettings(balance="sampler")))


@pytest.mark.usefixtures("small_blocks")
def test_fit_from_disk(cache: Cache, tmp_path: Path) -> None:
    """The same split and, within noise, the same score; the same seed gives the same bytes."""
    wanted = [FitSettings(lr=3e-3, epochs=4, patience=4, hidden=32, standardize=True, seed=s) for s in range(3)]
    split = settings(SplitSettings, val_size=0.25)
    here = fit(cache, tmp_path / "memory", wanted, split)
    disk = fit(cache, tmp_path / "disk", wanted, split, Training(memory=20_000))
    again = fit(cache, tmp_path / "again", wanted[:1], split, Training(memory=20_000))
    assert [r.validation_ids() for r in disk] == [r.validation_ids() for r in here]
    scores = [[r.info["metrics"]["f1_weighted"] for r in runs] for runs in (here, disk)]
    assert np.mean(scores[1]) == pytest.approx(np.mean(scores[0]), abs=0.02)
    assert np.mean(scores[1]) > 0.75
    assert disk[0].info["head_sha256"] == again[0].info["head_sha256"] != here[0].info["head_sha256"]
    for name in ("image_mean", "image_std", "text_mean", "text_std"):
        ours, theirs = getattr(disk[0].head(), name), getattr(here[0].head(), name)
        assert torch.allclose(ours, theirs, atol=1e-5), name


def test_memory_decides(cache: Cache) -> None:
    split = settings(SplitSettings, val_size=0.25)
    whole = N * 4 * (IMAGE + TEXT)
    assert cache.row_bytes("train") == 4 * (IMAGE + TEXT)
    assert sides(cache, split, device="cpu", memory=whole - 1).stored
    assert not sides(cache, split, device="cpu", memory=whole).stored
    assert not sides(cache, split, device="cpu").stored


def test_columns_are_the_index(cache: Cache) -> None:
    index, columns = cache.index("train"), cache.columns("train")
    assert [name.decode() for name in columns.ids] == index.ids
    assert columns.labels.tolist() == index.labels.tolist()
    assert columns.good.all()
    assert len(np.unique(columns.image_keys)) == N
    assert columns.image_keys.tolist() == [int.from_bytes(h[:8], "big") for h in index.image_hashes]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_the_command(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--cache", str(cache.path), "--runs", str(tmp_path / "runs"), "--epochs", "2"]
    assert run("fit", *where, "--memory", "50kB") == 0
    printed = capsys.readouterr()
    assert "read from disk" in printed.err
    assert "trained on 1750 rows, validated on 250" in printed.out
    assert run("fit", *where, "--memory", "1GB") == 0
    assert "read from disk" not in capsys.readouterr().err
    for size in ("much", "9" * 400 + "GB"):
        assert run("fit", *where, "--memory", size) == 2
        assert f"--memory '{size}': give a size such as 2GB" in capsys.readouterr().err


def test_tuned_heads_train_on_states_from_disk(tmp_path: Path) -> None:
    """Where only the states stay on disk, the same head to the bit; where the rows do too, another of a like score."""
    cache = make_cache(tmp_path)
    store_states(cache, "text:1")
    head = settings(FitSettings, tune="text:1", tune_lr=1e-2, lr=1e-2, epochs=4, common_width=8, heads=2)

    def fitted(memory: int | None) -> Run:
        how = Training(memory=memory, blocks=FreshTinyBlocks())
        return fit(cache, tmp_path / "runs", [head], SPLIT, how)[0]

    here, states, rows = fitted(None), fitted(cache.rows["train"] * cache.row_bytes("train") + 1), fitted(1)
    assert [one.info["memory"] is None for one in (here, states, rows)] == [True, False, False]
    for name in ("head_sha256", "blocks_sha256"):
        assert states.info[name] == here.info[name]
        assert rows.info[name] != here.info[name]
    reached = here.info["metrics"]["f1_weighted"]
    assert rows.info["metrics"]["f1_weighted"] == pytest.approx(reached, abs=0.15)
