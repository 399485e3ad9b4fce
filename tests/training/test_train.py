"""Training: determinism, the schedule, early stopping, the loss by hand, views and dropped halves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmsent.training.loaders
import mmsent.training.optimizer
import mmsent.training.train
from mmsent.config import FitSettings, Fusion
from mmsent.errors import DataError, UsageError
from mmsent.metrics import scores
from mmsent.training.calibration import softmax
from mmsent.training.head_config import head_config
from mmsent.training.heads import Head, Trace
from mmsent.training.loaders import Tensors
from mmsent.training.moments import set_statistics
from mmsent.training.train import (
    Draws,
    Trained,
    class_weights,
    evaluate_head,
    loss_tables,
    precision_for,
    smoothed_loss,
    train_head,
)
from mmsent.training.tuning import require_tunable
from tests.helpers.mps import MpsRows, pretended_mps

SMALL: dict[str, Any] = {"hidden": 8, "heads": 2, "batch_size": 8, "lr": 1e-2, "epochs": 3, "precision": "fp32"}


def make_tensors(n: int, seed: int, views: int = 3, counts: tuple[int, int, int] | None = None) -> Tensors:
    """Six features a half that tell the class, with noise. counts: rows of each class; else equal shares."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts)) if counts else torch.arange(n) % 3
    hot = torch.nn.functional.one_hot(labels, 6).float()
    image = 2 * hot[:, None] + torch.randn(len(labels), views, 6, generator=rng)
    return Tensors(image, 2 * hot + torch.randn(len(labels), 6, generator=rng), labels)


TRAIN, VAL = make_tensors(60, 1), make_tensors(30, 2)


def train(train: Tensors = TRAIN, val: Tensors = VAL, on_epoch: Any = None, **more: Any) -> Trained:
    return train_head(train, val, FitSettings(**{**SMALL, **more}), 3, on_epoch)


def same_weights(a: Trained, b: Trained) -> bool:
    ours, theirs = a.head.state_dict(), b.head.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def draws(**more: Any) -> Draws:
    """The random numbers of a head with seed 0."""
    settings = FitSettings(**{**SMALL, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Draws(settings, Head(head_config(settings, 6, 6, 3)), "cpu")


Call = tuple[Tensor, Tensor, Tensor | None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What every training batch gives the head: image, text, missing. Validation uses `trace` and is not in it."""
    found: list[Call] = []
    fuse = Head.fuse

    def spy(self: Head, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Tensor:
        if self.training:
            found.append((image.clone(), text.clone(), missing))
        return fuse(self, image, text, missing)

    monkeypatch.setattr(Head, "fuse", spy)
    return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The optimizer's settings at every step."""
    found: list[dict[str, Any]] = []
    update = mmsent.training.optimizer.adamw

    def spy(*arguments: Any, **settings: Any) -> None:
        found.append(settings)
        update(*arguments, **settings)

    monkeypatch.setattr(mmsent.training.optimizer, "adamw", spy)
    return found


# --- class weights


def test_class_weights_by_hand() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    raw = [(10 / 18) ** 0.3, (10 / 9) ** 0.3, (10 / 3) ** 0.3]
    wanted = [3 * w / sum(raw) for w in raw]
    found = class_weights(labels, 3, 0.3)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    assert float(found.sum()) == pytest.approx(3)
    assert class_weights(labels, 3, 0.0).tolist() == [1, 1, 1]
    assert class_weights(labels, 3, 1.0).tolist() == pytest.approx([1 / 3, 2 / 3, 2])  # 1/6 : 1/3 : 1, scaled to 3


def test_class_weights_of_an_absent_class_are_finite() -> None:
    assert class_weights(torch.tensor([0, 0, 1, 1]), 3, 1.0).tolist() == pytest.approx([0.75, 0.75, 1.5])


# --- determinism


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_seed_gives_bit_identical_weights(fusion: Fusion, precision: str) -> None:
    torch.manual_seed(5)
    first = train(fusion=fusion, modality_dropout=0.2, precision=precision)
    torch.manual_seed(6)  # the caller's generator has no say
    second = train(fusion=fusion, modality_dropout=0.2, precision=precision)
    other = train(fusion=fusion, modality_dropout=0.2, seed=1, precision=precision)
    assert same_weights(first, second)
    assert first.val_logits.tobytes() == second.val_logits.tobytes()
    assert first.history == second.history
    assert not same_weights(first, other)


class Boom(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [(False, False), (True, True), (True, False)])
def test_global_state_is_left_as_found(fails: bool, before: tuple[bool, bool]) -> None:
    inside: list[bool] = []

    def on_epoch(_: dict[str, Any]) -> None:
        inside.append(torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark)
        if fails:
            raise Boom

    torch.manual_seed(11)
    state = torch.get_rng_state()
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.backends.cudnn.benchmark = True
    try:
        if fails:
            with pytest.raises(Boom):
                train(on_epoch=on_epoch)
        else:
            train(on_epoch=on_epoch)
        assert inside
        assert all(inside)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.are_deterministic_algorithms_enabled() is before[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled() is before[1]
        assert torch.backends.cudnn.benchmark is True
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


def test_threads_train_as_one_after_another() -> None:
    alone = [train(fusion=fusion) for fusion in (Fusion.concat, Fusion.attention)] * 2
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = pool.map(lambda fusion: train(fusion=fusion), [Fusion.concat, Fusion.attention] * 2)
            assert all(same_weights(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("fusion", list(Fusion))
def test_the_callers_default_type_and_device_change_nothing(fusion: Fusion) -> None:
    settings: dict[str, Any] = {"fusion": fusion, "modality_dropout": 0.2, "common_width": 8}
    usual = train(**settings)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        other = train(**settings)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
    assert same_weights(usual, other)
    assert usual.history == other.history


# --- devices


def test_on_a_cpu_no_gpu_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    def woken(*_: Any) -> None:
        raise AssertionError("CUDA was initialised")

    queued: list[Any] = []
    monkeypatch.setattr(torch.cuda, "_lazy_init", woken)
    monkeypatch.setattr(torch.cuda, "_lazy_call", lambda call, **_: queued.append(call))  # for when it wakes
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    train()
    assert not queued


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_an_apple_gpu_is_asked_for_no_float64(balance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = train(balance=balance, standardize=True, rms=True)
    with pretended_mps(monkeypatch) as mps:
        with pytest.raises(TypeError, match="no float64"):
            mps.put(torch.ones(2)).double()
        rows = [MpsRows(*(mps.put(part.clone()) for part in (r.image, r.text, r.labels))) for r in (TRAIN, VAL)]
        there = train(*rows, balance=balance, standardize=True, rms=True)
    assert same_weights(usual, there)


class FromDisk:
    """Rows that are read in parts, as those of a large cache are."""

    labels, widths = TRAIN.labels, TRAIN.widths

    def __init__(self, device: str, put: Callable[[Tensor], Tensor]) -> None:
        self.device, self._put = device, put

    def __len__(self) -> int:
        return len(TRAIN)

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor, None]]:
        for start in range(0, len(TRAIN), 16):
            part = slice(start, start + 16)
            yield part, self._put(TRAIN.image[part, 0].clone()), self._put(TRAIN.text[part].clone()), None


def test_nor_by_the_statistics_of_rows_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    config = head_config(FitSettings(**SMALL), 6, 6, 3)
    usual, there = Head(config), Head(config)
    set_statistics(usual, FromDisk("cpu", lambda part: part))  # type: ignore[arg-type]
    with pretended_mps(monkeypatch) as mps:
        set_statistics(there, FromDisk("mps", mps.put))  # type: ignore[arg-type]
    assert torch.equal(usual.image_mean, there.image_mean)
    assert torch.equal(usual.text_std, there.text_std)


# --- precision


def test_auto_is_bf16_on_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, wanted in (({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False, "amx_bf16": False}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert precision_for("cpu") == wanted
        assert precision_for("cuda") == "fp32"
        assert same_weights(train(precision="auto"), train(precision=wanted))
    assert not same_weights(train(precision="fp32"), train(precision="bf16"))


def test_auto_is_bf16_on_a_gpu_where_blocks_train(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, wanted in (("bf16", "bf16"), ("fp16", "fp32")):
        monkeypatch.setattr("mmsent.training.train.half_precision_for", lambda device, native=native: native)
        assert precision_for("cuda:1", "text:2") == wanted
        assert precision_for("cuda:1") == "fp32"


@pytest.mark.parametrize(("fusion", "tune"), [(Fusion.image, "text:1"), (Fusion.text, "image:1")])
def test_blocks_that_a_head_does_not_read_are_refused(fusion: Fusion, tune: str) -> None:
    blocks: Any = object()
    with pytest.raises(UsageError, match=rf"reads no {tune[:-2]}, so --tune {tune} has nothing to learn"):
        require_tunable(FitSettings(fusion=fusion, tune=tune), blocks)
    require_tunable(FitSettings(fusion=Fusion(tune[:-2]), tune=tune), blocks)
    with pytest.raises(UsageError, match="not at hand"):
        train(tune=tune)


# --- schedule and stopping


def test_one_cycle_by_hand(steps: list[dict[str, Any]]) -> None:
    train(lr=0.01, batch_size=16, epochs=10, patience=100, weight_decay=0.07)  # 60 rows: 4 steps an epoch
    rates = [step["lr"] for step in steps]
    assert len(rates) == 40
    low, peak, end = 0.01 / 25, 0.01, 0.01 / 25 / 1e4
    assert rates.index(max(rates)) == 11  # the last of the first 30% of 40 steps
    assert rates[11] == pytest.approx(peak, rel=1e-12)
    rise = [low + (peak - low) * (1 - math.cos(math.pi * k / 11)) / 2 for k in range(12)]
    fall = [end + (peak - end) * (1 + math.cos(math.pi * k / 28)) / 2 for k in range(1, 29)]
    assert rates == pytest.approx(rise + fall, rel=1e-9)
    assert {step["weight_decay"] for step in steps} == {0.07}


def test_warmup_moves_the_peak(steps: list[dict[str, Any]]) -> None:
    train(batch_size=60, epochs=10, patience=100, warmup=0.6)
    rates = [step["lr"] for step in steps]
    assert rates.index(max(rates)) == 5


@pytest.mark.parametrize(("warmup", "epochs"), [(0.1, 10), (0.5, 2), (0.3, 1), (0.05, 10)])
def test_a_warmup_of_one_step_or_less_trains(warmup: float, epochs: int, steps: list[dict[str, Any]]) -> None:
    trained = train(lr=0.01, batch_size=60, epochs=epochs, patience=100, warmup=warmup)
    assert len(trained.history) == epochs
    assert all(0 < step["lr"] <= 0.01 * (1 + 1e-9) for step in steps)
    if warmup * epochs == 1:
        assert steps[0]["lr"] == pytest.approx(0.01, rel=1e-6)  # one step of warm-up: the first is the peak


def fake_f1(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    left = iter(values)

    def fake(*args: Any) -> dict[str, Any]:
        return {**scores(*args), "f1_weighted": next(left)}

    monkeypatch.setattr(mmsent.training.train, "scores", fake)


def test_a_look_after_a_third_of_the_first_epoch_changes_nothing(
    steps: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []
    settings = FitSettings(**{**SMALL, "batch_size": 16, "dropout": 0.5})  # 60 rows: 4 steps an epoch
    alone = train_head(TRAIN, VAL, settings, 3)
    steps.clear()
    looked = train_head(TRAIN, VAL, settings, 3, on_third=lambda f1: seen.append((len(steps), f1)))
    assert same_weights(looked, alone)
    assert looked.history == alone.history
    fake_f1(monkeypatch, [0.42, 0.5, 0.6, 0.7])
    train_head(TRAIN, VAL, settings, 3, on_third=lambda f1: seen.append((len(steps) - 12, f1)))
    assert [at for at, _ in seen] == [2, 2]
    assert seen[1][1] == 0.42


@pytest.mark.parametrize(
    ("f1", "patience", "epochs", "length", "best"),
    [
        ([0.5, 0.6, 0.6, 0.59, 0.9], 2, 10, 4, 2),  # an equal F1 is no better one
        ([0.5, 0.6, 0.55, 0.61, 0.6, 0.6, 0.9], 2, 10, 6, 4),  # a better one starts the count again
        ([0.5, 0.4, 0.9], 1, 10, 2, 1),
        ([0.5, 0.4, 0.4, 0.4, 0.9], 3, 10, 4, 1),
        ([0.1, 0.2, 0.3], 2, 3, 3, 3),
    ],
)
def test_early_stopping_restores_the_best_epoch(
    monkeypatch: pytest.MonkeyPatch, f1: list[float], patience: int, epochs: int, length: int, best: int
) -> None:
    fake_f1(monkeypatch, f1)
    logits: list[Tensor] = []
    real = mmsent.training.train.evaluate_head

    def spy(*args: Any) -> tuple[Tensor, list[float] | None, Trace]:
        found = real(*args)
        logits.append(found[0].clone())
        return found

    monkeypatch.setattr(mmsent.training.train, "evaluate_head", spy)
    records: list[dict[str, Any]] = []
    trained = train(patience=patience, epochs=epochs, on_epoch=records.append)
    assert [r["epoch"] for r in trained.history] == list(range(1, length + 1))
    assert records == trained.history
    assert trained.best_epoch == best
    assert not trained.head.training
    assert np.array_equal(trained.val_logits, logits[best - 1].numpy())
    assert torch.equal(real(trained.head, VAL)[0], logits[best - 1])
    assert all(not torch.equal(logits[best - 1], other) for i, other in enumerate(logits) if i != best - 1)


def test_history_holds_the_scores_of_the_validation_rows() -> None:
    trained = train(fusion=Fusion.weighted, patience=100)
    record = trained.history[trained.best_epoch - 1]
    found = scores(VAL.labels.numpy(), trained.val_logits.argmax(axis=1), 3)
    assert record["val_f1_weighted"] == found["f1_weighted"] == max(r["val_f1_weighted"] for r in trained.history)
    assert record["val_accuracy"] == found["accuracy"]
    assert record["val_f1_per_class"] == found["f1_per_class"]
    weights = trained.head.weight_logits.detach().softmax(dim=0).tolist()
    assert [record["image_share"], record["text_share"]] == pytest.approx(weights)
    assert weights[0] != 0.5
    assert train(fusion=Fusion.concat).history[0]["image_share"] is None


# --- loss


@pytest.mark.parametrize("balance", ["weights", "none", "sampler"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_by_hand(balance: str, smoothing: float) -> None:
    rows = make_tensors(0, 1, counts=(40, 15, 5))
    trained = train(rows, balance=balance, label_smoothing=smoothing, class_weight_power=0.7)
    logs = np.log(softmax(trained.val_logits))
    truth = VAL.labels.numpy()
    counts = np.array([40, 15, 5])
    weights = (60 / (3 * counts)) ** 0.7 if balance == "weights" else np.ones(3)
    weights = weights * 3 / weights.sum()
    picked = logs[np.arange(len(truth)), truth]
    # torch: the smoothed part weighs every class by its own weight; the mean is over the true classes' weights
    rowwise = -(1 - smoothing) * weights[truth] * picked - smoothing / 3 * (weights * logs).sum(axis=1)
    record = trained.history[trained.best_epoch - 1]
    assert record["val_loss"] == pytest.approx(rowwise.sum() / weights[truth].sum(), rel=1e-5)
    assert record["val_nll"] == pytest.approx(-picked.mean(), rel=1e-9)  # neither weighted nor smoothed


def test_training_loss_is_the_mean_over_rows() -> None:
    settings = FitSettings(**{**SMALL, "lr": 1e-12, "dropout": 0.0, "epochs": 1, "balance": "none", "batch_size": 7})
    rows = make_tensors(0, 1, views=1, counts=(8, 1, 1))  # batches of 7 and 3
    trained = train_head(rows, VAL, settings, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(head_config(settings, 6, 6, 3))
    loss = torch.nn.functional.cross_entropy(head(rows.image[:, 0], rows.text), rows.labels, label_smoothing=0.1)
    assert trained.history[0]["train_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_statistics_come_from_the_clean_training_rows() -> None:
    head = train(standardize=True).head
    torch.testing.assert_close(head.image_mean, TRAIN.image[:, 0].mean(dim=0))
    torch.testing.assert_close(head.text_std, TRAIN.text.std(dim=0, correction=0))


# --- views, sampling, dropped halves


def numbered(n: int, views: int = 4) -> Tensors:
    """Rows that say who they are: image (row, view, 0...), text (row, 0...)."""
    image, text = torch.zeros(n, views, 6), torch.zeros(n, 6)
    image[:, :, 0] = torch.arange(n, dtype=torch.float32)[:, None]
    image[:, :, 1] = torch.arange(views, dtype=torch.float32)
    text[:, 0] = torch.arange(n, dtype=torch.float32)
    return Tensors(image, text, torch.arange(n) % 3)


def epochs_of(calls: list[Call], steps: int) -> list[tuple[list[int], list[int]]]:
    """Rows and views of each epoch, in the order in which they were trained on."""
    found = []
    for start in range(0, len(calls), steps):
        image = torch.cat([c[0] for c in calls[start : start + steps]])
        text = torch.cat([c[1] for c in calls[start : start + steps]])
        assert torch.equal(image[:, 0], text[:, 0])  # the halves of one row stay together
        found.append(([int(v) for v in image[:, 0]], [int(v) for v in image[:, 1]]))
    return found


def test_every_epoch_draws_a_view_for_each_row(calls: list[Call]) -> None:
    train(numbered(50), epochs=3, patience=100)
    assert [len(c[0]) for c in calls] == [8, 8, 8, 8, 8, 8, 2] * 3  # the last rows are not dropped
    epochs = epochs_of(calls, 7)
    views = []
    for order, drawn in epochs:
        assert sorted(order) == list(range(50))
        assert set(drawn) == {0, 1, 2, 3}
        views.append([v for _, v in sorted(zip(order, drawn, strict=True))])
    assert epochs[0][0] != epochs[1][0] != epochs[2][0]
    assert views[0] != views[1] != views[2]


def test_without_views_only_the_clean_picture_is_read() -> None:
    clean = Tensors(TRAIN.image[:, :1], TRAIN.text, TRAIN.labels)
    broken = Tensors(TRAIN.image.clone(), TRAIN.text, TRAIN.labels)
    broken.image[:, 1:] = math.nan
    trained = train(broken, views=False)
    assert all(math.isfinite(r["train_loss"]) for r in trained.history)
    assert same_weights(trained, train(clean, views=False))
    assert same_weights(trained, train(clean, views=True))
    assert not same_weights(trained, train(TRAIN, views=True))
    assert math.isnan(train(broken, views=True).history[0]["train_loss"])


def test_validation_reads_the_clean_picture_alone() -> None:
    val = Tensors(VAL.image.clone(), VAL.text, VAL.labels)
    val.image[:, 1:] = math.nan
    assert np.array_equal(train(val=val).val_logits, train().val_logits)


def test_the_sampler_balances_the_classes(calls: list[Call]) -> None:
    counts = (240, 45, 15)
    plain = numbered(300)
    rows = Tensors(plain.image, plain.text, torch.repeat_interleave(torch.arange(3), torch.tensor(counts)))
    train(rows, balance="sampler", epochs=10, patience=100, batch_size=100)
    drawn = torch.cat([rows.labels[c[1][:, 0].long()] for c in calls])
    assert len(drawn) == 3000
    # 1,000 of each in expectation, standard deviation sqrt(3000 * 1/3 * 2/3) = 26
    assert all(abs(n - 1000) < 130 for n in torch.bincount(drawn).tolist())
    epochs_of(calls, 3)
    calls.clear()
    train(rows, balance="weights", epochs=2, batch_size=100)
    assert torch.bincount(torch.cat([rows.labels[c[1][:, 0].long()] for c in calls])).tolist() == [480, 90, 30]


def test_modality_dropout_never_drops_both() -> None:
    missing = draws(modality_dropout=0.3).batch(10_000)[0]
    assert missing is not None
    assert missing.dtype == torch.bool
    assert not missing.all(dim=1).any()
    image, text = missing.sum(dim=0).tolist()
    assert abs(image - 1500) < 180  # standard deviation sqrt(10000 * 0.15 * 0.85) = 36
    assert abs(text - 1500) < 180
    assert draws().batch(10)[0] is None


def test_modality_dropout_reaches_the_head_in_training(calls: list[Call]) -> None:
    trained = train(modality_dropout=0.5, epochs=2)
    missing = torch.cat([c[2] for c in calls if c[2] is not None])
    assert len(missing) == 120
    assert 0 < int(missing[:, 0].sum()) < 120
    assert 0 < int(missing[:, 1].sum()) < 120
    # validation drops nothing
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(trained.val_logits), trained.head(VAL.image[:, 0], VAL.text))
    calls.clear()
    train(epochs=1)
    assert all(c[2] is None for c in calls)


# --- the rest


def test_no_rows_to_train_or_validate_on() -> None:
    nothing = Tensors(torch.zeros(0, 1, 6), torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="got 0 to train on, 30 to validate on"):
        train(nothing)
    with pytest.raises(DataError, match="got 60 to train on, 0 to validate on"):
        train(val=nothing)


@pytest.mark.parametrize("fusion", [Fusion.weighted, Fusion.attention])
def test_evaluation_in_parts_gives_the_same(fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    head = train(fusion=fusion).head
    missing = torch.zeros(30, 2, dtype=torch.bool)
    missing[::3, 0] = missing[1::3, 1] = True
    halves = replace(VAL, missing=missing)
    logits, shares, first = evaluate_head(head, halves)
    assert torch.equal(first.logits, logits)
    monkeypatch.setattr(mmsent.training.loaders, "PART", 7)
    parts, part_shares, first = evaluate_head(head, halves)
    assert len(first.logits) == 7
    torch.testing.assert_close(parts, logits)
    assert shares == pytest.approx(part_shares)
    assert not torch.allclose(evaluate_head(head, VAL)[0], logits)


def test_softmax_by_hand() -> None:
    found = softmax(np.array([[0.0, math.log(3), 0.0], [1000.0, 1000.0, -1000.0]], np.float32))
    assert found.dtype == np.float64
    assert found == pytest.approx(np.array([[0.2, 0.6, 0.2], [0.5, 0.5, 0.0]]), abs=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("balance", ["weights", "none"])
def test_loss_is_torchs(smoothing: float, balance: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 3, generator=rng, requires_grad=True)
    labels = torch.randint(3, (64,), generator=rng) % 2 + torch.randint(2, (64,), generator=rng)
    settings = FitSettings(label_smoothing=smoothing, balance=balance, class_weight_power=0.7)
    weights = class_weights(labels, 3, 0.7) if balance == "weights" else None
    usual = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)(logits, labels)
    ours = smoothed_loss(logits, labels, *loss_tables(labels, 3, settings))
    assert ours.item() == pytest.approx(usual.item(), rel=1e-6)
    (a,), (b,) = torch.autograd.grad(usual, [logits]), torch.autograd.grad(ours, [logits])
    assert torch.allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.5, 0.9])
def test_dropout_factors(dropout: float) -> None:
    drawn = draws(dropout=dropout, hidden=32, depth=2)
    batches = [drawn.batch(32)[1] for _ in range(40)]
    factors = torch.stack([batch for batch in batches if batch is not None])
    assert factors.shape == (40, 32, 2 * 32)  # those of each hidden layer
    assert factors.unique().tolist() == pytest.approx([1.0] if dropout == 0 else [0.0, 1 / (1 - dropout)])
    assert float((factors == 0).float().mean()) == pytest.approx(dropout, abs=0.01)
    assert dropout == 0 or not torch.equal(factors[0], factors[1])
    again = draws(dropout=dropout, hidden=32, depth=2).batch(32)[1]
    assert again is not None
    assert torch.equal(again, factors[0])
    assert draws(fusion=Fusion.attention_alt).batch(8) == (None, None)  # it has no hidden layer
