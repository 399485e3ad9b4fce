"""The classifier's loss and its gradients, written down: what autograd does in one and a half times the time, for a
training step is so small that its bookkeeping counts. Held against autograd by the tests. Fusions stay autograd's.

Shapes: B batch, D_fused fused width, H hidden width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsent.heads import Head


@dataclass(frozen=True)
class Gradients:
    """The loss (), its gradients by the classifier's parameters in the order of `parameters_of`, and by the fused
    features (B, D_fused), None where nobody asked."""

    loss: Tensor
    parameters: list[Tensor]
    fused: Tensor | None


def parameters_of(head: Head) -> list[Tensor]:
    """The classifier's parameters: all of a head's that come after the fusion."""
    last = [head.out.weight, head.out.bias]
    if not head.has_hidden:
        return last
    return [head.fc1.weight, head.fc1.bias, head.norm.weight, head.norm.bias, *last]


@torch.no_grad()
def gradients(
    head: Head, fused: Tensor, factors: Tensor, targets: Tensor, total: Tensor, *, by_fused: bool
) -> Gradients:
    """Of the loss -sum(targets * log softmax(logits)) / total, for a head in training.

    fused (B, D_fused), float32 or bfloat16; factors (B, H): of dropout; targets (B, C): what each class counts for each
    row; total (): what the loss is divided by. by_fused: whether the fusion has something to learn.
    """
    out = head.out
    if not head.has_hidden:
        logs = torch.addmm(out.bias, fused, out.weight.t()).log_softmax(dim=1)
        slope = _by_logits(logs, targets, total)
        back = slope @ out.weight if by_fused else None
        return Gradients(_loss(logs, targets, total), [slope.t() @ fused, slope.sum(dim=0)], back)
    fc1, norm = head.fc1, head.norm
    if head.products is torch.bfloat16:
        fused, weight = fused.to(torch.bfloat16), fc1.weight.to(torch.bfloat16)
        first = (fused @ weight.t()).float().add_(fc1.bias)  # (B, H)
    else:
        weight = fc1.weight
        first = torch.addmm(fc1.bias, fused, weight.t())
    shape = list(norm.normalized_shape)
    normed, mean, spread = torch.native_layer_norm(first, shape, norm.weight, norm.bias, norm.eps)
    hidden = nn.functional.gelu(normed).mul_(factors)
    logs = torch.addmm(out.bias, hidden, out.weight.t()).log_softmax(dim=1)  # (B, C)
    by_logits = _by_logits(logs, targets, total)
    by_normed = torch.ops.aten.gelu_backward((by_logits @ out.weight).mul_(factors), normed)
    by_first, by_scale, by_shift = torch.ops.aten.native_layer_norm_backward(
        by_normed, first, shape, mean, spread, norm.weight, norm.bias, [True, True, True]
    )
    short = by_first.to(fused.dtype)
    parameters = [
        (short.t() @ fused).float(),
        by_first.sum(dim=0),
        by_scale,
        by_shift,
        by_logits.t() @ hidden,
        by_logits.sum(dim=0),
    ]
    return Gradients(_loss(logs, targets, total), parameters, (short @ weight).float() if by_fused else None)


def _loss(logs: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    return (targets * logs).sum().neg_().div_(total)


def _by_logits(logs: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    return logs.exp().mul_(targets.sum(dim=1, keepdim=True)).sub_(targets).div_(total)
