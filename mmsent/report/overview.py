"""The first screen of a report: the question, every head beside the baselines, and what was found, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmsent.metrics import LEVEL
from mmsent.report.findings import Entry, Findings, sentences
from mmsent.report.language import say

STEP = 0.05  # what the axis ends at multiples of


@dataclass(frozen=True)
class Line:
    """A row of the overview. dots, mean, low and high: where the seeds, their mean and the ends of its interval stand
    on the axis, in percent of its length."""

    name: str
    dots: list[float]
    mean: float
    low: float
    high: float
    value: str
    interval: str
    behind: str
    best: bool
    baseline: bool


def overview(found: Findings) -> dict[str, Any]:
    """What the first screen shows: `question`, `about`, `lines`, `ticks` (place and text), `sentences`, `note`."""
    study = found.study
    ends = [end for e in found.entries for end in e.scored.interval]
    floor = math.floor(min(ends) / STEP) * STEP
    top = max(floor + STEP, min(1.0, math.ceil(max(ends) / STEP) * STEP))

    def place(score: float) -> float:
        return round(100 * (score - floor) / (top - floor), 2)

    rows = study.evaluation(study.shared[0])
    shown = study.shared[0].info["rows"]
    return {
        "question": say("Which head labels the posts of "
                        "{data} best, and is that more than chance?", data=study.cache.data_name),
        "about": say(
            "Weighted F1 on {val:,} validation posts that no head trained on; {train:,} posts to train on; features of "
            "{encoder}.", val=len(rows.truth), train=shown["train"], encoder=study.cache.encoder,
        ),
        "lines": [_line(e, found, place) for e in found.entries],
        "ticks": [(place(tick), f"{tick:.1f}") for tick in ticks(floor, top)],
        "sentences": sentences(found),
        "note": _note(found),
    }  # fmt: skip


def ticks(floor: float, top: float) -> list[float]:
    """Where the axis has numbers: few enough to stand apart on a phone."""
    step = 0.1 if top - floor < 0.36 else 0.2
    return [k * step for k in range(11) if floor - 1e-9 <= k * step <= top + 1e-9]


def _line(entry: Entry, found: Findings, place: Any) -> Line:
    low, high = entry.scored.interval
    behind = ""
    if entry is not found.best:
        gap = found.best.scored.gap(entry.scored, found.level)
        behind = (
            say("{gap:.3f}, beyond chance", gap=gap[0]) if gap[1] > 0 else say("{gap:.3f}, within chance", gap=gap[0])
        )
    return Line(
        entry.name,
        [place(e.scores["f1_weighted"]) for e in entry.scored.seeds],
        place(entry.scored.f1),
        place(low),
        place(high),
        f"{entry.scored.f1:.3f}",
        f"{low:.3f}–{high:.3f}",
        behind,
        entry is found.best,
        entry.baseline,
    )


def _note(found: Findings) -> str:
    seeds = sorted({len(e.scored.seeds) for e in found.entries if not e.baseline})
    counted = str(seeds[-1]) if len(seeds) == 1 else say("{least} to {most}", least=seeds[0], most=seeds[-1])
    if seeds == [1]:
        dots = say("One seed per head, so the {level:.0%} intervals show other rows alone.", level=LEVEL)
    else:
        dots = say("Each dot is a seed ({n} per head), the stroke their mean, the bar its {level:.0%} interval "
                   "over rows and "
                   "seeds.", n=counted, level=LEVEL)  # fmt: skip
    pairs = len(found.entries) - 1
    rest = say(
        "Beyond chance means that the {level:.1%} interval of the paired gap to the best leaves zero out, as "
        "{n} gaps are "
        "looked at. The heads stopped at their best validation epoch, so all scores are a little optimistic.",
        level=found.level, n=pairs,
    )  # fmt: skip
    return f"{dots}{say(' ')}{rest}"
