"""A request's way through the service: admitted, read, decoded in a pool, encoded in a batch, answered in time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from mmsent.features.new_posts import NewPost, Prepared
from mmsent.inference.attribution import CamOf
from mmsent.serve.batching import Batcher
from mmsent.serve.monitoring import Metrics
from mmsent.serve.requests import Refused, parse
from mmsent.serve.service import Service
from mmsent.system.process import cores

T = TypeVar("T")
FIRST_RATE = 20.0  # posts per second, until it is measured


class Admission:
    """How much work is in progress: posts, limited by the queue, and bytes, limited by the memory. Used on the event
    loop; `learn` may be called anywhere."""

    def __init__(self, posts: int, memory: int) -> None:
        self._most, self._memory = posts, memory
        self.pending = 0
        self._reading = 0
        self._rate = FIRST_RATE

    @property
    def retry_after(self) -> int:
        """Seconds after which there is probably room."""
        return max(1, min(30, math.ceil(self.pending / max(self._rate, 0.1))))

    def learn(self, posts: int, seconds: float) -> None:
        """Update the estimated speed after a batch."""
        self._rate += 0.1 * (posts / max(seconds, 1e-3) - self._rate)

    @contextmanager
    def take(self, posts: int) -> Iterator[None]:
        """Room for posts, given back at the end. Raises Refused (503) where there is none."""
        if self.pending + posts > self._most:
            raise Refused(503, f"{self.pending} posts are waiting already; try again later", self.retry_after)
        self.pending += posts
        try:
            yield
        finally:
            self.pending -= posts

    @contextmanager
    def read(self) -> Iterator[Callable[[int], None]]:
        """A function that takes room for bytes as they come, all given back at the end; it raises Refused (503)."""
        mine = 0

        def more(n: int) -> None:
            nonlocal mine
            if self._reading + n > self._memory:
                raise Refused(503, "too many large requests are arriving; try again later", self.retry_after)
            mine += n
            self._reading += n

        try:
            yield more
        finally:
            self._reading -= mine


class Work:
    """The threads of a service and the queue before them. start and close on the event loop."""

    def __init__(self, service: Service, metrics: Metrics, workers: int | None = None) -> None:
        self.service, self.metrics, self._limits = service, metrics, service.limits
        self.admission = Admission(self._limits.queue, self._limits.most_memory)
        self._decoders = workers or min(8, cores())
        self._explaining = 0
        metrics.watch(lambda: self.admission.pending)
        if service.validated is not None:
            metrics.know_labels(service.labels, service.validated[1])
        if service.training is not None:
            metrics.know_distances(service.training.own())

    def start(self) -> None:
        """Start the threads."""
        self.pool = ThreadPoolExecutor(self._decoders, "mmsent-decode")
        self.reviewer = ThreadPoolExecutor(4, "mmsent-review")  # its pictures may come slowly, from URLs
        self._explainer = ThreadPoolExecutor(1, "mmsent-explain")
        size, wait = self.service.batch_size, self._limits.batch_wait
        self._batcher = Batcher(self.service.answer, size=size, wait=wait, on_batch=self._on_batch)

    async def close(self) -> None:
        """Finish what was taken and stop the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._batcher.close)
        for one in (self.pool, self.reviewer, self._explainer):
            one.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether posts can be answered."""
        return self._batcher.alive

    def _on_batch(self, posts: int, seconds: float) -> None:
        self.metrics.batches.observe(posts)
        self.metrics.encoding.observe(seconds)
        self.admission.learn(posts, seconds)

    async def label(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """The answers to a request's posts, and whether it asked for many. Raises Refused."""
        with self.admission.take(1), self.admission.read() as more:
            posts, many = await self._posts(request, more)
            with self.admission.take(len(posts) - 1):
                found = await self._in_time(self._labelled(posts), self._limits.timeout)
        for one in found:
            self.metrics.labelled(one, one.pop("distance"))
        return found, many

    async def explain(
        self, request: Request, run: str | None, target: str | None, occlude: bool, cam_of: CamOf
    ) -> dict[str, Any]:
        """The explanation of a request's post. Raises Refused, and what mmsent.inference.explain raises."""
        chosen = self.service.run_named(run)
        if self._explaining >= self._limits.explanations:
            raise Refused(503, f"{self._explaining} explanations are waiting already; try again later", 5)
        self._explaining += 1
        try:
            with self.admission.take(1), self.admission.read() as more:
                posts, many = await self._posts(request, more)
                if many:
                    raise Refused(422, "only one post can be explained per request")
                # Decoded here first, so that the limit on pixels holds.
                prepared = await in_thread(self.pool, self.service.prepare, posts[0])
                if posts[0].image is not None and prepared.pixels is None:
                    raise Refused(422, prepared.problem)
                work = in_thread(self._explainer, self.service.explain, posts[0], chosen, target, occlude, cam_of)
                return await self._in_time(work, self._limits.explain_timeout)
        finally:
            self._explaining -= 1

    async def _labelled(self, posts: Sequence[NewPost]) -> list[dict[str, Any]]:
        async def one(post: NewPost) -> dict[str, Any]:
            prepared: Prepared = await in_thread(self.pool, self.service.prepare, post)
            return await asyncio.wrap_future(self._batcher.submit((post.id, prepared)))

        found = await asyncio.gather(*map(one, posts), return_exceptions=True)
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in found if not isinstance(answer, BaseException)]

    async def _posts(self, request: Request, more: Callable[[int], None]) -> tuple[list[NewPost], bool]:
        raw = await read_body(request, more, self._limits.body, self._limits.read_timeout)
        return await in_thread(self.pool, parse, raw, request.headers.get("content-type", ""), self._limits)

    async def _in_time(self, work: Awaitable[T], seconds: float) -> T:
        try:
            return await asyncio.wait_for(work, seconds)
        except TimeoutError as error:
            raise Refused(503, f"there was no answer within {seconds:g} s", self.admission.retry_after) from error
        except asyncio.CancelledError as error:  # a stopping server's last word
            raise Refused(503, "the service is stopping; try again later", self.admission.retry_after) from error


async def in_thread(executor: ThreadPoolExecutor, function: Callable[..., T], *given: Any) -> T:
    """A function's result, from a thread."""
    return await asyncio.get_running_loop().run_in_executor(executor, function, *given)


async def read_body(request: Request, more: Callable[[int], None], limit: int, seconds: float) -> bytes:
    """A request's body. more: takes note of bytes as they come. Raises Refused: 413 beyond the limit, 408 where it
    takes too long, 400 where the client leaves before its end, 415 where it is compressed."""
    if (coding := request.headers.get("content-encoding", "identity").strip().lower()) != "identity":
        raise Refused(415, f"content encoding {coding[:100]!r} is not supported; send the body uncompressed")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) > limit:
        raise Refused(413, f"the body has {length} bytes; the limit is {limit}")
    found = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(found) + len(chunk) > limit:
                    raise Refused(413, f"the body has more than {limit} bytes")
                more(len(chunk))
                found += chunk
    except TimeoutError as error:
        raise Refused(408, f"the request did not arrive completely within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise Refused(400, "the connection closed before the request was complete") from error
    return bytes(found)
