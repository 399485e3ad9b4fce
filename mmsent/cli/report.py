"""The report command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import CacheAt, Data, EncoderFilter, Json, RunNames, Runs, Weights


def report(
    run: RunNames = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the page and its figures into.")] = Path("report"),
    form: Annotated[str, typer.Option("--format", help="html (one self-contained file) or md.")] = "html",
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    weights: Weights = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Device for the explanations.", show_default="auto")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", help="Figure to leave out, such as grad-cam or learning-curve; repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what runs learned: every figure, and one page.

    Reads the newest run of each fusion of the cache (or the runs named), the cache and the posts; writes
    --out/report.html, one file that opens from disk, and the figures as PNG and SVG. Test labels stay closed.
    """
    from mmsent import commands

    commands.report(run or (), out, form, data, cache, encoder, runs, weights, device, skip or (), json)
