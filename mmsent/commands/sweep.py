"""The sweep command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, require_current
from mmsent.commands.heads import fusions
from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import RECIPES, SplitSettings
from mmsent.errors import UsageError
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.space import Space, make_space
from mmsent.system.tables import columns


def sweep(
    names: Sequence[str] | None,
    recipe: str,
    space_file: Path | None,
    show_space: bool,
    split: SplitSettings,
    options: SweepSettings,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Search settings, check the best on other splits, save the winners, and tell."""
    if recipe != "auto" and recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from auto, {', '.join(RECIPES)}")
    if address is not None and options.engine != "ray":
        raise UsageError("--address is of a Ray cluster; it goes with --engine ray")
    wanted = [fusion.value for fusion in fusions(names)] if names else None

    def space_of(chosen: str) -> Space:
        return make_space(chosen, file=space_file, fusions=wanted, seed=options.seed)

    if show_space:
        say(space_of("paper" if recipe == "auto" else recipe).to_toml().removesuffix("\n"))
        return
    from mmsent.config import recipe_for

    cache = find(data, cache_at, encoder)
    space = space_of(recipe_for(cache.encoder) if recipe == "auto" else recipe)
    require_current(cache, data, "train")
    asked = min(options.trials, space.size()) if options.sampler == "grid" else options.trials
    if asked < options.trials:
        note(f"the grid has {space.size()} points, so there will be so many trials, not {options.trials}")
    from mmsent.sweep.database import shown_url
    from mmsent.sweep.search import sweep as run
    from mmsent.system.devices import pick_device

    where = pick_device(device)
    at = f"what is finished is kept in {shown_url(options.storage) if options.storage else runs / options.name}"
    with resumable(at), _watching(options.name) as watch:
        done = run(cache, runs, space, split, options, device=where, address=address, watch=watch)
    figures = _draw(done)
    if as_json:
        say_json({"path": str(done.path), "figures": [str(path) for path in figures], **done.info})
        return
    _tell(done, asked, figures)


def _tell(done: Any, asked: int, figures: Sequence[Path]) -> None:
    total, finished = len(done.trials), len(done.finished)
    say(f"{done.path}: {total} trials, {finished} finished, {total - finished} stopped early; {done.measure}\n")
    table = done.table()
    say(columns(table, right=(0, 1, *range(len(table[0]) - 3, len(table[0])))))
    say("")
    say(columns(done.winners_table(), right=range(1, 7)))
    say("")
    for line in done.says():
        say(line)
    if done.info["importances"]:
        shares = [f"{name} {share:.0%}" for name, share in list(done.info["importances"].items())[:5]]
        say(f"What mattered most for the score (PED-ANOVA): {', '.join(shares)}.")
    written = (done.path / "trials.csv", done.path / "sweep.json", *figures)
    say(f"\nwrote {', '.join(map(str, written))}")
    saved = " ".join(one["run"] for one in done.winners)
    say(f"the winners are saved as runs; they vote by: mmsent vote {saved}")
    if total < asked:
        note(f"{total} of {asked} trials are done; run the same command again to go on")


def _draw(done: Any) -> list[Path]:
    from mmsent.report.figures.style import save
    from mmsent.report.figures.sweeps import sweep_figures

    found: list[Path] = []
    for name, figure in sweep_figures(done.info).items():
        found.append(save(figure, done.path, name)[0])
    return found


@contextmanager
def _watching(name: str) -> Iterator[Callable[[Any], None]]:
    """Show progress: a bar on a terminal, elsewhere a line now and then."""
    import sys

    from mmsent.system.progress import bar

    shown: Any = None
    stage = ""
    told = 0

    def watch(progress: Any) -> None:
        nonlocal shown, stage, told
        best = progress.best
        about = f"best {best.score:.4f} ({best.settings.fusion}, trial {best.number})" if best else "no trial finished"
        if progress.what != stage:
            if shown is not None:
                shown.close()
            stage, told = progress.what, progress.done
            shown = bar(progress.total, f"{stage} {name}", "trial", initial=progress.done)
        shown.set_postfix_str(about, refresh=False)
        shown.update(progress.done - shown.n)
        if not sys.stderr.isatty() and stage == "searching" and progress.done >= told + max(1, progress.total // 10):
            told = progress.done
            note(f"{progress.done} of {progress.total} trials, {about}")

    try:
        yield watch
    finally:
        if shown is not None:
            shown.close()
