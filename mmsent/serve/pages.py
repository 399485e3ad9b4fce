"""The pages and their files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from mmsent.report.page import WEB

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
    paths = [path for folder in (WEB, STATIC) for path in folder.iterdir() if path.suffix in MEDIA]
    files = {path.name: (path.read_bytes(), MEDIA[path.suffix]) for path in paths}

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

    return router
