"""`mmsent sweep`: try many settings, keep the best."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import DEVICE, TRAIN, Device, Json, Recipe, Wide, split_for
from mmsent.cli.output import Layout, echo, echo_json, echo_table, note, resumable
from mmsent.cli.workspace import Workspace
from mmsent.config import FitSettings, Fusion, SplitSettings, choose_recipe, fusions_named
from mmsent.errors import UsageError
from mmsent.sweep.settings import SweepSettings

if TYPE_CHECKING:
    from mmsent.features.cache import Cache
    from mmsent.sweep.results import Sweep
    from mmsent.sweep.space import Space


_Fusions = Annotated[
    list[str] | None,
    typer.Option(
        "--fusion",
        help=f"Fusions to try: {', '.join(Fusion)}, or all. Repeatable.",
        show_default="concat, weighted, attention",
        rich_help_panel=TRAIN,
    ),
]
_Action = Annotated[
    str | None,
    typer.Argument(
        metavar="[promote]",
        help="promote: search nothing, but let the winners of --name (of --fusion alone, where it is given) be the "
        "newest runs, which other commands take by themselves.",
    ),
]
_SpaceFile = Annotated[
    Path | None,
    typer.Option("--space", help="TOML file; the settings in it replace the default ones.", rich_help_panel=TRAIN),
]
_ShowSpace = Annotated[
    bool,
    typer.Option(
        "--show-space", help="Print the search space as TOML, to edit for --space, and exit.", rich_help_panel=TRAIN
    ),
]


def sweep(
    *,
    action: _Action = None,
    where: Workspace,
    fusion: _Fusions = None,
    recipe: Recipe = "auto",
    space: _SpaceFile = None,
    show_space: _ShowSpace = False,
    options: SweepSettings,
    split: SplitSettings,
    device: Device = DEVICE,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Try many settings, keep the best.

    Reads a cache that `mmsent extract` made. A trial trains one head on it with settings drawn from a search space
    (learning rate, dropout, fusion, ...) and is scored by weighted F1 on validation rows. Prints the best trials, and
    keeps the best of each fusion as a run in the sweep's own folder. Other commands do not take these runs by
    themselves: name the sweep, or say `mmsent sweep promote`. Test labels stay closed.

    Start with: mmsent sweep --trials 50. Stop it at any time: the same command goes on, and a larger --trials adds to
    what is there. Run the same command in a second terminal to go faster.

    How to read it: "score" is what a trial reached and "s.e." its standard error; trials closer than that are equally
    good. The best of many is partly luck, so the winners are trained again on other splits (the column "on other
    splits"), beside the recipe without any search: expect that score on new posts, and take the search for a gain only
    where it says so.

    Writes --runs/NAME/: trials.csv, sweep.json, study.db (optuna-dashboard opens it), winners/ and two figures:
    parallel.png, one line per trial through all settings, and importance.png, how much each setting matters.
    """
    from mmsent.sweep.space import make_space
    from mmsent.training.recipes import recipe_of

    if action is not None:
        _promote(action, where, options.name, fusions_named(fusion) if fusion else [], as_json=json)
        return

    choose_recipe(recipe, "")  # a wrong name is told before anything is read
    split = split_for(split, folded=options.folds is not None)
    wanted = [one.value for one in fusions_named(fusion)] if fusion else None

    def space_of(chosen: str, dropout: float | None = None) -> Space:
        return make_space(chosen, file=space, fusions=wanted, seed=options.seed, modality_dropout=dropout)

    if show_space:
        echo(space_of(choose_recipe(recipe, "")).to_toml().removesuffix("\n"), raw=True)
        return
    cache = where.cache
    chosen, why = recipe_of(cache, recipe)
    if recipe == "auto":
        note(f"recipe {chosen}: {why}")
    where.require_current("train")
    searched = _for_half_posts(cache, lambda dropout: space_of(chosen, dropout))
    asked = min(options.trials, searched.size()) if options.sampler == "grid" else options.trials
    if asked < options.trials:
        note(f"the grid has {searched.size()} points, so there will be that many trials, not {options.trials}")
    if cache.validation and options.folds is None:
        note("the rows that validate are the data set's own, so the best are not repeated on other splits")
    from mmsent.inference.tuned import blocks_from
    from mmsent.sweep.database import shown_url
    from mmsent.sweep.search import sweep as run
    from mmsent.system.devices import pick_device

    kept = shown_url(options.storage) if options.storage else where.runs_at / options.name
    with resumable(f"what is finished is kept in {kept}"), _watching(options.name) as watch:
        done = run(
            cache,
            where.runs_at,
            searched,
            split,
            options,
            device=pick_device(device),
            watch=watch,
            blocks=blocks_from(cache),
        )
    _tell(done, asked, wide=wide, as_json=json)


def _for_half_posts(cache: Cache, space_of: Callable[[float | None], Space]) -> Space:
    """The space by a modality dropout for all trials: the one that `fit` takes where many posts lack a half."""
    from mmsent.training.halves import left_out, with_half_posts

    index = cache.index("train")
    (usual,), said = with_half_posts([FitSettings()], index)
    found = space_of(usual.modality_dropout if said else None)
    if said and found.fixed.get("modality_dropout") == usual.modality_dropout:
        note(said)
    if missed := left_out(index, found.lacking()):
        note(f"trials train on the rows that all their heads can learn from{missed}")
    return found


def _promote(action: str, where: Workspace, name: str, fusions: Sequence[Fusion], *, as_json: bool) -> None:
    """Let the winners of a sweep be the newest runs."""
    from mmsent.sweep.promote import promote
    from mmsent.sweep.results import open_sweep

    if action != "promote":
        raise UsageError(f"mmsent sweep {action}: there is `mmsent sweep promote`, and `mmsent sweep` to search")
    done = open_sweep(where.runs_at / name)
    promoted = promote(done, fusions)
    if not promoted:
        raise UsageError(f"the sweep {name} has no winner with these fusions; it has {', '.join(done.fusions)}")
    if as_json:
        echo_json({"runs": [str(run.path) for run in promoted], "says": done.says()})
        return
    for line in done.says():
        echo(line)
    for run in promoted:
        echo(f"{run.path}: {run.made}")
    echo(f"these are now the newest runs in {where.runs_at}: `mmsent vote` and other commands take them by themselves")


def _tell(done: Sweep, asked: int, *, wide: bool, as_json: bool) -> None:
    figures = _draw(done)
    if as_json:
        echo_json({"path": str(done.path), "figures": [str(path) for path in figures], **done.info})
        return
    total = len(done.trials)
    echo(f"{done.path}: {done.outcomes}; {done.measure}")
    echo(f"{done.info['cache'].get('definition', done.info['cache']['data_name'])}\n")
    from mmsent.training.runs import WINNERS

    table = done.table()
    varied = table[0][2:-3]
    echo_table(table, Layout(left=varied, drop=["epochs", "rank", *reversed(varied)]), wide=wide)
    echo("")
    echo_table(done.winners_table(), Layout(left=["best", "run"], drop=["falls by", "trial", "run"]), wide=wide)
    echo("")
    for line in done.says():
        echo(line)
    if done.info["importances"]:
        shares = [f"{name} {share:.0%}" for name, share in list(done.info["importances"].items())[:5]]
        echo(f"What mattered most for the score (PED-ANOVA): {', '.join(shares)}.")
    written = (done.path / "trials.csv", done.path / "sweep.json", *figures)
    echo(f"\nwrote {', '.join(map(str, written))}")
    echo(f"the winners are kept in {done.path / WINNERS}; other commands do not take them by themselves")
    if done.verdict != "less":
        name = shlex.quote(done.name)
        echo(f"`mmsent vote {name}` lets them vote once, `mmsent sweep promote --name {name}` for good")
    if total < asked:
        note(f"{total} of {asked} trials are done; run the same command again to go on")


def _draw(done: Sweep) -> list[Path]:
    from mmsent.report.figures.style import save
    from mmsent.report.figures.sweeps import sweep_figures

    return [save(figure, done.path, name)[0] for name, figure in sweep_figures(done.info).items()]


@contextmanager
def _watching(name: str) -> Iterator[Callable[[Any], None]]:
    """Show progress: a bar on a terminal, elsewhere a line now and then."""
    from mmsent.system.progress import bar

    shown: Any = None
    stage = ""
    told = 0

    def watch(progress: Any) -> None:
        nonlocal shown, stage, told
        best = progress.best
        about = f"best {best.score:.4f} {best.settings.fusion}, trial {best.number}" if best else "no trial finished"
        if progress.what != stage:
            if shown is not None:
                shown.close()
            stage, told = progress.what, progress.done
            shown = bar(progress.total, f"{stage} {name}", "trial", initial=progress.done, show=sys.stderr.isatty())
        shown.set_postfix_str(about.partition(", trial")[0], refresh=False)  # what fits on 80 columns
        shown.update(progress.done - shown.n)
        if not sys.stderr.isatty() and stage == "searching" and progress.done >= told + max(1, progress.total // 10):
            told = progress.done
            note(f"{progress.done} of {progress.total} trials, {about}")

    try:
        yield watch
    finally:
        if shown is not None:
            shown.close()
