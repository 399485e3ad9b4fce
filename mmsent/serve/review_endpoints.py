"""The endpoints behind the page to look through posts and to label them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from mmsent.errors import MmsentError
from mmsent.serve import page_schemas
from mmsent.serve.endpoints import Access
from mmsent.serve.openapi import documented, json_body
from mmsent.serve.queueing import Work, in_thread, read_body
from mmsent.serve.requests import Refused, parse_json
from mmsent.serve.review import Review

T = TypeVar("T", bound=BaseModel)


def review_routes(work: Work, opener: Callable[[], Review], access: Access) -> APIRouter:
    """The review of a whole run. opener: opens the predictions, called at first use."""
    router = APIRouter(prefix="/review", dependencies=access.dependencies)
    review = functools.cache(opener)
    _add_rows(router, work, review, access)
    _add_picture(router, work, review, access)
    _add_list(router, work, review, access)
    return router


def _add_rows(router: APIRouter, work: Work, review: Callable[[], Review], access: Access) -> None:
    @router.get(
        "/rows",
        operation_id="review_rows",
        summary="All posts of the review",
        responses=documented(*access.refusals, 422),
    )
    async def rows() -> page_schemas.ReviewPage:
        """Every post with what is predicted for it, without its text."""
        return await in_thread(work.reviewer, lambda: page_schemas.ReviewPage.model_validate(review().page()))

    @router.get(
        "/texts",
        operation_id="review_texts",
        summary="Texts of some rows",
        responses=documented(*access.refusals, 422),
    )
    async def texts(
        row: Annotated[list[int], Query(max_length=100, description="places in the table")],
        whole: Annotated[bool, Query(description="all of each text, and not its beginning alone")] = False,
    ) -> list[str]:
        """The beginnings of the texts; empty where there is none."""
        return await in_thread(work.reviewer, lambda: review().texts(row, whole=whole))

    @router.get(
        "/examples",
        operation_id="review_examples",
        summary="Rows to try",
        responses=documented(*access.refusals),
    )
    async def examples() -> list[int]:
        """One clear post for each label, and one on which the heads differ."""
        return await in_thread(work.reviewer, lambda: review().examples())

    @router.get(
        "/useful",
        operation_id="review_useful",
        summary="Which posts to label next",
        responses=documented(*access.refusals),
    )
    async def useful() -> list[str]:
        """Ids of posts without a label, the most useful first: unsure ones, spread over the data."""
        return await in_thread(work.reviewer, lambda: review().useful)

    @router.get(
        "/find",
        operation_id="review_find",
        summary="Rows whose text or id holds a text",
        responses=documented(*access.refusals, 422),
    )
    async def find(
        text: Annotated[str, Query(max_length=200, description="a part of the id or the text")],
    ) -> list[int]:
        """Places in the table."""
        return await in_thread(work.reviewer, lambda: review().find(text))


def _add_picture(router: APIRouter, work: Work, review: Callable[[], Review], access: Access) -> None:
    @router.get(
        "/pictures/{row}",
        operation_id="review_picture",
        summary="The image of a row",
        response_class=Response,
        responses={
            200: {
                "description": "A small copy as WebP, or the image as it is.",
                "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
            },
            **documented(*access.refusals, 404, 422, 503),
        },
    )
    async def picture(
        row: int, whole: Annotated[bool, Query(description="the image as it is, and no small copy")] = False
    ) -> Response:
        """The image of the post in this row of the table."""
        with work.admission.take(1):
            try:
                raw, media = await in_thread(work.reviewer, lambda: review().picture(row, whole=whole))
            except MmsentError as error:
                raise Refused(404, str(error)) from error
            return Response(raw, media_type=media)


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
        openapi_extra=json_body(page_schemas.CorrectionsIn),
    )
    async def corrected(request: Request) -> Response:
        """The file with these labels corrected and nothing else changed; where several people label, with what most of
        them say instead. The service itself writes no file."""
        asked = await _read(request, work, page_schemas.CorrectionsIn)
        name, _, data = await in_thread(work.reviewer, lambda: review().corrected(asked.corrections))
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
        headers = {"content-disposition": f'attachment; filename="{safe}"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    @router.post(
        "/labels",
        operation_id="review_labels",
        summary="Somebody's labels",
        responses=documented(400, *access.refusals, 408, 413, 415, 422, 503),
        openapi_extra=json_body(page_schemas.LabelsIn),
    )
    async def labels(request: Request) -> page_schemas.AgreementOut:
        """Keep all labels of a person in place of those given before, until the service ends; how far people agree."""
        asked = await _read(request, work, page_schemas.LabelsIn)
        found = await in_thread(work.reviewer, lambda: review().share(asked.person, asked.labels))
        return page_schemas.AgreementOut.model_validate(vars(found), from_attributes=True)


async def _read(request: Request, work: Work, model: type[T]) -> T:
    limits = work.service.limits
    with work.admission.read() as more:
        raw = await read_body(request, more, limits.body, limits.read_timeout)
        return parse_json(raw, request.headers.get("content-type", ""), model)
