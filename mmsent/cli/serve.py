"""`mmsent serve`: label posts over HTTP, with a page to try them on."""

from __future__ import annotations

import importlib.util
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.abstaining import Abstain, Sets, abstention
from mmsent.cli.options import DEVICE, READ, RUN, Device, Encoding, Only, RunNames, Soft, Tie, Weights
from mmsent.cli.output import echo, note
from mmsent.cli.workspace import DATA, Workspace
from mmsent.config import DataSettings, settings
from mmsent.errors import DataError, MmsentError, UsageError
from mmsent.serve.limits import Limits

if TYPE_CHECKING:
    from mmsent.data.dataset import Dataset
    from mmsent.features.cache import Cache
    from mmsent.inference.distances import TrainingRows
    from mmsent.report.landscape import Landscape
    from mmsent.serve.review import Review
    from mmsent.serve.service import Service
    from mmsent.training.runs import Run

_POSTS = ("labels", "text_encoding", "remote", "reader", "columns", "images")
NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


_Host = Annotated[str, typer.Option("--host", help="Address to listen on.", rich_help_panel=RUN)]
_Port = Annotated[
    int,
    typer.Option("--port", metavar="<int>", min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=RUN),
]
_ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="MMSENT_API_KEY",
        show_envvar=True,
        help="What clients must send as Authorization: Bearer KEY. Others on this machine can read the command "
        "line; set the variable instead.",
        rich_help_panel=RUN,
    ),
]
_NoAuth = Annotated[
    bool,
    typer.Option("--no-auth", help="Listen beyond this machine without a key: anybody may ask.", rich_help_panel=RUN),
]
_AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="<str>",
        help="A host name of the service, such as a proxy's. Repeatable.",
        rich_help_panel=RUN,
    ),
]
_RootPath = Annotated[
    str,
    typer.Option(
        "--root-path",
        help="Path of the service behind a proxy, such as /mmsent; the proxy may strip it or not.",
        show_default="none",
        rich_help_panel=RUN,
    ),
]
_ReviewTable = Annotated[
    Path | None,
    typer.Option(
        "--review",
        help="Table to review: validation.csv, oof.csv, predictions.csv, predict --out.",
        show_default="the runs' validation rows",
        rich_help_panel=READ,
    ),
]
_NoReview = Annotated[
    bool, typer.Option("--no-review", help="Serve no review page, so none of the posts.", rich_help_panel=RUN)
]
_NoHeads = Annotated[
    bool,
    typer.Option("--no-heads", help="Serve only /review, to label the posts of --data by hand.", rich_help_panel=RUN),
]
_Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.", rich_help_panel=RUN)]
_Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="<int>",
        min=1,
        help="Threads that decode images.",
        show_default="one per core, at most 8",
        rich_help_panel=RUN,
    ),
]


def serve(
    *,
    where: Encoding,
    run: RunNames = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    api_key: _ApiKey = None,
    no_auth: _NoAuth = False,
    allow_host: _AllowHost = None,
    root_path: _RootPath = "",
    review: _ReviewTable = None,
    how: Annotated[DataSettings, Only(*_POSTS)],
    no_review: _NoReview = False,
    no_heads: _NoHeads = False,
    open_page: _Open = False,
    bounds: Limits,
    workers: _Workers = None,
    tie: Tie = None,
    soft: Soft = False,
    abstain: Abstain = None,
    sets: Sets = False,
    weights: Weights = None,
    device: Device = DEVICE,
) -> None:
    """Label posts over HTTP, with a page to try them on.

    Loads the newest concat, weighted and attention runs (or the runs named) and answers POST /predict and /explain. The
    page is at /, a page to look through posts and to label them at /review, the API's description at /docs. With
    --no-heads, posts of any data set are labelled at /review before there is a first head.

    It listens on this machine alone unless told otherwise. SIGTERM and Ctrl-C end it once every post that was taken is
    answered. Writes nothing but the places of the map's posts, once, beside the cache.
    """
    _require_libraries()
    from mmsent.inference.vote import averages
    from mmsent.serve.app import create_app
    from mmsent.serve.guard import is_loopback
    from mmsent.serve.server import bind
    from mmsent.serve.server import serve as listen
    from mmsent.serve.service import Service

    local = is_loopback(host)
    prefix = _prefix(root_path)
    _refuse(host, api_key, allow_host or (), open_to_all=no_auth or local)
    bound = bind(host, port)
    try:
        service: Service
        shown, cache = None, None
        if no_heads:
            service, shown = _by_hand(where.data, how, bounds)
        else:
            if "labels" in how.model_fields_set:
                raise UsageError("--labels goes with --no-heads; heads have the labels that they were trained with")
            chosen = where.voting_runs(run)
            when = abstention(chosen, abstain, sets=sets, tie=tie, soft=averages(chosen, soft))
            service = Service(chosen, bounds, weights=weights, device=device, tie=tie, soft=soft, abstention=when)
            note(f"loading {service.encoder} and {len(chosen)} heads")
            service.warm_up()
            if when is not None:
                note(when.in_words())
            cache = _cache(service.runs)
            if not no_review and (local or api_key is not None or review is not None):
                shown = _review(service.runs, review, where.data, how, cache, tie=tie, soft=soft)
        # On loopback the names of this machine alone, so that no page elsewhere can pose as this service.
        hosts = [*(allow_host or ()), *(["localhost"] if local else [])] if local or allow_host else []
        service.training = _training(service.runs, cache)
        places = _places(cache, service.runs, tie=tie, soft=soft) if shown is not None else None
        how_served: dict[str, Any] = {"workers": workers, "root_path": prefix}
        app = create_app(service, key=api_key, hosts=hosts, review=shown, places=places, **how_served)
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        listen(app, bound, bounds, lambda: _told(service, address, open_page=open_page))
        note("stopped; every accepted post was answered")
    finally:
        bound.close()


def _require_libraries() -> None:
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"mmsent serve needs {', '.join(absent)}: pip install 'mmsent[serve]'")


def _refuse(host: str, key: str | None, allow_host: Sequence[str], *, open_to_all: bool) -> None:
    """Raise UsageError on a key that no client could send, on a service open to all by oversight, on no host name."""
    from mmsent.serve.guard import host_of

    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise UsageError("--api-key: give printable ASCII characters without blanks at the ends")
    if key is None and not open_to_all:
        raise UsageError(
            f"--host {host} lets others in: give --api-key (or MMSENT_API_KEY), or --no-auth to let anybody ask"
        )
    for name in allow_host:
        if not name or host_of(f"[{name}]" if name.count(":") > 1 else name) != name.lower().removesuffix("."):
            raise UsageError(f"--allow-host {name}: give the bare name, such as mood.example, without scheme and port")


def _prefix(root_path: str) -> str:
    """The path before the service's own, with a slash before it and none after it. Raises UsageError on others."""
    if any(c in root_path for c in "?#%:\\") or not root_path.isprintable() or " " in root_path:
        raise UsageError(f"--root-path {root_path}: give a path alone, such as /mmsent")
    return f"/{root_path.strip('/')}" if root_path.strip("/") else ""


def _review(
    runs: Sequence[Run],
    table: Path | None,
    data: Path | None,
    how: DataSettings,
    cache: Cache | None,
    *,
    tie: str | None,
    soft: bool,
) -> Callable[[], Review] | None:
    """How to open what is reviewed: the table given, else the runs' validation rows and the posts of the cache that
    wait for a label, voted on as the service votes. None where a run has no such rows, as those of a hub folder."""
    from mmsent.serve.review import VALIDATION, Review, read_table, source_of, validation_rows, waiting_rows

    labels = runs[0].labels
    source: dict[str, Any]
    listed = None
    if table is not None:
        rows, source = read_table(table, labels), {"table": table.name}
        listed = source_of(table)
    elif bare := [run.name for run in runs if not (run.path / VALIDATION).is_file()]:
        note(f"there is no review page: {bare[0]} holds no {VALIDATION}; --review names a table of predictions")
        return None
    else:
        rows, shared = validation_rows(runs, tie=tie, soft=soft)
        source = {"runs": [run.name for run in shared]}
    dataset = _dataset(runs[0], data, how, listed)

    def opened() -> Review:
        waiting = waiting_rows(cache, runs, dataset, tie=tie, soft=soft) if cache and table is None else []
        return Review([*rows, *waiting], dataset, **source, cache=cache)

    return opened


def _cache(runs: Sequence[Run]) -> Cache | None:
    """The cache of the runs; None where it is not at hand."""
    from mmsent.features.cache import Cache

    try:
        return Cache.open(Path(runs[0].info["cache"]["path"])) if runs else None
    except MmsentError as error:
        note(f"there is no map, nor distances on /metrics: the cache of these runs cannot be opened ({error})")
        return None


def _training(runs: Sequence[Run], cache: Cache | None) -> TrainingRows | None:
    """The training rows to which distances are measured."""
    from mmsent.inference.distances import TrainingRows
    from mmsent.inference.logits import require

    try:
        if cache is not None:
            require(runs[0], cache)
            return TrainingRows.of(cache)
    except MmsentError as error:
        note(f"there are no distances on /metrics: {error}")
    return None


def _places(cache: Cache | None, runs: Sequence[Run], *, tie: str | None, soft: bool) -> Callable[[], Landscape] | None:
    """How to make the map of the runs' cache."""
    from mmsent.report.landscape import landscape

    return None if cache is None else lambda: landscape(cache, runs, tie=tie, soft=soft)


def _told(service: Service, address: str, *, open_page: bool) -> None:
    heads = ", ".join(f"{one.fusion} ({one.name})" for one in service.runs)
    echo(f"serving {heads or f'{service.data}, to label its posts,'} on {address}; Ctrl-C ends it")
    if open_page:
        webbrowser.open(address)


def _by_hand(data: Path | None, how: DataSettings, bounds: Limits) -> tuple[Service, Callable[[], Review]]:
    """A service without heads, and the review of a data set's posts."""
    from mmsent.data.dataset import load_dataset
    from mmsent.serve.review import Review, unlabelled_rows
    from mmsent.serve.service import NoHeads

    dataset = load_dataset(data or DATA, how, strict=False)
    service = NoHeads(bounds, dataset.settings.labels, dataset.name)
    return service, lambda: Review(unlabelled_rows(dataset), dataset)


def _dataset(
    run: Run, data: Path | None, how: DataSettings, listed: tuple[Path, dict[str, Any]] | None
) -> Dataset | None:
    """The posts to review: those given, else those of the manifest that the table names, else those that the run's
    cache remembers; None where they are not at hand. how: what was given to read them, in place of what is known."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.cache import Cache

    own, told = run.data_settings.model_dump(), how.model_dump(exclude_unset=True)
    try:
        if data is not None:
            return load_dataset(data, settings(DataSettings, **(own | told)))
        if listed is not None:  # read as `mmsent predict` did, with the run's columns where it has them
            manifest, given = listed
            try:
                return load_dataset(manifest, settings(DataSettings, **(own | given | told)), strict=False)
            except DataError:
                usual = {"labels": own["labels"]} | given | told
                return load_dataset(manifest, settings(DataSettings, **usual), strict=False)
        source = Workspace().source(Cache.open(Path(run.info["cache"]["path"])))
        return load_dataset(source, settings(DataSettings, **(own | told)))
    except MmsentError as error:
        if data is not None or told:
            raise
        note(f"the review page shows no posts: they cannot be found ({error}); give --data")
        return None
