"""`mmsent prepare`: a UTF-8 copy of a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import READ, RUN, Data, Json
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import DATA
from mmsent.config import DataSettings


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
    json: Json = False,
) -> None:
    """Write a UTF-8 copy of a data set.

    Reads the data set, decides one text encoding for all of it, and writes the texts as UTF-8 and the images byte for
    byte into --out. The original is never touched.
    """
    from mmsent.data.dataset import load_dataset
    from mmsent.data.prepare import prepare as run
    from mmsent.system.progress import bar

    dataset = load_dataset(data or DATA, how)
    with bar(len(dataset.posts), "posts", "post") as progress:
        done = run(dataset, out, overwrite=overwrite, progress=progress.update)
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
                "skipped": [asdict(s) for s in done.skipped],
            }
        )
        return
    echo(f"{done.path}: {done.texts} texts from {done.decoding.encoding} to UTF-8, {done.pictures} images copied")
    for s in done.skipped[:10]:
        note(f"left out: {s}")
