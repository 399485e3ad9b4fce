"""The endpoints behind the page that reviews the predictions of a whole run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from mmsent.errors import MmsentError
from mmsent.serve import schemas
from mmsent.serve.endpoints import Access
from mmsent.serve.openapi import documented, json_body
from mmsent.serve.queueing import Work, in_thread, read_body
from mmsent.serve.requests import Refused, parse_corrections
from mmsent.serve.review import Review, Wanted


def review_routes(work: Work, opener: Callable[[], Review], access: Access) -> APIRouter:
    """The review of a whole run. opener: opens the predictions, called at first use."""
    router = APIRouter(prefix="/review", dependencies=access.dependencies)
    review = functools.cache(opener)
    _add_rows(router, work, review, access)
    _add_picture(router, work, review, access)
    _add_list(router, work, review, access)
    return router


async def wanted(
    label: Annotated[str | None, Query(max_length=255, description="only rows with this label")] = None,
    predicted: Annotated[str | None, Query(max_length=255, description="only rows with this prediction")] = None,
    only: Annotated[
        schemas.Only, Query(description="wrong: the prediction differs from the label; split: the heads disagree")
    ] = "all",
    least: Annotated[float, Query(ge=0, le=1, description="the lowest confidence")] = 0,
    most: Annotated[float, Query(ge=0, le=1, description="the highest confidence")] = 1,
    find: Annotated[str, Query(max_length=200, description="a part of the id or the text")] = "",
) -> Wanted:
    """The filter of a request."""
    return Wanted(label, predicted, only, least, most, find)


def _add_rows(router: APIRouter, work: Work, review: Callable[[], Review], access: Access) -> None:
    @router.get(
        "/rows",
        operation_id="review_rows",
        summary="Predictions of a whole run",
        responses=documented(*access.refusals, 422),
    )
    async def rows(
        chosen: Annotated[Wanted, Depends(wanted)],
        order: Annotated[schemas.Order, Query(description="the order of the rows")] = "unsure",
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 24,
    ) -> schemas.ReviewPage:
        """The rows that pass the filter, sorted, with the texts of their posts. unsure, sure: lowest or highest
        confidence first; disagreement: where the heads disagree most; doubtful: where the known label is least
        likely."""

        def part() -> schemas.ReviewPage:
            return schemas.ReviewPage.model_validate(review().page(chosen, order=order, offset=offset, limit=limit))

        return await in_thread(work.reviewer, part)


def _add_picture(router: APIRouter, work: Work, review: Callable[[], Review], access: Access) -> None:
    @router.get(
        "/pictures/{row}",
        operation_id="review_picture",
        summary="A small copy of a row's image",
        response_class=Response,
        responses={
            200: {
                "description": "WebP.",
                "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
            },
            **documented(*access.refusals, 404, 422, 503),
        },
    )
    async def picture(row: int) -> Response:
        """The image of the post in this row of the table."""

        def small() -> bytes:
            try:
                return review().picture(row)
            except MmsentError as error:
                raise Refused(404, str(error)) from error

        with work.admission.take(1):
            return Response(await in_thread(work.reviewer, small), media_type="image/webp")


def _add_list(router: APIRouter, work: Work, review: Callable[[], Review], access: Access) -> None:
    @router.post(
        "/list",
        operation_id="review_list",
        summary="The data set's list with corrected labels",
        response_class=Response,
        responses={
            200: {
                "description": "The list. Replace the old one with it, then run `mmsent extract` and `mmsent fit`.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            },
            **documented(400, *access.refusals, 408, 413, 415, 422, 503),
        },
        openapi_extra=json_body(schemas.CorrectionsIn),
    )
    async def corrected(request: Request) -> Response:
        """The file with these labels corrected and nothing else changed. The service itself writes no file."""
        limits = work.service.limits
        with work.admission.read() as more:
            raw = await read_body(request, more, limits.body, limits.read_timeout)
            labels = parse_corrections(raw, request.headers.get("content-type", ""))
            name, _, data = await in_thread(work.reviewer, lambda: review().corrected(labels))
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
        headers = {"content-disposition": f'attachment; filename="{safe}"'}
        return Response(data, media_type="application/octet-stream", headers=headers)
