"""The replay command."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmsent.commands.features import find
from mmsent.commands.heads import named_runs
from mmsent.commands.say import note, say, say_json
from mmsent.errors import DataError, UsageError

if TYPE_CHECKING:
    from mmsent.evaluation.replay import Apart, Replay
    from mmsent.training.runs import Run

PREDICTIONS = Path("predictions.csv")
SHOWN = 12  # differences


def replay(
    names: Sequence[str],
    out: Path | None,
    predictions: Path | None,
    tie: str | None,
    soft: bool,
    data: Path | None,
    cache_at: Path | None,
    encoder: str | None,
    runs: Path,
    as_json: bool,
) -> int:
    """Fit runs again from what they recorded and compare. Returns the exit status."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if out is not None and out.resolve() == runs.resolve():
        raise UsageError(f"--out {out} is the folder of the runs themselves; name another")
    from mmsent.evaluation.replay import cache_of, replay, replay_vote
    from mmsent.inference.vote import averages, require_distinct, voting_runs

    folder = Path("cache")
    if names:
        chosen = named_runs(names, runs)
        require_distinct(chosen)
        caches = [cache_of(run, cache_at, folder) for run in chosen]
    else:
        cache = find(data, cache_at if cache_at is not None else folder, encoder)
        chosen = voting_runs(runs, cache)
        caches = [cache] * len(chosen)
    soft = averages(chosen, soft)
    one_cache = len({cache.path.resolve() for cache in caches}) == 1
    table, tie, soft = _table(predictions, chosen, tie, soft)
    done: list[Replay] = []
    vote = None
    with _folder(out) as where:
        features = None
        for run, cache in zip(chosen, caches, strict=True):
            if one_cache and features is None and run.info.get("memory") is None:
                features = cache.load("train")
            done.append(replay(run, cache, where, features=features))
            if not as_json:
                _tell(done[-1])
        if one_cache and len(chosen) > 1:
            try:
                vote = replay_vote(done, caches[0], table, tie=tie, soft=soft)
            except DataError as error:
                if predictions is not None:
                    raise
                note(f"{PREDICTIONS} is left out of account: {error}")  # nobody asked for it
                vote = replay_vote(done, caches[0], None, tie=tie, soft=soft)
    ok = all(one.ok for one in done) and (vote is None or vote.ok or any(not one.identical for one in done))
    if as_json:
        say_json({"ok": ok, "runs": [one.to_json() for one in done], "vote": vote.to_json() if vote else None})
        return 0 if ok else 1
    if vote is not None:
        say(f"vote of {len(done)} heads: {vote.same} of {vote.rows} {vote.split} labels are the same")
        if vote.table is not None:
            say(f"{vote.table}: {vote.table_same} of its {vote.rows} labels are the same")
    if out is not None:
        say(f"the heads fitted again are in {out}")
    alike = sum(one.identical for one in done)
    say(
        f"{alike} of {len(done)} runs repeat to the bit"
        + ("" if alike == len(done) else "; the others are named above")
    )
    note("the cache itself is checked by `mmsent cache verify`, which encodes a sample of rows again")
    return 0 if ok else 1


def _table(
    named: Path | None, chosen: Sequence[Run], tie: str | None, soft: bool
) -> tuple[Path | None, str | None, bool]:
    """The table of predictions to compare with, and the tie and the soft of the vote: the table's own unless given, so
    that like is compared with like. A table that nobody named and that does not fit is left out of account."""
    from mmsent.evaluation.replay import votes_of, way_of
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
        note(f"{table} is left out of account: {error}")
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
        say(f"{one.run.name}: bit-identical (head, history and {len(one.again.validation_ids())} validation rows)")
    elif one.apart is None:
        other = ", ".join(name for name, same in one.parts.items() if not same)
        say(f"{one.run.name}: the head is bit-identical, but not: {other}")
    else:
        best = f"best epoch {one.run.info['best_epoch']} -> {one.again.info['best_epoch']}"
        say(f"{one.run.name}: not identical; {_distance(one.apart)}; {best}")
    for difference in one.differences[:SHOWN]:
        say(f"  {difference}")
    if len(one.differences) > SHOWN:
        say(f"  and {len(one.differences) - SHOWN} more; --json lists them")
    if not one.identical and not one.differences:
        say("  nothing that was recorded differs: please report this with what `mmsent env` prints")


def _distance(apart: Apart) -> str:
    verdict = "within the tolerance" if apart.within else "beyond the tolerance"
    return (
        f"{apart.labels:.1%} of {apart.rows} validation labels are the same, probabilities differ by "
        f"{apart.mean_probability:.2g} on average and {apart.largest_probability:.2g} at most, weighted F1 by "
        f"{apart.f1:+.4f}: {verdict} for another machine or other versions"
    )
