"""What runs trials: this process, one after the other; worker processes with one thread each, on one read-only copy of
the embeddings; or stacks of similar trials together on one device.

Each passes to its `Book` what a trial reports and how it ended.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, Protocol

from mmsent.errors import MmsentError, RunError
from mmsent.sweep.shared_rows import SharedRows, map_shared, parts_on
from mmsent.sweep.trial import Job, Outcome, run_trial
from mmsent.system.memory import Halving
from mmsent.system.process import tune_process
from mmsent.training.tuning import BlocksOf

STACK = 64  # trials at a time that train together


class Book(Protocol):
    """Where trials report to."""

    def report(self, number: int, step: int, value: float) -> bool:
        """Record an intermediate value. Returns whether the trial should stop."""

    def finish(self, number: int, outcome: Outcome) -> None:
        """Record a trial's outcome."""

    def lost(self, number: int, why: str) -> None:
        """Record that the process of a trial died."""


class Executor(Protocol):
    """Runs jobs. room: how many more it accepts now."""

    @property
    def room(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Accept a job."""

    def step(self, book: Book, timeout: float) -> None:
        """Continue, and tell the book what happened. Returns after `timeout` seconds if nothing did. Raises the error
        of a trial."""

    def close(self) -> None:
        """Stop at once; unfinished jobs are dropped."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread, like worker processes, so that sums have the same order everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Here:
    """Runs jobs in this process, one after the other, with torch's number of threads."""

    def __init__(self, shared: SharedRows, device: str) -> None:
        self._parts, self._classes = parts_on(shared, device), shared.classes
        self._jobs: list[Job] = []

    @property
    def room(self) -> int:
        """One job at a time."""
        return 1 - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Accept a job."""
        self._jobs.append(job)

    def step(self, book: Book, timeout: float) -> None:
        """Run the accepted jobs."""
        while self._jobs:
            job = self._jobs[0]
            found = run_trial(job, self._parts, self._classes, functools.partial(book.report, job.key))
            self._jobs.pop(0)
            book.finish(job.key, found)

    def close(self) -> None:
        """Drop waiting jobs."""
        self._jobs.clear()


class Stacked:
    """Runs jobs in this process on one device: trials of equal shape together (see mmsent.training.stacked), others
    alone."""

    def __init__(self, shared: SharedRows, device: str, size: int = STACK) -> None:
        self._parts, self._classes, self._size = parts_on(shared, device), shared.classes, size
        self._jobs: list[Job] = []
        self._fit = Halving(lambda: RunError("the device's memory cannot hold one trial; use --device cpu"))

    @property
    def room(self) -> int:
        """How many more fit into the stack."""
        return self._size - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Accept a job."""
        self._jobs.append(job)

    def step(self, book: Book, timeout: float) -> None:
        """Run the accepted jobs."""
        from mmsent.sweep.stacked_trials import run_stack, stacks_of

        left, self._jobs = self._jobs, []

        def train(size: int) -> None:
            self._size = min(self._size, size)
            for stack in stacks_of(left):
                for start in range(0, len(stack), size):
                    for job, found in run_stack(stack[start : start + size], self._parts, self._classes, book.report):
                        left.remove(job)
                        book.finish(job.key, found)

        self._fit(train, self._size)

    def close(self) -> None:
        """Drop waiting jobs."""
        self._jobs.clear()


@dataclass
class _Worker:
    process: Any
    pipe: Any
    job: Job | None = None


class Workers:
    """Worker processes with one thread each. They map the rows from a folder."""

    def __init__(self, folder: Path, count: int, blocks: BlocksOf | None = None) -> None:
        """blocks: fresh ones, for heads that tune them; each process makes its own."""
        self._folder, self._blocks = folder, blocks
        self._context = multiprocessing.get_context("spawn")  # torch does not survive a fork
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, str(self._folder), self._blocks), daemon=True)
        with _no_ctrl_c():
            process.start()
        theirs.close()  # so that the end of either side is seen on the other
        return _Worker(process, ours)

    @property
    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    @property
    def room(self) -> int:
        """Idle workers."""
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Hand a job to an idle worker."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        with contextlib.suppress(OSError):  # the worker died, which the next step notices
            worker.pipe.send(job)

    def step(self, book: Book, timeout: float) -> None:
        """Wait for a message and answer it."""
        ready = connection.wait([worker.pipe for worker in self._workers], timeout)
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            try:
                what, value = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker, book)
                continue
            job = worker.job
            assert job is not None
            if what == "at":
                stop = book.report(job.key, *value)
                with contextlib.suppress(OSError):
                    worker.pipe.send(stop)
                continue
            worker.job = None
            if what == "error":
                raise value
            book.finish(job.key, value)

    def _replace(self, worker: _Worker, book: Book) -> None:
        worker.process.join(5)
        why = f"its process ended with status {worker.process.exitcode}"
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = self._start()
        if worker.job is not None:
            book.lost(worker.job.key, why)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            worker.pipe.close()


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Ctrl-C waits until the end of the block, and never reaches a process that is started in it: during its imports it
    would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _work(pipe: Any, folder: str, blocks: BlocksOf | None) -> None:
    """A worker process: run jobs until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tune_process()
    import torch

    torch.set_num_threads(1)
    shared = map_shared(Path(folder), blocks)
    parts = parts_on(shared, "cpu")
    try:
        while True:
            job: Job = pipe.recv()

            def report(step: int, value: float) -> bool:
                pipe.send(("at", (step, value)))
                return bool(pipe.recv())

            try:
                pipe.send(("done", run_trial(job, parts, shared.classes, report)))
            except MmsentError as error:
                pipe.send(("error", error))
    except (EOFError, OSError):  # the parent was killed, so nobody needs the result
        return


def compute(executor: Executor, jobs: Sequence[Job], on_job: Callable[[], None] | None = None) -> dict[int, Outcome]:
    """The outcomes of jobs that do not belong to a study, by key. Raises RunError if their processes keep dying."""
    book = _Collected(jobs, on_job)
    while len(book.found) < len(jobs):
        while book.waiting and executor.room:
            executor.submit(book.waiting.pop(0))
        executor.step(book, 1.0)
    return book.found


class _Collected:
    def __init__(self, jobs: Sequence[Job], on_job: Callable[[], None] | None) -> None:
        self.waiting, self.found, self._jobs, self._on_job = list(jobs), dict[int, Outcome](), list(jobs), on_job
        self._deaths = 0

    def report(self, number: int, step: int, value: float) -> bool:
        return False

    def finish(self, number: int, outcome: Outcome) -> None:
        self.found[number] = outcome
        if self._on_job:
            self._on_job()

    def lost(self, number: int, why: str) -> None:
        self._deaths += 1
        if self._deaths > len(self._jobs):
            raise RunError(f"the worker processes keep dying: {why}; use fewer --workers, which need less memory")
        self.waiting += [job for job in self._jobs if job.key == number]
