"""The command serve: find runs, posts and limits, and start the service."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, source_of
from mmsent.commands.heads import named_runs
from mmsent.commands.say import note, say
from mmsent.errors import MmsentError, UsageError

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    names: Sequence[str],
    host: str,
    port: int,
    key: str | None,
    no_auth: bool,
    allow_host: Sequence[str],
    review: Path | None,
    no_review: bool,
    limits: dict[str, Any],
    workers: int | None,
    tie: str | None,
    soft: bool,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    weights: str | None,
    device: str | None,
) -> None:
    """Serve runs over HTTP until SIGTERM or Ctrl-C."""
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"mmsent serve needs {', '.join(absent)}: pip install 'mmsent[serve]'")
    from mmsent.config import settings
    from mmsent.serve.app import create_app
    from mmsent.serve.guard import host_of, is_loopback
    from mmsent.serve.limits import Limits
    from mmsent.serve.server import bind
    from mmsent.serve.server import serve as listen
    from mmsent.serve.service import Service

    local = is_loopback(host)
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise UsageError("--api-key: give printable ASCII characters without blanks at the ends")
    if not local and key is None and not no_auth:
        raise UsageError(
            f"--host {host} lets others in: give --api-key (or MMSENT_API_KEY), or --no-auth to let anybody ask"
        )
    for name in allow_host:
        if not name or host_of(f"[{name}]" if name.count(":") > 1 else name) != name.lower():
            raise UsageError(f"--allow-host {name}: give the bare name, such as mood.example, without scheme and port")
    bounds = settings(Limits, **limits)
    bound = bind(host, port)
    try:
        chosen = _runs(names, data, cache_at, encoder, runs)
        service = Service(chosen, bounds, weights=weights, device=device, tie=tie, soft=soft)
        note(f"loading {service.runs[0].info['cache']['encoder']} and {len(chosen)} heads")
        service.warm_up()
        shown = None
        if not no_review and (local or key is not None or review is not None):
            shown = _review(service.runs, review, data, tie, soft)
        # On loopback the names of this machine alone, so that no page elsewhere can pose as this service.
        hosts = [*allow_host, *(["localhost"] if local else [])] if local or allow_host else []
        app = create_app(service, key=key, hosts=hosts, review=shown, workers=workers)
        where = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        heads = ", ".join(f"{run.fusion} ({run.name})" for run in service.runs)

        def ready() -> None:
            say(f"serving {heads} on {where}; Ctrl-C ends it")

        listen(app, bound, bounds, ready)
        note("stopped; what was taken is answered")
    finally:
        bound.close()


def _runs(names: Sequence[str], data: Path | None, cache_at: Path, encoder: str | None, runs: Path) -> list[Any]:
    from mmsent.inference.vote import voting_runs

    return named_runs(names, runs) if names else voting_runs(runs, find(data, cache_at, encoder))


def _review(runs: Sequence[Any], table: Path | None, data: Path | None, tie: str | None, soft: bool) -> Any:
    """How to open what is reviewed: the table given, else the runs' validation rows, voted on as the service votes."""
    from mmsent.serve.review import Review, read_table, validation_rows

    labels = runs[0].labels
    source: dict[str, Any]
    if table is not None:
        rows, source = read_table(table, labels), {"table": table.name}
    else:
        rows, shared = validation_rows(runs, tie=tie, soft=soft)
        source = {"runs": [run.name for run in shared]}
    dataset = _dataset(runs[0], data)

    def opened() -> Review:
        return Review(rows, dataset, **source)

    return opened


def _dataset(run: Any, data: Path | None) -> Any:
    """The posts behind a run: those given, else those that its cache remembers; None where they are not at hand."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.cache import Cache

    try:
        path = data if data is not None else source_of(Cache.open(Path(run.info["cache"]["path"])), None)
        return load_dataset(path, run.data_settings)
    except MmsentError as error:
        if data is not None:
            raise
        note(f"the review page shows no posts, for they are not at hand ({error}); give --data")
        return None
