"""A stack trains each head as if it were alone, and as `train_head` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmsent.config import FitSettings, Fusion
from mmsent.training.loaders import Picked, Tensors
from mmsent.training.stacked import FUSIONS, OWN, SHARED, shape_of, train_stack
from mmsent.training.train import evaluate_head, train_head
from tests.helpers.mps import MpsRows, pretended_mps

# Rounding alone may differ: probabilities of the best epoch, at worst over all rows.
TOLERANCE = 1e-4
COMMON: dict[str, Any] = {"batch_size": 16, "hidden": 12, "heads": 2, "common_width": 8, "precision": "fp32"}
EACH: list[dict[str, Any]] = [
    {"seed": 3, "lr": 1e-2, "rms": True, "modality_dropout": 0.3, "dropout": 0.2},
    {"seed": 4, "lr": 3e-3, "weight_decay": 0.5, "label_smoothing": 0.0, "dropout": 0.7, "epochs": 5, "patience": 9},
    {"seed": 3, "lr": 2e-2, "standardize": True, "class_weight_power": 1.0, "views": False, "warmup": 0.5},
    {"seed": 9, "lr": 5e-3, "rms": True, "standardize": True, "balance": "none", "modality_dropout": 0.5},
    {"seed": 5, "lr": 5e-3, "balance": "sampler", "patience": 1},
]


@pytest.fixture(scope="module")
def rows() -> tuple[Tensors, Tensors]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 75)
    image = rng.normal(size=(75, 3, 10)).astype(np.float32) + labels[:, None, None] * 0.4
    text = rng.normal(size=(75, 6)).astype(np.float32) * 0.1 + labels[:, None] * 0.1
    arrays = [torch.from_numpy(a) for a in (image.astype(np.float32), text.astype(np.float32), labels)]
    train, val = (Tensors(*(a[part] for a in arrays)) for part in (slice(0, 50), slice(50, 75)))
    return train, val


def wanted(fusion: Fusion) -> list[FitSettings]:
    return [FitSettings(**{**COMMON, "fusion": fusion, "epochs": 6, "patience": 3, **own}) for own in EACH]


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()


OFTEN = (Fusion.weighted, Fusion.attention)  # the others in the slow tests


@pytest.mark.parametrize(
    ("fusion", "depth"),
    [
        *((f, 1) if f in OFTEN else pytest.param(f, 1, marks=pytest.mark.slow) for f in FUSIONS),
        (Fusion.weighted, 2),
        pytest.param(Fusion.concat, 3, marks=pytest.mark.slow),
    ],
)
def test_a_head_is_the_same_alone_in_a_stack_and_from_train_head(
    rows: tuple[Tensors, Tensors], fusion: Fusion, depth: int
) -> None:
    train, val = rows
    every = [settings.model_copy(update={"depth": depth}) for settings in wanted(fusion)]
    together = train_stack(train, val, every, 3)
    for settings, stacked in zip(every, together, strict=True):
        (alone,) = train_stack(train, val, [settings], 3)
        plain = train_head(train, val, settings, 3)
        assert stacked is not None
        assert alone is not None
        for other in (alone, plain):
            assert stacked.best_epoch == other.best_epoch
            assert len(stacked.history) == len(other.history)
            assert np.abs(softmax(stacked.val_logits) - softmax(other.val_logits)).max() < TOLERANCE
            for mine, its in zip(stacked.history, other.history, strict=True):
                assert mine["train_loss"] == pytest.approx(its["train_loss"], abs=1e-4)
                assert mine["val_f1_weighted"] == pytest.approx(its["val_f1_weighted"], abs=1e-9)
        # the head that is handed back, whole, gives the logits of its best epoch
        assert np.allclose(evaluate_head(stacked.head, val)[0].numpy(), stacked.val_logits, atol=1e-5)


def test_heads_of_a_stack_differ(rows: tuple[Tensors, Tensors]) -> None:
    """Each setting has a say: a stack in which one is forgotten would make two heads alike."""
    train, val = rows
    base = {**COMMON, "fusion": "concat", "epochs": 3, "patience": 3, "lr": 1e-2, "seed": 1}
    others: dict[str, Any] = {
        "seed": 2, "lr": 2e-2, "weight_decay": 0.9, "warmup": 0.6, "dropout": 0.1, "label_smoothing": 0.4,
        "balance": "sampler", "class_weight_power": 2.0, "rms": True, "standardize": True, "modality_dropout": 0.6,
        "views": False, "epochs": 2,
    }  # fmt: skip
    assert set(others) == set(OWN) - {"patience"}
    found = train_stack(train, val, [FitSettings(**{**base, k: v}) for k, v in [("lr", 1e-2), *others.items()]], 3)
    losses = [tuple(record["train_loss"] for record in one.history) for one in found if one is not None]
    assert len(set(losses)) == len(others) + 1


def test_an_apple_gpu_is_asked_for_no_float64(rows: tuple[Tensors, Tensors], monkeypatch: pytest.MonkeyPatch) -> None:
    every = [FitSettings(**{**COMMON, "epochs": 2, "balance": how, "rms": True}) for how in ("weights", "sampler")]
    usual = train_stack(*rows, every, 3)
    with pretended_mps(monkeypatch) as mps:
        there = train_stack(
            *(MpsRows(*(mps.put(p.clone()) for p in (r.image, r.text, r.labels))) for r in rows), every, 3
        )
    for a, b in zip(usual, there, strict=True):
        assert a is not None
        assert b is not None
        assert np.array_equal(a.val_logits, b.val_logits)


def test_the_callers_default_type_changes_nothing(rows: tuple[Tensors, Tensors]) -> None:
    every = [FitSettings(**{**COMMON, "epochs": 2, "modality_dropout": 0.2})]
    (usual,) = train_stack(*rows, every, 3)
    torch.set_default_dtype(torch.float64)
    try:
        (other,) = train_stack(*rows, every, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert usual is not None
    assert other is not None
    assert np.array_equal(usual.val_logits, other.val_logits)


def test_picked_rows_and_a_head_that_is_stopped(rows: tuple[Tensors, Tensors]) -> None:
    train, val = rows
    extra = torch.randn(7, 3, 10), torch.randn(7, 6)
    image, text = torch.cat([extra[0], train.image]), torch.cat([extra[1], train.text])
    picked = Picked(image, text, torch.arange(7, 57), train.labels)
    plain = [FitSettings(**{**COMMON, "fusion": "concat", "epochs": 4, "patience": 4, **own}) for own in EACH[:2]]
    seen: list[tuple[int, int]] = []

    def stop(place: int, epoch: int, best: float) -> bool:
        seen.append((place, epoch))
        return place == 0 and epoch == 2

    one, two = train_stack(picked, val, plain, 3, stop)
    assert one is None
    assert seen == [(0, 1), (1, 1), (0, 2), (1, 2), (1, 3), (1, 4), (1, 5)][: len(seen)]
    assert two is not None
    other = train_stack(train, val, plain, 3)[1]
    assert other is not None
    assert np.abs(two.val_logits - other.val_logits).max() < 1e-4
    head, its = train_head(picked, val, plain[1], 3), train_head(train, val, plain[1], 3)
    assert np.abs(head.val_logits - its.val_logits).max() < 1e-5


def test_what_cannot_be_stacked(rows: tuple[Tensors, Tensors]) -> None:
    assert set(FitSettings.model_fields) >= set(SHARED) | set(OWN)
    assert shape_of(FitSettings()) is None  # its products may be bf16
    one, other = FitSettings(precision="fp32"), FitSettings(precision="fp32", hidden=64)
    assert shape_of(one) != shape_of(other)
    assert shape_of(one) == shape_of(FitSettings(precision="fp32", lr=0.5, rms=True, seed=8))
    with pytest.raises(ValueError, match="together"):
        train_stack(*rows, [one, other], 3)
