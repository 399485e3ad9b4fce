"""Trials as Ray tasks, each on one CPU of the cluster. Each node's object store holds the embeddings once, read-only.
Only the process that began the sweep uses the study, so nodes need no access to its database. If a node dies, the
trials that ran on it are queued again.
"""

from __future__ import annotations

from typing import Any

from mmsent.errors import MmsentError, UsageError, first_line
from mmsent.sweep.shared_rows import SharedRows, parts_on
from mmsent.sweep.trial import Job, Outcome, run_trial
from mmsent.sweep.workers import Book
from mmsent.system.failures import no_cluster

POLL = 0.2  # seconds between reads of the tasks' reports


class _Mailbox:
    """An actor that passes messages between tasks and the process that began the sweep."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, int, float]] = []
        self._stopped: set[int] = set()

    def report(self, task: int, step: int, value: float) -> bool:
        """Called by a task with a value. Returns whether it should stop, as far as that is known."""
        self._reports.append((task, step, value))
        return task in self._stopped

    def exchange(self, stopped: set[int]) -> list[tuple[int, int, float]]:
        """Called by the sweep with the tasks to stop. Returns the reports since the last call."""
        self._stopped = stopped
        found, self._reports = self._reports, []
        return found


_parts: dict[str, Any] = {}  # of the rows that this worker process used last


def _task(name: str, shared: SharedRows, task: int, job: Job, mailbox: Any) -> Outcome:
    import ray
    import torch

    torch.set_num_threads(1)
    if name not in _parts:
        _parts.clear()
        _parts[name] = parts_on(shared, "cpu")

    def report(step: int, value: float) -> bool:
        return bool(ray.get(mailbox.report.remote(task, step, value)))

    return run_trial(job, _parts[name], shared.classes, report)


class RayTasks:
    """An executor on a Ray cluster. address: of a running cluster; None: a new one on this machine. limit: tasks at a
    time; None: one per CPU."""

    def __init__(self, shared: SharedRows, address: str | None, limit: int | None) -> None:
        """Raises UsageError if Ray is not installed or the cluster cannot be reached."""
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
            except (OSError, ValueError, RuntimeError) as error:
                raise no_cluster(address, error) from error
        self._limit = limit
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
        # The ledger queues a trial again if its worker dies, so Ray must not retry it.
        self._task = remote(num_cpus=1, max_retries=0)(_task)
        self._rows = ray.put(shared)
        self._jobs: dict[Any, tuple[int, Job]] = {}
        self._begun = 0  # tasks so far; a task's number is unique, while the check may use a job's key again
        self._stopped: set[int] = set()

    @property
    def room(self) -> int:
        """CPUs of the cluster, at this moment, without a task."""
        there = int(self._ray.cluster_resources().get("CPU", 1))
        return max(0, min(there, self._limit or there) - len(self._jobs))

    def submit(self, job: Job) -> None:
        """Start a task."""
        task, self._begun = self._begun, self._begun + 1
        self._jobs[self._task.remote(self._rows.hex(), self._rows, task, job, self._mailbox)] = task, job

    def step(self, book: Book, timeout: float) -> None:
        """Pass on the tasks' reports and outcomes."""
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
        """Cancel running tasks, and stop the cluster if it was started here."""
        for ref in self._jobs:
            self._ray.cancel(ref, force=True)
        self._ray.kill(self._mailbox)
        if self._own:
            self._ray.shutdown()
