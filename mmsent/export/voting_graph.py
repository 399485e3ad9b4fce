"""Heads and their vote as one module: what mmsent.inference.logits and mmsent.inference.vote compute, in a form that
can be exported.

Shapes: N rows, R heads, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class VotingHeads(nn.Module):
    """Heads, their temperatures and their vote: the computation of mmsent.inference.logits and mmsent.inference.vote in
    float32.

    serves (R, 4) bool: which heads label a row of each of the cases both there, no picture, no text, neither. tie: see
    mmsent.inference.vote.majority; soft: average probabilities instead of counting votes.
    """

    temperatures: Tensor
    serves: Tensor

    def __init__(
        self, heads: Sequence[nn.Module], temperatures: Sequence[float], serves: Tensor, tie: int | None, soft: bool
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32).view(-1, 1))
        self.register_buffer("serves", serves.t().contiguous())  # (4, R)
        self._tie, self._soft = tie, soft

    def forward(self, image: Tensor, text: Tensor, missing: Tensor) -> tuple[Tensor, ...]:
        """image (N, D_image), text (N, D_text), missing (N, 2) bool -> see mmsent.export.onnx_runtime.Classified."""
        logits = torch.stack([head(image, text, missing) for head in self.heads], dim=1)  # (N, R, C)
        each = (logits / self.temperatures).softmax(dim=2)
        case = missing[:, 0].to(torch.int64) + 2 * missing[:, 1].to(torch.int64)
        voting = self.serves[case]  # (N, R)
        weights = voting.to(torch.float32)
        total = weights.sum(dim=1, keepdim=True)  # (N, 1)
        classes = each.shape[2]
        mean = (each * weights[:, :, None]).sum(dim=1) / total.clamp(min=1)
        mean = torch.where(total > 0, mean, torch.full_like(mean, 1 / classes))
        choices = each.argmax(dim=2)  # (N, R)
        if self._soft:
            winners = mean.argmax(dim=1)
        else:
            chosen = (choices[:, :, None] == torch.arange(classes)).to(torch.float32) * weights[:, :, None]
            counts = chosen.sum(dim=1)  # (N, C)
            leading = counts == counts.amax(dim=1, keepdim=True)
            tied = leading.to(torch.int64).sum(dim=1) > 1
            if self._tie is None:
                among = torch.where(leading, mean, torch.full_like(mean, -1)).argmax(dim=1)
            else:
                among = torch.full_like(case, self._tie)
            winners = torch.where(tied, among, counts.argmax(dim=1))
        agreeing = ((choices == winners[:, None]) & voting).to(torch.int64).sum(dim=1)
        labels = torch.where(total[:, 0] > 0, winners, torch.full_like(winners, -1))
        return labels, mean, agreeing, each, voting
