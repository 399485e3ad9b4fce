"""`mmsent fit --folds N` and `--folds-from FILE`: cross-validation, one head per fold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmsent.cli.fit_job import FitJob
from mmsent.cli.output import Layout, echo, echo_json, echo_table, note
from mmsent.config import VOTING_FUSIONS, Group, SplitSettings

if TYPE_CHECKING:
    from mmsent.evaluation.cross_validation import CrossValidated, Folds
    from mmsent.training.folds import FoldPlan

_SHOWN = ("summary", "pooled", "rows", "groups", "seconds")
_LAYOUT = Layout(
    left=["head"],
    best={"accuracy": "max", "F1 weighted": "max", "F1 macro": "max"},
    drop=["ECE", "NLL", "standard error"],
)


def fit_folds(job: FitJob, folds: int, *, wide: bool, as_json: bool) -> None:
    """Cross-validate one head per fusion and print the scores."""
    from mmsent.training.folds import plan_folds

    plan = plan_folds(job.cache, job.split, folds, memory=job.how.memory, lacking=job.lacking)
    _tell(job, *cross_validate_all(job, plan), {}, wide=wide, as_json=as_json)


def fit_protocol(job: FitJob, file: Path, column: str, data: Path, *, wide: bool, as_json: bool) -> None:
    """Cross-validate one head per fusion on the folds of a file, and print the scores. That test rows are scored goes
    into the log of openings first. data: the data set's path."""
    from mmsent.data.protocols import read_protocol
    from mmsent.evaluation.openings import LOG, ordinal, read_openings, record_folds, record_scores
    from mmsent.evaluation.protocols import plan_protocol
    from mmsent.system.files import ready_folder

    own = job.cache.data_settings.id_column
    protocol = read_protocol(file, column=column, id_columns=list(dict.fromkeys(("id", own, "guid"))))
    plan = plan_protocol(job.cache, job.split, protocol, memory=job.how.memory, lacking=job.lacking)
    assert plan.published is not None
    for line in plan.published.told():
        note(line)
    if protocol.scored != "test":
        _tell(job, *cross_validate_all(job, plan), {}, wide=wide, as_json=as_json)
        return
    ready_folder(job.runs)
    heads = [f"{one.fusion} on {plan.folds} folds of {file.name}" for one in job.settings]
    key = record_folds(job.runs, heads, data, len(plan.rows), job.cache)
    saved, done = cross_validate_all(job, plan)
    means = [{k: v["mean"] for k, v in one.summary.items() if k != "f1_macro"} for one in done]
    record_scores([job.runs], key, dict(zip(heads, means, strict=True)))
    times = len(read_openings([job.runs], job.cache))
    note(f"test rows were scored, for the {ordinal(times)} time; noted in {job.runs / LOG}")
    _tell(job, saved, done, {"opening": key}, wide=wide, as_json=as_json)


def _tell(
    job: FitJob, saved: list[Folds], done: list[CrossValidated], more: dict[str, str], *, wide: bool, as_json: bool
) -> None:
    """Print what a cross-validation found. more: what only the JSON says."""
    from mmsent.evaluation.cross_validation import vote_spread

    voters = [one for one in done if one.settings.fusion in VOTING_FUSIONS]
    vote = vote_spread(voters) if len(voters) > 1 else None
    plan = done[0].plan
    if as_json:
        echo_json(
            {
                "folds": plan.folds,
                "data": job.cache.definition,
                "split": plan.split.model_dump(mode="json"),
                "recipe": job.how.recipe,
                **({"published": plan.published.to_json()} if plan.published else {}),
                **more,
                "runs": [{"path": str(one.path), **{k: one.info[k] for k in _SHOWN}} for one in saved],
                "vote": vote,
            }
        )
        return
    for one in saved:
        echo(f"{one.path}: {plan.folds} heads, {one.info['seconds']:.1f} s")
    echo(f"\n{job.cache.definition}")
    echo(f"recipe {job.how.recipe}; {_rows(done[0])}")
    rows = [["head", "accuracy", "F1 weighted", "standard error", "F1 macro", "NLL", "ECE"]]
    for found in done:
        pooled = (f"{found.pooled[name]:.3f}" for name in ("nll", "ece"))
        rows.append([found.settings.fusion.value, *_cells(found.summary), *pooled])
    if vote:
        rows.append([f"vote of {len(voters)}", *_cells(vote), "", ""])
    echo_table(rows, _LAYOUT, wide=wide)
    if plan.published and plan.published.scored == "val":
        echo("\nmean ± standard deviation over the folds, of the rows on which the heads stopped: a little optimistic")
    else:
        echo(
            "\nmean ± standard deviation over the folds; NLL and ECE over all rows, calibrated on rows outside the fold"
        )
    echo("cross-validation keeps no head; `mmsent fit` trains one on all but the validation rows")


def _rows(found: CrossValidated) -> str:
    """On how many rows the numbers rest, in words."""
    import numpy as np

    plan = found.plan
    sizes = np.bincount(plan.fold)
    each = f"{sizes.min()} to {sizes.max()} per fold"
    if plan.published is not None:
        trained = [head.train for head in found.heads]
        where = f"{plan.folds} folds of {plan.published.path.name}, {each}"
        return f"{len(plan.rows)} {plan.published.scored} rows in {where}; trained on {min(trained)} to {max(trained)}"
    said = f"{len(plan.rows)} rows in {plan.folds} folds, {each}, {_kept(plan.split)}"
    if plan.groups is not None:
        groups = np.bincount(plan.groups)
        tied = groups[groups > 1]
        said += f"\n{int(tied.sum())} rows have duplicates, in {len(tied)} groups, the largest of {int(groups.max())}"
    return said


def cross_validate_all(job: FitJob, plan: FoldPlan) -> tuple[list[Folds], list[CrossValidated]]:
    """Cross-validate all heads of a job on the same folds; the saved folders and the results."""
    from mmsent.evaluation.cross_validation import cross_validate, save_folds
    from mmsent.system.files import ready_folder
    from mmsent.system.progress import bar

    ready_folder(job.runs)  # better now than after all folds
    saved, done = [], []
    with bar(plan.folds * len(job.settings), "cross-validating", "head") as shown:
        for one in job.settings:
            folds_of = cross_validate(
                plan, one, device=job.how.device, blocks=job.how.blocks, on_fold=lambda _: shown.update(1)
            )
            done.append(folds_of)
            saved.append(save_folds(job.runs, done[-1], recipe=job.how.recipe, device=job.how.device))
    return saved, done


def _kept(split: SplitSettings) -> str:
    """What the folds keep together, in words."""
    if split.group is Group.none:
        return "every row on its own"
    if split.group is Group.exact:
        return "exact duplicates together"
    return f"near-duplicates together (cosine from {split.near_image:g} of pictures, {split.near_text:g} of texts)"


def _cells(found: dict[str, dict[str, float]]) -> list[str]:
    shown = {name: f"{v['mean']:.3f} ± {v['sd']:.3f}" for name, v in found.items()}
    return [shown["accuracy"], shown["f1_weighted"], f"{found['f1_weighted']['se']:.3f}", shown["f1_macro"]]
