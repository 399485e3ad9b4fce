"""What scores do with other rows and other seeds at once: one bootstrap for any number of heads, so that their gaps are
paired.

Shapes: R resamples, S seeds, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import MmsentError
from mmsent.evaluation.evaluate import VOTE, Evaluation, evaluate_validation
from mmsent.features.cache import Cache, Features
from mmsent.metrics import LEVEL, matrix_scores
from mmsent.training.runs import Run, runs_of

DRAWS = 4000
_CHUNK = 200  # resamples at once, so that memory stays small


@dataclass(frozen=True, eq=False)
class Repeated:
    """One head trained with S seeds. seeds: its evaluations, all on the same rows. means: by score, the mean over the
    seeds; draws: the same of each resample, (R,) or (R, C). Gaps of two of one `resampled` call are paired."""

    seeds: Sequence[Evaluation]
    means: Mapping[str, NDArray[np.float64]]
    draws: Mapping[str, NDArray[np.float64]]

    @property
    def f1(self) -> float:
        """The mean weighted F1."""
        return float(self.means["f1_weighted"])

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean weighted F1, over rows and seeds; of one seed that of its evaluation, which other tables show."""
        if len(self.seeds) > 1:
            return ends(self.draws["f1_weighted"], LEVEL)
        low, high = self.seeds[0].intervals["f1_weighted"]
        return low, high

    def interval_of(self, label: int) -> tuple[float, float]:
        """Of the mean F1 of a class, likewise."""
        if len(self.seeds) > 1:
            return ends(self.draws["f1"][:, label], LEVEL)
        low, high = self.seeds[0].intervals["f1_per_class"][label]
        return low, high

    def gap(self, other: Repeated, level: float = LEVEL) -> tuple[float, float, float]:
        """Its mean weighted F1 less that of another, and the interval."""
        return self.f1 - other.f1, *ends(self.draws["f1_weighted"] - other.draws["f1_weighted"], level)


def ends(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The percentile interval of resamples (R,)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def other_seeds(
    runs: Sequence[Run], evaluations: Sequence[Evaluation], cache: Cache, features: Features
) -> dict[str, list[Evaluation]]:
    """Evaluations of the same heads with other seeds, by the names of `evaluations`, and of the vote for each seed that
    all heads have: of runs that lie beside these, on the same validation rows, and differ in the seed alone. The newest
    of each seed counts. None are looked for where two of these runs are themselves one head with two seeds, or where
    blocks were tuned, which takes long to evaluate."""
    kinds = [_but_the_seed(run) for run in runs]
    if len(set(kinds)) < len(kinds) or any(run.tune for run in runs):
        return {}
    beside = [one for folder in dict.fromkeys(run.home for run in runs) for one in runs_of(folder, cache)]
    of_kind = {kind: {run.fit.seed: run} for kind, run in zip(kinds, runs, strict=True)}
    for one in beside:
        if (seeds := of_kind.get(_but_the_seed(one))) is not None:
            seeds.setdefault(one.fit.seed, one)
    found: dict[str, list[Evaluation]] = {}
    vote = next((e.name for e in evaluations if e.fusion == VOTE), "")
    for seed in sorted({seed for seeds in of_kind.values() for seed in seeds}):
        new = {kind: seeds[seed] for kind, seeds in of_kind.items() if seed in seeds and seeds[seed] not in runs}
        try:
            scored = evaluate_validation(list(new.values()), cache, features) if new else []
        except MmsentError:  # a damaged run that nobody named
            continue
        for kind, e in zip(new, scored, strict=False):
            found.setdefault(runs[kinds.index(kind)].name, []).append(e)
        if vote and len(new) == len(runs):
            found.setdefault(vote, []).extend(e for e in scored if e.fusion == VOTE)
    return found


def _but_the_seed(run: Run) -> str:
    """All that makes a head but its seed."""
    fit = run.fit.model_dump_json(exclude={"seed"})
    return f"{fit} {run.split.model_dump_json()} {hash(tuple(run.validation_ids()))} {run.committee}"


def resampled(heads: Sequence[Sequence[Evaluation]], draws: int = DRAWS, seed: int = 0) -> list[Repeated]:
    """Bootstrap heads on the same rows: each resample draws the rows once for all heads, and for each head its seeds.
    Of a head with one seed the intervals say nothing of other seeds. Raises ValueError where the rows differ."""
    first = heads[0][0]
    if any(not np.array_equal(e.positions, first.positions) for seeds in heads for e in seeds):
        raise ValueError("these evaluations are of different rows")
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    n, classes = len(first.truth), first.probabilities.shape[1]
    every = [e for seeds in heads for e in seeds]  # E of them
    cells = np.concatenate([(k * classes + e.truth) * classes + e.predicted for k, e in enumerate(every)])
    columns = np.tile(np.arange(n), len(every))
    table = csr_array((np.ones(len(cells), np.float32), (cells, columns)), (len(every) * classes**2, n))

    def scored(weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:  # (n, R) -> (E, R) or (E, R, C)
        matrices = (table @ weights).reshape(len(every), classes, classes, -1)
        return matrix_scores(np.moveaxis(matrices, 3, 1))

    plain = scored(np.ones((n, 1), np.float32))
    parts: list[dict[str, list[NDArray[np.float64]]]] = [{name: [] for name in plain} for _ in heads]
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        found = scored(rng.multinomial(n, np.full(n, 1 / n), size=size).T.astype(np.float32))
        for part, (at, seeds) in zip(parts, _starts(heads), strict=True):
            picks = rng.integers(0, len(seeds), (len(seeds), size)) + at
            for name, values in found.items():
                part[name].append(values[picks, np.arange(size)].mean(axis=0))
    return [
        Repeated(
            seeds,
            {name: values[at : at + len(seeds), 0].mean(axis=0) for name, values in plain.items()},
            {name: np.concatenate(drawn) for name, drawn in part.items()},
        )
        for part, (at, seeds) in zip(parts, _starts(heads), strict=True)
    ]


def _starts(heads: Sequence[Sequence[Evaluation]]) -> list[tuple[int, Sequence[Evaluation]]]:
    """Each head's seeds, and where they start among the seeds of all."""
    starts = np.cumsum([0, *map(len, heads[:-1])])
    return list(zip(starts.tolist(), heads, strict=True))
