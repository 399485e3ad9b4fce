"""`mmsent cache ...`: list, inspect, verify, repair, explain and export feature caches, and find duplicates in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import READ, RUN, Data, Json, Only, Wide
from mmsent.cli.output import Layout, echo, echo_json, echo_table, note, outline, resumable
from mmsent.cli.workspace import DATA, Workspace, encoders_of, extract_settings_of
from mmsent.config import DataSettings, EncoderSettings, ExtractSettings, SplitSettings, ViewSettings, tuned_blocks
from mmsent.errors import CacheError
from mmsent.system.tables import columns

if TYPE_CHECKING:
    from mmsent.features.cache import Cache
    from mmsent.features.repair import Verified

Stored = Annotated[Workspace, Only("data", "encoder", "cache_at")]


def ls(where: Annotated[Workspace, Only("cache_at")], wide: Wide = False, json: Json = False) -> None:
    """List caches. Reads the folder --cache, writes nothing.

    Says of each file that cannot be opened why; the exit status is 1 where none can.
    """
    from mmsent.features.cache.finding import survey, unfinished

    folder = where.cache_at
    found, shut = survey(folder)
    _list(found, folder, wide=wide, as_json=json, any_shut=bool(shut))
    for path, why in shut.items():
        note(f"{path.name} cannot be opened: {why}")
    for _, told in unfinished(folder):
        note(told)
    if shut and not found:
        raise typer.Exit(1)


def _list(found: Sequence[Cache], folder: Path, *, wide: bool, as_json: bool, any_shut: bool) -> None:
    if as_json:
        echo_json(
            [
                {
                    "path": str(c.path),
                    "data": c.data_name,
                    "encoder": c.encoder,
                    "rows": c.rows,
                    "views": c.settings.views.count,
                    "fingerprint": c.fingerprint,
                    "bytes": c.path.stat().st_size,
                }
                for c in found
            ]
        )
        return
    if not found:
        echo(
            f"no cache in {folder} can be opened"
            if any_shut
            else f"no caches in {folder}; make one with `mmsent extract`"
        )
        return
    rows = [["file", "data", "encoder", "train", "test", "views", "MB"]]
    for c in found:
        size = f"{c.path.stat().st_size / 1e6:.1f}"
        counts = [str(c.rows.get("train", "")), str(c.rows.get("test", "")), str(c.settings.views.count)]
        rows.append([c.path.name, c.data_name, c.encoder, *counts, size])
    echo_table(rows, Layout(left=["file", "data", "encoder"], drop=["MB", "views", "data", "encoder"]), wide=wide)


def info(where: Stored, json: Json = False) -> None:
    """Show all that a cache says of itself. Reads its settings, outcomes and provenance, writes nothing."""
    cache = where.cache
    outcome = {}
    for split in cache.rows:
        index = cache.index(split)
        bad = [{"id": index.ids[i], "reason": index.reason(i)} for i in range(len(index)) if not index.good[i]]
        outcome[split] = {
            "rows": len(index),
            "labels": {name: int((index.labels == k).sum()) for k, name in enumerate(cache.labels)},
            "texts_cut": int((index.tokens > cache.settings.text.max_tokens).sum()),
            "quarantined": bad,
        }
    facts = {
        "path": str(cache.path),
        "fingerprint": cache.fingerprint,
        "contract": cache.settings.contract,
        "data_name": cache.data_name,
        "encoder": cache.encoder,
        "splits": outcome,
        "settings": cache.settings.canonical(),
        "provenance": cache.provenance,
    }
    echo_json(facts) if json else echo(outline(facts))


@resumable("nothing was changed")
def verify(
    where: Stored,
    sample: Annotated[
        int, typer.Option("--sample", metavar="<int>", min=0, help="Rows to encode again.", rich_help_panel=RUN)
    ] = 16,
    json: Json = False,
) -> None:
    """Check that a cache is whole and true. Reads every row's checksum and encodes a sample again; writes nothing.

    Names every damaged row; the exit status is 1 where there is one.
    """
    from mmsent.features.repair import verify as run

    cache = where.cache_to_repair
    dataset, encoders = None, None
    path = where.source(cache)
    if sample and not cache.damage and path.exists():
        dataset, encoders = where.dataset(cache), encoders_of(cache)
    elif sample and not cache.damage:
        note(f"{path} is not here, so no row can be encoded again; only the file is checked")
    done = run(cache, dataset, encoders, sample)
    echo_json(done.to_json()) if json else _tell_verified(done, cache.path)
    if done.changed:
        note(_why_changed(cache, path))
    if done.damaged:
        note(f"`mmsent cache repair --cache {cache.path}` encodes damaged rows again")
    raise typer.Exit(0 if done.ok else 1)


def _tell_verified(done: Verified, path: Path) -> None:
    if done.damaged:
        echo(f"{path}: {done.rows} rows read, damaged:")
        for line in done.damaged:
            echo(f"  {line}")
        return
    echo(f"{path}: {done.rows} rows read, all checksums hold")
    if done.sampled:
        echo(
            f"{done.sampled} rows encoded again: {done.identical} identical to the bit, "
            f"lowest cosine {done.lowest:.6f}, {len(done.changed)} changed since, {len(done.wrong)} wrong"
        )
    for row_id in done.wrong[:10]:
        echo(f"  wrong: {row_id}")


def _why_changed(cache: Cache, path: Path) -> str:
    made_from = Path(cache.provenance["data"])
    if made_from == path.resolve():
        return "run `mmsent extract` to encode the changed rows"
    return f"{cache.path} was made from {made_from}, not from {path}"


def repair(
    where: Stored,
    options: Annotated[ExtractSettings, Only("wait")],
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            envvar="MMSENT_DEVICE",
            help="Where to encode.",
            show_default="the cache's",
            rich_help_panel=RUN,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Encode the damaged rows of a cache again. Reads the cache and the data set, rewrites the cache.

    Sound rows stay as they are. Where the damage is not in rows, it says so and what to do.
    """
    from mmsent.features.cache.states import damaged_states
    from mmsent.features.repair import repair as run

    cache = where.cache_to_repair
    if not cache.damage and not damaged_states(cache):
        unharmed: dict[str, Any] = {"path": str(cache.path), "found": [], "encoded": {}, "dropped": {}, "states": {}}
        echo_json(unharmed) if json else echo(f"{cache.path}: all checksums hold, nothing to repair")
        return
    path = where.source(cache)
    if not path.exists():
        raise CacheError(f"{cache.path} was made from {path}, which is not here; --data says where the posts are now")
    dataset = where.dataset(cache)
    with resumable("the damaged cache is unchanged and what was encoded is kept"):
        done = run(cache.path, dataset, encoders_of(cache, device), extract_settings_of(cache, wait=options.wait))
    if json:
        echo_json(done.to_json())
        return
    for line in done.notes:
        note(line)
    for line in done.found:
        echo(f"damaged: {line}")
    for name, n in done.encoded.items():
        echo(f"{name}: {n} rows encoded again, {done.cache.rows[name] - n} kept")
    for tune, n in done.states.items():
        echo(f"states of {tune}: {n} {tuned_blocks(tune)[0]}s encoded again")
    for name, n in done.dropped.items():
        note(f"{name}: {n} damaged rows were dropped: they are no longer in the list")
    echo(f"cache: {done.cache.path}, all checksums hold")


def explain(
    how: Annotated[DataSettings, Only("labels", "text_encoding", "clean")],
    encoder: EncoderSettings,
    views: ViewSettings,
    options: Annotated[ExtractSettings, Only("storage")],
    where: Annotated[Workspace, Only("cache_at")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Say why a cache does or does not serve these settings. Takes extract's options, reads, writes nothing."""
    from mmsent.data.dataset import load_dataset
    from mmsent.encoders.factory import open_encoders
    from mmsent.features.cache.finding import explain as run
    from mmsent.features.extract import feature_settings

    at = where.cache_at
    dataset = load_dataset(data or DATA, how)
    wanted = feature_settings(dataset, open_encoders(encoder), encoder, views, options.storage)
    found = run(at if at.is_dir() else at.parent, dataset.name, wanted)
    if json:
        echo_json([{"path": str(c.path), "serves": not d, "differences": d} for c, d in found])
        return
    if not found:
        echo(f"no cache of {dataset.name} in {at}")
    for cache, differing in found:
        echo(f"{cache.path.name}: " + ("serves these settings" if not differing else "does not serve these settings:"))
        for line in differing:
            echo(f"  {line}")


@resumable("nothing was written")
def export(
    where: Stored,
    out: Annotated[Path, typer.Option("--out", help="File to write: .npz or .parquet.", rich_help_panel=RUN)],
    split: Annotated[str, typer.Option("--split", help="train or test.", rich_help_panel=READ)] = "train",
) -> None:
    """Write a split of a cache for other programs. Reads the cache, writes --out (NumPy's npz or Parquet)."""
    from mmsent.features.cache.export import export as run

    echo(f"wrote {run(where.cache, split, out)}")


def duplicates(
    where: Stored, near: Annotated[SplitSettings, Only("near_image", "near_text")], json: Json = False
) -> None:
    """Find duplicates, exact and near, and count them.

    Reads the embeddings of all rows and compares images with images and texts with texts; writes nothing. The time
    grows with the square of the rows: seconds for thousands, hours for a million.
    """
    from mmsent.features.cache.groups import comparisons, find_duplicates
    from mmsent.system.progress import bar

    cache = where.cache
    with bar(comparisons(cache), "comparing", "tile") as shown:
        found = find_duplicates(cache, near.near_image, near.near_text, shown.update)
    if json:
        echo_json(found.to_json())
        return
    echo(columns(found.table(), right=range(2, 7)), raw=True)
    largest = max(found.found, key=lambda g: (g.near, g.what == "either")).members
    for group in largest[:5]:
        shown_ids = ", ".join(f"{split} {row_id}" for split, row_id in group[:8])
        echo(f"  {len(group)} rows: {shown_ids}{', …' if len(group) > 8 else ''}")
    if parted := sum(g.parted for g in found.found if g.what == "either"):
        note(f"{parted} similar pairs are in different groups: joined, their groups would be too large")
    echo("--json lists every group; `mmsent fit --group near` keeps them on one side of a split")


COMMANDS = (ls, info, verify, repair, explain, export, duplicates)
