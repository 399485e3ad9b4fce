"""`mmsent audit`: training labels that are likely wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.fit_folds import cross_validate_all
from mmsent.cli.fit_job import memory_limit, plan
from mmsent.cli.options import DEVICE, RUN, TRAIN, Device, Json, Memory, Wide
from mmsent.cli.output import Layout, echo, echo_json, echo_table, note
from mmsent.cli.workspace import Workspace
from mmsent.config import Fusion, Group, SplitSettings
from mmsent.errors import UsageError

if TYPE_CHECKING:
    from mmsent.evaluation.cross_validation import Folds

FOLDS = 10  # of a cross-validation that the audit runs by itself
_LAYOUT = Layout(left=["id", "label", "suggested", "marked"], drop=["p suggested", "p label", "precision"])
_AUDITED = (Group.near, Group.exact)  # what its folds keep together: on plain ones a wrong label's twin vouches for it


def audit(
    where: Workspace,
    folds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDS", help="Cross-validations, by name or path.", show_default="the newest, or a new one"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.", rich_help_panel=RUN)] = Path("audit"),
    top: Annotated[int, typer.Option("--top", metavar="<int>", min=0, help="Rows to print.", rich_help_panel=RUN)] = 20,
    gallery: Annotated[bool, typer.Option(help="Also write a page with the posts.", rich_help_panel=RUN)] = True,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="Duplicates that the cross-validation keeps together: exact or near.",
            show_default="any there is, else near",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    memory: Memory = None,
    device: Device = DEVICE,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List training labels that are likely wrong, worst first.

    Reads out-of-fold predictions of `mmsent fit --folds` (the newest that fit the labels; without any, it first
    cross-validates concat), ranks the rows with cleanlab, estimates from changed labels how many are wrong down to each
    rank, and marks those down to where half are. Writes audit.csv, audit.json and audit.html, a page that
    opens from disk, into --out.
    """
    _refuse(out, group, folds, memory)
    from mmsent.evaluation.audit import audit_folds, write_audit
    from mmsent.training.folds import plan_folds

    cache = where.require_current("train")
    chosen = _chosen(where, folds, group)
    if not chosen:
        note(f"no cross-validation of these labels in {where.runs_at}/: running one of {Fusion.concat}, {FOLDS} folds")
        split = SplitSettings(group=Group(group or Group.near))
        job = plan(where, [Fusion.concat], "auto", {}, split, device, memory)
        folded = plan_folds(cache, job.split, FOLDS, memory=job.how.memory, lacking=job.lacking)
        chosen, _ = cross_validate_all(job, folded)
    found = audit_folds(chosen, cache.index("train"))
    table, values = write_audit(found, out)
    written = {"table": str(table), "json": str(values)}
    if gallery:
        written["gallery"] = str(_gallery(found, where, out))
    if json:
        echo_json(
            {**written, "sources": found.sources, "rows": len(found.suspects), "likely_wrong": found.likely_wrong}
        )
        return
    rows = [["rank", "id", "label", "suggested", "p label", "p suggested", "precision", "marked"]]
    for one in found.suspects[:top]:
        numbers = [f"{value:.3f}" for value in (one.p_given, one.p_suggested, one.precision)]
        rows.append([str(one.rank), one.id, one.given, one.suggested, *numbers, "yes" if one.likely_wrong else ""])
    echo_table(rows, _LAYOUT, wide=wide)
    echo(f"\n{found.in_words()}; by {', '.join(found.sources)}")
    echo(f"wrote {', '.join(written.values())}")
    echo("look at a post before you change its label: to a head, a hard post and a wrong label look alike")


def _refuse(out: Path, group: str | None, folds: Sequence[str] | None, memory: str | None) -> None:
    """Raise UsageError on options that no audit can follow."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if group not in (None, *_AUDITED):
        raise UsageError(f"--group {group!r}: an audit needs folds that keep duplicates together, near or exact")
    if folds and (group is not None or memory is not None):
        raise UsageError("--group and --memory choose or make a cross-validation; leave them out where you name one")
    memory_limit(memory)  # a bad size is told now


def _chosen(where: Workspace, names: Sequence[str] | None, group: str | None) -> list[Folds]:
    """The named cross-validations, else those of these labels in the folder of the runs."""
    from mmsent.evaluation.audit import usable_folds
    from mmsent.evaluation.cross_validation import list_folds, open_folds
    from mmsent.training.folds import SUMMARY

    cache = where.cache
    if names:
        paths = [Path(name) if (Path(name) / SUMMARY).is_file() else where.runs_at / name for name in names]
        return [open_folds(path) for path in paths]
    there = [one for one in list_folds(where.runs_at, cache) if group in (None, one.split.group.value)]
    return list(usable_folds(there, cache.index("train")))


def _gallery(found: Any, where: Workspace, out: Path) -> Path:
    from mmsent.report.audit_page import write_gallery

    dataset, why = where.dataset_if_there()
    if dataset is None:
        note(f"the gallery shows no posts: {why}")
    return write_gallery(found, where.cache, dataset, out)
