"""Numbers for Prometheus, each service's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from mmsent.inference.abstain import confidence_of
from mmsent.inference.tally import Tally
from mmsent.serve.guard import App, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIDENCES = tuple(k / 20 for k in range(1, 21))
DISTANCES = tuple(k / 50 for k in range(1, 51))
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
        self.posts = Counter(
            "mmsent_posts",
            "Posts by the label that won the vote; none where no head can say.",
            ["label"],
            registry=registry,
        )
        self.uncertain = Counter(
            "mmsent_uncertain", "Posts answered otherwise, for lack of certainty.", registry=registry
        )
        self.confidence = self._histogram("post_confidence", "Probability of a post's label.", CONFIDENCES)
        self._distance: Histogram | None = None
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

    def know_labels(self, labels: Sequence[str], voted: Tally) -> None:
        """Show the vote on the validation rows beside that on new posts."""
        counts = Gauge(
            "mmsent_reference_posts", "Validation posts, as mmsent_posts.", ["label"], registry=self.registry
        )
        for i, label in enumerate(labels):
            counts.labels(label).set(int((voted.labels[voted.labelled] == i).sum()))
        sure = confidence_of(voted)[voted.labelled].tolist()
        self._histogram("reference_confidence", "Validation posts, as mmsent_post_confidence.", CONFIDENCES, sure)

    def know_distances(self, training: NDArray[np.float64]) -> None:
        """Measure distances to the training rows from now on, beside those of the training rows themselves."""
        said = "Cosine distance of a post to the nearest training post."
        self._distance = self._histogram("post_distance", said, DISTANCES)
        said = "Training posts, each to the nearest other one, as mmsent_post_distance."
        self._histogram("reference_distance", said, DISTANCES, training.tolist())

    def labelled(self, answer: dict[str, Any], distance: float | None) -> None:
        """Count an answered post."""
        label = answer["voted"] or answer["label"]
        self.posts.labels(label or "none").inc()
        if label is not None:
            self.confidence.observe(answer["probabilities"][label])
        if label != answer["label"]:
            self.uncertain.inc()
        if self._distance is not None and distance is not None and not math.isnan(distance):
            self._distance.observe(distance)

    def _histogram(self, name: str, said: str, buckets: Sequence[float], values: Iterable[float] = ()) -> Histogram:
        found = Histogram(f"mmsent_{name}", said, buckets=buckets, registry=self.registry)
        for value in values:
            found.observe(value)
        return found

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
