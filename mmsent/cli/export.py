"""`mmsent export`: heads for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmsent.cli.abstaining import Abstain, Sets, abstention
from mmsent.cli.options import RUN, Json, RunNames, Soft, Tie, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import Workspace
from mmsent.errors import UsageError

FORMATS = ("onnx", "hf")


@resumable("nothing was written")
def export(
    where: Workspace,
    run: RunNames = None,
    form: Annotated[
        str, typer.Option("--format", help="onnx, or hf: a folder for a model hub.", rich_help_panel=RUN)
    ] = "onnx",
    out: Annotated[
        Path, typer.Option("--out", help="Folder to make; it must not exist yet.", rich_help_panel=RUN)
    ] = Path("export"),
    with_encoder: Annotated[
        bool,
        typer.Option(
            "--with-encoder",
            help="Also write the two encoders as ONNX, so that posts need no torch.",
            rich_help_panel=RUN,
        ),
    ] = False,
    tie: Tie = None,
    soft: Soft = False,
    abstain: Abstain = None,
    sets: Sets = False,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Write heads for other programs: as ONNX, or as a folder for a model hub.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named). ONNX holds the heads, their
    temperatures and their vote in one graph, with labels and the features' contract; it is compared with torch before
    it is written. A hub folder holds safetensors, config.json and a model card; `mmsent predict FOLDER` reads it back.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: choose from {', '.join(FORMATS)}")
    if form == "hf":
        typed = {"--with-encoder": with_encoder, "--tie": tie, "--soft": soft, "--weights": weights}
        for flag, value in (typed | {"--abstain": abstain, "--sets": sets}).items():
            if value:
                raise UsageError(
                    f"{flag} goes with --format onnx; a hub folder holds heads, and predict takes the rest"
                )
    from mmsent.export.hub import write_hub
    from mmsent.export.model_card import model_card
    from mmsent.inference.predict import encoder_settings
    from mmsent.inference.vote import averages
    from mmsent.training.runs import calibration_note

    chosen = where.voting_runs(run)
    encoder_settings(chosen, weights=None, device=None)  # refuses runs that do not fit together
    soft = averages(chosen, soft)
    when = abstention(chosen, abstain, sets=sets, tie=tie, soft=soft)
    card = model_card(chosen, out.name, form, soft=soft, tie=tie)
    result: dict[str, Any] = {"out": str(out), "format": form, "runs": [str(one.path) for one in chosen]}
    if form == "hf":
        path = write_hub(chosen, out, card)
    else:
        from mmsent.export.onnx_export import TOLERANCE, export_onnx

        if with_encoder:
            note("exporting heads, image tower and text tower, and comparing them with torch: a minute or two")
        how: dict[str, Any] = {"tie": tie, "soft": soft, "abstention": when}
        done = export_onnx(chosen, out, card=card, with_encoder=with_encoder, weights=weights, **how)
        path = done.path
        result |= {"worst": done.worst, "embeddings": done.embeddings, "tolerance": TOLERANCE}
    if json:
        echo_json({**result, "out": str(path)})
        return
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        echo(f"{file}  {file.stat().st_size / 1e6:.2f} MB")
    if form == "onnx":
        echo(f"probabilities differ from torch by {result['worst']:.1e} at most")
    if result.get("embeddings") is not None:
        echo(f"embeddings differ from torch by {result['embeddings']:.1e} of their length at most")
    if when is not None:
        echo(when.in_words())
    echo(calibration_note(chosen))
