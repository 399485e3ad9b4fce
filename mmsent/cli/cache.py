"""`mmsent cache ...`: list, inspect, verify, repair, explain and export feature caches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import (
    DEVICE,
    ENCODER,
    NORMALIZE,
    PRECISION,
    STORAGE,
    VIEWS,
    VIEWS_SEED,
    CacheAt,
    CleanSteps,
    Data,
    Device,
    Encoder,
    EncoderFilter,
    ImageEncoder,
    Json,
    Labels,
    NearImage,
    NearText,
    Normalize,
    Precision,
    Storage,
    TextEncoder,
    TextEncoding,
    Views,
    ViewsSeed,
    Wait,
    Weights,
    data_settings,
)
from mmsent.config import EncoderSettings, ViewSettings, settings

app = typer.Typer(
    no_args_is_help=True,
    help="List, inspect, verify, repair, explain and export feature caches, and find duplicates in them.",
)


@app.command("ls")
def cache_ls(cache: CacheAt = Path("cache"), json: Json = False) -> None:
    """List caches. Reads the folder --cache, writes nothing."""
    from mmsent import commands

    commands.cache_ls(cache, json)


@app.command("info")
def cache_info(
    data: Data = None, encoder: EncoderFilter = None, cache: CacheAt = Path("cache"), json: Json = False
) -> None:
    """Show all that a cache says of itself. Reads its settings, outcomes and provenance, writes nothing."""
    from mmsent import commands

    commands.cache_info(data, cache, encoder, json)


@app.command("verify")
def cache_verify(
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    sample: Annotated[int, typer.Option("--sample", min=0, help="Rows to encode again.")] = 16,
    json: Json = False,
) -> None:
    """Check that a cache is whole and true. Reads every row's checksum and encodes a sample again; writes nothing.

    Names every damaged row; exit status 1 where there is one.
    """
    from mmsent import commands

    raise typer.Exit(commands.cache_verify(data, cache, encoder, sample, json))


@app.command("repair")
def cache_repair(
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    device: Annotated[
        str | None, typer.Option("--device", help="Device to encode on.", show_default="the cache's")
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Encode the damaged rows of a cache again. Reads the cache and the data set, writes the cache anew.

    Rows that are sound are kept as they are. Where the damage is not in rows, says so and what to do.
    """
    from mmsent import commands

    commands.cache_repair(data, cache, encoder, device, wait, json)


@app.command("explain")
def cache_explain(
    data: Data = None,
    encoder: Encoder = ENCODER,
    image_encoder: ImageEncoder = None,
    text_encoder: TextEncoder = None,
    weights: Weights = None,
    views: Views = VIEWS,
    views_seed: ViewsSeed = VIEWS_SEED,
    cache: CacheAt = Path("cache"),
    device: Device = DEVICE,
    precision: Precision = PRECISION,
    normalize: Normalize = NORMALIZE,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    storage: Storage = STORAGE,
    json: Json = False,
) -> None:
    """Say why a cache does or does not serve these settings. Takes extract's options, reads, writes nothing."""
    from mmsent import commands

    pair = settings(
        EncoderSettings,
        encoder=encoder,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        weights=weights,
        device=device,
        precision=precision,
        normalize=normalize,
    )
    augmented = settings(ViewSettings, count=views, seed=views_seed)
    chosen = data_settings(labels, text_encoding, clean)
    commands.cache_explain(data or Path("data"), chosen, cache, pair, augmented, storage, json)


@app.command("export")
def cache_export(
    out: Annotated[Path, typer.Option("--out", help="File to write: .npz or .parquet.")],
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
) -> None:
    """Write a split of a cache for other programs. Reads the cache, writes --out (NumPy's npz or Parquet)."""
    from mmsent import commands

    commands.cache_export(data, cache, encoder, split, out)


@app.command("duplicates")
def cache_duplicates(
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    near_image: NearImage = None,
    near_text: NearText = None,
    json: Json = False,
) -> None:
    """Find duplicates, exact and near, and count them.

    Reads the embeddings of all rows and compares pictures with pictures and texts with texts; writes nothing. The time
    grows with the square of the rows: seconds for thousands, hours for a million.
    """
    from mmsent import commands

    commands.cache_duplicates(data, cache, encoder, near_image, near_text, json)
