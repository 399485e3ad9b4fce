"""Mean and standard deviation of training rows, which heads scale their features by.

Shapes: N rows, D_image and D_text widths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmsent.training.heads import Head, unit_rms
from mmsent.training.loaders import Picked, Rows, Tensors


@torch.no_grad()
def set_statistics(head: Head, rows: Rows) -> None:
    """Give a head the mean and standard deviation of its training rows, of each half over the rows that have it."""
    if isinstance(rows, Tensors) and rows.missing is None:
        head.set_statistics(rows.image[:, 0], rows.text)
        return
    known, rms = rows.moments if isinstance(rows, Picked) else {}, head.config.rms
    if rms not in known:
        known[rms] = _moments_of(rows, rms)
    for name, (mean, std) in zip(("image", "text"), known[rms], strict=True):
        head.set_moments(name, mean, std)


def _moments_of(rows: Rows, rms: bool) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each half."""
    where = "cpu" if rows.device.startswith("mps") else rows.device  # that device has no float64
    sums = [torch.zeros(2, width, dtype=torch.float64, device=where) for width in rows.widths]
    counts = [0, 0]
    for _, image, text, missing in rows.parts():
        for at, (half, total) in enumerate(zip((image, text), sums, strict=True)):
            there = half if missing is None else half[~missing[:, at]]
            values = (unit_rms(there) if rms else there).to(where).double()
            total += torch.stack([values.sum(dim=0), values.square().sum(dim=0)])
            counts[at] += len(there)
    found = []
    for n, total in zip(counts, sums, strict=True):
        mean, square = total / max(n, 1)  # without any row: zeros
        std = (square - mean.square()).clamp(min=0).sqrt()
        found.append((mean.to(torch.float32).to(rows.device), std.to(torch.float32).to(rows.device)))
    return found
