"""`mmsent replay`: fit runs again from what they recorded, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsent.cli.options import READ, RUN, Json, Only, RunNames, Soft, Tie
from mmsent.cli.output import echo, echo_json, note
from mmsent.cli.workspace import Workspace
from mmsent.errors import DataError, UsageError

if TYPE_CHECKING:
    from mmsent.evaluation.replay import HeadDistance, Replay
    from mmsent.features.cache import Cache
    from mmsent.training.runs import Run

PREDICTIONS = Path("predictions.csv")
SHOWN = 12  # differences


def replay(
    where: Annotated[Workspace, Only("data", "encoder", "runs_at")],
    run: RunNames = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Keep the heads fitted again in this folder.", show_default="none kept", rich_help_panel=RUN
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Table of a vote of these runs, to compare its labels.",
            show_default="predictions.csv, if it is theirs",
            rich_help_panel=READ,
        ),
    ] = None,
    tie: Tie = None,
    soft: Soft = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            envvar="MMSENT_CACHE",
            show_envvar=False,
            help="Cache file, or folder of the caches.",
            show_default="the run's own",
            rich_help_panel=READ,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fit runs again from what they recorded, and compare.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named) and the cache. On the same
    machine and versions the heads must repeat to the bit; elsewhere their validation predictions must agree within a
    tolerance, and what differs is named. Writes nothing but --out. The exit status is 1 where a run does not repeat.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if out is not None and out.resolve() == where.runs_at.resolve():
        raise UsageError(f"--out {out} is the folder of the runs themselves; name another")
    from mmsent.evaluation.replay_votes import replay_vote
    from mmsent.inference.vote import averages

    chosen, caches = _runs_and_caches(where, run, cache)
    soft = averages(chosen, soft)
    files = {one.path.resolve(): one for one in caches}
    voted = len({one.settings.contract for one in caches}) == len(files) and len({c.data_name for c in caches}) == 1
    table, tie, soft = _table(predictions, chosen, tie, soft)
    vote = None
    with _folder(out) as folder:
        done = _replay_all(chosen, caches, folder, tell=not json)
        if voted and len(chosen) > 1:
            try:
                vote = replay_vote(done, [*files.values()], table, tie=tie, soft=soft)
            except DataError as error:
                if predictions is not None:
                    raise
                note(f"{PREDICTIONS} is ignored: {error}")  # nobody asked for it
                vote = replay_vote(done, [*files.values()], None, tie=tie, soft=soft)
    ok = all(one.ok for one in done) and (vote is None or vote.ok or any(not one.identical for one in done))
    if json:
        echo_json({"ok": ok, "runs": [one.to_json() for one in done], "vote": vote.to_json() if vote else None})
        raise typer.Exit(0 if ok else 1)
    if vote is not None:
        echo(f"vote of {len(done)} heads: {vote.same} of {vote.rows} {vote.split} labels are the same")
        if vote.table is not None:
            echo(f"{vote.table}: {vote.table_same} of its {vote.rows} labels are the same")
    if out is not None:
        echo(f"the heads fitted again are in {out}")
    alike = sum(one.identical for one in done)
    rest = "" if alike == len(done) else "; the others are named above"
    echo(f"{alike} of {len(done)} runs repeat to the bit{rest}")
    note("`mmsent cache verify` checks the cache itself: it encodes a sample of rows again")
    raise typer.Exit(0 if ok else 1)


def _runs_and_caches(
    where: Workspace, names: Sequence[str] | None, cache_at: Path | None
) -> tuple[list[Run], list[Cache]]:
    """The runs to fit again, each with its cache."""
    from mmsent.evaluation.replay import cache_of
    from mmsent.inference.vote import require_distinct

    folder = Path("cache")
    if names:
        chosen = where.named_runs(names)
        require_distinct(chosen)
        return chosen, [cache_of(one, cache_at, folder) for one in chosen]
    where = Workspace(where.data, cache_at if cache_at is not None else folder, where.encoder, where.runs_at)
    chosen = where.voting_runs(None)
    return chosen, [where.cache] * len(chosen)


def _replay_all(chosen: Sequence[Run], caches: Sequence[Cache], folder: Path, *, tell: bool) -> list[Replay]:
    """Each run fitted again; the features of a cache that all share are read once."""
    from mmsent.evaluation.replay import replay

    one_cache = len({one.path.resolve() for one in caches}) == 1
    features = None
    done = []
    for run, cache in zip(chosen, caches, strict=True):
        if one_cache and features is None and run.info.get("memory") is None:
            features = cache.load("train")
        done.append(replay(run, cache, folder, features=features))
        if tell:
            _tell(done[-1])
    return done


def _table(
    named: Path | None, chosen: Sequence[Run], tie: str | None, soft: bool
) -> tuple[Path | None, str | None, bool]:
    """The table of predictions to compare with, and the tie and the soft of the vote: the table's own unless given, so
    that like is compared with like. A table that nobody named and that does not fit is left out of account."""
    from mmsent.evaluation.replay_votes import votes_of, way_of
    from mmsent.inference.vote import voting_way

    if named is not None and not votes_of(named, chosen):
        raise UsageError(
            f"--predictions {named} is no table of a vote of {', '.join(run.name for run in chosen)}; "
            "give the predictions.csv that `mmsent vote` wrote with these runs"
        )
    table = named if named is not None else PREDICTIONS
    if not votes_of(table, chosen):
        return None, tie, soft
    try:
        way = way_of(table)
        if way is None:  # of an older mmsent: the options say how it was voted
            return table, tie, soft
        if tie is None and not soft:
            return table, *way
        labels = chosen[0].labels
        then, now = voting_way(way[0], labels, soft=way[1]), voting_way(tie, labels, soft=soft)
        if then != now:
            raise DataError(f"{table} was voted by {then}, not by {now}; leave --tie and --soft out to compare it")
    except (DataError, UsageError) as error:
        if named is not None:
            raise
        note(f"{table} is ignored: {error}")
        return None, tie, soft
    return table, tie, soft


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where the heads are fitted: the given folder, or one that goes away."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="mmsent-replay-") as name:
        yield Path(name)


def _tell(one: Replay) -> None:
    """A line on a run, and one on each thing that differs."""
    if one.identical:
        echo(f"{one.run.name}: bit-identical (head, history and {len(one.again.validation_ids())} validation rows)")
    elif one.apart is None:
        other = ", ".join(name for name, same in one.parts.items() if not same)
        echo(f"{one.run.name}: the head is bit-identical, but not: {other}")
    else:
        best = f"best epoch {one.run.info['best_epoch']} -> {one.again.info['best_epoch']}"
        echo(f"{one.run.name}: not identical; {_distance(one.apart)}; {best}")
    for difference in one.differences[:SHOWN]:
        echo(f"  {difference}")
    if len(one.differences) > SHOWN:
        echo(f"  and {len(one.differences) - SHOWN} more; --json lists them")
    if not one.identical and not one.differences:
        echo("  nothing that was recorded differs: please report this with what `mmsent env` prints")


def _distance(apart: HeadDistance) -> str:
    verdict = "within the tolerance" if apart.within else "beyond the tolerance"
    return (
        f"{apart.labels:.1%} of {apart.rows} validation labels are the same, probabilities differ by "
        f"{apart.mean_probability:.2g} on average and {apart.largest_probability:.2g} at most, weighted F1 by "
        f"{apart.f1:+.4f}: {verdict} for another machine or other versions"
    )
