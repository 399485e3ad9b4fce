"""Fitting a committee: several heads a fusion on as many validation splits (see mmsent.training.committee)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, require_current
from mmsent.commands.heads import fusions, memory_limit
from mmsent.commands.say import say, say_json
from mmsent.config import RECIPES, Committee, FitSettings, SplitSettings, fit_settings
from mmsent.errors import Interrupted, UsageError
from mmsent.system.tables import columns


def fit_committee(
    names: Sequence[str] | None,
    recipe: str,
    committee: Committee,
    overrides: dict[str, Any],
    split: SplitSettings,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    memory: str | None,
    as_json: bool,
) -> None:
    """Train the committee's heads and print how they do on their validation rows."""
    wanted = fusions(names) if names else list(committee.fusions)
    if recipe != "auto" and recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from auto, {', '.join(RECIPES)}")
    from mmsent.config import recipe_for

    cache = find(data, cache_at, encoder)
    chosen = recipe_for(cache.encoder) if recipe == "auto" else recipe
    settings: list[FitSettings] = [fit_settings(chosen, fusion=fusion, **overrides) for fusion in wanted]
    require_current(cache, data, "train")
    from mmsent.system.devices import pick_device
    from mmsent.system.progress import bar
    from mmsent.training.fit import fit_committee

    total = committee.splits * len(wanted)
    fitted = 0
    with bar(total, "fitting a committee", "head", show=not as_json) as shown:

        def count(*_: Any) -> None:
            nonlocal fitted
            fitted += 1
            shown.update(1)

        try:
            done = fit_committee(
                cache,
                runs,
                settings,
                split,
                committee.splits,
                recipe=chosen,
                device=pick_device(device),
                memory=memory_limit(memory),
                on_run=count,
            )
        except KeyboardInterrupt as stop:
            kept = f"{fitted} of {total} heads of the committee are kept and vote alone"
            raise Interrupted(f"interrupted; {kept}; the same command fits a whole one", stop) from None
    spread = {fusion: [run.info["metrics"] for run in done if run.fusion is fusion] for fusion in wanted}
    if as_json:
        say_json(
            {
                "committee": done[0].info["committee"],
                "runs": [str(run.path) for run in done],
                "recipe": chosen,
                "validation": {fusion.value: found for fusion, found in spread.items()},
            }
        )
        return
    say(f"recipe {chosen}; {len(done)} heads in {runs}, {done[0].name} to {done[-1].name}")
    table = [["head", "splits", "accuracy", "F1 weighted", "F1 macro"]]
    for fusion, found in spread.items():
        cells = [_mean(found, name) for name in ("accuracy", "f1_weighted", "f1_macro")]
        table.append([fusion.value, str(len(found)), *cells])
    say(columns(table, right=range(1, 5)))
    say("\nmean over the validation splits, each head on rows that it has not seen; `mmsent vote` averages all heads")


def _mean(found: Sequence[dict[str, Any]], name: str) -> str:
    return f"{sum(one[name] for one in found) / len(found):.3f}"
