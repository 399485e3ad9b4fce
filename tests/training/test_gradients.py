"""The gradients that are written down: autograd's in fp32, near them in bfloat16, for every fusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmsent.config import FitSettings, Fusion
from mmsent.training.gradients import gradients, parameters_of
from mmsent.training.heads import BFloat16Linear, Head, head_config
from mmsent.training.train import SmoothedCrossEntropy

N, HIDDEN = 40, 16
LOSS = SmoothedCrossEntropy(torch.tensor([0.5, 1.5, 1.0]), 0.1)


def rows(width: int, seed: int) -> Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed))


IMAGE, LABELS = rows(6, 1), torch.arange(N) % 3
FACTORS = (rows(3 * HIDDEN, 3) > 0).float() * 2  # of up to three hidden layers
MISSING = torch.stack([torch.arange(N) % 4 == 0, torch.arange(N) % 4 == 1], dim=1)


def by_autograd(head: Head, text: Tensor) -> tuple[float, list[Tensor]]:
    """Loss and gradients, classifier first, as torch's own layers have them. fp32."""
    fused = head.fuse(*head.scale(IMAGE, text), MISSING)
    for at, (linear, norm) in enumerate(head.hidden_layers):
        fused = torch.nn.functional.gelu(norm(linear(fused))) * FACTORS[:, at * HIDDEN : (at + 1) * HIDDEN]
    loss = LOSS(head.out(fused), LABELS)
    return float(loss.detach()), list(torch.autograd.grad(loss, ordered(head)))


def written_down(head: Head, text: Tensor) -> tuple[float, list[Tensor]]:
    """The same through `gradients`, and autograd for the fusion alone."""
    fusion = ordered(head)[len(parameters_of(head)) :]
    fused = head.fuse(*head.scale(IMAGE, text), MISSING)
    factors = FACTORS[:, : HIDDEN * head.config.depth]
    found = gradients(head, fused, factors, *LOSS.targets(LABELS), by_fused=bool(fusion))
    more = list(torch.autograd.grad(fused, fusion, found.fused)) if fusion else []
    return float(found.loss), found.parameters + more


def ordered(head: Head) -> list[Tensor]:
    classifier = parameters_of(head)
    return [*classifier, *(p for p in head.parameters() if all(p is not c for c in classifier))]


@pytest.mark.parametrize("fusion", list(Fusion))
@pytest.mark.parametrize(
    ("width", "more"),
    [(6, {}), (4, {"common_width": 8, "rms": True, "standardize": True}), (6, {"depth": 3})],
)
def test_gradients_are_autograds(fusion: Fusion, width: int, more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    head = Head(head_config(FitSettings(fusion=fusion, hidden=HIDDEN, heads=2, **more), 6, width, 3)).train()
    with torch.no_grad():  # as after some training: a norm that starts at 1 and 0 would hide a mistake
        for at, (_, norm) in enumerate(head.hidden_layers):
            norm.weight.copy_(rows(HIDDEN, 5)[at])
            norm.bias.copy_(rows(HIDDEN, 6)[at])
    text = rows(width, 2)
    head.set_statistics(IMAGE, text)
    loss, slopes = by_autograd(head, text)
    plain, ours = written_down(head, text)
    assert plain == pytest.approx(loss, rel=1e-6)
    assert len(ours) == len(slopes) == len(list(head.parameters()))
    for slope, own, parameter in zip(slopes, ours, ordered(head), strict=True):
        assert own.shape == parameter.shape
        torch.testing.assert_close(own, slope, rtol=1e-4, atol=1e-6)

    head.products = torch.bfloat16
    short, others = written_down(head, text)
    assert short == pytest.approx(loss, rel=0.01)
    assert all(own.dtype == torch.float32 for own in others)
    joined = [torch.cat([slope.flatten() for slope in many]) for many in (slopes, others)]
    assert float(torch.nn.functional.cosine_similarity(*joined, dim=0)) > 0.999
    assert not torch.equal(*joined)  # it did run in another precision

    head.eval()  # a head at work computes in fp32, whatever it was trained in
    with torch.no_grad():
        assert head.scale(IMAGE, text)[0].dtype == torch.float32
        logits = head(IMAGE, text)
        head.products = torch.float32
        assert torch.equal(head(IMAGE, text), logits)


def test_bfloat16_linear_by_hand() -> None:
    """Numbers that bfloat16 holds exactly give exact products, sums and gradients."""
    x = torch.tensor([[[1.0, 2.0]], [[-3.0, 0.5]]], requires_grad=True)  # (2, 1, 2)
    weight = torch.tensor([[1.0, -1.0], [4.0, 2.0], [0.25, 8.0]], requires_grad=True)
    bias = torch.tensor([0.0, 1.0, 0.001], requires_grad=True)  # the last is not exact in bfloat16, and stays fp32
    out = BFloat16Linear.apply(x, weight, bias)
    assert torch.equal(out, torch.tensor([[[-1.0, 8.0, 16.25]], [[-3.5, -11.0, 3.25]]]) + bias)
    slope = torch.tensor([[[1.0, 0.0, 2.0]], [[0.5, 1.0, 0.0]]])
    grads = torch.autograd.grad(out, [x, weight, bias], slope)
    assert torch.equal(grads[0], torch.tensor([[[1.5, 15.0]], [[4.5, 1.5]]]))
    assert torch.equal(grads[1], torch.tensor([[-0.5, 2.25], [-3.0, 0.5], [2.0, 4.0]]))
    assert torch.equal(grads[2], torch.tensor([1.5, 1.0, 2.0]))
