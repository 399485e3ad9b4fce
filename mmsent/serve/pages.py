"""The pages and their files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from mmsent.serve.requests import Refused
from mmsent.serve.service import examples

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/": "index.html",
    "/review": "review.html",
    "/compare": "compare.html",
    "/map": "map.html",
    "/docs": "docs.html",
}
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
        router.add_api_route(path, file(name))
    for name in files:
        if not name.endswith(".html"):
            router.add_api_route(f"/static/{name}", file(name))

    @router.get("/examples/{number}.jpg")
    async def example(number: int) -> Response:
        drawn = examples()
        if not 0 <= number < len(drawn):
            raise Refused(404, f"there are only {len(drawn)} examples")
        return Response(drawn[number][0], media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    return router
