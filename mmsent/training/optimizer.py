"""What updates the weights in training: AdamW in torch's functional form, and its OneCycle schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import OneCycleLR

CLIP = 1.0  # the norm of all gradients together, where blocks are tuned


class AdamW:
    """torch's fused AdamW on groups of parameters, each with its share of the scheduled rate; the first beta by the
    schedule too. More than one group: gradients are clipped to a norm of 1. torch's functional form: with the optimizer
    object around it, a step of a small head takes a tenth longer (docs/decisions.md)."""

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Tensor], float]],
        schedule: Iterator[tuple[float, float]],
        weight_decay: float,
    ) -> None:
        self._groups = [(list(parameters), share, *_moments(parameters)) for parameters, share in groups]
        self._parameters = [p for parameters, _ in groups for p in parameters]
        self._schedule, self._decay, self.rate = schedule, weight_decay, 0.0

    def step(self, loss: Tensor) -> None:
        """Update the parameters once by the gradients of a loss."""
        slopes = list(torch.autograd.grad(loss, self._parameters))
        self.rate, beta = next(self._schedule)
        with torch.no_grad():
            if len(self._groups) > 1:
                shrink = (CLIP / (get_total_norm(slopes) + 1e-6)).clamp(max=1)
                slopes = [slope * shrink for slope in slopes]
            for parameters, share, averages, squares, steps in self._groups:
                own, slopes = slopes[: len(parameters)], slopes[len(parameters) :]
                adamw(
                    parameters,
                    own,
                    averages,
                    squares,
                    [],
                    steps,
                    fused=True,
                    amsgrad=False,
                    beta1=beta,
                    beta2=0.999,
                    lr=self.rate * share,
                    weight_decay=self._decay,
                    eps=1e-8,
                    maximize=False,
                )


def _moments(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What AdamW keeps of parameters, at the start."""
    averages, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    return averages, squares, [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters]


def one_cycle(peak: float, steps: int, warmup: float) -> Iterator[tuple[float, float]]:
    """The rate and AdamW's first beta of each step, by torch's OneCycleLR with its defaults (Smith and Topin 2018)."""
    optimizer = torch.optim.SGD([torch.zeros(1)], momentum=0.9)  # AdamW's step would wake a GPU where there is one
    # A warm-up of exactly one step would divide by zero; a hair less peaks at the first step too.
    warmup = warmup if warmup * steps != 1 else warmup * (1 - 1e-9)
    schedule = OneCycleLR(optimizer, peak, total_steps=steps, pct_start=warmup)
    optimizer.step()  # of nothing: the schedule expects a step before its own
    for _ in range(steps):
        group = optimizer.param_groups[0]
        yield group["lr"], group["momentum"]
        schedule.step()
