"""The endpoints behind the map: all posts as points, and one of them with those that are most like it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from mmsent.data.dataset import Post
from mmsent.data.images import image_bytes, open_rgb, read_image, shrunk
from mmsent.errors import DataError, MmsentError
from mmsent.report.gallery import THUMBNAIL
from mmsent.report.landscape import Landscape
from mmsent.serve import page_schemas
from mmsent.serve.endpoints import Access
from mmsent.serve.openapi import documented
from mmsent.serve.queueing import Work, in_thread
from mmsent.serve.requests import Refused
from mmsent.serve.review import FETCHING, Review

NEAR = 8
TEXT = 140  # characters of a similar post's text


class Atlas:
    """The map and the posts behind it. review: whose posts are shown; place: makes the map, called once."""

    def __init__(self, review: Review, place: Callable[[], Landscape]) -> None:
        self.found = place()
        self._dataset = review.dataset
        self._posts = {post.id: post for post in review.dataset.posts} if review.dataset else {}
        self._review = review

    @functools.cached_property
    def points(self) -> dict[str, Any]:
        """What the page draws."""
        return self.found.to_json() | {"useful": bool(self._review.waiting)}

    def _post(self, row: int) -> Post | None:
        if not 0 <= row < len(self.found.ids):
            raise DataError(f"there is no row {row}; the map has {len(self.found.ids)}")
        return self._posts.get(self.found.ids[row])

    def text(self, row: int) -> str:
        """A post's text; empty where there is none."""
        post = self._post(row)
        try:
            return self._dataset.text_of(post) if self._dataset and post else ""
        except DataError:
            return ""

    def about(self, row: int) -> dict[str, Any]:
        """A post and those most like it; see `page_schemas.MapPost`."""
        post, name = self._post(row), self.found.ids[row]
        near = [
            {"row": i, "similarity": cosine, "text": self.text(i)[:TEXT]} for i, cosine in self.found.near(row, NEAR)
        ]
        place = self._review.about({name}).get(name, {}).get("row")
        picture = post is not None and post.has_image
        return {"row": row, "text": self.text(row), "picture": picture, "review": place, "near": near}

    def picture(self, row: int) -> bytes:
        """A post's image as a small WebP. Raises DataError where there is none."""
        post = self._post(row)
        if post is None:
            raise DataError("the data set of this post is not available")
        return image_bytes(shrunk(open_rgb(read_image(post.image, FETCHING)), THUMBNAIL), "WEBP", quality=75)


def map_routes(work: Work, opener: Callable[[], Atlas], access: Access) -> APIRouter:
    """The map. opener: makes it, called at first use."""
    router = APIRouter(prefix="/map", dependencies=access.dependencies)
    atlas = functools.cache(opener)

    @router.get(
        "/points",
        operation_id="map_points",
        summary="All posts as points",
        responses={200: {"model": page_schemas.MapPoints}, **documented(*access.refusals, 422)},
    )
    async def points() -> JSONResponse:
        """Places and what is known of each post. The first call may take a minute, for it places them."""
        return JSONResponse(await in_thread(work.reviewer, lambda: atlas().points))

    @router.get(
        "/posts/{row}",
        operation_id="map_post",
        summary="A post and those most like it",
        responses=documented(*access.refusals, 422),
    )
    async def post(row: int) -> page_schemas.MapPost:
        """Its text, its place in the review, and the nearest posts by their features."""
        return await in_thread(work.reviewer, lambda: page_schemas.MapPost.model_validate(atlas().about(row)))

    @router.get(
        "/pictures/{row}",
        operation_id="map_picture",
        summary="A small copy of a post's image",
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
        """The image of the post in this row of the map."""
        with work.admission.take(1):
            try:
                raw = await in_thread(work.reviewer, lambda: atlas().picture(row))
            except MmsentError as error:
                raise Refused(404, str(error)) from error
            return Response(raw, media_type="image/webp")

    return router
