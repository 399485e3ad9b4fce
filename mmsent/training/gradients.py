"""The classifier's loss and its gradients, written down: what autograd does in one and a half times the time, for a
training step is so small that its bookkeeping counts. Held against autograd by the tests. Fusions stay autograd's.

Shapes: B batch, D_fused fused width, H hidden width, L hidden layers, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsent.training.heads import Head


@dataclass(frozen=True)
class Gradients:
    """The loss (), its gradients by the classifier's parameters in the order of `parameters_of`, and by the fused
    features (B, D_fused), None where nobody asked."""

    loss: Tensor
    parameters: list[Tensor]
    fused: Tensor | None


def parameters_of(head: Head) -> list[Tensor]:
    """The classifier's parameters: all of a head's that come after the fusion."""
    layers = [p for linear, norm in head.hidden_layers for p in (linear.weight, linear.bias, norm.weight, norm.bias)]
    return [*layers, head.out.weight, head.out.bias]


@torch.no_grad()
def gradients(
    head: Head, fused: Tensor, factors: Tensor, targets: Tensor, total: Tensor, *, by_fused: bool
) -> Gradients:
    """Of the loss -sum(targets * log softmax(logits)) / total, for a head in training.

    fused (B, D_fused), float32 or bfloat16; factors (B, L·H): of dropout, layer by layer; targets (B, C): what each
    class counts for each row; total (): what the loss is divided by. by_fused: whether the fusion has something to
    learn.
    """
    out = head.out
    if not head.has_hidden:
        logs = torch.addmm(out.bias, fused, out.weight.t()).log_softmax(dim=1)
        slope = _by_logits(logs, targets, total)
        back = slope @ out.weight if by_fused else None
        return Gradients(_loss(logs, targets, total), [slope.t() @ fused, slope.sum(dim=0)], back)
    layers, short = head.hidden_layers, head.products is torch.bfloat16
    x, kept = fused, []
    for (linear, norm), own in zip(layers, factors.chunk(len(layers), dim=1), strict=True):
        if short:
            x, weight = x.to(torch.bfloat16), linear.weight.to(torch.bfloat16)
            first = (x @ weight.t()).float().add_(linear.bias)  # (B, H)
        else:
            weight = linear.weight
            first = torch.addmm(linear.bias, x, weight.t())
        normed, mean, spread = torch.native_layer_norm(
            first, list(norm.normalized_shape), norm.weight, norm.bias, norm.eps
        )
        kept.append((x, weight, first, normed, mean, spread, norm, own))
        x = nn.functional.gelu(normed).mul_(own)
    logs = torch.addmm(out.bias, x, out.weight.t()).log_softmax(dim=1)  # (B, C)
    by_logits = _by_logits(logs, targets, total)
    parameters = [by_logits.t() @ x, by_logits.sum(dim=0)]
    back = by_logits @ out.weight  # by what came out of a hidden layer
    for at in reversed(range(len(kept))):
        x, weight, first, normed, mean, spread, norm, own = kept[at]
        by_normed = torch.ops.aten.gelu_backward(back.mul_(own), normed)
        by_first, by_scale, by_shift = torch.ops.aten.native_layer_norm_backward(
            by_normed, first, list(norm.normalized_shape), mean, spread, norm.weight, norm.bias, [True, True, True]
        )
        half = by_first.to(x.dtype)
        parameters = [(half.t() @ x).float(), by_first.sum(dim=0), by_scale, by_shift, *parameters]
        if at or by_fused:
            back = (half @ weight).float()
    return Gradients(_loss(logs, targets, total), parameters, back if by_fused else None)


def _loss(logs: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    return (targets * logs).sum().neg_().div_(total)


def _by_logits(logs: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    return logs.exp().mul_(targets.sum(dim=1, keepdim=True)).sub_(targets).div_(total)
