"""`mmsent evaluate`: score runs, side by side with their vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import READ, RUN, Json, RunNames, Wide
from mmsent.cli.output import SCORES, Layout, echo, echo_json, echo_kinds, echo_table, note, resumable
from mmsent.cli.workspace import Workspace
from mmsent.errors import DataError, UsageError

if TYPE_CHECKING:
    from mmsent.evaluation.evaluate import Evaluation
    from mmsent.features.cache import Cache
    from mmsent.training.runs import Run

_COVERAGE = Layout(left=["run", "head"])
_PAIRS = Layout(left=["a", "b"], drop=[("only a right", "only b right")])


@resumable("nothing was written")
def evaluate(
    where: Workspace,
    run: RunNames = None,
    split: Annotated[
        str,
        typer.Option(
            "--split", help="val: each run's validation rows. test: labelled test rows.", rich_help_panel=READ
        ),
    ] = "val",
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="PNG file to draw accuracy over coverage into.", rich_help_panel=RUN),
    ] = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Score runs, side by side with their vote, and test which differences are more than chance.

    Reads runs and the cache. Prints scores with a 95% bootstrap interval of the weighted F1, how well the calibrated
    probabilities fit (NLL, ECE), how accurate the surest posts are, and McNemar's exact test for each two runs and for
    each run against the vote. Above the runs stand what is not trained: the commonest label for every post and, after
    `mmsent zero-shot`, its labels. Writes nothing but --figure.

    --split test opens the data set's test labels, where it has any, and writes that into a log beside the runs.
    """
    from mmsent.evaluation.evaluate import evaluate_validation, paired

    if figure is not None and (figure.suffix != ".png" or figure.is_dir()):
        raise UsageError(f"--figure {figure}: name a .png file")
    if split not in ("val", "test"):
        raise UsageError(f"--split {split!r}: choose val or test")
    cache = where.cache
    chosen = where.runs(run)
    found = evaluate_validation(chosen, cache) if split == "val" else _on_test_labels(where, chosen)
    pairs = paired(found)
    if figure is not None:
        _draw(found, f"{cache.data_name}, {'validation' if split == 'val' else split} rows", figure)
    if json:
        echo_json(
            {
                "cache": str(cache.path),
                "data": cache.definition,
                "split": split,
                "calibrated": all(one.calibrated for one in chosen),
                "evaluations": [e.to_json() for e in found],
                "paired": [asdict(pair) for pair in pairs],
            }
        )
        return
    _tell(found, pairs, cache, chosen, crossed=split == "val", wide=wide)
    _tell_zero_shot(chosen, cache)


def _draw(found: Sequence[Evaluation], what: str, file: Path) -> None:
    from mmsent.report.figures.coverage import coverage_figure
    from mmsent.report.figures.style import png_bytes
    from mmsent.system.files import write_together

    shown = {e.name: e for e in found if e.coverage}
    curves = {name: e.coverage for name, e in shown.items()}
    drawn = coverage_figure(curves, {name: e.fusion for name, e in shown.items()}, what)
    write_together({file: png_bytes(drawn)})
    note(f"wrote {file}")


def _on_test_labels(where: Workspace, chosen: Sequence[Run]) -> list[Evaluation]:
    """Scores on the test labels; that they were opened goes into the log first."""
    import numpy as np

    from mmsent.evaluation.evaluate import evaluate_labelled
    from mmsent.evaluation.openings import LOG, homes, ordinal, read_openings, record_opening, record_scores
    from mmsent.features.cache import NO_LABEL
    from mmsent.inference.logits import served
    from mmsent.training.halves import missing_halves

    path = where.source()
    labelled = {p.id: p.label for p in where.dataset(with_test_labels=True).of("test")}
    if not any(labelled.values()):
        raise DataError(f"the test split of {path} has no labels; `mmsent vote` predicts them")
    cache = where.complete("test")
    features = cache.load("test")
    numbers: dict[str | None, int] = {label: i for i, label in enumerate(cache.labels)}
    truth = np.array([numbers.get(labelled.get(i), NO_LABEL) for i in features.index.ids], np.int64)
    missing = missing_halves(features.index.outcome)
    usable = np.any([served(run, missing) for run in chosen], axis=0)
    key = record_opening(chosen, path, int((usable & (truth != NO_LABEL)).sum()), cache)
    found = evaluate_labelled(chosen, cache, features, truth)
    record_scores(homes(chosen), key, {e.name: {k: e.scores[k] for k in ("accuracy", "f1_weighted")} for e in found})
    folders = list(dict.fromkeys(run.home for run in chosen))
    times = len(read_openings(folders, cache))
    note(f"test labels opened, for the {ordinal(times)} time; noted in {folders[0] / LOG}")
    return found


def _tell(
    found: Sequence[Evaluation], pairs: Sequence[Any], cache: Cache, chosen: Sequence[Run], *, crossed: bool, wide: bool
) -> None:
    from mmsent.evaluation.evaluate import comparison, coverage_table, kinds_table, paired_table
    from mmsent.metrics import ECE_BINS, LEVEL, RESAMPLES
    from mmsent.training.runs import calibration_note

    echo_table(comparison(found, cache.labels), SCORES, wide=wide)
    echo_kinds(kinds_table(found), wide=wide)
    echo(f"\n{cache.definition}")
    echo(f"[low, high]: {LEVEL:.0%} interval from {RESAMPLES} bootstrap resamples of the rows; ECE: {ECE_BINS} bins")
    crossed = crossed and any(run.calibrated for run in chosen)
    echo(calibration_note(chosen) + (", here each row's on the other rows (cross-fitted)" if crossed else ""))
    echo("\nAccuracy of the surest posts, by how many of all they are:")
    echo_table(coverage_table(found), _COVERAGE, wide=wide)
    if not pairs:
        return
    echo("\nMcNemar's exact test on the rows that only one of two labels correctly:")
    heads = {e.name: e.fusion for e in found}
    if len(set(heads.values())) == len(heads):  # short names that are as good
        pairs = [replace(pair, a=heads[pair.a], b=heads[pair.b]) for pair in pairs]
    echo_table(paired_table(pairs), _PAIRS, wide=wide)
    tested = f"{len(pairs)} pairs were" if len(pairs) > 1 else "1 pair was"
    echo(
        f"p < 0.05: the two differ beyond chance on these rows; {tested} tested, so by chance alone about "
        f"{len(pairs) / 20:g} would."
    )


def _tell_zero_shot(chosen: Sequence[Run], cache: Cache) -> None:
    """Note that a zero-shot row could be had, or is of prompts that have changed since."""
    from mmsent.encoders.aligned import require_aligned
    from mmsent.inference.zero_shot import stored

    found = stored(dict.fromkeys(run.path.parent for run in chosen), cache)
    if found is not None:
        if found.outdated:
            note(f"the zero-shot row is of earlier prompts: {found.file} has changed; run `mmsent zero-shot` again")
        return
    try:
        require_aligned(cache.settings.image, cache.settings.text)
    except UsageError:
        return
    note("`mmsent zero-shot` adds a row for labels without training")
