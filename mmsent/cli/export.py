"""The export command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import CacheAt, Data, EncoderFilter, Json, RunNames, Runs, Soft, Tie, Weights


def export(
    run: RunNames = None,
    form: Annotated[str, typer.Option("--format", help="onnx, or hf: a folder for a model hub.")] = "onnx",
    out: Annotated[Path, typer.Option("--out", help="Folder to make; it must not be there.")] = Path("export"),
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="ONNX of the two encoders too, so that posts go in without torch.")
    ] = False,
    tie: Tie = None,
    soft: Soft = False,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Write heads for other programs: as ONNX, or as a folder for a model hub.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named). ONNX holds the heads, their
    temperatures and their vote in one graph, with labels and the features' contract; it is compared with torch before
    it is written. A hub folder holds safetensors, config.json and a model card; `mmsent predict FOLDER` reads it back.
    """
    from mmsent import commands

    commands.export(run or (), form, out, with_encoder, tie, soft, data, cache, encoder, runs, weights, json)
