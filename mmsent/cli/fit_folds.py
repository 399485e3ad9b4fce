"""`mmsent fit --folds N`: cross-validation, one head per fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmsent.cli.fit_job import FitJob
from mmsent.cli.output import Layout, echo, echo_json, echo_table
from mmsent.config import VOTING_FUSIONS, Group, SplitSettings

if TYPE_CHECKING:
    from mmsent.evaluation.cross_validation import CrossValidated, Folds

_SHOWN = ("summary", "pooled", "rows", "groups", "seconds")
_LAYOUT = Layout(
    left=["head"],
    best={"accuracy": "max", "F1 weighted": "max", "F1 macro": "max"},
    drop=["ECE", "NLL", "standard error"],
)


def fit_folds(job: FitJob, folds: int, *, wide: bool, as_json: bool) -> None:
    """Cross-validate one head per fusion and print the scores."""
    from mmsent.evaluation.cross_validation import vote_spread

    saved, done = cross_validate_all(job, folds)
    voters = [one for one in done if one.settings.fusion in VOTING_FUSIONS]
    vote = vote_spread(voters) if len(voters) > 1 else None
    plan = done[0].plan
    if as_json:
        echo_json(
            {
                "folds": folds,
                "split": plan.split.model_dump(mode="json"),
                "recipe": job.how.recipe,
                "runs": [{"path": str(one.path), **{k: one.info[k] for k in _SHOWN}} for one in saved],
                "vote": vote,
            }
        )
        return
    import numpy as np

    for one in saved:
        echo(f"{one.path}: {folds} heads, {one.info['seconds']:.1f} s")
    echo(f"\nrecipe {job.how.recipe}; {len(plan.rows)} rows in {folds} folds, {_kept(plan.split)}")
    if plan.groups is not None:
        sizes = np.bincount(plan.groups)
        tied = sizes[sizes > 1]
        echo(f"{int(tied.sum())} rows have duplicates, in {len(tied)} groups, the largest of {int(sizes.max())}")
    rows = [["head", "accuracy", "F1 weighted", "standard error", "F1 macro", "NLL", "ECE"]]
    for found in done:
        pooled = (f"{found.pooled[name]:.3f}" for name in ("nll", "ece"))
        rows.append([found.settings.fusion.value, *_cells(found.summary), *pooled])
    if vote:
        rows.append([f"vote of {len(voters)}", *_cells(vote), "", ""])
    echo_table(rows, _LAYOUT, wide=wide)
    echo("\nmean ± standard deviation over the folds; NLL and ECE over all rows, calibrated on rows outside the fold")
    echo("cross-validation keeps no head; `mmsent fit` trains one on all but the validation rows")


def cross_validate_all(job: FitJob, folds: int) -> tuple[list[Folds], list[CrossValidated]]:
    """Cross-validate all heads of a job on the same folds; the saved folders and the results."""
    from mmsent.evaluation.cross_validation import cross_validate, save_folds
    from mmsent.system.files import ready_folder
    from mmsent.system.progress import bar
    from mmsent.training.folds import plan_folds
    from mmsent.training.halves import lackable

    lacking = sorted({bit for one in job.settings for bit in lackable(one)})
    plan = plan_folds(job.cache, job.split, folds, memory=job.how.memory, lacking=lacking)
    ready_folder(job.runs)  # better now than after all folds
    saved, done = [], []
    with bar(folds * len(job.settings), "cross-validating", "head") as shown:
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
