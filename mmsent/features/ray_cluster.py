"""A Ray cluster: connecting to it, how many actors fit on it, and keeping Ray quiet. Ray is imported late; it comes
with the extra `ray`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmsent.errors import UsageError
from mmsent.system.failures import no_cluster
from mmsent.system.process import cores as allowed_cores

OBJECT_STORE = 256 << 20  # bytes of shared memory of a cluster that is started here; only embeddings pass through it
MOST_CPUS = 8  # of an actor with a GPU


def require_ray() -> Any:
    """The module ray. Raises UsageError if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'mmsent[ray]'") from error
    return ray


def connect(ray: Any, address: str, cores: int) -> None:
    """Connect to a cluster, or start one on this machine if the address is `local`. cores: CPUs that it must have.

    Raises UsageError if there is no such cluster.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"address": address}
    if address == "local":
        cores = max(allowed_cores(), cores)
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    with _own_signals(), _muted():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises almost anything here, even Exception itself
            raise no_cluster(address, error) from error


@dataclass(frozen=True)
class Slots:
    """Room for actors on a cluster. resources: what one actor takes; cores: CPUs of the whole cluster."""

    actors: int
    resources: dict[str, Any]
    cores: int


def find_slots(nodes: Sequence[Mapping[str, Any]], device: str, threads: int, wanted: int | None) -> Slots:
    """How many actors fit on the nodes that are alive, and what each takes. wanted: the number asked for.

    One actor per GPU, or per `threads` CPUs if the cluster has no GPU or the device is cpu. Raises UsageError if not
    even one fits, or fewer than wanted.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(
            f"--device {device} does not work with --engine ray, which gives each actor its own GPU; use --device cuda"
        )
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [int(node.get("GPU", 0)) for node in alive]
    cpus = [int(node.get("CPU", 0)) for node in alive]
    if device == "cuda" and not any(gpus):
        raise UsageError("--device cuda: the Ray cluster has no GPU; --device cpu uses its CPUs")
    if any(gpus) and device != "cpu":
        share = min(c // g for c, g in zip(cpus, gpus, strict=True) if g)  # CPUs decode for each GPU
        per_actor = max(1, min(MOST_CPUS, share))
        resources: dict[str, Any] = {"num_gpus": 1, "num_cpus": per_actor}
        fit = sum(min(g, c // per_actor) for c, g in zip(cpus, gpus, strict=True))
    else:
        per_actor = threads
        resources = {"num_cpus": threads}
        fit = sum(n // threads for n in cpus)
    if not fit:
        raise UsageError(
            f"no node of the Ray cluster has {per_actor} CPUs for an actor (the largest has "
            f"{max(cpus, default=0)}); OMP_NUM_THREADS=1 makes actors of one thread"
        )
    if wanted is not None and wanted > fit:
        raise UsageError(f"--actors {wanted}: the Ray cluster has room for {fit}")
    return Slots(wanted or fit, resources, sum(cpus))


def last_line(error: BaseException) -> str:
    """The last line of an error's message: in a chain of remote errors, the first cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers; Ray's would end the process without cleaning up."""
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
    """Without the output of Ray's native code while it starts; its errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
