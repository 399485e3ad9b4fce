"""Heads and their vote as one module: what mmsent.inference.logits and mmsent.inference.tally compute, in a form that
can be exported.

Shapes: N rows, R heads, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsent.inference.tally import Way, decide


class VotingHeads(nn.Module):
    """Heads, their temperatures and their vote, computed in float32.

    serves (R, 4) bool: which heads label a row of each of the cases both there, no picture, no text, neither.
    """

    temperatures: Tensor
    serves: Tensor

    def __init__(self, heads: Sequence[nn.Module], temperatures: Sequence[float], serves: Tensor, way: Way) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32).view(-1, 1))
        self.register_buffer("serves", serves.t().contiguous())  # (4, R)
        self._way = way

    def forward(self, image: Tensor, text: Tensor, missing: Tensor) -> tuple[Tensor, ...]:
        """image (N, D_image), text (N, D_text), missing (N, 2) bool -> see mmsent.export.onnx_runtime.Classified."""
        logits = torch.stack([head(image, text, missing) for head in self.heads], dim=1)  # (N, R, C)
        each = (logits / self.temperatures).softmax(dim=2)
        case = missing[:, 0].to(torch.int64) + 2 * missing[:, 1].to(torch.int64)
        voting = self.serves[case]  # (N, R)
        labels, agreeing, _, mean = decide(torch, each.transpose(0, 1), voting.t(), self._way)
        return labels, mean, agreeing, each, voting
