"""What figures are made of, and how a report calls a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsent.config import Fusion
from mmsent.report.explanations import Explainer
from mmsent.report.language import say
from mmsent.report.study import Study, Unavailable
from mmsent.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Made = tuple["Figure", str]  # a figure and its caption


@dataclass(frozen=True)
class Source:
    """What figures are made of: the study, and the explanations, which need encoders and posts."""

    study: Study
    explained: Explainer


def need(study: Study, fusion: Fusion) -> Run:
    """The run with a fusion. Raises Unavailable where there is none."""
    run = study.of(fusion)
    if run is None:
        raise Unavailable(
            say("there is no {fusion} run among these; `mmsent fit --fusion {fusion}` makes one", fusion=fusion)
        )
    return run
