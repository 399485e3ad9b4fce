"""Two runs side by side: the settings that differ, how far their scores lie apart, and the posts that only one of them
has right, on the rows that both validated on. N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmsent.errors import RunError, UsageError
from mmsent.inference.held_out import held_out
from mmsent.metrics import bootstrap_differences, mcnemar, scores
from mmsent.training.runs import Run

MEASURES = ("accuracy", "f1_weighted", "f1_macro")


@dataclass(frozen=True)
class Setting:
    """A setting that two runs do not share; None where a run does not have it."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Gap:
    """A score of both runs, that of b minus that of a, and the 95% bootstrap interval of this difference."""

    measure: str
    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """A post that only one run has right: its label, and what the runs say."""

    id: str
    label: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """a, b: the runs' names; rows: that both validated on; others: rows that only one did; p_value: of McNemar's exact
    test; only_a, only_b: the posts that one alone has right, those with the largest gap in the label's probability
    first."""

    a: str
    b: str
    rows: int
    others: int
    settings: list[Setting]
    gaps: list[Gap]
    p_value: float
    only_a: list[Case]
    only_b: list[Case]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare_runs(a: Run, b: Run) -> Comparison:
    """Compare two runs by what they keep of their validation rows: no cache is read. Raises UsageError where they are
    one run, RunError where no row was held out by both."""
    if a.path.resolve() == b.path.resolve():
        raise UsageError(f"{a.name} is compared with itself; name two runs")
    every = held_out([a, b])
    shared = every.by_all()
    if not shared.ids:
        raise RunError(
            f"{a.name} and {b.name} validated on different posts, and one may have trained on the other's; fit both "
            "with the same --split-seed, or compare by `mmsent fit --folds 10`"
        )
    said = shared.probabilities.argmax(axis=2)
    truth, classes = shared.truth, shared.probabilities.shape[2]
    test = mcnemar(truth, said[0], said[1])
    both = [scores(truth, predicted, classes) for predicted in said]
    intervals = bootstrap_differences(truth, said[0], said[1], classes)
    gaps = [
        Gap(name, both[0][name], both[1][name], both[1][name] - both[0][name], *intervals[name]) for name in MEASURES
    ]
    of_truth = np.take_along_axis(shared.probabilities, truth[None, :, None], axis=2)[:, :, 0]  # (2, N)

    def cases(winner: int) -> list[Case]:
        rows = np.flatnonzero((said[winner] == truth) & (said[1 - winner] != truth))
        order = np.argsort(of_truth[1 - winner, rows] - of_truth[winner, rows], kind="stable")
        names = a.labels
        return [
            Case(shared.ids[i], names[truth[i]], names[said[0, i]], names[said[1, i]]) for i in rows[order].tolist()
        ]

    others = len(every.ids) - len(shared.ids)
    return Comparison(a.name, b.name, len(shared.ids), others, differing(a, b), gaps, test.p_value, cases(0), cases(1))


def differing(a: Run, b: Run) -> list[Setting]:
    """The settings that two runs do not share."""
    one, other = _settings(a), _settings(b)
    return [Setting(k, one.get(k), other.get(k)) for k in {**one, **other} if one.get(k) != other.get(k)]


def _settings(run: Run) -> dict[str, Any]:
    """What a run was made with, by names in words."""
    cache, rows = run.info["cache"], run.info.get("rows", {})
    sweep, committee = run.info.get("sweep") or {}, run.committee
    return {
        "recipe": run.info.get("recipe", "paper"),
        "sweep": sweep.get("name"),
        "committee": committee[0] if committee else None,
        **{k.replace("_", " "): v for k, v in run.fit.model_dump(mode="json").items()},
        **{f"split: {k.replace('_', ' ')}": v for k, v in run.split.model_dump(mode="json").items()},
        "training posts": rows.get("train"),
        "validation posts": rows.get("val"),
        "lacking halves": ", ".join(run.info.get("lacking", [])) or None,
        "data set": cache["data_name"],
        "encoder": cache["encoder"],
        "features": run.contract[:8],
        **{f"encoder: {k.replace('_', ' ')}": v for k, v in _told(run.encoder_settings.model_dump(mode="json"))},
        **{f"data: {k.replace('_', ' ')}": v for k, v in _told(run.data_settings.model_dump(mode="json"))},
    }


def _told(settings: dict[str, Any]) -> Sequence[tuple[str, Any]]:
    return [(k, v) for k, v in settings.items() if k not in ("encoder", "device")]
