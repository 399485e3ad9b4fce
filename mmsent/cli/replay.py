"""The replay command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import Data, EncoderFilter, Json, RunNames, Runs, Soft, Tie


def replay(
    run: RunNames = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Keep the heads fitted again in this folder.", show_default="none kept")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Table of a vote of these runs, to compare its labels.",
            show_default="predictions.csv, if it is theirs",
        ),
    ] = None,
    tie: Tie = None,
    soft: Soft = False,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", envvar="MMSENT_CACHE", help="Cache file, or folder of the caches.", show_default="the run's own"
        ),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Fit runs again from what they recorded, and compare.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named) and the cache. On the same
    machine and versions the heads must repeat to the bit; elsewhere their validation predictions must agree within a
    tolerance, and what differs is named. Writes nothing but --out. Exit status 1 where a run does not repeat.
    """
    from mmsent import commands

    raise typer.Exit(commands.replay(run or (), out, predictions, tie, soft, data, cache, encoder, runs, json))
