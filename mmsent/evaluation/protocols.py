"""Published protocols on a cache: which of its rows each fold trains on, validates on and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import SplitSettings
from mmsent.data.protocols import Part, Protocol
from mmsent.errors import DataError
from mmsent.features.cache import NO_LABEL, Cache, Columns, Features, RowIndex
from mmsent.features.cache.groups import row_groups
from mmsent.system.hashing import file_sha256
from mmsent.training.folds import FoldPlan, Ints, Published, loaded_rows
from mmsent.training.halves import taken
from mmsent.training.sides import SplitRows, ids_at
from mmsent.training.splits import validation_split


def plan_protocol(
    cache: Cache,
    split: SplitSettings,
    protocol: Protocol,
    *,
    features: Features | None = None,
    memory: int | None = None,
    lacking: Sequence[int] = (),
) -> FoldPlan:
    """A protocol's folds on the training rows of a cache. Folds without rows to validate on have some cut from those
    that train, as split says. features and memory as for mmsent.training.fit.fit; lacking: halves that rows may
    lack.

    Posts that lack another half or a label, and ids that are no training posts, are left out, and counted. Raises
    DataError where too few are left: no row to score, or a class without a row to train on.
    """
    split, features, index = loaded_rows(cache, split, features, memory)
    places = {_text(name): place for place, name in enumerate(ids_at(index, np.arange(len(index.labels))))}
    usable = taken(index.outcome, lacking) & (index.labels != NO_LABEL)
    named = {one for fold in protocol.folds for ids in fold.ids.values() for one in ids}
    unknown = sorted(named - places.keys())
    if len(unknown) == len(named):
        raise DataError(
            f"no id of {protocol.path} is a training post of {cache.data_name}: it has {unknown[0][:60]!r}, the posts "
            f"are called {next(iter(places), 'nothing')[:60]!r} or the like"
        )
    known = usable[[places[one] for one in named & places.keys()]]
    given, scored = [], []
    for fold in protocol.folds:
        rows = {part: _positions(ids, places, usable) for part, ids in fold.ids.items()}
        scored.append(rows[protocol.scored])
        if not fold.ids["val"]:
            try:
                rows |= _cut(index, rows["train"], split, features)
            except DataError as error:
                raise DataError(f"fold {fold.name} of {protocol.path}: {error}") from error
        if not (len(rows["train"]) and len(rows["val"]) and len(scored[-1])):
            raise DataError(f"fold {fold.name} of {protocol.path}: no row is left to train on, validate on or score")
        there = np.unique(index.labels[rows["train"]])
        if absent := [label for number, label in enumerate(cache.labels) if number not in there]:
            raise DataError(
                f"fold {fold.name} of {protocol.path}: no row to train on is labelled {', '.join(absent)}; add some, "
                "or leave the label out of --labels"
            )
        given.append(SplitRows(rows["train"], rows["val"]))
    number = np.repeat(np.arange(len(scored)), [len(one) for one in scored])
    order = np.argsort(np.concatenate(scored), kind="stable")
    left_out = {
        "are no training posts of the cache": len(unknown),
        "have no label or lack a half": int((~known).sum()),
        "have no fold": protocol.without,
    }
    published = Published(
        protocol.path,
        file_sha256(protocol.path),
        tuple(fold.name for fold in protocol.folds),
        protocol.scored,
        {what: n for what, n in left_out.items() if n},
        int(usable.sum()) - len(np.unique(np.concatenate(scored))),
        tuple(given),
    )
    places_scored = np.concatenate(scored)[order]
    about = (places_scored, number[order], None, memory, tuple(lacking), published)
    return FoldPlan(cache, split, len(scored), index, features, *about)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _positions(ids: Iterable[str], places: Mapping[str, int], usable: NDArray[np.bool_]) -> Ints:
    found = (places[one] for one in ids if one in places)
    return np.array(sorted(place for place in found if usable[place]), np.int64)


def _cut(index: RowIndex | Columns, train: Ints, split: SplitSettings, features: Features | None) -> dict[Part, Ints]:
    """The rows of a fold to train on, and those of them that validate."""
    groups = row_groups(index, train, split, features)
    held = validation_split(ids_at(index, train), index.labels[train], groups, split)
    return {"train": train[~held], "val": train[held]}
