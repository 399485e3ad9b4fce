"""The audit command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import DEVICE, CacheAt, Data, Device, EncoderFilter, Json, Runs


def audit(
    folds: Annotated[
        list[str] | None,
        typer.Argument(help="Cross-validations, by name or path.", show_default="the newest, or a new one"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("audit"),
    top: Annotated[int, typer.Option("--top", min=0, help="Rows to print.")] = 20,
    gallery: Annotated[bool, typer.Option(help="Also write a page with the posts.")] = True,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="Duplicates that the cross-validation keeps together: exact or near.",
            show_default="any there is, else near",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            help="Where one has to be run: embeddings that take more, such as 2GB, stay on disk.",
            show_default="half of the machine's",
        ),
    ] = None,
    device: Device = DEVICE,
    json: Json = False,
) -> None:
    """List training labels that are likely wrong, worst first.

    Reads out-of-fold predictions of `mmsent fit --folds` (of the newest that fits the labels; without one, it first
    cross-validates concat) and ranks the rows with cleanlab. Writes audit.csv, audit.json and
    audit.html, a page that opens from disk, into --out.
    """
    from mmsent import commands

    commands.audit(folds or (), out, top, gallery, group, memory, data, cache, encoder, runs, device, json)
