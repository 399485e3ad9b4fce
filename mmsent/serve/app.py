"""The application: endpoints, errors and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from mmsent.errors import MmsentError
from mmsent.serve import schemas
from mmsent.serve.guard import HEADERS, Guard, require_key
from mmsent.serve.monitoring import MEDIA, Metered, Metrics
from mmsent.serve.openapi import any_of, describe, documented, posts_body
from mmsent.serve.pages import info_route, page_routes, review_routes
from mmsent.serve.queueing import Work
from mmsent.serve.requests import JSON, Refused
from mmsent.serve.review import Review
from mmsent.serve.service import Service
from mmsent.version import __version__


def create_app(
    service: Service,
    *,
    key: str | None = None,
    hosts: Sequence[str] = (),
    review: Callable[[], Review] | None = None,
    workers: int | None = None,
) -> FastAPI:
    """The application. key: what clients must send, None: nothing; hosts: host names that it goes by, empty: any;
    review: how to get what is reviewed, called at first use; workers: threads that decode, one a core without."""
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
        summary="Sentiment of posts: a picture and a text each.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    async def keyed(request: Request) -> None:
        require_key(request.headers.get("authorization"), key)

    dependencies: list[Any] = []
    if key is not None:
        dependencies = [Depends(HTTPBearer(auto_error=False, description="`--api-key`")), Depends(keyed)]
    refusals = (401, 403) if key is not None else (403,)

    @app.post(
        "/predict",
        operation_id="predict",
        summary="Label posts",
        responses={
            200: {
                "description": "The label of the post, or of each of several.",
                "content": {JSON: {"schema": any_of(schemas.Answer, schemas.Answers)}},
            },
            **documented(400, *refusals, 408, 413, 415, 422, 503),
        },
        openapi_extra=posts_body(schemas.PostIn, schemas.PostsIn),
        dependencies=dependencies,
    )
    async def predict(request: Request) -> JSONResponse:
        """One post, or several under `posts`; a form with several parts called text or image is several posts. A post
        that cannot be labelled is an error where it is the only one; among several it has the label null and a
        problem."""
        found, many = await work.label(request)
        if many:
            return JSONResponse({"predictions": found})
        if found[0]["label"] is None:
            raise Refused(422, found[0]["problem"])
        return JSONResponse(found[0])

    @app.post(
        "/explain",
        operation_id="explain",
        summary="Explain what one head says of a post",
        responses={
            200: {"model": schemas.ExplanationOut, "description": "What in the post speaks for the label."},
            **documented(400, *refusals, 408, 413, 415, 422, 503),
        },
        openapi_extra=posts_body(schemas.PostIn),
        dependencies=dependencies,
    )
    async def explain(
        request: Request,
        run: Annotated[str | None, Query(max_length=255, description="the head's run; the first by default")] = None,
        target: Annotated[
            str | None, Query(max_length=255, description="the label to explain; the predicted one by default")
        ] = None,
        occlusion: Annotated[
            bool, Query(description="also cover the picture place by place: the check, and most of the time")
        ] = False,
    ) -> JSONResponse:
        """Grad-CAM over the picture; Grad-CAM, integrated gradients and occlusion of the words; what each half adds."""
        return JSONResponse(await work.explain(request, run, target, occlusion))

    @app.get("/healthz", operation_id="healthz", summary="Whether the service works", responses=documented(403, 503))
    async def healthz() -> schemas.Health:
        """Needs no key."""
        if not work.alive:
            raise Refused(503, "the encoder's thread has ended; start the service again", 30)
        return schemas.Health(status="ok", version=__version__, waiting=work.admission.pending)

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(*refusals),
        },
        dependencies=dependencies,
    )
    async def numbers() -> Response:
        """Requests, times, batches, the queue, what was shed."""
        return Response(metrics.text(), media_type=MEDIA)

    app.include_router(info_route(work, key is not None, review is not None))
    if review is not None:
        app.include_router(review_routes(work, review, refusals, dependencies=dependencies))
    app.include_router(page_routes())
    _add_errors(app, metrics)
    describe(app)
    app.add_middleware(Guard, refuse=_answer, hosts=hosts)
    app.add_middleware(Metered, metrics=metrics)
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
