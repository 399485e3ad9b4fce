"""Options that several commands share, and what a command says of the settings that become its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel

from mmsent.cli.workspace import Workspace
from mmsent.config import (
    COMMITTEES,
    RECIPES,
    EncoderSettings,
    FitSettings,
    Fusion,
    Group,
    Panel,
    SplitSettings,
    default,
)
from mmsent.errors import UsageError

READ, TRAIN, SPLIT, RUN = (one.value for one in (Panel.reading, Panel.training, Panel.splitting, Panel.running))


@dataclass(frozen=True)
class Only:
    """Of a settings model or a Workspace, these fields alone become options."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class Overrides:
    """A dictionary of the settings that were typed; the others come from the recipe."""

    model: type[BaseModel]


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=RUN)]
Wide = Annotated[bool, typer.Option("--wide", help="Print all columns of tables, however wide.", rich_help_panel=RUN)]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="MMSENT_DATA",
        help="Data set: a folder or a manifest.",
        show_default="data/",
        rich_help_panel=READ,
    ),
]
CacheFolder = Annotated[
    Path,
    typer.Option("--cache", envvar="MMSENT_CACHE", help="Folder of the caches.", rich_help_panel=READ),
]
RunNames = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Runs, by name or path.", show_default="the newest")
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="Checkpoint of the encoder, where it has moved.", rich_help_panel=READ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="MMSENT_DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
        rich_help_panel=RUN,
    ),
]
Tie = Annotated[
    str | None,
    typer.Option(
        "--tie",
        help="Label of a post without a majority, or 'soft'.",
        show_default="neutral, else soft",
        rich_help_panel=RUN,
    ),
]
Soft = Annotated[
    bool,
    typer.Option("--soft", help="Average the heads' probabilities instead of counting votes.", rich_help_panel=RUN),
]
CamOf = Annotated[
    Literal["logit", "loss"],
    typer.Option(
        "--cam-of",
        help="What Grad-CAM differentiates: the label's logit, or the loss (as the coursework report did).",
        rich_help_panel=RUN,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Embeddings that take more than this, such as 2GB, stay on disk.",
        show_default="half of the machine's",
        rich_help_panel=RUN,
    ),
]
Fusions = Annotated[
    list[str] | None,
    typer.Option(
        "--fusion",
        metavar="<str>",
        help=f"{', '.join(Fusion)}, vote (the first three) or all. Repeatable.",
        show_default="concat",
        rich_help_panel=TRAIN,
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        help=f"Settings to start from: auto (what suits the features), {', '.join(RECIPES)}.",
        rich_help_panel=TRAIN,
    ),
]
Splits = Annotated[
    int | None,
    typer.Option(
        "--splits",
        help="Fit a committee: every head on this many validation splits. The vote averages them.",
        show_default="; ".join(f"{name}: {one.splits}" for name, one in COMMITTEES.items()),
        rich_help_panel=TRAIN,
    ),
]
NoGroup = Annotated[
    bool, typer.Option("--no-group", help="The same as --group none.", rich_help_panel=SPLIT, show_default=False)
]

CacheAt = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="MMSENT_CACHE",
        help="Cache file, or folder of the caches.",
        rich_help_panel=READ,
    ),
]
CacheEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        envvar="MMSENT_ENCODER",
        help="Encoder pair of the cache.",
        show_default="the one there is",
        rich_help_panel=READ,
    ),
]
Runs = Annotated[
    Path,
    typer.Option("--runs", envvar="MMSENT_RUNS", help="Folder of the runs.", rich_help_panel=READ),
]

TextFolder = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        help="Folder of a text encoder of your own, where it has moved.",
        rich_help_panel=READ,
    ),
]

PLACES = ("data", "cache_at", "encoder", "runs_at")  # of a Workspace, unless `Only` says otherwise


def split_for(split: SplitSettings, *, folded: bool) -> SplitSettings:
    """The split as a command uses it: cross-validation keeps near-duplicates together unless --group says otherwise.
    Raises UsageError where cosines are given that nothing asks for."""
    if folded and "group" not in split.model_fields_set:
        split = split.model_copy(update={"group": Group.near})
    if split.group is not Group.near and (split.near_image or split.near_text):
        raise UsageError("--near-image and --near-text go with --group near")
    return split


DEVICE: str = default(EncoderSettings, "device")
Encoding = Annotated[Workspace, Only(*PLACES, "text_encoder")]  # of a command that encodes posts for runs
FitOverrides = Annotated[dict[str, Any], Overrides(FitSettings)]
