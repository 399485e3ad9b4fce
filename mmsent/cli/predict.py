"""`mmsent predict`: label new posts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsent.cli.options import DEVICE, READ, RUN, Device, Json, Only, RunNames, Soft, Tie, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import Workspace
from mmsent.config import DataSettings
from mmsent.errors import DataError, UsageError
from mmsent.system.tables import columns

if TYPE_CHECKING:
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.predict import Prediction
    from mmsent.training.runs import Run

# What is wrong with a row itself; labels do not matter here.
_ROW_PROBLEMS = {"unsafe id", "unknown split", "malformed line", "malformed row", "duplicate id"}


@resumable("no labels were written")
def predict(
    where: Workspace,
    how: Annotated[DataSettings, Only("text_encoding", "id_column", "image_column", "text_column")],
    run: RunNames = None,
    text: Annotated[str | None, typer.Option("--text", help="The post's text.", rich_help_panel=READ)] = None,
    image: Annotated[Path | None, typer.Option("--image", help="The post's image.", rich_help_panel=READ)] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="CSV, TSV, JSONL or Parquet file of new posts.", rich_help_panel=READ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="CSV file to write; standard output without it.", rich_help_panel=RUN),
    ] = None,
    tie: Tie = None,
    soft: Soft = False,
    weights: Weights = None,
    device: Device = DEVICE,
    json: Json = False,
) -> None:
    """Label new posts.

    Reads a text and an image from the command line, or many posts from --manifest, encodes them as the runs' cache was
    encoded, and lets the newest concat, weighted and attention runs (or the runs named) vote. Writes to --out.
    """
    from mmsent.data.lists import write_text
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.predict import predict as run_predict
    from mmsent.inference.predict import predictions_table
    from mmsent.inference.vote import averages

    if (manifest is None) == (text is None and image is None):
        raise UsageError("give a post with --text and --image, or several with --manifest FILE")
    if out is not None and manifest is not None and out.resolve() == manifest.resolve():
        raise UsageError(f"--out {out} would replace the manifest; name another file")
    if image is not None and not image.is_file():
        raise DataError(f"no image at {image}")
    posts = [NewPost("post", text, image)] if manifest is None else _posts_of(manifest, how)
    chosen = where.voting_runs(run)
    found = run_predict(posts, chosen, weights=weights, device=device, tie=tie, soft=averages(chosen, soft))
    if out is not None:
        write_text(out, predictions_table(found, chosen[0].labels))
    if json:
        calibrated = all(one.calibrated for one in chosen)
        echo_json([{**asdict(p), "calibrated": calibrated} for p in found])
    elif manifest is None:
        _tell_one(found[0], chosen)
    else:
        _tell_many(found, chosen, out)
    for missed in [p for p in found if p.label is None][:10] if manifest is not None else []:
        note(f"{missed.id}: no label: {missed.problem}")


def _posts_of(manifest: Path, how: DataSettings) -> list[NewPost]:
    """The posts of a manifest; those that cannot be used are named on standard error."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.new_posts import NewPost

    dataset = load_dataset(manifest, how, strict=False)
    for problem in dataset.problems:
        if problem.kind in _ROW_PROBLEMS:
            note(f"{problem.where}: {problem.message}")
    posts = []
    for p in dataset.posts:
        try:
            posts.append(NewPost(p.id, dataset.text_of(p), p.image))
        except DataError:
            posts.append(NewPost(p.id, None, p.image))
    if not posts:
        raise DataError(f"{manifest} holds no posts")
    return posts


def _tell_one(found: Prediction, chosen: Sequence[Run]) -> None:
    from mmsent.inference.tally import agreement
    from mmsent.training.runs import calibration_note

    if found.label is None:
        raise DataError(found.problem)
    echo(found.label)
    echo(columns([[name, f"{p:.4f}"] for name, p in found.probabilities.items()]), raw=True)
    echo(found.decision or agreement(found.agreeing, len(found.heads), found.label))
    echo(calibration_note(chosen))


def _tell_many(found: Sequence[Prediction], chosen: Sequence[Run], out: Path | None) -> None:
    from mmsent.inference.predict import predictions_table
    from mmsent.training.runs import calibration_note

    if out is None:
        echo(predictions_table(found, chosen[0].labels).removesuffix("\n"), raw=True)
        note(calibration_note(chosen))  # standard output holds the table alone
        return
    echo(f"wrote {out} ({sum(p.label is not None for p in found)} posts)")
    echo(calibration_note(chosen))
