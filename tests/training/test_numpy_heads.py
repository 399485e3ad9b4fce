"""Heads in NumPy answer as torch's do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from mmsent.config import Fusion
from mmsent.training.head_config import HeadConfig
from mmsent.training.heads import Head
from mmsent.training.numpy_heads import erf, head_outputs

N, IMAGE, TEXT = 23, 12, 8
RNG = np.random.default_rng(0)
ROWS = [(RNG.standard_normal((N, width)) * 3).astype(np.float32) for width in (IMAGE, TEXT)]
MISSING = RNG.random((N, 2)) < 0.4

KINDS: list[dict[str, Any]] = [
    {},
    {"rms": True},
    {"standardize": True},
    {"rms": True, "standardize": True, "depth": 3, "common_width": 6},
]


def made(fusion: Fusion, seed: int = 0, **more: Any) -> Head:
    torch.manual_seed(seed)
    config = HeadConfig(fusion=fusion, image_width=IMAGE, text_width=TEXT, classes=3, hidden=7, heads=2, **more)
    head = Head(config)
    for name, value in [*head.named_parameters(), *head.named_buffers()]:  # none as at the start: zeros would hide much
        if name.endswith("_std"):
            value.data.uniform_(0.5, 2)
        else:
            value.data.add_(torch.randn_like(value) * 0.3)
    return head.eval()


@pytest.mark.parametrize("missing", [None, MISSING], ids=["whole", "halves"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ",".join(kind) or "plain")
@pytest.mark.parametrize("fusion", Fusion)
def test_numpy_and_torch_agree(fusion: Fusion, kind: dict[str, Any], missing: np.ndarray[Any, Any] | None) -> None:
    head = made(fusion, **kind)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    gone = None if missing is None else torch.from_numpy(missing)
    with torch.no_grad():
        theirs = head.trace(*(torch.from_numpy(half) for half in ROWS), gone)
        exact = copy.deepcopy(head).double().trace(*(torch.from_numpy(half).double() for half in ROWS), gone)
    logits, shares = head_outputs(head.config, weights, *ROWS, missing)
    assert logits.dtype == np.float32
    # Sharp attention magnifies rounding, how much depends on the processor: torch's own error says it.
    close(logits, theirs.logits, exact.logits, 2e-5 * max(1.0, float(exact.logits.abs().max())))
    assert (shares is None) == (theirs.shares is None)
    if shares is not None and theirs.shares is not None:
        close(shares, theirs.shares, exact.shares, 1e-5)
        assert shares.shape == (N, 2)


def close(found: Any, theirs: Any, exact: Any, bound: float) -> None:
    """Within the bound of the exact values, or within five times what torch itself is off by rounding."""
    rounding = float((theirs - exact).abs().max())
    assert rounding < 5 * bound
    assert found == pytest.approx(exact.numpy(), abs=max(bound, 5 * rounding))


def test_parts_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    head = made(Fusion.attention, rms=True)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    whole = head_outputs(head.config, weights, *ROWS, MISSING)
    monkeypatch.setattr("mmsent.training.numpy_heads.PART", 5)
    parts = head_outputs(head.config, weights, *ROWS, MISSING)
    assert all(a == pytest.approx(b, abs=2e-5) for a, b in zip(whole, parts, strict=True) if b is not None)
    none = head_outputs(head.config, weights, ROWS[0][:0], ROWS[1][:0])
    assert none[0].shape == (0, 3)


def test_the_error_function_is_right_to_float32() -> None:
    x = np.linspace(-9, 9, 200001, dtype=np.float32)
    assert np.abs(erf(x) - special.erf(x.astype(np.float64))).max() < 1e-6
