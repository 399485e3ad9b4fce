"""The vote of heads that were fitted again, beside that of the old ones and beside a table that `mmsent vote` wrote."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsent.errors import DataError
from mmsent.evaluation.replay import Replay
from mmsent.features.cache import Cache
from mmsent.inference.vote import parse_way, vote_split
from mmsent.system.safe_csv import plain
from mmsent.training.runs import Run


@dataclass(frozen=True)
class VoteReplay:
    """The vote of the heads fitted again beside that of the old ones on a split: how many of `rows` labels are the
    same, and, where a table of predictions was given, how many of its labels."""

    split: str
    rows: int
    same: int
    table: Path | None
    table_same: int | None

    @property
    def ok(self) -> bool:
        """Whether every label is the same."""
        return self.same == self.rows and self.table_same in (None, self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "split": self.split,
            "rows": self.rows,
            "same": self.same,
            "table": str(self.table) if self.table else None,
            "table_same": self.table_same,
            "ok": self.ok,
        }


def replay_vote(
    replays: Sequence[Replay],
    caches: Sequence[Cache],
    table: Path | None,
    *,
    tie: str | None = None,
    soft: bool = False,
) -> VoteReplay:
    """Compare the two votes on the test split, or on the training rows where the first cache has none. table: a
    predictions.csv that `mmsent vote` wrote with these runs, tie and soft; whether with twins, its columns say. Raises
    DataError where it lists other posts.
    """
    twins = table is not None and "twins" in _header(table)
    cache, *others = caches
    split = "test" if "test" in cache.rows else "train"
    old, new = (
        vote_split(runs, cache, split, tie=tie, soft=soft, twins=twins, others=others)
        for runs in ([r.run for r in replays], [r.again for r in replays])
    )
    same = sum(a == b for a, b in zip(old.predicted, new.predicted, strict=True))
    found = None
    if table is not None:
        listed = read_predictions(table)
        if list(listed) != new.ids:
            raise DataError(
                f"{table} does not list the posts of the {split} split of {cache.path}; run `mmsent vote` again"
            )
        found = sum(listed[row_id] == label for row_id, label in zip(new.ids, new.predicted, strict=True))
    return VoteReplay(split, len(new.ids), same, table, found)


def votes_of(table: Path, runs: Sequence[Run]) -> bool:
    """Whether a table of predictions is there and was voted by exactly these runs."""
    header = _header(table)
    return "agreeing" in header and set(header[header.index("agreeing") + 1 :]) == {run.name for run in runs}


def _header(table: Path) -> list[str]:
    """The columns of a table; none where it cannot be read."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return []


def way_of(table: Path) -> tuple[str | None, bool] | None:
    """How a table of predictions was voted, as `tie` and `soft`; None where it does not say so, as older ones do not.

    Raises DataError where it says what cannot be.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header, first = next(reader, []), next(reader, [])
        own = header[: header.index("agreeing")]  # behind it, columns are called by runs
        return parse_way(plain(first[own.index("vote")])) if first and "vote" in own else None
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{table} does not say how it was voted ({error}); run `mmsent vote` again") from error


def read_predictions(table: Path) -> dict[str, str]:
    """The labels of a predictions.csv by id. Raises DataError where it cannot be read."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return {plain(row["id"]): plain(row["predicted"]) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{table} is not a table of predictions ({error}); name the predictions.csv of `mmsent vote`"
        ) from error
