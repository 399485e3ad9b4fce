"""The endpoints that label and explain posts, and those that tell what is served and how it performs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from mmsent.inference.attribution import CamOf
from mmsent.serve import schemas
from mmsent.serve.guard import require_key
from mmsent.serve.monitoring import MEDIA
from mmsent.serve.openapi import any_of, documented, posts_body
from mmsent.serve.queueing import Work
from mmsent.serve.requests import JSON, Refused
from mmsent.version import __version__


class Access:
    """What a request needs to be answered. key: what clients must send; None: nothing. dependencies: for FastAPI's
    routes; refusals: statuses that any request may get."""

    def __init__(self, key: str | None) -> None:
        async def keyed(request: Request) -> None:
            require_key(request.headers.get("authorization"), key)

        self.needs_key = key is not None
        self.dependencies: list[Any] = []
        if self.needs_key:
            bearer = HTTPBearer(auto_error=False, description="`--api-key`")
            self.dependencies = [Depends(bearer), Depends(keyed)]
        self.refusals = (401, 403) if self.needs_key else (403,)


def post_routes(work: Work, access: Access) -> APIRouter:
    """Labelling and explaining posts."""
    router = APIRouter(dependencies=access.dependencies)
    errors = documented(400, *access.refusals, 408, 413, 415, 422, 503)

    @router.post(
        "/predict",
        operation_id="predict",
        summary="Label posts",
        responses={
            200: {
                "description": "The label of the post, or of each of several.",
                "content": {JSON: {"schema": any_of(schemas.Answer, schemas.Answers)}},
            },
            **errors,
        },
        openapi_extra=posts_body(schemas.PostIn, schemas.PostsIn),
    )
    async def predict(request: Request) -> JSONResponse:
        """Send one post, or several under `posts`; a form with several parts called text or image is several posts. If
        a post cannot be labelled, the request fails when it is the only one; among several it gets the label null and
        a problem."""
        found, many = await work.label(request)
        if many:
            return JSONResponse({"predictions": found})
        if found[0]["label"] is None:
            raise Refused(422, found[0]["problem"])
        return JSONResponse(found[0])

    @router.post(
        "/explain",
        operation_id="explain",
        summary="Explain one head's label of a post",
        responses={
            200: {"model": schemas.ExplanationOut, "description": "Which parts of the post support the label."},
            **errors,
        },
        openapi_extra=posts_body(schemas.PostIn),
    )
    async def explain(
        request: Request,
        run: Annotated[
            str | None, Query(max_length=255, description="the run of the head to explain; by default the first")
        ] = None,
        target: Annotated[
            str | None, Query(max_length=255, description="the label to explain; by default the predicted one")
        ] = None,
        occlusion: Annotated[
            bool,
            Query(description="also cover the image region by region: slow, and a check of the other methods"),
        ] = False,
        cam_of: Annotated[
            CamOf, Query(description="what Grad-CAM differentiates: the label's logit, or the loss as in training")
        ] = "logit",
    ) -> JSONResponse:
        """Grad-CAM over the image; Grad-CAM, integrated gradients and occlusion of the words; what each half adds
        to the logit."""
        return JSONResponse(await work.explain(request, run, target, occlusion, cam_of))

    return router


def status_routes(work: Work, access: Access, *, review: bool) -> APIRouter:
    """What is served and how it performs. review: whether there is a page to review predictions."""
    router = APIRouter()

    @router.get("/healthz", operation_id="healthz", summary="Whether the service works", responses=documented(403, 503))
    async def healthz() -> schemas.Health:
        """Needs no key."""
        if not work.alive:
            raise Refused(503, "the encoder thread has stopped; restart the service", 30)
        return schemas.Health(status="ok", version=__version__, waiting=work.admission.pending)

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(*access.refusals),
        },
        dependencies=access.dependencies,
    )
    async def metrics() -> Response:
        """Requests, times, batches and the queue; labels, confidence and distance to the training posts."""
        return Response(work.metrics.text(), media_type=MEDIA)

    @router.get("/info", operation_id="info", summary="What is served", responses=documented(403))
    async def info() -> schemas.Info:
        """Labels, heads and limits, for a page; needs no key."""
        about = work.service.info() | {"review": review, "key": access.needs_key}
        return schemas.Info.model_validate(about)

    return router
