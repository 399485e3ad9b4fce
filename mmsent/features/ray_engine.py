"""Extraction on a Ray cluster: a pool of actors with one encoder pair each, one actor per GPU or CPU slot.

The driver reads the list, sends out units of work (see mmsent.features.units) and journals their results. So batches,
resuming, quarantine and the cache are the same as with the local engine. If a worker or node dies, only the units that
it was encoding are encoded again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmsent.config import EncoderSettings
from mmsent.data.dataset import Dataset, Post
from mmsent.encoders.base import Embeddings, Encoders, ImageCard, TextCard
from mmsent.encoders.factory import open_encoders
from mmsent.errors import CacheError, DataError, EncoderError, UsageError
from mmsent.features.batches import block_rows, read_rows
from mmsent.features.cache import HALVES, NO_HASH, NO_LABEL, RowTable
from mmsent.features.cache.journal import Entry
from mmsent.features.engine import Encoded, Plan, Work
from mmsent.features.ray_cluster import connect, find_slots, last_line, require_ray
from mmsent.features.units import (
    Opener,
    Reader,
    Unit,
    UnitResult,
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
QUEUED = 1  # units that wait per actor
RETRIES = 8  # times that opening the encoders is retried if its worker dies
READ_HERE = 20_000  # posts that the driver reads itself; the files of more posts are read by the whole cluster


@dataclass(frozen=True)
class Pool:
    """A pool of actors. Each creates `make(*arguments)` once and calls it with units; resources: what one takes."""

    make: Callable[..., Callable[[Unit], UnitResult]]
    arguments: tuple[Any, ...]
    actors: int
    resources: dict[str, Any]


class RayEngine:
    """Actors on a Ray cluster; use it in a `with` block.

    address: of the cluster; None: RAY_ADDRESS, or else a cluster on this machine that lasts as long as the block. An
    existing connection is reused. actors: how many; None: one per GPU, or in a cluster without GPUs one per `threads`
    CPUs. workers: decoding threads per actor. opener: creates the encoders, on the workers.

    An actor on CPUs computes with as many threads as this process would (torch's number, which OMP_NUM_THREADS sets),
    because that number determines the low bits.
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
                f"--address {address}: run mmsent on a node of the cluster, as `ray job submit` does, and give the "
                "address as HOST:PORT, or auto"
            )
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._wanted, self._workers, self._opener = actors, workers, opener
        self._machines: list[dict[str, Any]] = []

    def __enter__(self) -> RayEngine:
        import torch

        self._threads = torch.get_num_threads()
        self._own = not self._ray.is_initialized()
        if self._own:
            connect(self._ray, self._address, self._threads * (self._wanted or 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._ray.shutdown()

    def open(self, encoder: EncoderSettings) -> Encoders:
        """Ask a worker for the encoders' cards; only the workers need weights and devices. Raises EncoderError if it
        cannot open them, UsageError if the cluster has no room."""
        weights = {"weights": str(Path(encoder.weights).resolve())} if encoder.weights else {}
        self._encoder = encoder.model_copy(update=weights)
        self._slots = find_slots(self._ray.nodes(), encoder.device, self._threads, self._wanted)
        ask = self._ray.remote(max_retries=RETRIES, **self._slots.resources)(cards)
        try:
            answer = ask.remote(self._encoder.model_dump_json(), self._threads, self._opener)
            told = json.loads(self._ray.get(answer))
        except self._ray.exceptions.RayError as error:
            raise EncoderError(f"no worker opened the encoders: {last_line(error)}") from error
        raise_problem(told)
        self._probe = told
        return Encoders(
            _RemoteEncoder(ImageCard.model_validate_json(told["image"]), told["batch_size"]),
            _RemoteEncoder(TextCard.model_validate_json(told["text"])),
        )

    def rows(self, dataset: Dataset, posts: Sequence[Post], workers: int) -> RowTable:
        """See Engine. The files of many posts are read by the whole cluster. Raises DataError if a node does not see a
        file that this process sees."""
        if len(posts) <= READ_HERE:
            return read_rows(dataset, posts, workers)
        numbers = {label: i for i, label in enumerate(dataset.settings.labels)}
        labels = [numbers[post.label] if post.label is not None else NO_LABEL for post in posts]
        hashes = [np.zeros((len(posts), 32), np.uint8) for _ in HALVES]
        job = json.dumps(job_of(dataset) | {"workers": workers})
        units, mended = reading_units(posts[0].split, posts), []
        for told, _ in self._results(units, Pool(Reader, (job,), self._slots.cores, {"num_cpus": 1})):
            mended += told["mended"]
            for i, found in enumerate(told["hashes"], told["start"]):
                digests = [bytes.fromhex(one) for one in found]
                if NO_HASH in digests:
                    (here,) = read_rows(dataset, [posts[i]], 1)
                    if [here.image_hash, here.text_hash] != digests:
                        raise _unseen(dataset, posts[i], "image or text", told["node"])
                for half, digest in zip(hashes, digests, strict=True):
                    half[i] = np.frombuffer(digest, np.uint8)
        table = RowTable(Strings(post.id for post in posts), np.array(labels, np.int32), *hashes)
        table.mended = sorted(mended)
        return table

    def entries(
        self,
        plan: Plan,
        show: bool,
    ) -> Generator[Encoded, None, None]:
        """See Engine. Raises DataError if a worker does not see a file that this process sees, EncoderError if its
        encoders are different, CacheError if Ray gives up."""
        needed = sum(int(mask.sum()) for work in plan.works for mask in (work.texts, work.images))
        if not needed:
            return
        units = units_of(plan.works, block_rows(plan.batch_size, plan.settings.views.count + 1))
        job = job_of(plan.dataset) | {
            "encoder": self._encoder.model_dump_json(),
            "settings": plan.settings.model_dump_json(),
            "batch_size": plan.batch_size,
            "workers": self._workers or max(1, min(8, self._slots.resources["num_cpus"])),
            "threads": self._threads,
        }
        of = {work.split: work for work in plan.works}
        pool = Pool(Worker, (json.dumps(job), self._opener), self._slots.actors, self._slots.resources)
        with bar(needed, "texts and pictures", "half", show=show) as progress:
            for about, data in self._results(units, pool):
                raise_problem(about)
                if about["machine"] not in self._machines:
                    self._machines.append(about["machine"])
                work, half, start = of[about["split"]], about["half"], about["start"]
                entries = unpacked(about["entries"], data, plan.settings.storage)
                for i in _unread(work, half, start, entries):
                    raise _unseen(plan.dataset, work.posts[i], half, about["node"])
                yield work.split, half, entries
                progress.update(len(entries))

    def _results(self, units: Iterable[Unit], pool: Pool) -> Iterator[UnitResult]:
        """The results of the units, in the order in which actors finish them. Only as many units are taken as actors
        hold at once. Raises CacheError if Ray gives up."""
        ray = self._ray
        # Ray restarts actors and retries what they were doing, without limit.
        options = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": CALLS} | pool.resources
        actor = ray.remote(**options)(UnitActor)
        source = iter(units)
        first = list(islice(source, pool.actors))
        source = chain(first, source)
        free = [actor.remote(pool.make, *pool.arguments) for _ in first] * (CALLS + QUEUED)
        working: dict[Any, Any] = {}  # a result to come -> its actor
        try:
            while True:
                for unit in islice(source, len(free)):
                    chosen = free.pop(0)
                    working[chosen.work.remote(unit.dumps())] = chosen
                # Whoever is free now gets nothing more. Without work it makes room for an actor of a lost node.
                for done in set(free).difference(working.values()):
                    ray.kill(done)
                free.clear()
                if not working:
                    return
                (ready,), _ = ray.wait(list(working))
                result = ray.get(ready)
                free.append(working.pop(ready))
                yield result
        except ray.exceptions.RayError as error:
            raise CacheError(
                f"Ray gave up: {last_line(error)}. Finished units of work are kept; run the same command again"
            ) from error

    def environment(self, device: str | None) -> dict[str, Any]:
        """The workers' environment, with every kind of machine among them."""
        machines = self._machines or [self._probe["environment"]["machine"]]
        engine = {"name": "ray", "version": self._ray.__version__, "actors": self._slots.actors, "machines": machines}
        found: dict[str, Any] = self._probe["environment"]
        return found | {"command": sys.argv, "machine": machines[0], "engine": engine}


class UnitActor:
    """What Ray runs. A unit comes as its JSON."""

    def __init__(self, make: Callable[..., Callable[[Unit], UnitResult]], *given: Any) -> None:
        self._work = make(*given)

    def work(self, unit: str) -> UnitResult:
        """The unit's result."""
        return self._work(Unit.loads(unit))


@dataclass
class _RemoteEncoder:
    """An encoder that only the workers have: what this process knows of it."""

    card: Any
    batch_size: int = 0

    def encode(self, rows: Any) -> Embeddings:
        raise NotImplementedError("encoded on the workers")

    def lengths(self, texts: list[str]) -> list[int]:
        raise NotImplementedError("encoded on the workers")


def _unread(work: Work, half: str, start: int, entries: Sequence[Entry]) -> list[int]:
    """Positions of entries that a worker could not read although they were read before."""
    bad = {entry.id for entry in entries if entry.hash == NO_HASH}
    if not bad:
        return []
    hashes = ((i, row.id, row.image_hash if half == "image" else row.text_hash) for i, row in enumerate(work.rows))
    return [i for i, row_id, digest in hashes if i >= start and row_id in bad and digest != NO_HASH]


def _unseen(dataset: Dataset, post: Post, what: str, node: str) -> DataError:
    return DataError(
        f"{post.split} {post.id}: {node} does not see its {what}, which another machine sees; every node must see "
        f"the data set at {dataset.root.resolve()}"
    )
