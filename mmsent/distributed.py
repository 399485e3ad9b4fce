"""Extraction on a Ray cluster: Ray Data's actor pools, an encoder pair an actor, one actor a GPU or a CPU slot.

The driver reads the list, hands out units of work (a window of texts, or some blocks of pictures, so that every batch
is the local engine's) and journals what comes back; so resuming, quarantine and the cache are the local engine's too.
An actor whose worker or node is lost costs the units that it held: they are encoded again. Ray is imported late; it
comes with the extra `ray`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import mmsent
from mmsent import errors, provenance
from mmsent.batches import TEXT_WINDOW, block_rows, blocks
from mmsent.cache import NO_HASH, Row
from mmsent.config import DataSettings, EncoderSettings
from mmsent.dataset import Dataset, Post, Split
from mmsent.encoders import Embeddings, Encoders, ImageCard, TextCard, open_encoders
from mmsent.engine import Found, Work, image_entries, text_entries
from mmsent.errors import CacheError, DataError, EncoderError, MmsentError, UsageError
from mmsent.fingerprint import FeatureSettings
from mmsent.journal import Entry, Half
from mmsent.process import tune_process
from mmsent.progress import bar
from mmsent.text import Decoding

Opener = Callable[[EncoderSettings], Encoders]

UNIT_BLOCKS = 4  # blocks of pictures that an actor is given at a time
CALLS = 2  # units that an actor works on at once: one is decoded while the other is encoded
QUEUED = 1  # units that wait at an actor
RETRIES = 8  # times that the first look at the encoders is tried again where its worker dies
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
        with _own_signals():
            try:
                self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UsageError(
                    f"no Ray cluster at {self._address!r}: {reason}; start one with `ray start --head`, or leave "
                    "--address out to use this machine alone"
                ) from error

    def open(self, encoder: EncoderSettings) -> Encoders:
        """Ask a worker for its encoders' cards: weights and devices are theirs, and need not be here."""
        self._encoder = encoder.model_copy(
            update={"weights": str(Path(encoder.weights).resolve())} if encoder.weights else {}
        )
        self._slots()
        tell = self._ray.remote(max_retries=RETRIES, **self._resources)(_cards)
        try:
            told = json.loads(self._ray.get(tell.remote(self._encoder.model_dump_json(), self._threads, self._opener)))
        except self._ray.exceptions.RayError as error:
            raise EncoderError(f"no worker opened the encoders: {_reason(error)}") from error
        _raise_problem(told)
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
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if device == "cuda" and not gpus:
            raise UsageError("--device cuda: the Ray cluster has no GPU; --device cpu uses its processors")
        if gpus and device != "cpu":
            self._resources: dict[str, Any] = {"num_gpus": 1, "num_cpus": 1}
            fit = sum(min(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes)
        else:
            self._resources = {"num_cpus": self._threads}
            fit = sum(int(node.get("CPU", 0)) // self._threads for node in nodes)
        if not fit:
            most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
            raise UsageError(
                f"no node of the Ray cluster has {self._resources['num_cpus']} CPUs for an actor (the largest has "
                f"{most}); OMP_NUM_THREADS=1 makes actors of one thread"
            )
        if self._wanted is not None and self._wanted > fit:
            raise UsageError(f"--actors {self._wanted}: the Ray cluster has room for {fit}")
        self._actors = self._wanted or fit

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
        units = list(_units(works, block_rows(batch_size, settings.views.count + 1)))
        if not units:
            return
        job = {
            "encoder": self._encoder.model_dump_json(),
            "data": dataset.settings.model_dump_json(),
            "decoding": dataset.decoding.encoding,
            "layout": dataset.layout,
            "settings": settings.model_dump_json(),
            "batch_size": batch_size,
            "workers": self._workers or max(1, min(8, self._resources["num_cpus"])),
            "threads": self._threads,
            "code": provenance.code()["sha256"],
        }
        rows = {work.split: work.rows for work in works}
        left = {(unit.split, unit.half, unit.start): unit for unit in units}
        try:
            with bar(sum(len(u.needed) for u in units), "texts and pictures", "half", show=show) as progress:
                for about, data in self._results(units, job):
                    _raise_problem(about)
                    if about["machine"] not in self._machines:
                        self._machines.append(about["machine"])
                    unit = left.pop((about["split"], about["half"], about["start"]))
                    entries = _unpacked(about["entries"], data, settings.storage)
                    _require_seen(unit, entries, rows[unit.split], about["node"], dataset.root)
                    yield unit.split, unit.half, entries
                    progress.update(len(entries))
        except _failures() as error:
            stuck = ", ".join(post.id for unit in list(left.values())[:1] for post in unit.posts[:3])
            raise CacheError(
                f"Ray gave up: {_reason(error)}; {len(left)} of {len(units)} units did not come back (the first begins "
                f"with {stuck}). What came back is kept; run the same command again"
            ) from error

    def _results(self, units: Sequence[Unit], job: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """What the actors make of the units, in the order in which they finish."""
        import pyarrow

        data = self._ray.data
        with _quiet_data():
            tasks = data.from_arrow([pyarrow.table({"unit": [unit.dumps()]}) for unit in units])
            # Ray Data restarts actors and tries their tasks again without end. Where a lost node leaves no room for its
            # actors, they come back when another has run out of units and is released.
            done = tasks.map_batches(
                _Actor,
                fn_constructor_args=(json.dumps(job), self._opener),
                batch_size=1,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(
                    size=min(self._actors, len(units)),
                    max_tasks_in_flight_per_actor=CALLS + QUEUED,
                    max_concurrent_calls_per_actor=CALLS,
                    enable_true_multi_threading=True,
                ),
                **self._resources,
            )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=CALLS):
            for told in batch.to_pylist():
                yield json.loads(told["about"]), told["data"]

    def environment(self, device: str | None) -> dict[str, Any]:
        """Of the workers, with every kind of machine among them."""
        machines = self._machines or [self._probe["environment"]["machine"]]
        engine = {"name": "ray", "version": self._ray.__version__, "actors": self._actors, "machines": machines}
        return self._probe["environment"] | {"command": sys.argv, "machine": machines[0], "engine": engine}


def _require_seen(unit: Unit, entries: Sequence[Entry], rows: Sequence[Row], node: str, root: Path) -> None:
    """Raise DataError where a worker did not see a file that is here."""
    known = {row.id: row for row in rows[unit.start : unit.start + len(unit.posts)]}
    for entry in entries:
        here = known[entry.id].image_hash if unit.half == "image" else known[entry.id].text_hash
        if entry.hash == NO_HASH != here:
            raise DataError(
                f"{unit.split} {entry.id}: {entry.reason} on {node}, though it was there before; every node must see "
                f"the data set under {root.resolve()}"
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
def _quiet_data() -> Iterator[None]:
    """Ray Data without bars and reports of its own, for the data sets that are made inside."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.scheduling_strategy = "SPREAD"
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield


def _failures() -> tuple[type[Exception], ...]:
    """What a data set raises where Ray or our code on a worker fails."""
    from ray import exceptions
    from ray.data.exceptions import ExecutionTimeoutError, SystemException

    return exceptions.RayError, SystemException, ExecutionTimeoutError


def _reason(error: BaseException) -> str:
    """The last line that says something: of a chain of remote errors the first cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass(frozen=True)
class _There:
    """An encoder that is on the workers: what is known of it here."""

    card: Any
    batch_size: int = 0

    def encode(self, rows: Any) -> Embeddings:
        raise NotImplementedError("encoded on the workers")

    def lengths(self, texts: list[str]) -> list[int]:
        raise NotImplementedError("encoded on the workers")


# --- units of work, as JSON: ASCII, so that paths and texts pass whatever they hold


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of a split, from position `start`: whole windows for texts, whole blocks for pictures. needed:
    positions within the unit."""

    split: Split
    half: Half
    start: int
    posts: Sequence[Post]
    needed: Sequence[int]

    def dumps(self) -> str:
        """Labels stay behind; pictures of rows that need nothing, too."""
        wanted = set(self.needed)
        posts: list[tuple[str, str | None, bool]] = []
        for i, post in enumerate(self.posts):
            what = post.text if self.half == "text" else post.image if i in wanted else None
            is_file = isinstance(what, Path)
            posts.append((post.id, os.path.abspath(what) if is_file and what else what, is_file))  # type: ignore[arg-type]
        return json.dumps([self.split, self.half, self.start, posts, list(self.needed)])

    @classmethod
    def loads(cls, text: str) -> Unit:
        """What `dumps` wrote."""
        split, half, start, told, needed = json.loads(text)
        posts = []
        for row_id, what, is_file in told:
            value = Path(what) if is_file else what
            image, written = (value, None) if half == "image" else (None, value)
            posts.append(Post(row_id, split, None, image, written))
        return cls(split, half, start, posts, needed)


def _units(works: Sequence[Work], block: int) -> Iterator[Unit]:
    """The units that need something. Texts first, for a window is the longest unit."""
    for half, size in (("text", TEXT_WINDOW), ("image", block * UNIT_BLOCKS)):
        for work in works:
            wanted = set(work.texts if half == "text" else work.images)
            for part in blocks(len(work.posts), size):
                needed = [i - part.start for i in part if i in wanted]
                if needed:
                    posts = work.posts[part.start : part.stop]
                    yield Unit(work.split, "text" if half == "text" else "image", part.start, posts, needed)


def _packed(entries: Sequence[Entry]) -> tuple[list[tuple[str, str, str, int, list[int] | None]], bytes]:
    """Entries as plain values and the bytes of their vectors, one after the other."""
    about = [
        (e.id, e.hash.hex(), e.reason, e.tokens, list(e.data.shape) if e.data is not None else None) for e in entries
    ]
    return about, b"".join(e.data.tobytes() for e in entries if e.data is not None)


def _unpacked(about: Sequence[Sequence[Any]], data: bytes, storage: str) -> list[Entry]:
    out, at, width = [], 0, np.dtype(storage).itemsize
    for row_id, digest, reason, tokens, shape in about:
        vector = None
        if shape is not None:
            count = int(np.prod(shape))
            vector = np.frombuffer(data, storage, count, at).reshape(shape)
            at += count * width
        out.append(Entry(row_id, bytes.fromhex(digest), vector, reason, tokens))
    return out


# --- on the workers


def _problem(error: MmsentError) -> dict[str, Any]:
    return {"problem": type(error).__name__, "message": f"{error} (on {socket.gethostname()})"}


def _raise_problem(told: dict[str, Any]) -> None:
    if "problem" in told:
        kind = getattr(errors, told["problem"], MmsentError)
        raise kind(told["message"])


def _use_threads(threads: int) -> None:
    """Compute with as many threads as the driver would. Ray starts workers with a number of its own."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_process()
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _cards(encoder: str, threads: int, opener: Opener) -> str:
    """What a worker's encoders are, and what surrounds them."""
    _use_threads(threads)
    try:
        pair = opener(EncoderSettings.model_validate_json(encoder))
        told: dict[str, Any] = {
            "image": pair.image.card.model_dump_json(),
            "text": pair.text.card.model_dump_json(),
            "batch_size": pair.image.batch_size,
            "environment": provenance.environment(_device(encoder)),
        }
    except MmsentError as error:
        told = _problem(error)
    return json.dumps(told)


def _device(encoder: str) -> str | None:
    if "torch" not in sys.modules:
        return None
    from mmsent.encoders.common import pick_device

    return pick_device(EncoderSettings.model_validate_json(encoder).device)


class _Actor:
    """One encoder pair. Two units at a time pass through it; its encoders serve one batch at a time."""

    def __init__(self, job: str, opener: Opener) -> None:
        told = json.loads(job)
        _use_threads(told["threads"])
        self._lock = threading.Lock()
        self._job, self._settings = told, FeatureSettings.model_validate_json(told["settings"])
        decoding = Decoding(told["decoding"], "decided by the driver")
        data = DataSettings.model_validate_json(told["data"])
        self._dataset = Dataset(Path(), told["layout"], data, (), manifest_decoding=decoding)
        self._failed: dict[str, Any] | None = None
        try:
            self._pair = self._open(opener)
        except MmsentError as error:
            self._failed = _problem(error)

    def _open(self, opener: Opener) -> Encoders:
        code = provenance.code()["sha256"]
        if code != self._job["code"]:
            raise EncoderError(
                f"another mmsent ({mmsent.__version__}, code {code[:12]}) than the driver's (code "
                f"{self._job['code'][:12]}); install the same on every node"
            )
        pair = opener(EncoderSettings.model_validate_json(self._job["encoder"]))
        for half, mine in (("image", pair.image.card), ("text", pair.text.card)):
            theirs = getattr(self._settings, half)
            if mine != theirs:
                a, b = theirs.model_dump(), mine.model_dump()
                changes = "; ".join(f"{half}.{name}: {a[name]} -> {b[name]}" for name in a if a[name] != b[name])
                raise EncoderError(f"another encoder than on the first worker: {changes}; make the nodes alike")
        return Encoders(_Guarded(pair.image, self._lock), _Guarded(pair.text, self._lock))

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        told = [self._run(Unit.loads(text)) for text in batch.column("unit").to_pylist()]
        about = pyarrow.array([json.dumps(a) for a, _ in told], pyarrow.large_string())
        return pyarrow.table({"about": about, "data": pyarrow.array([d for _, d in told], pyarrow.large_binary())})

    def _run(self, unit: Unit) -> tuple[dict[str, Any], bytes]:
        if self._failed:
            return self._failed, b""
        try:
            if unit.half == "text":
                found = text_entries(self._dataset, unit.posts, unit.needed, self._pair, self._settings)
            else:
                batch_size, workers = self._job["batch_size"], self._job["workers"]
                found = image_entries(unit.posts, unit.needed, self._pair, self._settings, batch_size, workers)
            entries, data = _packed([entry for part, _ in found for entry in part])
        except MmsentError as error:
            return _problem(error), b""
        where = {"node": socket.gethostname(), "machine": provenance.machine(_device(self._job["encoder"]))}
        return {"split": unit.split, "half": unit.half, "start": unit.start, "entries": entries} | where, data


class _Guarded:
    """An encoder for several threads, one call at a time."""

    def __init__(self, encoder: Any, lock: threading.Lock) -> None:
        self._encoder, self._lock = encoder, lock
        self.card = encoder.card

    @property
    def batch_size(self) -> int:
        return int(self._encoder.batch_size)

    def encode(self, rows: Any) -> Embeddings:
        with self._lock:
            found: Embeddings = self._encoder.encode(rows)
        return found

    def lengths(self, texts: list[str]) -> list[int]:
        with self._lock:
            return list(self._encoder.lengths(texts))
