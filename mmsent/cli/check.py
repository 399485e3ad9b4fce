"""`mmsent check`: look a data set over before it is encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from mmsent.cli.options import READ, RUN, Data, Json, Only
from mmsent.cli.output import echo, echo_json, note, resumable, terminal_width
from mmsent.cli.workspace import DATA
from mmsent.config import PRESETS, DataSettings, EncoderSettings


@resumable("nothing was written")
def check(
    *,
    data: Data = None,
    how: DataSettings,
    encoder: Annotated[EncoderSettings, Only("encoder")],
    tokens: Annotated[
        bool, typer.Option(help="Count tokens with the encoder's tokenizer.", rich_help_panel=READ)
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.", rich_help_panel=RUN)] = False,
    json: Json = False,
) -> None:
    """Look a data set over before you encode it.

    Reads every text and image, writes nothing. Prints missing halves, broken or odd images, unknown labels, duplicates,
    class balance and text lengths. The exit status is 1 on errors, with --strict also on warnings.
    """
    from mmsent.data.check import check_dataset
    from mmsent.data.dataset import load_dataset
    from mmsent.encoders.token_counts import token_counts
    from mmsent.errors import EncoderError
    from mmsent.system.progress import bar

    dataset = load_dataset(data or DATA, how, strict=False)
    tokenizer, limit, reader = None, None, None
    if tokens:
        try:
            found = token_counts(encoder)
            tokenizer, limit = found.count, found.max_tokens
        except EncoderError as error:
            note(f"text lengths are counted in characters: {error}")
            reader = _reader(encoder)
    with bar(len(dataset.posts), "posts", "post") as progress:
        report = check_dataset(dataset, tokenizer=tokenizer, max_tokens=limit, reader=reader, progress=progress.update)
    echo_json(report.to_json()) if json else echo(report.table(terminal_width()), raw=True)
    raise typer.Exit(report.exit_status(strict))


def _reader(encoder: EncoderSettings) -> Callable[[Sequence[str]], Sequence[int]] | None:
    """What tells texts that a preset for English hardly reads while its own tokenizer is not here: the one that is
    installed, for English too. None for other encoders."""
    from mmsent.encoders.token_counts import token_counts
    from mmsent.errors import EncoderError

    if encoder.encoder not in PRESETS or PRESETS[encoder.encoder].languages != "English":
        return None
    try:
        return token_counts(EncoderSettings(encoder="offline")).count
    except EncoderError:
        return None
