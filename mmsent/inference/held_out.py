"""What several heads say of posts that they were not trained on: their validation rows, as their run folders keep them.

Shapes: R heads, N rows, C classes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import RunError
from mmsent.metrics import Labels, Probabilities
from mmsent.system.safe_csv import plain
from mmsent.training.runs import Run

VALIDATION = "validation.csv"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """ids (N,); truth (N,) label indices; probabilities (R, N, C), at the heads' temperatures; held (R, N): which heads
    validated on which rows. A row that a head did not validate on may have trained it, so the head has no say there."""

    ids: list[str]
    truth: Labels
    probabilities: Probabilities
    held: NDArray[np.bool_]

    def by_all(self) -> HeldOut:
        """The rows that every head validated on."""
        rows = np.flatnonzero(self.held.all(axis=0))
        ids = [self.ids[i] for i in rows]
        return HeldOut(ids, self.truth[rows], self.probabilities[:, rows], self.held[:, rows])


def held_out(runs: Sequence[Run]) -> HeldOut:
    """The validation rows of runs with one label set, in the order of the first run that has them, with the labels that
    they had there. Raises RunError where a run keeps none, as in an exported folder, or its file cannot be read."""
    labels = runs[0].labels
    numbers = {name: i for i, name in enumerate(labels)}
    truth: dict[str, int] = {}
    tables: list[dict[str, list[float]]] = []
    for run in runs:
        path = run.path / VALIDATION
        if run.labels != labels:
            raise RunError(f"runs {runs[0].name} and {run.name} have different labels")
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            tables.append({plain(row["id"]): [float(row[f"p_{name}"]) for name in labels] for row in rows})
            for row in rows:
                truth.setdefault(plain(row["id"]), numbers[plain(row["label"])])
        except FileNotFoundError as error:
            raise RunError(
                f"run {run.name} keeps no {VALIDATION}, as exported folders do not; name the runs it was exported from"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; run `mmsent fit` again") from error
    none = [0.0] * len(labels)
    given = np.array([[table.get(name, none) for name in truth] for table in tables], np.float64)
    held = np.array([[name in table for name in truth] for table in tables], np.bool_)
    shape = (len(runs), len(truth))
    return HeldOut(
        list(truth),
        np.array(list(truth.values()), np.int64),
        given.reshape(*shape, len(labels)),
        held.reshape(shape),
    )
