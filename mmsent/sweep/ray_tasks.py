"""Trials as Ray tasks: each takes one CPU of the cluster. The embeddings lie once in each node's object store,
read-only. The study stays with the process that began the sweep, so nodes need no access to its database; a node that
is lost costs the trials that ran on it, which are queued again.
"""

from __future__ import annotations

import os
from typing import Any

from mmsent.errors import MmsentError, UsageError, first_line
from mmsent.sweep.shared_rows import Ground, sides_on
from mmsent.sweep.trial import Job, Outcome, run_trial
from mmsent.sweep.workers import Book

POLL = 0.2  # seconds between looks at what tasks report


class _Mailbox:
    """An actor between tasks and the process that began the sweep."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, int, float]] = []
        self._stopped: set[int] = set()

    def report(self, task: int, step: int, value: float) -> bool:
        """From a task: a value; whether to stop, as far as that is known by now."""
        self._reports.append((task, step, value))
        return task in self._stopped

    def exchange(self, stopped: set[int]) -> list[tuple[int, int, float]]:
        """From the sweep: tasks to stop; returns what came since the last time."""
        self._stopped = stopped
        found, self._reports = self._reports, []
        return found


_sides: dict[str, Any] = {}  # of the ground that this worker process trained on last


def _task(name: str, ground: Ground, task: int, job: Job, mailbox: Any) -> Outcome:
    import ray
    import torch

    torch.set_num_threads(1)
    if name not in _sides:
        _sides.clear()
        _sides[name] = sides_on(ground, "cpu")

    def report(step: int, value: float) -> bool:
        return bool(ray.get(mailbox.report.remote(task, step, value)))

    return run_trial(job, _sides[name], ground.classes, report)


class RayTasks:
    """An executor on a Ray cluster. address: of a cluster that runs; None: a new one on this machine. limit: tasks at a
    time; None: one a CPU."""

    def __init__(self, ground: Ground, address: str | None, limit: int | None) -> None:
        """Raises UsageError where Ray is not installed or the cluster cannot be reached."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as error:
            raise UsageError("--engine ray needs its package: pip install 'mmsent[ray]'") from error
        self._ray: Any = ray
        remote: Any = ray.remote
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"no Ray cluster at {address or 'this machine'}: {first_line(error)}; `ray start --head` "
                    "begins one, `ray status` shows it"
                ) from error
        self._limit = limit
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
        # A trial whose worker dies is queued again by the ledger, not behind its back.
        self._task = remote(num_cpus=1, max_retries=0)(_task)
        self._ground = ray.put(ground)
        self._jobs: dict[Any, tuple[int, Job]] = {}
        self._begun = 0  # tasks so far; a task's number is its own, while a job's key may come again in the check
        self._stopped: set[int] = set()

    @property
    def room(self) -> int:
        """CPUs of the cluster, as it is now, without a task."""
        there = int(self._ray.cluster_resources().get("CPU", 1))
        return max(0, min(there, self._limit or there) - len(self._jobs))

    def submit(self, job: Job) -> None:
        """Start a task."""
        task, self._begun = self._begun, self._begun + 1
        self._jobs[self._task.remote(self._ground.hex(), self._ground, task, job, self._mailbox)] = task, job

    def step(self, book: Book, timeout: float) -> None:
        """Hand on what tasks report, and what is finished."""
        ray = self._ray
        ready, _ = ray.wait(list(self._jobs), timeout=min(timeout, POLL))
        running = dict(self._jobs.values())
        self._stopped &= running.keys()
        for task, step, value in ray.get(self._mailbox.exchange.remote(self._stopped)):
            if task in running and book.report(running[task].key, step, value):
                self._stopped.add(task)
        for ref in ready:
            _, job = self._jobs.pop(ref)
            try:
                found: Outcome = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MmsentError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:  # its worker or its node died
                book.lost(job.key, first_line(error))
                continue
            book.finish(job.key, found)

    def close(self) -> None:
        """Cancel what runs, and end the cluster if it was begun here."""
        for ref in self._jobs:
            self._ray.cancel(ref, force=True)
        self._ray.kill(self._mailbox)
        if self._own:
            self._ray.shutdown()
