"""The pages and their files."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from jinja2 import Environment, FileSystemLoader

from mmsent.report.page import WEB

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/": "index.html",
    "/review": "review.html",
    "/compare": "compare.html",
    "/map": "map.html",
    "/docs": "docs.html",
}
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_routes() -> APIRouter:
    """The pages and their files. They hold no data, so they need no key."""
    router = APIRouter(include_in_schema=False)
    pages = Environment(loader=FileSystemLoader(STATIC), autoescape=True, keep_trailing_newline=True)

    def add(path: str, raw: bytes, media: str) -> None:
        async def answer() -> Response:
            return Response(raw, media_type=media, headers={"cache-control": "no-cache"})

        router.add_api_route(path, answer)

    for path, name in PAGES.items():
        add(path, pages.get_template(name).render().encode(), "text/html")
    for file in (file for folder in (WEB, STATIC) for file in folder.iterdir() if file.suffix in MEDIA):
        add(f"/static/{file.name}", file.read_bytes(), MEDIA[file.suffix])
    return router
