"""The sweep command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import (
    DEVICE,
    CacheAt,
    Data,
    Device,
    EncoderFilter,
    Group,
    Json,
    NearImage,
    NearText,
    NoGroup,
    Runs,
    split_settings,
)
from mmsent.config import RECIPES, Fusion, SplitSettings, default, settings
from mmsent.sweep.settings import CHECKS, FOLD_CHECKS, SweepSettings


def sweep(
    trials: Annotated[int, typer.Option("--trials", help="Trials in all; more later goes on from these.")] = default(
        SweepSettings, "trials"
    ),
    fusion: Annotated[
        list[str] | None,
        typer.Option(
            "--fusion",
            help=f"Fusions to try: {', '.join(Fusion)}, or all; repeatable.",
            show_default="concat, weighted, attention",
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option("--sampler", help="tpe (learns from what it tried), random, or grid (each range in 3 points)."),
    ] = default(SweepSettings, "sampler"),
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            help="Score by cross-validation with so many folds: slower, and far less luck.",
            show_default="one validation split",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Begin no trial after so many seconds.", show_default="none")
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option("--space", help="TOML file; the settings that it names replace the default ones."),
    ] = None,
    show_space: Annotated[
        bool, typer.Option("--show-space", help="Print the search space as TOML, to edit for --space, and exit.")
    ] = False,
    recipe: Annotated[
        str, typer.Option("--recipe", help=f"What is not varied: auto (the encoder pair's own), {', '.join(RECIPES)}.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sampler and of every trial's head.")] = default(
        SweepSettings, "seed"
    ),
    checks: Annotated[
        int | None,
        typer.Option(
            "--checks",
            help="Other splits (with --folds: other sets of folds) to repeat the best on.",
            show_default=f"{CHECKS}; with --folds {FOLD_CHECKS}",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune/--no-prune", help="Stop a trial that falls behind the best of its fusion at some epoch."),
    ] = default(SweepSettings, "prune"),
    name: Annotated[str, typer.Option("--name", help="Name of the sweep and of its folder in --runs.")] = default(
        SweepSettings, "name"
    ),
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Database of the study, such as postgresql://USER@HOST/NAME, for processes on several machines.",
            show_default="SQLite in the sweep's folder",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="local (worker processes on CPUs, stacks of trials on a GPU), stacked (stacks anywhere), or ray.",
        ),
    ] = default(SweepSettings, "engine"),
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster, for --engine ray.", show_default="one on this machine")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Worker processes, one thread each.", show_default="one a core"),
    ] = None,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    val_size: Annotated[float, typer.Option("--val-size", help="Validation rows: a share or a number.")] = default(
        SplitSettings, "val_size"
    ),
    split_seed: Annotated[int, typer.Option("--split-seed", help="Seed of the split or folds.")] = default(
        SplitSettings, "seed"
    ),
    group: Group = None,
    no_group: NoGroup = False,
    near_image: NearImage = None,
    near_text: NearText = None,
    device: Device = DEVICE,
    json: Json = False,
) -> None:
    """Try many settings, keep the best.

    Reads a cache that `mmsent extract` made; a trial trains one head on it with settings drawn from a search space
    (learning rate, dropout, fusion, ...) and is scored by weighted F1 on validation rows. Prints the best trials, and
    saves the best of each fusion as a run, ready for `mmsent vote`. Test labels stay closed.

    Start with: mmsent sweep --trials 50. Stop it at any time: the same command goes on, and a larger --trials adds to
    what is there. The same command in a second terminal helps.

    How to read it: "score" is what a trial reached and "s.e." its standard error; trials closer than that are equally
    good. The best of many is partly luck, so the winners are trained again on other splits ("on other cuts"), beside
    the recipe without any search: expect that score on new posts, and take the search for a gain only where it says so.

    Writes --runs/NAME/: trials.csv, sweep.json, study.db (optuna-dashboard opens it), and two figures, one line a trial
    through all settings (parallel.png), and how much each setting matters (importance.png).
    """
    from mmsent import commands

    options = settings(
        SweepSettings,
        trials=trials,
        sampler=sampler,
        seed=seed,
        folds=folds,
        checks=checks,
        prune=prune,
        timeout=timeout,
        workers=workers,
        engine=engine,
        name=name,
        storage=storage,
    )
    held = split_settings(val_size, split_seed, group, no_group, near_image, near_text, folded=folds is not None)
    commands.sweep(fusion, recipe, space, show_space, held, options, data, cache, encoder, runs, device, address, json)
