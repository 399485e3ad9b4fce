"""A committee: the same heads on several validation splits, so that together they have learned from every row, and a
vote of all of them. Each is a run like any other; what binds them is a name in their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmsent.cache import Cache
from mmsent.config import FitSettings, SplitSettings
from mmsent.fit import Sides, fit
from mmsent.runs import Run
from mmsent.train import Trained


def fit_committee(
    cache: Cache,
    runs: Path,
    wanted: Sequence[FitSettings],
    split: SplitSettings,
    splits: int,
    *,
    recipe: str,
    device: str = "cpu",
    memory: int | None = None,
    on_run: Callable[[Run, Trained, Sides], None] | None = None,
) -> list[Run]:
    """Train one head per settings on each of `splits` validation splits of a cache, and write a run folder for each.

    Split and head seeds count up from the given ones. memory, on_run and errors as for mmsent.fit.fit. Stopped early,
    the runs so far are kept and vote alone.
    """
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{recipe}"
    about: dict[str, Any] = {"name": name, "size": splits * len(wanted)}
    stored = memory is not None and cache.rows["train"] * cache.row_bytes("train") > memory
    features = None if stored else cache.load("train")
    done: list[Run] = []
    for k in range(splits):
        done += fit(
            cache,
            runs,
            [one.model_copy(update={"seed": one.seed + k}) for one in wanted],
            split.model_copy(update={"seed": split.seed + k}),
            recipe=recipe,
            device=device,
            features=features,
            memory=memory,
            committee=about,
            on_run=on_run,
        )
    return done
