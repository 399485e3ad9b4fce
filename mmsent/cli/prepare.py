"""`mmsent prepare`: a UTF-8 copy of a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsent.cli.options import READ, RUN, Data, Json
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import DATA
from mmsent.config import DataSettings
from mmsent.errors import DataError

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset


@resumable("the copy is not whole", "run the same command again with --overwrite")
def prepare(
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the copy into, not the data set's own.", rich_help_panel=READ)
    ],
    how: DataSettings,
    data: Data = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.", rich_help_panel=RUN)
    ] = False,
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout",
            help="Labelled posts to make test posts in the copy: a share below 1, or a number.",
            rich_help_panel=READ,
        ),
    ] = None,
    holdout_seed: Annotated[
        int, typer.Option("--holdout-seed", min=0, help="Seed of which posts are held out.", rich_help_panel=READ)
    ] = 0,
    json: Json = False,
) -> None:
    """Write a UTF-8 copy of a data set.

    Reads the data set, decides one text encoding for all of it, and writes the texts as UTF-8 and the images byte for
    byte into --out. The original is never touched.

    --holdout makes a test split for a data set that has none: in the copy, a stratified part of the labelled posts
    belongs to the test, near-duplicates on one side. `mmsent evaluate --split test` opens their labels.
    """
    from mmsent.data.dataset import load_dataset
    from mmsent.data.prepare import prepare as run
    from mmsent.system.progress import bar

    dataset = load_dataset(data or DATA, how)
    with bar(len(dataset.posts), "posts", "post") as progress:
        held = _held_out(dataset, holdout, holdout_seed) if holdout is not None else []
        done = run(dataset, out, overwrite=overwrite, progress=progress.update, held_out=held)
    if done.decoding.doubt:
        note(done.decoding.doubt)
    if json:
        echo_json(
            {
                "path": str(done.path),
                "encoding": done.decoding.encoding,
                "why": done.decoding.why,
                "texts": done.texts,
                "pictures": done.pictures,
                "held_out": held,
                "skipped": [asdict(s) for s in done.skipped],
            }
        )
        return
    echo(f"{done.path}: {done.texts} texts from {done.decoding.encoding} to UTF-8, {done.pictures} images copied")
    if held:
        echo(f"{len(held)} labelled posts are test posts there")
    for s in done.skipped[:10]:
        note(f"left out: {s}")


def _held_out(dataset: Dataset, share: float, seed: int) -> list[str]:
    """The ids of a part of the labelled posts: stratified, near-duplicates together."""
    import numpy as np

    from mmsent.config import SplitSettings, settings
    from mmsent.data.check_duplicates import near_groups
    from mmsent.training.splits import validation_split

    own = set(dataset.validation)
    posts = [p for p in dataset.posts if p.split == "train" and p.label is not None and p.id not in own]
    if not posts:
        raise DataError(f"{dataset.root} has no labelled posts to hold out")
    numbers = {label: i for i, label in enumerate(dataset.settings.labels)}
    labels = np.array([numbers[p.label] for p in posts if p.label is not None], np.int64)
    chosen = settings(SplitSettings, val_size=share, seed=seed)
    held = validation_split([p.id for p in posts], labels, near_groups(dataset, posts), chosen)
    return [p.id for p, out in zip(posts, held.tolist(), strict=True) if out]
