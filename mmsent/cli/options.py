"""The options that several commands share, declared once; their defaults come from the settings models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsent import config
from mmsent.config import (
    PRESETS,
    RECIPES,
    Clean,
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    SplitSettings,
    ViewSettings,
    default,
    settings,
)
from mmsent.errors import UsageError


def from_recipe(name: str, what: str) -> Any:
    """A fit option whose default comes from the recipe."""
    own = default(FitSettings, name)
    shown = "; ".join([f"default {own}", *(f"{r}: {given[name]}" for r, given in RECIPES.items() if name in given)])
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if isinstance(own, bool) else [flag]
    return typer.Option(*names, help=f"{what} ({shown})", show_default=False)


Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="MMSENT_DATA", help="Data set: a folder or a manifest.", show_default="data/"),
]
CacheAt = Annotated[
    Path, typer.Option("--cache", envvar="MMSENT_CACHE", help="Folder of the caches; to read, also one cache file.")
]
Runs = Annotated[Path, typer.Option("--runs", envvar="MMSENT_RUNS", help="Folder of the runs.")]
RunNames = Annotated[list[str] | None, typer.Argument(help="Runs, by name or path.", show_default="the newest")]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder", envvar="MMSENT_ENCODER", help=f"Encoder pair: {', '.join(PRESETS)}, or open_clip:ARCH[:TAG]."
    ),
]
EncoderFilter = Annotated[
    str | None,
    typer.Option("--encoder", envvar="MMSENT_ENCODER", help="Encoder of the cache.", show_default="the one there is"),
]
ImageEncoder = Annotated[
    str | None, typer.Option("--image-encoder", help="Image encoder alone: timm:NAME, open_clip:ARCH[:TAG].")
]
TextEncoder = Annotated[
    str | None, typer.Option("--text-encoder", help="Text encoder alone: sentence-transformers:NAME, open_clip:...")
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Local checkpoint of the open_clip (or timm) model; asks no network.")
]
Device = Annotated[str, typer.Option("--device", envvar="MMSENT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
Normalize = Annotated[bool, typer.Option("--normalize/--raw", help="L2-normalise the embeddings, or keep them raw.")]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="The label set, comma-separated.", show_default=",".join(config.DEFAULT_LABELS)),
]
TextEncoding = Annotated[
    str | None,
    typer.Option("--text-encoding", help="Codec of all texts.", show_default="decided once for the data set"),
]
CleanSteps = Annotated[
    list[Clean] | None, typer.Option("--clean", help="Clean texts before encoding; repeat for several steps.")
]
Remote = Annotated[
    list[str] | None,
    typer.Option("--remote", help="Protocol of picture URLs in a manifest that may be fetched: s3, https; repeatable."),
]
IdColumn = Annotated[str, typer.Option("--id-column", help="Manifest column of the ids.")]
ImageColumn = Annotated[str, typer.Option("--image-column", help="Manifest column of the picture paths.")]
TextColumn = Annotated[str, typer.Option("--text-column", help="Manifest column of the texts.")]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Manifest column of the labels.")]
Views = Annotated[int, typer.Option("--views", help="K augmented views of each picture beside the clean one.")]
ViewsSeed = Annotated[int, typer.Option("--views-seed", help="Seed of the views.")]
Storage = Annotated[str, typer.Option("--storage", help="float32 or float16 in the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Where another extraction holds the cache, wait for it instead of refusing.")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="local: this process; ray: actors on a Ray cluster (the extra `ray`).")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Ray cluster, HOST:PORT or auto.", show_default="RAY_ADDRESS, or a cluster of this machine"
    ),
]
Actors = Annotated[
    int | None,
    typer.Option("--actors", help="Encoder pairs on the Ray cluster.", show_default="one a GPU, or a CPU slot"),
]
Tie = Annotated[
    str | None,
    typer.Option("--tie", help="Label where no majority is, or 'soft'.", show_default="neutral, else soft"),
]
Soft = Annotated[bool, typer.Option("--soft", help="Average the heads' probabilities instead of counting votes.")]

Group = Annotated[
    str | None,
    typer.Option(
        "--group", help="Rows that stay together: exact or near duplicates, or none.", show_default="exact; folds: near"
    ),
]
NoGroup = Annotated[bool, typer.Option("--no-group", help="The same as --group none.")]
NearImage = Annotated[
    float | None,
    typer.Option("--near-image", help="Cosine from which pictures are near-duplicates.", show_default="the encoder's"),
]
NearText = Annotated[
    float | None,
    typer.Option("--near-text", help="Cosine from which texts are near-duplicates.", show_default="the encoder's"),
]

ID, IMAGE = default(DataSettings, "id_column"), default(DataSettings, "image_column")
TEXT, LABEL = default(DataSettings, "text_column"), default(DataSettings, "label_column")
ENCODER, DEVICE = default(EncoderSettings, "encoder"), default(EncoderSettings, "device")
PRECISION, STORAGE = default(EncoderSettings, "precision"), default(ExtractSettings, "storage")
NORMALIZE = default(EncoderSettings, "normalize")
ENGINE = default(ExtractSettings, "engine")
VIEWS, VIEWS_SEED = default(ViewSettings, "count"), default(ViewSettings, "seed")


def data_settings(
    labels: str | None,
    text_encoding: str | None = None,
    clean: Sequence[Clean] | None = None,
    id_column: str = ID,
    image_column: str = IMAGE,
    text_column: str = TEXT,
    label_column: str = LABEL,
    remote: Sequence[str] | None = None,
) -> DataSettings:
    return settings(
        DataSettings,
        labels=tuple(part.strip() for part in labels.split(",")) if labels is not None else None,
        text_encoding=text_encoding,
        clean=tuple(clean) if clean else None,
        id_column=id_column,
        image_column=image_column,
        text_column=text_column,
        label_column=label_column,
        remote=tuple(name.lower() for name in remote) if remote else None,
    )


def split_settings(
    val_size: float,
    seed: int,
    group: str | None,
    no_group: bool,
    near_image: float | None,
    near_text: float | None,
    *,
    folded: bool,
) -> SplitSettings:
    """The split's settings. folded: for cross-validation, which keeps near-duplicates together by default."""
    if no_group and group not in (None, "none"):
        raise UsageError(f"--no-group and --group {group} contradict each other; give one of them")
    chosen = "none" if no_group else group or ("near" if folded else None)
    found = settings(
        SplitSettings, val_size=val_size, seed=seed, group=chosen, near_image=near_image, near_text=near_text
    )
    if found.group is not config.Group.near and (near_image or near_text):
        raise UsageError("--near-image and --near-text go with --group near")
    return found
