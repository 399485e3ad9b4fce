"""What a report calls its runs and their splits."""

from __future__ import annotations

from collections.abc import Sequence

from mmsent.evaluation.evaluate import MAJORITY, SOFT_VOTE, VOTE, ZERO_SHOT, Evaluation
from mmsent.features.cache import Cache
from mmsent.report.language import say
from mmsent.report.study import Study
from mmsent.training.runs import Run


def short_name(run: Run) -> str:
    """A run by its fusion, and the seed where it is not 0."""
    return f"{run.fusion}" + (say(" (seed {seed})", seed=run.fit.seed) if run.fit.seed else "")


def title_of(run: Run) -> str:
    """A run's name in a figure: its fusion, and its seed."""
    return say("{fusion}, seed {seed}", fusion=run.fusion, seed=run.fit.seed)


def defined(cache: Cache) -> str:
    """Which definition of the data set a number is of: see `Cache.definition`."""
    said = say("{data}: {n:,} training posts", data=cache.data_name, n=cache.rows.get("train", 0))
    reader = cache.provenance.get("reader")
    return said + (say(", read by {reader}", reader=reader) if reader else "")


def names(study: Study) -> dict[str, str]:
    """A short name for each run: its fusion where that is unique, else the folder's name."""
    short = [short_name(run) for run in study.runs]
    return {run.name: s if short.count(s) == 1 else run.name for run, s in zip(study.runs, short, strict=True)}


def splits(study: Study) -> dict[str, str]:
    """The letter of each run's validation split, by the run's name: A is the one that most runs share."""
    return {run.name: letter(i) for i, runs in enumerate(study.splits) for run in runs}


def letter(i: int) -> str:
    """A to Z, then numbers."""
    return chr(ord("A") + i) if i < 26 else str(i + 1)


def unlike(study: Study) -> str:
    """The warning for runs with different validation rows."""
    parts = (say("{letter}: {n} run(s)", letter=letter(i), n=len(runs)) for i, runs in enumerate(study.splits))
    return say(
        "The runs have different validation rows (split {parts}), so scores of different splits cannot be compared; "
        "the best head is the best on split A.",
        parts=say(", ").join(parts),
    )


def name_of(found: Evaluation, known: dict[str, str]) -> str:
    """What people read for an evaluation: of a run its name among `known`, else the vote or the baseline."""
    if found.fusion == MAJORITY:
        return say("majority class")
    if found.fusion == ZERO_SHOT:
        return say("zero-shot")
    if found.fusion in (VOTE, SOFT_VOTE):
        voters = found.name.removeprefix("vote of ").split(",")[0]
        return say("vote of {n}", n=voters) + (", --soft" if found.fusion == SOFT_VOTE else "")
    return known.get(found.name, found.name)


def calibrated(runs: Sequence[Run]) -> str:
    """Whether the runs' probabilities are calibrated, as a sentence."""
    without = sum(not run.calibrated for run in runs)
    if not without:
        return say("Probabilities are calibrated by temperature scaling on the validation rows.")
    return say(
        "Probabilities are not calibrated: {without} of {n} runs have no temperature; a new mmsent fit "
        "calibrates them.",
        without=without, n=len(runs),
    )  # fmt: skip
