"""Whether sweeps that stop trials early choose as well as sweeps that stop fewer or none.

    python scripts/compare_pruning.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --budgets default 60 none

Each of ten sweeps has another seed, of the sampler and of the split. Its winner, the best of all fusions, is trained
again on five other splits, and so is scored on rows that did not choose it. The same seeds serve every budget, so
differences are paired. A sweep takes one to three minutes. With PYTHONPATH at another commit's working tree and
`--budgets default`, the rows that are printed per seed are that commit's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_common import machine, table

from mmsent.config import SplitSettings, recipe_for
from mmsent.features.cache import Cache
from mmsent.sweep.search import sweep
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.space import make_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--budgets", nargs="+", default=["default", "none"], help="in whole fits")
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--fusions", nargs="+", help="of the sweeps; for one alone, a third of the trials is enough")
    given = parser.parse_args()
    machine()
    cache = Cache.open(given.cache)
    found: dict[str, list[tuple[float, float, float, int, float]]] = {budget: [] for budget in given.budgets}
    for seed in range(given.sweeps):
        for budget in given.budgets:
            named: dict[str, dict[str, object]] = {"none": {"prune": False}, "default": {}}
            how = named[budget] if budget in named else {"budget": float(budget)}
            options = SweepSettings.model_validate({"trials": given.trials, "seed": seed, "checks": 5, **how})
            space = make_space(recipe_for(cache.encoder), seed=seed, fusions=given.fusions)
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                done = sweep(cache, Path(folder), space, SplitSettings(seed=seed), options)
            epochs = sum(one["epochs"] for one in done.trials)
            seconds = time.perf_counter() - started
            mean, own = done.best["check"]["mean"], done.best["score"]
            found[budget].append((mean, own, epochs, len(done.finished), seconds))
            print(f"  seed {seed}, budget {budget}: {found[budget][-1]}", flush=True)
    rows = [
        ["budget", "winner on other splits", "to the first", "on its own split", "epochs", "finished", "seconds in all"]
    ]
    base = np.array([one[0] for one in found[given.budgets[0]]])
    for budget, values in found.items():
        checks = np.array([one[0] for one in values])
        apart, root = checks - base, max(1, len(checks)) ** 0.5
        spread = np.std(apart, ddof=1) / root if len(checks) > 1 else 0.0
        own, epochs, finished, seconds = (np.mean([one[k] for one in values]) for k in (1, 2, 3, 4))
        rows.append([budget, f"{checks.mean():.4f}", f"{apart.mean():+.4f} ± {spread:.4f}", f"{own:.4f}",
                     f"{epochs:.0f}", f"{finished:.0f}", f"{seconds:.0f}"])  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
