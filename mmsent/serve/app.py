"""The application: its endpoints, its errors, and what stands around every request."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mmsent.errors import MmsentError
from mmsent.report.landscape import Landscape
from mmsent.serve.compare_endpoints import compare_routes
from mmsent.serve.endpoints import Access, post_routes, status_routes
from mmsent.serve.guard import HEADERS, Guard, Received
from mmsent.serve.map_endpoints import Atlas, map_routes
from mmsent.serve.monitoring import Metered, Metrics
from mmsent.serve.openapi import describe
from mmsent.serve.pages import page_routes
from mmsent.serve.queueing import Work
from mmsent.serve.requests import Refused
from mmsent.serve.review import Review
from mmsent.serve.review_endpoints import review_routes
from mmsent.serve.service import Service
from mmsent.version import __version__


def create_app(
    service: Service,
    *,
    key: str | None = None,
    hosts: Sequence[str] = (),
    review: Callable[[], Review] | None = None,
    places: Callable[[], Landscape] | None = None,
    workers: int | None = None,
    root_path: str = "",
) -> FastAPI:
    """The application. key: what clients must send, None: nothing; hosts: host names that requests may name, empty:
    any; review: opens the predictions to review, places: makes the map of
    all posts, both called at first use; workers: threads that decode images, by default
    one per core; root_path: the path before the service's own behind a proxy, whether the proxy strips it or not."""
    metrics = Metrics()
    work = Work(service, metrics, workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work.start()
        yield
        await work.close()

    app = FastAPI(
        title="mmsent",
        version=__version__,
        summary="Sentiment of posts, each an image and a text.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    access = Access(key)
    if service.runs:
        app.include_router(post_routes(work, access))
    app.include_router(status_routes(work, access, review=review is not None))
    if review is not None:
        opened = functools.cache(review)
        app.include_router(review_routes(work, opened, access))
        app.include_router(compare_routes(work, opened, access))
        if places is not None:
            app.include_router(map_routes(work, lambda: Atlas(opened(), places), access))
    app.include_router(page_routes())
    _add_errors(app, metrics)
    describe(app)
    app.add_middleware(Guard, refuse=_answer, hosts=hosts)
    app.add_middleware(Metered, metrics=metrics)
    app.add_middleware(Received, root_path=root_path)
    return app


def _answer(refused: Refused) -> JSONResponse:
    headers = {}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refused.status in {408, 413}:  # the rest of the body is not read
        headers["connection"] = "close"
    return JSONResponse({"detail": str(refused)}, refused.status, headers)


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every error is an object with its reason under `detail`."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        if error.status == 503:
            metrics.shed.inc()
        return _answer(error)

    @app.exception_handler(MmsentError)
    async def ours(_: Request, error: MmsentError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        parts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        return JSONResponse({"detail": "; ".join(parts)}, 422)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> JSONResponse:
        # Written outside of the guard, so it brings the headers itself.
        return JSONResponse({"detail": f"unexpected {type(error).__name__}; this is a bug"}, 500, HEADERS)
