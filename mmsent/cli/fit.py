"""`mmsent fit`: train fusion heads on a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.fit_job import FitJob, plan
from mmsent.cli.options import (
    DEVICE,
    RUN,
    TRAIN,
    Device,
    FitOverrides,
    Fusions,
    Json,
    Memory,
    Recipe,
    Splits,
    Wide,
    split_for,
)
from mmsent.cli.output import SCORES, echo, echo_json, echo_kinds, echo_table, note
from mmsent.cli.workspace import Workspace
from mmsent.config import (
    COMMITTEES,
    Fusion,
    SplitSettings,
    committee_of,
    fusions_named,
)
from mmsent.errors import Interrupted, MmsentError, UsageError

if TYPE_CHECKING:
    pass


def fit(
    *,
    where: Workspace,
    fusion: Fusions = None,
    recipe: Recipe = "auto",
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            help="Cross-validate with this many folds instead of training one head.",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    folds_from: Annotated[
        Path | None,
        typer.Option(
            "--folds-from",
            help="Cross-validate on the folds of a file, with columns id and fold, or id, fold and part.",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    fold_column: Annotated[
        str, typer.Option("--fold-column", help="Column with the folds of --folds-from.", rich_help_panel=TRAIN)
    ] = "fold",
    splits: Splits = None,
    settings: FitOverrides,
    split: SplitSettings,
    device: Device = DEVICE,
    memory: Memory = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", help="Also write the history as TensorBoard logs into this folder.", rich_help_panel=RUN
        ),
    ] = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Train fusion heads on a cache.

    Reads the cache of the data set, writes one run folder per head into --runs (settings, weights, history, validation
    predictions) and prints how the heads compare on the validation rows.

    With --folds it trains one head per fold, writes out-of-fold predictions and their scores, and keeps no head; with
    --folds-from the folds, and which of their rows train, validate and are scored, are those of a file. With
    --recipe best, --recipe tuned or --splits it fits a committee: the recipe's fusions (or those named) on several
    validation splits. With --tune or --recipe tuned the last blocks of an encoder train too.
    """
    if folds is not None and folds_from is not None:
        raise UsageError("--folds cuts folds and --folds-from reads them from a file; give one of them")
    folded = "--folds" if folds is not None else "--folds-from" if folds_from is not None else ""
    split = split_for(split, folded=bool(folded))
    committee = None if folded else committee_of(recipe, splits)
    if folded and splits is not None:
        raise UsageError(f"{folded} cross-validates one head per fusion; it does not go with --splits")
    if tensorboard and (folded or committee):
        several = folded or f"a committee (--splits, --recipe {' or '.join(COMMITTEES)})"
        raise UsageError(f"--tensorboard shows one head's training; it does not go with {several}")
    fusions = list(committee.fusions) if committee and not fusion else fusions_named(fusion or Fusion.concat.value)
    job = plan(where, fusions, recipe, settings, split, device, memory)
    if job.cache.validation and not folded:
        note("the rows that validate are the data set's own; --val-size and --split-seed have no say")
    if folds_from is not None:
        from mmsent.cli.fit_folds import fit_protocol

        fit_protocol(job, folds_from, fold_column, where.source(), wide=wide, as_json=json)
    elif folds is not None:
        from mmsent.cli.fit_folds import fit_folds

        fit_folds(job, folds, wide=wide, as_json=json)
    elif committee:
        from mmsent.cli.fit_committee import fit_committee

        fit_committee(job, committee.splits, as_json=json)
    else:
        _fit_heads(job, tensorboard, wide=wide, as_json=json)


def _fit_heads(job: FitJob, tensorboard: Path | None, *, wide: bool, as_json: bool) -> None:
    """Train one head per fusion and print how they compare."""
    import numpy as np

    from mmsent.evaluation.evaluate import by_kind, comparison, evaluate_logits, kinds_table
    from mmsent.features.cache import NO_LABEL
    from mmsent.training.fit import fit as run
    from mmsent.training.fit import write_tensorboard
    from mmsent.training.halves import LACKING, half_posts
    from mmsent.training.runs import KEPT

    fitted: list[Any] = []
    logits: list[Any] = []
    rows: list[Any] = []

    def keep(one: Any, trained: Any, given: Any) -> None:
        fitted.append(one)
        logits.append(trained.val_logits)
        rows.append(given)

    with _keeping(fitted, [one.fusion for one in job.settings]):
        done = run(job.cache, job.runs, job.settings, job.split, job.how, on_run=keep)
    if tensorboard:
        for one in done:
            write_tensorboard(one, tensorboard)
    labels = np.full(job.cache.rows["train"], NO_LABEL, np.int64)
    for given in rows:
        labels[given.rows.val] = given.truth
    index = job.cache.index("train")
    found = evaluate_logits(done, logits, [given.rows.val for given in rows], labels, job.cache.labels, crossed=True)
    found = by_kind(found, index.outcome)
    if as_json:
        echo_json(
            {
                "runs": [str(r.path) for r in done],
                "recipe": job.how.recipe,
                "data": job.cache.definition,
                "rows": [one.info["rows"] for one in done],
                "lacking": {kind: n for kind, n in zip(LACKING, half_posts(index).values(), strict=True) if n},
                "left_out": [given.left_out.strip(" ()") for given in rows],
                "validation": [e.to_json() for e in found],
            }
        )
        return
    for one in done:
        echo(f"{one.path}: best epoch {one.info['best_epoch']}, {one.info['seconds']:.1f} s")
    sizes: dict[tuple[int, int, str], list[str]] = {}
    for one, given in zip(done, rows, strict=True):
        n = one.info["rows"]
        sizes.setdefault((n["train"], n["val"], given.left_out), []).append(one.fusion.value)
    echo(f"\n{job.cache.definition}")
    echo(
        f"recipe {job.how.recipe}; "
        + "; ".join(_sizes(*n, heads if len(sizes) > 1 else []) for n, heads in sizes.items())
    )
    if unseen := [name for i, name in enumerate(job.cache.labels) if not (rows[0].truth == i).any()]:
        note(f"no row that validates is labelled {', '.join(unseen)}: scores say nothing of it")
    if any(given.rows.kept for given in rows):
        note(KEPT)
    if rows[0].stored:
        note("the embeddings take more memory than --memory allows, so they were read from disk block by block")
    echo_table(comparison(found, job.cache.labels), SCORES, wide=wide)
    echo_kinds(kinds_table(found), wide=wide)


def _sizes(train: int, val: int, left_out: str, heads: Sequence[str]) -> str:
    """How many rows these heads were trained and validated on, and which were left out."""
    return f"{', '.join(heads)}{': ' if heads else ''}trained on {train} rows, validated on {val}{left_out}"


@contextmanager
def _keeping(fitted: Sequence[Any], wanted: Sequence[Fusion]) -> Iterator[None]:
    """Where fitting stops early, say which runs there are and how to fit the rest."""
    try:
        yield
    except (KeyboardInterrupt, MmsentError) as stop:
        rest = " ".join(f"--fusion {fusion}" for fusion in wanted[len(fitted) :])
        kept = ", ".join(run.name for run in fitted)
        there = f"{kept} {'are' if len(fitted) > 1 else 'is'} kept" if fitted else "no head was finished"
        if isinstance(stop, KeyboardInterrupt):
            raise Interrupted(f"interrupted; {there}; go on with the same options and {rest}") from None
        if fitted:
            note(f"{there}; once that is fixed, go on with the same options and {rest}")
        raise
