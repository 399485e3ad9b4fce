"""The command line of serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import DEVICE, CacheAt, Data, Device, EncoderFilter, RunNames, Runs, Soft, Tie, Weights


def serve(
    run: RunNames = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="MMSENT_API_KEY",
            show_envvar=True,
            help="What clients must send as Authorization: Bearer KEY. Others on this machine can read the command "
            "line; set the variable instead.",
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Listen beyond this machine without a key: anybody may ask.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A host name that the service goes by, behind a proxy say; repeatable."),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            "--review",
            help="Table to review: validation.csv, oof.csv, predictions.csv, predict --out.",
            show_default="the runs' validation rows",
        ),
    ] = None,
    no_review: Annotated[bool, typer.Option("--no-review", help="Serve no review page, so none of the posts.")] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="Posts that go through the encoders together.",
            show_default="16; 1 in half precision, where answers would depend on their batch",
        ),
    ] = None,
    batch_wait: Annotated[
        float | None,
        typer.Option("--batch-wait", help="Seconds a post waits for others while idle.", show_default="0.005"),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option("--queue", help="Posts that may be under way; others get 503 and come again.", show_default="256"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds until a post must be answered.", show_default="30")
    ] = None,
    max_body: Annotated[
        int | None, typer.Option("--max-body", help="Bytes of a request.", show_default="32 MiB")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", help="Pixels of a picture.", show_default="50 million")
    ] = None,
    max_text: Annotated[
        int | None, typer.Option("--max-text", help="Characters of a text.", show_default="10,000")
    ] = None,
    max_posts: Annotated[int | None, typer.Option("--max-posts", help="Posts of a request.", show_default="64")] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Threads that decode pictures.", show_default="one a core, up to 8"),
    ] = None,
    tie: Tie = None,
    soft: Soft = False,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    weights: Weights = None,
    device: Device = DEVICE,
) -> None:
    """Label posts over HTTP, with a page to try them on.

    Loads the newest concat, weighted and attention runs (or the runs named) and answers POST /predict and /explain;
    the page is at /, a page to review predictions at /review, the API's description at /docs. Listens on this machine
    alone unless told otherwise. SIGTERM and Ctrl-C end it once every post that was taken is answered. Writes nothing.
    """
    from mmsent import commands

    limits = {
        "batch_size": batch_size,
        "batch_wait": batch_wait,
        "queue": queue,
        "timeout": timeout,
        "body": max_body,
        "pixels": max_pixels,
        "text": max_text,
        "posts": max_posts,
    }
    commands.serve(
        run or (),
        host,
        port,
        api_key,
        no_auth,
        allow_host or (),
        review,
        no_review,
        limits,
        workers,
        tie,
        soft,
        data,
        cache,
        encoder,
        runs,
        weights,
        device,
    )
