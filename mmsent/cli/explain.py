"""The command line of explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import CacheAt, Data, EncoderFilter, Json, Runs, Weights


def explain(
    run: Annotated[
        str | None, typer.Argument(help="A run, by name or path.", show_default="the newest concat run")
    ] = None,
    guid: Annotated[str | None, typer.Option("--guid", help="A post of the data set, by its id.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="A new post's text.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="A new post's picture.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Label whose logit is explained.", show_default="the predicted one")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Layer for Grad-CAM: first, middle, late, or a name; repeatable.",
            show_default="first, middle and late",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("explanations"),
    weights: Weights = None,
    device: Annotated[
        str | None, typer.Option("--device", envvar="MMSENT_DEVICE", help="Device to explain on.", show_default="auto")
    ] = None,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show what in a post's picture and text speaks for a label.

    Reads a run and one post, and traces the label's logit through the head into the frozen encoders: Grad-CAM and
    occlusion on the picture; Grad-CAM, integrated gradients and occlusion on the words; the share of each half.
    Writes a page (PNG) and the numbers (JSON) into --out, named after the post, the fusion and the label.
    """
    from mmsent import commands

    commands.explain(run, guid, image, text, target, layer, out, weights, device, data, cache, encoder, runs, json)
