"""Dynamic batching: items of many requests go through one function together, on one thread.

The thread takes what waits, up to a size. While it is idle it waits a short time for
more items after the first; while it works they gather by themselves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """A thread that works on batches. work: items to as many results, in order; size, wait: the most items of a batch,
    and the seconds an idle thread waits for them to come together.

    If a batch fails, its items are tried one by one, so that no request fails because of another.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        size: int,
        wait: float,
        on_batch: Callable[[int, float], None] = lambda items, seconds: None,
    ) -> None:
        self._work, self._size, self._wait, self._on_batch = work, size, wait, on_batch
        self._items: deque[tuple[Item, Future[Result], float]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mmsent-encoder", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Result]:
        """Put an item into the queue. No work is done for a future that was cancelled. Raises RuntimeError once
        closed."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._items.append((item, future, time.monotonic()))
            self._changed.notify()
        return future

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._items)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what is in the queue, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            items = [item for item, _ in batch]
            try:
                results = self._work(items)
            except BaseException as error:
                self._one_by_one(batch, error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
            self._on_batch(len(batch), time.monotonic() - started)

    def _next(self) -> list[tuple[Item, Future[Result]]]:
        """The next batch; empty once closed and done."""
        with self._changed:
            while True:
                while not self._items:
                    if self._closed:
                        return []
                    self._changed.wait()
                until = self._items[0][2] + self._wait
                while len(self._items) < self._size and not self._closed:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                taken = [self._items.popleft() for _ in range(min(self._size, len(self._items)))]
                batch = [(item, future) for item, future, _ in taken if future.set_running_or_notify_cancel()]
                if batch:
                    return batch

    def _one_by_one(self, batch: Sequence[tuple[Item, Future[Result]]], error: BaseException) -> None:
        for item, future in batch:
            if len(batch) == 1:
                future.set_exception(error)
                continue
            try:
                future.set_result(self._work([item])[0])
            except BaseException as own:
                future.set_exception(own)
