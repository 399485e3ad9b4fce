"""Numbers for Prometheus, each service's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from mmsent.serve.guard import App, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MEDIA = CONTENT_TYPE_LATEST


class Metrics:
    """Counters and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "mmsent_requests", "Requests by endpoint and status.", ["endpoint", "status"], registry=registry
        )
        self.seconds = Histogram(
            "mmsent_request_seconds", "Time to answer, by endpoint.", ["endpoint"], buckets=SECONDS, registry=registry
        )
        self.posts = Counter("mmsent_posts", "Posts labelled, by label.", ["label"], registry=registry)
        self.batches = Histogram("mmsent_batch_posts", "Posts in a batch.", buckets=SIZES, registry=registry)
        self.encoding = Histogram("mmsent_batch_seconds", "Time of a batch.", buckets=SECONDS, registry=registry)
        self.shed = Counter(
            "mmsent_shed", "Requests refused with 503, such as when the queue was full.", registry=registry
        )
        self._pending = Gauge("mmsent_pending_posts", "Posts accepted and not answered yet.", registry=registry)
        ProcessCollector(registry=self.registry)

    def watch(self, pending: Callable[[], float]) -> None:
        """Read the number of pending posts from here."""
        self._pending.set_function(pending)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


class Metered:
    """Counts and times every request by its endpoint; what matches none is `other`."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route: Any = scope.get("route")
            endpoint = str(getattr(route, "path", "other"))
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.monotonic() - started)
