"""`mmsent extract`: encode a data set into a feature cache."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import READ, CacheFolder, Data, Json
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import DATA
from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, ViewSettings, preset_tokens, tuned_blocks
from mmsent.errors import DataError, UsageError

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset
    from mmsent.features.extract import ExtractResult


def extract(
    *,
    split: Annotated[str, typer.Option("--split", help="train, test or all.", rich_help_panel=READ)] = "all",
    data: Data = None,
    cache: CacheFolder = Path("cache"),
    how: DataSettings,
    encoder: EncoderSettings,
    views: ViewSettings,
    options: ExtractSettings,
    json: Json = False,
) -> None:
    """Encode a data set into a feature cache.

    Reads posts from --data and writes one HDF5 file into --cache. Stop it anywhere and run it again: only rows that are
    missing or changed are encoded; where --cache holds one cache of this data set, options that are not given are those
    that it was made with. With --engine ray a Ray cluster encodes, into the same cache.
    """
    from mmsent.data.dataset import SPLITS, load_dataset, name_of
    from mmsent.encoders.factory import open_encoders
    from mmsent.features.continuing import continued
    from mmsent.features.extract import extract as run
    from mmsent.features.token_states import extract_states

    if split not in (*SPLITS, "all"):
        raise UsageError(f"--split {split!r}: choose train, test or all")
    if cache.is_file():
        raise UsageError(f"--cache {cache} is a file; extract takes the folder and names the file itself")
    data = data or DATA
    (how, encoder, views, options), told = continued(cache, name_of(data, how), (how, encoder, views, options))
    if told:
        note(told)
    dataset = load_dataset(data, how)
    wanted = dataset.splits if split == "all" else [s for s in SPLITS if s == split]
    if not wanted:
        raise DataError(f"{data} holds no posts")
    with resumable("what was encoded is kept"), _engine(options) as engine:
        result = run(dataset, wanted, cache, encoder=encoder, views=views, options=options, engine=engine)
        tune = options.tokens if options.tokens is not None else preset_tokens(encoder)
        states = {}
        if tune:
            pair = open_encoders(encoder)
            states = extract_states(dataset, wanted, result.cache, pair, tune, on_size=partial(_announce, tune))
    facts = _facts(result, dataset) | ({"tokens": {"blocks": tune, "encoded": states}} if tune else {})
    if json:
        echo_json(facts)
        return
    _tell(result, dataset)
    if tune:
        echo(f"states that enter the last blocks ({tune}): {sum(states.values())} {tuned_blocks(tune)[0]}s encoded")


def _announce(tune: str, n: int, size: int) -> None:
    shown = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
    note(f"the states of {n} {tuned_blocks(tune)[0]}s for {tune} will take about {shown} beside the cache")


def _facts(result: ExtractResult, dataset: Dataset) -> dict[str, Any]:
    return {
        "cache": str(result.cache.path),
        "fingerprint": result.cache.fingerprint,
        "encoded": result.encoded,
        "rows": result.rows,
        "halves": dict(_halves(result, dataset)),
        "quarantined": [dict(zip(("split", "id", "reason"), q, strict=True)) for q in result.quarantined],
        "texts_cut": result.cut,
        "read": {"by": dataset.layout, "told": list(dataset.told)},
        "text_encoding": {"encoding": dataset.decoding.encoding, "why": dataset.decoding.why},
        "seconds": round(result.seconds, 3),
        "notes": result.notes,
    }


def _halves(result: ExtractResult, dataset: Dataset) -> Counter[str]:
    """How many rows have one half and name no other, by what they say."""
    return Counter(reason for _, _, reason in result.quarantined if reason in dataset.half_reasons)


def _tell(result: ExtractResult, dataset: Dataset) -> None:
    for line in result.notes:
        note(line)
    for line in dataset.told:
        echo(line)
    for name, n in result.rows.items():
        echo(f"{name}: {n} rows, {result.encoded[name]} encoded, {n - result.encoded[name]} already there")
    echo(f"text encoding: {dataset.decoding.encoding} ({dataset.decoding.why})")
    if result.cut:
        echo(f"{result.cut} texts are cut after {result.cache.settings.text.max_tokens} tokens")
    halves = _halves(result, dataset)
    for reason, n in halves.items():
        echo(f"{n} rows have {reason}; heads train on their other half")
    bad = [one for one in result.quarantined if one[2] not in halves]
    if bad:
        echo(f"{len(bad)} rows are quarantined:")
        for split_name, row_id, reason in bad[:10]:
            echo(f"  {split_name} {row_id}: {reason}")
    echo(f"cache: {result.cache.path} ({result.seconds:.1f} s)")


@contextmanager
def _engine(options: ExtractSettings) -> Iterator[Any]:
    """The engine that options ask for; None is extraction's own."""
    if options.engine == "local":
        if options.address or options.actors:
            raise UsageError("--address and --actors go with --engine ray")
        yield None
        return
    from mmsent.features.ray_engine import RayEngine

    # What Ray says of lost nodes would stand in front of our own output, or in the middle of its JSON.
    with redirect_stdout(sys.stderr), RayEngine(options.address, options.actors, options.workers) as engine:
        yield engine
