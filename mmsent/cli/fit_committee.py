"""`mmsent fit --splits N` and `--recipe best`: a committee, several heads per fusion on as many validation splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmsent.cli.fit_job import FitJob
from mmsent.cli.output import Layout, echo, echo_json, echo_table
from mmsent.errors import Interrupted


def fit_committee(job: FitJob, splits: int, *, as_json: bool) -> None:
    """Train the committee's heads and print how they do on their validation rows."""
    from mmsent.system.progress import bar
    from mmsent.training.fit import fit_committee

    total = splits * len(job.settings)
    fitted = 0
    with bar(total, "fitting a committee", "head", show=not as_json) as shown:

        def count(*_: Any) -> None:
            nonlocal fitted
            fitted += 1
            shown.update(1)

        try:
            done = fit_committee(job.cache, job.runs, job.settings, job.split, splits, job.how, on_run=count)
        except KeyboardInterrupt:
            kept = f"{fitted} of {total} heads of the committee are kept and vote alone"
            raise Interrupted(f"interrupted; {kept}; run the same command for a whole committee") from None
    fusions = [one.fusion for one in job.settings]
    spread = {fusion: [run.info["metrics"] for run in done if run.fusion is fusion] for fusion in fusions}
    if as_json:
        echo_json(
            {
                "committee": done[0].info["committee"],
                "runs": [str(run.path) for run in done],
                "recipe": job.how.recipe,
                "data": job.cache.definition,
                "validation": {fusion.value: found for fusion, found in spread.items()},
            }
        )
        return
    echo(job.cache.definition)
    echo(f"recipe {job.how.recipe}; {len(done)} heads in {job.runs}, {done[0].name} to {done[-1].name}")
    scores = ["accuracy", "F1 weighted", "F1 macro"]
    table = [["head", "splits", *scores]]
    for fusion, found in spread.items():
        cells = [_mean(found, name) for name in ("accuracy", "f1_weighted", "f1_macro")]
        table.append([fusion.value, str(len(found)), *cells])
    echo_table(table, Layout(left=["head"], best=dict.fromkeys(scores, "max")))
    echo("\nmean over the validation splits, each head on rows that it has not seen; `mmsent vote` averages all heads")


def _mean(found: Sequence[dict[str, Any]], name: str) -> str:
    return f"{sum(one[name] for one in found) / len(found):.3f}"
