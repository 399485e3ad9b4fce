"""`mmsent vote`: label a split with several heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.abstaining import Abstain, Sets, abstention
from mmsent.cli.options import READ, RUN, Encoding, Json, RunNames, Soft, Tie
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.targets import refuse_overwriting
from mmsent.config import VOTING_FUSIONS
from mmsent.errors import UsageError

if TYPE_CHECKING:
    from mmsent.inference.vote import Vote
    from mmsent.training.runs import Run


Out = Annotated[Path, typer.Option("--out", help="File to write the labels to.", rich_help_panel=RUN)]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="ENCODER",
        help="Also take the newest runs of this encoder's cache of the same posts; may be repeated.",
        show_default=False,
        rich_help_panel=READ,
    ),
]


@resumable("no labels were written")
def vote(
    where: Encoding,
    run: RunNames = None,
    also: With = None,
    split: Annotated[str, typer.Option("--split", help="test or train.", rich_help_panel=READ)] = "test",
    out: Out = Path("predictions.txt"),
    tie: Tie = None,
    soft: Soft = False,
    twins: Annotated[
        bool,
        typer.Option(
            "--twins",
            help="Average, and lean on the labels of near-duplicates among the training posts.",
            rich_help_panel=RUN,
        ),
    ] = False,
    abstain: Abstain = None,
    sets: Sets = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            envvar="MMSENT_DEVICE",
            help="Where to encode a missing split.",
            show_default="the cache's",
            rich_help_panel=RUN,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Label the test posts with the majority of several heads.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named, also of several caches of the
    same posts; --with adds those of another encoder), and encodes the split first if a cache lacks it. Writes the
    labels to --out in the form of the test list, and a table with probabilities beside it. Where all heads disagree,
    the label is neutral. Committees (see `mmsent fit --help`) are averaged.
    """
    from mmsent.data.dataset import SPLITS
    from mmsent.data.lists import ListForm
    from mmsent.inference.tally import tie_label
    from mmsent.inference.vote import averages, table_path, vote_split, write_vote

    if out.is_dir() or not out.name:
        raise UsageError(f"--out {out} is a folder; name a file")
    if split not in SPLITS:
        raise UsageError(f"--split {split!r}: choose test or train")
    if run and also:
        raise UsageError("--with takes the newest runs of another cache; name all runs, or none")
    where, others = where.of_runs(run or (), also or ())
    cache = where.cache
    tie_label(tie, cache.labels)
    data, _ = where.dataset_if_there()
    refuse_overwriting("--out", out, [out, table_path(out)], *([data] if data else []))
    chosen = where.runs(run) if run else [one for each in (where, *others) for one in each.voting_runs(None)]
    known = {one.cache.settings.contract for one in others}
    for one in chosen:
        if one.contract not in known:
            one.require(cache.settings.contract, str(cache.path), cache.encoder)
    soft = twins or averages(chosen, soft)
    if twins and abstain is not None:
        raise UsageError("--abstain knows how sure heads are by themselves, not with --twins; leave one of them out")
    when = abstention(chosen, abstain, sets=sets, tie=tie, soft=soft)
    cache = where.complete(split, device)
    more = [one.complete(split, device) for one in others]
    result = vote_split(chosen, cache, split, tie=tie, soft=soft, twins=twins, others=more)
    result = result if when is None else result.abstaining(when)
    forms = {str(name): form for name, form in data.forms.items()} if data else {}
    written, table = write_vote(result, out, forms.get(split) or ListForm())
    if json:
        told = {"abstain": when.to_json() if when else None}
        echo_json({"out": str(written), "table": str(table), **_facts(result, chosen), **told})
        return
    _tell_heads(chosen, soft=soft, named=bool(run or also))
    _tell(result)
    if when is not None:
        echo(when.in_words())
    echo(f"wrote {written} ({len(result.ids)} posts) and {table} (with probabilities)")
    from mmsent.training.runs import calibration_note

    echo(calibration_note(chosen))


def _facts(result: Vote, chosen: Sequence[Run]) -> dict[str, Any]:
    return {
        "runs": [str(r.path) for r in chosen],
        "rows": len(result.ids),
        "agreement": {str(k): n for k, n in result.agreement().items()},
        "tied": int(result.tied.sum()),
        "not_likeliest": result.not_likeliest,
        "twins": int(result.twins.sum()) if result.twins is not None else None,
        "calibrated": result.calibrated,
        "fallback": [result.ids[i] for i in result.fallback],
        "predicted": dict(_counted(result)),
    }


def _tell_heads(chosen: Sequence[Run], *, soft: bool, named: bool) -> None:
    committee = None if named else chosen[0].committee
    if committee:
        echo(f"mean of the committee {committee[0]}: {len(chosen)} heads, {chosen[0].name} to {chosen[-1].name}")
        if len(chosen) < committee[1]:
            note(
                f"the committee should have {committee[1]} heads; fit it again with the same options to get all of them"
            )
        return
    heads, heads_vote = ", ".join(f"{r.fusion} ({r.name})" for r in chosen), len(chosen) > 1
    echo(f"{'soft ' if soft else ''}vote of {len(chosen)} heads: {heads}" if heads_vote else f"labels of {heads}")
    if not named and len(chosen) < len(VOTING_FUSIONS):
        have = {r.fusion for r in chosen}
        absent = " ".join(f"--fusion {f}" for f in VOTING_FUSIONS if f not in have)
        note(f"the vote is meant for concat, weighted and attention; add the rest with `mmsent fit {absent}`")


def _tell(result: Vote) -> None:
    if len(result.runs) > 1:
        echo(result.agreement_words())
    if result.not_likeliest:
        echo(
            f"{result.not_likeliest} posts have a label whose mean probability is not the highest; the table says why "
            "under `decision`"
        )
    if result.twins is not None:
        echo(
            f"{int(result.twins.sum())} posts have near-duplicates among the training posts and leaned on their labels"
        )
    if result.fallback:
        note(f"{len(result.fallback)} posts lack what the heads need and got {result.fallback_label!r}")
    for label, n in _counted(result):
        echo(f"  {label}: {n}")


def _counted(result: Vote) -> list[tuple[str, int]]:
    """How often each label was given, and what else was told."""
    others = sorted({*result.told} - {*result.labels})
    return [(told, result.told.count(told)) for told in [*result.labels, *others]]
