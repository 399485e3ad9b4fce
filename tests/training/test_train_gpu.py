"""What must hold on a CUDA device. Skipped without one; tests/system pretends to have some."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsent.config import FitSettings, Fusion
from mmsent.system.devices import half_precision_for, pick_device
from mmsent.training.loaders import Tensors
from mmsent.training.stacked import train_stack
from mmsent.training.train import train_head

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def rows(n: int, seed: int, device: str) -> Tensors:
    made = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    image, text = (torch.randn(n, 16, generator=made) + labels[:, None] for _ in range(2))
    return Tensors(image[:, None].to(device), text.to(device), labels.to(device))


@pytest.mark.parametrize("fusion", Fusion)
def test_a_seed_gives_the_same_bytes_and_nearly_what_a_cpu_gives(fusion: Fusion) -> None:
    settings = FitSettings(fusion=fusion, epochs=3, patience=3, hidden=16, dropout=0.0, precision="fp32")
    device = pick_device("auto")
    first, again = (train_head(rows(60, 1, device), rows(30, 2, device), settings, 3) for _ in range(2))
    assert np.array_equal(first.val_logits, again.val_logits)
    there = train_head(rows(60, 1, "cpu"), rows(30, 2, "cpu"), settings, 3)
    assert first.val_logits == pytest.approx(there.val_logits, abs=0.05)


def test_a_stack_trains_the_heads_that_train_alone() -> None:
    train, val = rows(60, 1, "cuda"), rows(30, 2, "cuda")
    wanted = [FitSettings(epochs=3, patience=3, hidden=16, seed=seed, precision="fp32") for seed in range(5)]
    for settings, stacked in zip(wanted, train_stack(train, val, wanted, 3), strict=True):
        assert stacked is not None
        assert stacked.val_logits == pytest.approx(train_head(train, val, settings, 3).val_logits, abs=0.05)


def test_the_precision_that_is_taken_is_native() -> None:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[half_precision_for("cuda")]
    ones = torch.ones(8, 8, device="cuda", dtype=dtype)
    assert (ones @ ones).sum() == 512
