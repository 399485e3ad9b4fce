"""Runs that tune blocks, beside others on the same encoder, as runs on one text encoder that gives the features of all
of them side by side.

Shapes: N rows, D_image and D_text widths, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmsent.config import tuned_blocks
from mmsent.encoders.base import Encoders
from mmsent.encoders.blocks import SideBySide
from mmsent.errors import UsageError
from mmsent.inference.tuned import baked, frozen_info
from mmsent.training.heads import Trace
from mmsent.training.runs import Run


class HeadOnPart(nn.Module):
    """A head that reads only its own columns of the text features (N, D_text)."""

    def __init__(self, head: Any, start: int, width: int) -> None:
        super().__init__()
        self.head, self._own = head, slice(start, start + head.config.text_width)
        self.config = head.config.model_copy(update={"text_width": width})

    def trace(self, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Trace:
        """As of mmsent.training.heads."""
        found: Trace = self.head.trace(image, text[:, self._own], missing)
        return found

    def forward(self, image: Tensor, text: Tensor, missing: Tensor | None = None) -> Tensor:
        """image (N, D_image), text (N, D_text) to logits (N, C)."""
        logits: Tensor = self.head(image, text[:, self._own], missing)
        return logits


@dataclass(frozen=True)
class PartRun(Run):
    """A run whose head reads the columns from `start` on of text features that are `width` wide."""

    start: int = 0
    width: int = 0

    @property
    def columns(self) -> slice:
        """Its own, as `weights` has it."""
        return slice(self.start, self.start + self.weights()[0].text_width)

    def head(self) -> Any:
        """The head in eval mode, for all columns."""
        return HeadOnPart(super().head(), self.start, self.width).eval()


def on_one_encoder(runs: Sequence[Run], encoders: Encoders) -> tuple[list[Run], Encoders]:
    """Runs on the same encoders, some of which tune blocks, as runs on frozen features of one pair. Runs of which none
    tunes any stay as they are. Raises UsageError for several with features of length 1, EncoderError where the encoder
    cannot be taken apart."""
    sets = {_set(run): run for run in runs}
    if len(sets) == 1:
        _, pair = baked(runs[0], encoders)
        return [baked(run, encoders)[0] for run in runs], pair
    if runs[0].encoder_settings.normalize:
        raise UsageError(
            "these runs tune blocks on features of length 1 (--normalize): export each alone, or extract without it"
        )
    if other := next((run.name for run in runs if run.tune.startswith("image")), None):
        raise UsageError(f"run {other} tunes blocks of the image encoder: export it alone")
    tuned = [(tuned_blocks(run.tune)[1], run.blocks(), name) if name else None for name, run in sets.items()]
    both, at, width = Encoders(encoders.image, SideBySide(encoders.text, tuned)), list(sets), encoders.text.card.width
    return [
        PartRun(run.path, frozen_info(run, both), width * at.index(_set(run)), width * len(sets)) for run in runs
    ], both


def _set(run: Run) -> str:
    return str(run.info["blocks_sha256"]) if run.tune else ""
