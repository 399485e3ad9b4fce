"""Extraction on a Ray cluster: Ray Data's actor pools, an encoder pair an actor, one actor a GPU or a CPU slot.

The driver reads the list, hands out units of work (see mmsent.features.units) and journals what comes back; so batches,
resuming, quarantine and the cache are the local engine's. An actor whose worker or node is lost costs the units that it
held: they are encoded again. Ray is imported late; it comes with the extra `ray`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmsent.config import EncoderSettings
from mmsent.data.dataset import Dataset, Post
from mmsent.encoders.base import Embeddings, Encoders, ImageCard, TextCard
from mmsent.encoders.factory import open_encoders
from mmsent.errors import CacheError, DataError, EncoderError, UsageError, first_line
from mmsent.features.batches import block_rows, read_rows
from mmsent.features.cache import HALVES, NO_HASH, NO_LABEL, RowTable
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Entry
from mmsent.features.engine import Found, Work
from mmsent.features.units import (
    Opener,
    Reader,
    Told,
    Unit,
    Worker,
    cards,
    job_of,
    raise_problem,
    reading_units,
    units_of,
    unpacked,
)
from mmsent.system.packed import Strings
from mmsent.system.progress import bar

CALLS = 2  # units that an actor works on at once: one is decoded while the other is encoded
QUEUED = 1  # units that wait at an actor
RETRIES = 8  # times that the first look at the encoders is tried again where its worker dies
READ_HERE = 20_000  # posts that the driver reads itself; the files of more are read all over the cluster
OBJECT_STORE = 256 << 20  # bytes of shared memory of a cluster that is started here; embeddings alone pass through it


def require_ray() -> Any:
    """The module ray. Raises UsageError where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'mmsent[ray]'") from error
    return ray


class RayEngine:
    """Actors on a Ray cluster; use it in a `with` block.

    address: of the cluster; None: RAY_ADDRESS, or else a cluster of this machine for the length of the block. Where Ray
    is connected already, that is used. actors: how many; None: one a GPU, or where the cluster has none one for each
    `threads` CPUs. workers: threads an actor that decode. opener: makes the encoders, on the workers.

    An actor on CPUs computes with as many threads as this process would (torch's number, OMP_NUM_THREADS sets it), for
    that number decides the low bits.
    """

    def __init__(
        self,
        address: str | None = None,
        actors: int | None = None,
        workers: int | None = None,
        opener: Opener = open_encoders,
    ) -> None:
        self._ray = require_ray()
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--address {address}: run mmsent on a node of the cluster, as `ray job submit` does, and pass the "
                "cluster's address as HOST:PORT, or auto"
            )
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._wanted, self._workers, self._opener = actors, workers, opener
        self._machines: list[dict[str, Any]] = []

    def __enter__(self) -> RayEngine:
        import torch

        self._threads = torch.get_num_threads()
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._ray.shutdown()

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        options: dict[str, Any] = {"address": self._address}
        if self._address == "local":
            cores = max(os.cpu_count() or 1, self._threads * (self._wanted or 1))
            options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        with _own_signals(), _muted():
            try:
                self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            except Exception as error:  # Ray raises almost anything here, Exception itself among it
                raise UsageError(
                    f"no Ray cluster at {self._address!r}: {first_line(error)}; start one with `ray start --head`, or "
                    "leave --address out to use this machine alone"
                ) from error

    def open(self, encoder: EncoderSettings) -> Encoders:
        """Ask a worker for its encoders' cards: weights and devices are theirs, and need not be here. Raises
        EncoderError where it has none, UsageError where the cluster has no room."""
        weights = {"weights": str(Path(encoder.weights).resolve())} if encoder.weights else {}
        self._encoder = encoder.model_copy(update=weights)
        self._slots()
        ask = self._ray.remote(max_retries=RETRIES, **self._resources)(cards)
        try:
            answer = ask.remote(self._encoder.model_dump_json(), self._threads, self._opener)
            told = json.loads(self._ray.get(answer))
        except self._ray.exceptions.RayError as error:
            raise EncoderError(f"no worker opened the encoders: {_last_line(error)}") from error
        raise_problem(told)
        self._probe = told
        return Encoders(
            _There(ImageCard.model_validate_json(told["image"]), told["batch_size"]),
            _There(TextCard.model_validate_json(told["text"])),
        )

    def _slots(self) -> None:
        """Decide what an actor takes, and how many there are. Raises UsageError where not one fits."""
        device = self._encoder.device
        if device not in {"auto", "cpu", "cuda"}:
            raise UsageError(
                f"--device {device} does not go with --engine ray, which gives each actor a GPU of its own"
            )
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = [int(node.get("GPU", 0)) for node in nodes]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        if device == "cuda" and not any(gpus):
            raise UsageError("--device cuda: the Ray cluster has no GPU; --device cpu uses its processors")
        if any(gpus) and device != "cpu":
            share = min(c // g for c, g in zip(cpus, gpus, strict=True) if g)  # processors decode for each GPU
            self._resources: dict[str, Any] = {"num_gpus": 1, "num_cpus": max(1, min(8, share))}
            fit = sum(min(g, c // self._resources["num_cpus"]) for c, g in zip(cpus, gpus, strict=True))
        else:
            self._resources = {"num_cpus": self._threads}
            fit = sum(n // self._threads for n in cpus)
        if not fit:
            raise UsageError(
                f"no node of the Ray cluster has {self._resources['num_cpus']} CPUs for an actor (the largest has "
                f"{max(cpus, default=0)}); OMP_NUM_THREADS=1 makes actors of one thread"
            )
        if self._wanted is not None and self._wanted > fit:
            raise UsageError(f"--actors {self._wanted}: the Ray cluster has room for {fit}")
        self._actors, self._cores = self._wanted or fit, sum(cpus)

    def rows(self, dataset: Dataset, posts: Sequence[Post], workers: int) -> RowTable:
        """As Engine says; of many posts the files are read all over the cluster. Raises DataError where a node does not
        see a file that is here."""
        if len(posts) <= READ_HERE:
            return read_rows(dataset, posts, workers)
        numbers = {label: i for i, label in enumerate(dataset.settings.labels)}
        labels = [numbers[post.label] if post.label is not None else NO_LABEL for post in posts]
        hashes = [np.zeros((len(posts), 32), np.uint8) for _ in HALVES]
        job = json.dumps(job_of(dataset) | {"workers": workers})
        units = reading_units(posts[0].split, posts)
        for told, _ in self._results(units, Reader, (job,), self._cores, {"num_cpus": 1}):
            for i, found in enumerate(told["hashes"], told["start"]):
                digests = [bytes.fromhex(one) for one in found]
                if NO_HASH in digests:
                    (here,) = read_rows(dataset, [posts[i]], 1)
                    if [here.image_hash, here.text_hash] != digests:
                        raise _unseen(dataset, posts[i], "its picture or text", told["node"])
                for half, digest in zip(hashes, digests, strict=True):
                    half[i] = np.frombuffer(digest, np.uint8)
        return RowTable(Strings(post.id for post in posts), np.array(labels, np.int32), *hashes)

    def entries(
        self,
        dataset: Dataset,
        works: Sequence[Work],
        settings: FeatureSettings,
        batch_size: int,
        workers: int,
        show: bool,
    ) -> Generator[Found, None, None]:
        """As Engine says. Raises DataError where a worker does not see the files that are here, EncoderError where its
        encoders are others, CacheError where Ray gives up."""
        needed = sum(int(mask.sum()) for work in works for mask in (work.texts, work.images))
        if not needed:
            return
        units = units_of(works, block_rows(batch_size, settings.views.count + 1))
        job = job_of(dataset) | {
            "encoder": self._encoder.model_dump_json(),
            "settings": settings.model_dump_json(),
            "batch_size": batch_size,
            "workers": self._workers or max(1, min(8, self._resources["num_cpus"])),
            "threads": self._threads,
        }
        of = {work.split: work for work in works}
        given = (json.dumps(job), self._opener)
        with bar(needed, "texts and pictures", "half", show=show) as progress:
            for about, data in self._results(units, Worker, given, self._actors, self._resources):
                raise_problem(about)
                if about["machine"] not in self._machines:
                    self._machines.append(about["machine"])
                work, half, start = of[about["split"]], about["half"], about["start"]
                entries = unpacked(about["entries"], data, settings.storage)
                for i in _unread(work, half, start, entries):
                    raise _unseen(dataset, work.posts[i], half, about["node"])
                yield work.split, half, entries
                progress.update(len(entries))

    def _results(
        self,
        units: Iterable[Unit],
        make: Callable[..., Callable[[Unit], Told]],
        given: tuple[Any, ...],
        actors: int,
        resources: dict[str, Any],
    ) -> Iterator[Told]:
        """What actors that hold a `make(*given)` each make of the units, in the order in which they finish. Raises
        CacheError where Ray gives up."""
        import pyarrow

        data = self._ray.data
        with _quiet_data():
            # One by one: all units at once would be kilobytes a post here, and they belong into the object store.
            given_out = [self._ray.put(pyarrow.table({"unit": [unit.dumps()]})) for unit in units]
            tasks = data.from_arrow_refs(given_out)
            # Ray Data restarts actors and tries their tasks again without end. Where a lost node leaves no room for its
            # actors, they come back when another has run out of units and is released.
            done = tasks.map_batches(
                _Actor,
                fn_constructor_args=(make, *given),
                batch_size=1,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(
                    size=min(actors, len(given_out)),
                    max_tasks_in_flight_per_actor=CALLS + QUEUED,
                    max_concurrent_calls_per_actor=CALLS,
                    enable_true_multi_threading=True,
                ),
                **resources,
            )
        came = 0
        try:
            for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=CALLS):
                for told in batch.to_pylist():
                    yield json.loads(told["about"]), told["data"]
                    came += 1
        except _failures() as error:
            raise CacheError(
                f"Ray gave up: {_last_line(error)}; {len(given_out) - came} of {len(given_out)} units of work did not "
                "come back. What did is kept; run the same command again"
            ) from error

    def environment(self, device: str | None) -> dict[str, Any]:
        """Of the workers, with every kind of machine among them."""
        machines = self._machines or [self._probe["environment"]["machine"]]
        engine = {"name": "ray", "version": self._ray.__version__, "actors": self._actors, "machines": machines}
        found: dict[str, Any] = self._probe["environment"]
        return found | {"command": sys.argv, "machine": machines[0], "engine": engine}


class _Actor:
    """What Ray Data calls: Arrow tables in and out, of a unit's JSON and of what was made of it."""

    def __init__(self, make: Callable[..., Callable[[Unit], Told]], *given: Any) -> None:
        self._work = make(*given)

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        told = [self._work(Unit.loads(text)) for text in batch.column("unit").to_pylist()]
        about = pyarrow.array([json.dumps(a) for a, _ in told], pyarrow.large_string())
        return pyarrow.table({"about": about, "data": pyarrow.array([d for _, d in told], pyarrow.large_binary())})


@dataclass
class _There:
    """An encoder that is on the workers: what is known of it here."""

    card: Any
    batch_size: int = 0

    def encode(self, rows: Any) -> Embeddings:
        raise NotImplementedError("encoded on the workers")

    def lengths(self, texts: list[str]) -> list[int]:
        raise NotImplementedError("encoded on the workers")


def _unread(work: Work, half: str, start: int, entries: Sequence[Entry]) -> list[int]:
    """Positions of entries that a worker could not read though they were read before."""
    bad = {entry.id for entry in entries if entry.hash == NO_HASH}
    if not bad:
        return []
    hashes = ((i, row.id, row.image_hash if half == "image" else row.text_hash) for i, row in enumerate(work.rows))
    return [i for i, row_id, digest in hashes if i >= start and row_id in bad and digest != NO_HASH]


def _unseen(dataset: Dataset, post: Post, what: str, node: str) -> DataError:
    return DataError(
        f"{post.split} {post.id}: {node} does not see {what}, which was read elsewhere; every node must see the data "
        f"set under {dataset.root.resolve()}"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers; Ray's own would end the process without unwinding."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _muted() -> Iterator[None]:
    """Without what Ray's native code prints while it starts; its errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without bars and reports of its own, for the data sets that are made inside."""
    from ray.data import DataContext

    context, names = DataContext.get_current(), ("enable_progress_bars", "print_on_execution_start")
    before = {name: getattr(context, name) for name in names}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        for name in names:
            setattr(context, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _failures() -> tuple[type[Exception], ...]:
    """What a data set raises where Ray or our code on a worker fails."""
    from ray import exceptions
    from ray.data.exceptions import ExecutionTimeoutError, SystemException

    return exceptions.RayError, SystemException, ExecutionTimeoutError


def _last_line(error: BaseException) -> str:
    """Of a chain of remote errors the first cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
