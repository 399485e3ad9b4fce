"""The commands on data sets: prepare, check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import (
    DataSettings,
    EncoderSettings,
)


@resumable("the copy is not whole", "run the same command again with --overwrite")
def prepare(data: Path, settings: DataSettings, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write a UTF-8 copy of a data set."""
    from mmsent.data.dataset import load_dataset
    from mmsent.data.prepare import prepare as run
    from mmsent.system.progress import bar

    dataset = load_dataset(data, settings)
    with bar(len(dataset.posts), "posts", "post") as progress:
        done = run(dataset, out, overwrite=overwrite, progress=progress.update)
    if as_json:
        say_json(
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
    say(f"{done.path}: {done.texts} texts from {done.decoding.encoding} to UTF-8, {done.pictures} pictures copied")
    for s in done.skipped[:10]:
        note(f"left out: {s}")


@resumable("nothing was written")
def check(
    data: Path, settings: DataSettings, encoder: EncoderSettings, tokens: bool, strict: bool, as_json: bool
) -> int:
    """Check a data set and print what was found. Returns the exit status."""
    from mmsent.data.check import check_dataset
    from mmsent.data.dataset import load_dataset
    from mmsent.encoders.factory import open_encoders
    from mmsent.errors import EncoderError
    from mmsent.system.progress import bar

    dataset = load_dataset(data, settings, strict=False)
    tokenizer, limit = None, None
    if tokens:
        try:
            text = open_encoders(encoder).text
            tokenizer, limit = (lambda texts: text.lengths(list(texts))), text.card.max_tokens
        except EncoderError as error:
            note(f"text lengths are counted in characters: {error}")
    with bar(len(dataset.posts), "posts", "post") as progress:
        report = check_dataset(dataset, tokenizer=tokenizer, max_tokens=limit, progress=progress.update)
    say_json(report.to_json()) if as_json else say(report.table())
    return report.exit_status(strict)
