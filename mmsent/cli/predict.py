"""`mmsent predict`: label new posts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.abstaining import Abstain, Sets, abstention
from mmsent.cli.options import DEVICE, READ, RUN, Device, Encoding, Json, Only, RunNames, Soft, Tie, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.targets import refuse_overwriting
from mmsent.config import DataSettings
from mmsent.errors import DataError, UsageError
from mmsent.system.tables import columns

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.predict import Prediction
    from mmsent.training.runs import Run

# What is wrong with a row itself, and how the file was read; splits do not matter here.
_TOLD = {"unsafe id", "malformed line", "malformed row", "duplicate id", "stray quote", "how it is read"}
_READING = tuple(name for name in DataSettings.model_fields if name not in ("labels", "encodings", "clean"))


@resumable("no labels were written")
def predict(
    where: Encoding,
    how: Annotated[DataSettings, Only(*_READING)],
    run: RunNames = None,
    text: Annotated[str | None, typer.Option("--text", help="The post's text.", rich_help_panel=READ)] = None,
    image: Annotated[Path | None, typer.Option("--image", help="The post's image.", rich_help_panel=READ)] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="CSV, TSV, JSON, JSONL or Parquet file of new posts.", rich_help_panel=READ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="CSV file to write; standard output without it, or with -.", rich_help_panel=RUN),
    ] = None,
    tie: Tie = None,
    soft: Soft = False,
    abstain: Abstain = None,
    sets: Sets = False,
    weights: Weights = None,
    device: Device = DEVICE,
    json: Json = False,
) -> None:
    """Label new posts.

    Reads a text and an image from the command line, or many posts from --manifest, encodes them as the runs' cache was
    encoded, and lets the newest concat, weighted and attention runs (or the runs named) vote. Writes to --out. Ends
    with status 1 where no post got a label.

    Where the manifest has labels, the answers are scored by them. If its split column says test, that opens test
    labels, which goes into the log beside the runs.
    """
    from mmsent.data.lists import write_text
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.predict import abstaining, predictions_table
    from mmsent.inference.predict import predict as run_predict
    from mmsent.inference.vote import averages

    if (manifest is None) == (text is None and image is None):
        raise UsageError("give a post with --text and --image, or several with --manifest FILE")
    out = None if str(out) == "-" else out
    if image is not None and not image.is_file():
        raise DataError(f"no image at {image}")
    chosen = where.voting_runs(run)
    soft = averages(chosen, soft)
    when = abstention(chosen, abstain, sets=sets, tie=tie, soft=soft)
    dataset = None if manifest is None else _open(manifest, how, chosen[0].labels)
    if out is not None and dataset is not None:
        refuse_overwriting("--out", out, [out], dataset)
    posts = [NewPost("post", text, image)] if dataset is None else _posts_of(dataset)
    found = run_predict(posts, chosen, weights=weights, device=device, tie=tie, soft=soft)
    found = abstaining(found, when)
    given = [p.label for p in dataset.posts] if dataset is not None else []
    if not any(given):
        given = []
    source = {}
    if out is not None and manifest is not None:  # not what may be fetched: a table must not decide that
        read_with = how.model_dump_json(exclude_unset=True, exclude={"remote"})
        source = {"manifest": _seen_from(out, manifest), "read_with": "" if read_with == "{}" else read_with}
    table = predictions_table(found, chosen[0].labels, given or None, source)
    scored = _scored(found, given, chosen, dataset) if dataset is not None and given else ""
    if out is not None:
        write_text(out, table)
    if json:
        calibrated = all(one.calibrated for one in chosen)
        told: list[dict[str, Any]] = [{"given": label} for label in given] or [{}] * len(found)
        echo_json([{**asdict(p), **more, "calibrated": calibrated} for p, more in zip(found, told, strict=True)])
    elif dataset is None:
        _tell_one(found[0], chosen)
    else:
        _tell_many(found, chosen, table, out)
    if when is not None:
        (note if json or out is None else echo)(when.in_words())
    if scored:
        (note if json or out is None else echo)(scored)
    for missed in [p for p in found if p.label is None][:10] if dataset is not None else []:
        note(f"{missed.id}: no label: {missed.problem}")
    if all(p.label is None for p in found):
        raise typer.Exit(1)


def _seen_from(out: Path, manifest: Path) -> str:
    """The way from a table to the manifest; its whole path where there is none, as between two drives."""
    try:
        return Path(os.path.relpath(manifest.resolve(), out.parent.resolve())).as_posix()
    except ValueError:
        return str(manifest.resolve())


def _open(manifest: Path, how: DataSettings, labels: Sequence[str]) -> Dataset:
    """The data set of a manifest, labels of its test split included; rows that cannot be used are named on standard
    error."""
    from mmsent.data.dataset import load_dataset

    how = how.model_copy(update={"labels": tuple(labels)})
    dataset = load_dataset(manifest, how, strict=False, with_test_labels=True)
    for problem in dataset.problems:
        if problem.kind in _TOLD:
            note(f"{problem.where}: {problem.message}")
    if not dataset.posts:
        raise DataError(f"{manifest} holds no posts")
    return dataset


def _posts_of(dataset: Dataset) -> list[NewPost]:
    """Every post of a data set, with what is known of missing halves."""
    from mmsent.features.new_posts import NewPost

    remote = {p.post: p.message for p in dataset.problems if p.kind == "remote picture"}
    posts = []
    for p in dataset.posts:
        try:
            text, no_text = dataset.text_of(p), ""
        except DataError as error:
            text, no_text = None, str(error)
        posts.append(NewPost(p.id, text, p.image, remote.get(p.id, ""), no_text))
    return posts


def _scored(found: Sequence[Prediction], given: Sequence[str | None], chosen: Sequence[Run], dataset: Dataset) -> str:
    """How the answers compare with the labels that a manifest gives; that test labels are opened is logged first."""
    import numpy as np

    from mmsent.evaluation.openings import LOG, homes, record_opening, record_scores
    from mmsent.metrics import scores

    numbers: dict[str | None, int] = {label: i for i, label in enumerate(chosen[0].labels)}
    both = zip(found, given, strict=True)
    pairs = [(numbers[g], numbers[p.label]) for p, g in both if g in numbers and p.label in numbers]
    unknown = sum(g is not None and g not in numbers for g in given)
    test = sum(post.split == "test" and post.label is not None for post in dataset.posts)
    key = record_opening(chosen, dataset.root, test) if test else ""
    if not pairs:
        return "no post has both a label in the manifest that the heads know and an answer, so nothing is scored"
    truth, predicted = np.array(pairs, np.int64).T
    all_scores = scores(truth, predicted, len(numbers))
    shown = {name: all_scores[name] for name in ("accuracy", "f1_weighted", "f1_macro")}
    if test:
        record_scores(homes(chosen), key, {"predict": {name: shown[name] for name in ("accuracy", "f1_weighted")}})
        note(f"test labels opened; noted in {chosen[0].path.parent / LOG}")
    left = f", {unknown} whose labels the heads do not know left out" if unknown else ""
    numbers_shown = ", ".join(f"{name.replace('_', ' ').replace('f1', 'F1')} {n:.3f}" for name, n in shown.items())
    return f"scored by the manifest's labels on {len(pairs)} of {len(found)} posts{left}: {numbers_shown}"


def _tell_one(found: Prediction, chosen: Sequence[Run]) -> None:
    from mmsent.inference.tally import agreement
    from mmsent.training.runs import calibration_note

    if found.label is None:
        raise DataError(found.problem)
    echo(found.label)
    echo(columns([[name, f"{p:.4f}"] for name, p in found.probabilities.items()]), raw=True)
    if found.problem:
        note(found.problem)
    echo(found.decision or agreement(found.agreeing, len(found.heads), found.voted or found.label))
    echo(calibration_note(chosen))


def _tell_many(found: Sequence[Prediction], chosen: Sequence[Run], table: str, out: Path | None) -> None:
    from mmsent.training.runs import calibration_note

    if out is None:
        echo(table.removesuffix("\n"), raw=True)
        note(calibration_note(chosen))  # standard output holds the table alone
        return
    echo(f"wrote {out} ({len(found)} posts, {sum(p.label is not None for p in found)} of them labelled)")
    echo(calibration_note(chosen))
