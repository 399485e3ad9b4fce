"""The pages, and what they ask for besides predictions: what is served, examples, and the review of a whole run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mmsent.errors import MmsentError
from mmsent.serve import schemas
from mmsent.serve.openapi import documented, json_body
from mmsent.serve.queueing import Work, in_thread, read_body
from mmsent.serve.requests import Refused, parse_corrections
from mmsent.serve.review import Review, Wanted
from mmsent.serve.service import examples

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "index.html", "/review": "review.html", "/docs": "docs.html"}
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}


def page_routes() -> APIRouter:
    """The pages and their files. They hold no data, so they need no key."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: (path.read_bytes(), MEDIA[path.suffix]) for path in STATIC.iterdir() if path.suffix in MEDIA}

    def file(name: str) -> Callable[[], Awaitable[Response]]:
        raw, media = files[name]

        async def answer() -> Response:
            return Response(raw, media_type=media, headers={"cache-control": "no-cache"})

        return answer

    for path, name in PAGES.items():
        router.add_api_route(path, file(name), methods=["GET", "HEAD"])
    for name in files:
        if not name.endswith(".html"):
            router.add_api_route(f"/static/{name}", file(name), methods=["GET", "HEAD"])

    @router.get("/examples/{number}.jpg")
    async def example(number: int) -> Response:
        drawn = examples()
        if not 0 <= number < len(drawn):
            raise Refused(404, f"there are {len(drawn)} examples")
        return Response(drawn[number][0], media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    return router


def info_route(work: Work, key: bool, review: bool) -> APIRouter:
    """What is served."""
    router = APIRouter()

    @router.get("/info", operation_id="info", summary="What is served", responses=documented(403))
    async def info() -> schemas.Info:
        """Labels, heads, limits and examples, for a page; needs no key."""
        drawn = [{"image": f"/examples/{i}.jpg", "text": text} for i, (_, text) in enumerate(examples())]
        about = work.service.info() | {"examples": drawn, "review": review, "key": key}
        return schemas.Info.model_validate(about)

    return router


def review_routes(work: Work, opener: Callable[[], Review], refusals: tuple[int, ...], **more: Any) -> APIRouter:
    """The review of a whole run. opener: gives what is reviewed, called at first use; refusals: statuses that any
    request may get; more: for each route."""
    router = APIRouter(prefix="/review", **more)
    opened: list[Review] = []

    def review() -> Review:
        if not opened:
            opened.append(opener())
        return opened[0]

    @router.get(
        "/rows",
        operation_id="review_rows",
        summary="Predictions of a whole run",
        responses=documented(*refusals, 422),
    )
    async def rows(
        order: Annotated[schemas.Order, Query(description="what comes first")] = "unsure",
        label: Annotated[str | None, Query(max_length=255, description="only rows that have this label")] = None,
        predicted: Annotated[str | None, Query(max_length=255, description="only rows that were labelled so")] = None,
        only: Annotated[schemas.Only, Query(description="wrong: not as labelled; split: the heads differ")] = "all",
        least: Annotated[float, Query(ge=0, le=1, description="the least confidence")] = 0,
        most: Annotated[float, Query(ge=0, le=1, description="the greatest confidence")] = 1,
        find: Annotated[str, Query(max_length=200, description="a part of an id or a text")] = "",
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 24,
    ) -> schemas.ReviewPage:
        """Filtered and sorted; a part of them, with their posts' texts. unsure, sure: by confidence; disagreement:
        where the heads differ most; doubtful: where the known label is least likely."""

        def part() -> schemas.ReviewPage:
            wanted = Wanted(label, predicted, only, least, most, find)
            return schemas.ReviewPage.model_validate(review().page(wanted, order=order, offset=offset, limit=limit))

        return await in_thread(work.pool, part)

    @router.get(
        "/pictures/{row}",
        operation_id="review_picture",
        summary="A row's picture, small",
        response_class=Response,
        responses={
            200: {
                "description": "WebP.",
                "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
            },
            **documented(*refusals, 404, 422, 503),
        },
    )
    async def picture(row: int) -> Response:
        """Of the post in that row of the table."""

        def small() -> bytes:
            try:
                return review().picture(row)
            except MmsentError as error:
                raise Refused(404, str(error)) from error

        with work.admission.take(1):
            return Response(await in_thread(work.pool, small), media_type="image/webp")

    @router.post(
        "/list",
        operation_id="review_list",
        summary="The data set's list with corrected labels",
        response_class=Response,
        responses={
            200: {
                "description": "The list, to take the old one's place; `mmsent extract` and `mmsent fit` then take it.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            },
            **documented(400, *refusals, 408, 413, 415, 422, 503),
        },
        openapi_extra=json_body(schemas.CorrectionsIn),
    )
    async def corrected(request: Request) -> Response:
        """The file as it is, but for the labels given. Nothing is written on this side."""
        limits = work.service.limits
        with work.admission.read() as more:
            raw = await read_body(request, more, limits.body, limits.read_timeout)
            labels = parse_corrections(raw, request.headers.get("content-type", ""))
            name, _, data = await in_thread(work.pool, lambda: review().corrected(labels))
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
        headers = {"content-disposition": f'attachment; filename="{safe}"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    return router
