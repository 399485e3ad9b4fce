"""A request's bytes to posts: JSON with images in base64, or a multipart form. Nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmsent.errors import MmsentError
from mmsent.features.new_posts import NewPost
from mmsent.serve.limits import Limits
from mmsent.serve.schemas import PostIn, PostsIn

# Its warnings say what a client sent, and would let any client fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

JSON, FORM = "application/json", "multipart/form-data"
_DATA_URL = re.compile(r"data:[\w.+/;=-]*;base64,", re.ASCII)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

T = TypeVar("T", bound=BaseModel)


class Refused(MmsentError):
    """A request that is refused, with the reason. status: the HTTP status; retry_after: seconds, where trying again
    helps."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


def parse(body: bytes, content_type: str, limits: Limits) -> tuple[list[NewPost], bool]:
    """The posts of a request, and whether it asked for many (it then gets a list). Raises Refused with the reason: 400
    where the body is not what its type says, 415 for another type, 422 where what it says makes no sense."""
    kind, _, _ = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == JSON:
        posts, many = _from_json(body, limits)
    elif kind == FORM:
        posts, many = _from_form(body, content_type, limits)
    else:
        raise Refused(415, f"content type {kind[:100] or '(none)'!r} is not supported; send {JSON} or {FORM}")
    for post in posts:
        if post.text is None and post.image is None:
            raise Refused(422, f"{_called(post, many)}neither a text nor an image; send at least one of them")
        if post.text is not None and len(post.text) > limits.text:
            long = f"the text has {len(post.text)} characters; the limit is {limits.text}"
            raise Refused(422, _called(post, many) + long)
    return posts, many


def _called(post: NewPost, many: bool) -> str:
    return f"post {post.id!r}: " if many else ""


def parse_json(body: bytes, content_type: str, model: type[T]) -> T:
    """A JSON body as a model. Raises Refused as parse does."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refused(415, f"content type {kind[:100] or '(none)'!r} is not supported; send {JSON}")
    given = _object(body)
    for field, values in given.items():  # here, for a model would keep an error for each
        for name, value in values.items() if isinstance(values, dict) else ():
            if not isinstance(value, str):
                raise Refused(422, _shown(f"{field[:60]}.{name[:60]}: Input should be a valid string"))
    return _validated(model, given)


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refused(422, f"expected a JSON object, got {type(given).__name__}")
    return given


def _from_json(body: bytes, limits: Limits) -> tuple[list[NewPost], bool]:
    # A short body can hold millions of empty lists. Of what these begin a post has few, beside those within its text.
    most = limits.most_posts * (limits.text + 300)
    if sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise Refused(422, "the body holds more than one request may")
    given = _object(body)
    many = "posts" in given
    if many and isinstance(given["posts"], list):
        _require_few(len(given["posts"]), limits)
        for i, post in enumerate(given["posts"]):
            _require_known(PostIn, post, f"posts.{i}.")
    rows = _validated(PostsIn, given).posts if many else [_validated(PostIn, given)]
    return [
        NewPost(_id(row.id, i, many), row.text, _bytes_of(row.image) if row.image is not None else None)
        for i, row in enumerate(rows)
    ], many


def _require_known(model: type[BaseModel], given: Any, where: str = "") -> None:
    """Refuse names that a model lacks. Pydantic would collect an error for each, a kilobyte for a few bytes."""
    for name in given if isinstance(given, dict) else ():
        if name not in model.model_fields:
            raise Refused(422, _shown(f"{where}{name[:60]}: Extra inputs are not permitted"))


def _validated(model: type[T], given: Any) -> T:
    _require_known(model, given)
    try:
        return model.model_validate(given, strict=True)
    except ValidationError as error:
        parts = []
        for one in error.errors(include_url=False, include_input=False)[:3]:
            where = ".".join(map(str, one["loc"]))
            parts.append(f"{where}: {one['msg']}" if where else str(one["msg"]))
        more = f" (and {error.error_count() - 3} more)" if error.error_count() > 3 else ""
        raise Refused(422, _shown("; ".join(parts)) + more) from error


def _id(given: str | None, place: int, many: bool) -> str:
    if given is not None:
        return given
    return str(place + 1) if many else "post"


def _shown(words: str) -> str:
    """A message with what the client sent in it, as any answer can hold it."""
    return words[:500].encode("utf-8", "backslashreplace").decode("utf-8")


def _bytes_of(image: str) -> bytes:
    if _URL.match(image):
        raise Refused(
            422, "image: this is an address, and the service fetches nothing; send the bytes of the image in base64"
        )
    prefix = _DATA_URL.match(image[:200])
    try:
        letters = image[prefix.end() if prefix else 0 :].encode("ascii")
        return base64.b64decode(letters.translate(None, b" \t\r\n"), validate=True)  # MIME has lines of 76
    except (binascii.Error, ValueError) as error:
        raise Refused(422, f"image: not base64: {error}") from error


def _from_form(body: bytes, content_type: str, limits: Limits) -> tuple[list[NewPost], bool]:
    texts: list[str] = []
    for raw in (parts := _form_parts(body, content_type, limits))["text"]:
        try:
            texts.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Refused(422, f"text: not UTF-8: {error}") from error
    images = parts["image"]
    if texts and images and len(texts) != len(images):
        reason = f"{len(images)} images and {len(texts)} texts; send the same number of both, or only one kind"
        raise Refused(422, reason)
    n = max(len(texts), len(images))
    _require_few(n, limits)
    if n == 0:
        raise Refused(422, "the form has no part called text or image")
    many = n > 1
    return [
        NewPost(_id(None, i, many), texts[i] if texts else None, images[i] if images else None) for i in range(n)
    ], many


def _require_few(n: int, limits: Limits) -> None:
    if n > limits.most_posts:
        raise Refused(422, f"{n} posts in one request; the limit is {limits.most_posts}")


def _form_parts(body: bytes, content_type: str, limits: Limits) -> dict[str, list[bytes]]:
    """The bytes of the parts called text and image. A file input that was left empty is no part."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "the content type names no boundary")
    found: dict[str, list[bytes]] = {"text": [], "image": []}
    headers: dict[bytes, bytes] = {}
    field, value, content = bytearray(), bytearray(), bytearray()
    n = 0
    ended = False

    def begin() -> None:
        nonlocal n
        n += 1
        if n > 2 * limits.most_posts:
            raise Refused(422, f"the form has more than {2 * limits.most_posts} parts")
        headers.clear()
        content.clear()

    def header_done() -> None:
        headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def part_done() -> None:
        kind, options = parse_options_header(headers.get(b"content-disposition", b""))
        name = _utf8(options.get(b"name", b""))
        if kind != b"form-data" or name not in found:
            raise Refused(422, f"the form has a part called {_shown(name[:60])!r}; expected text or image")
        if name == "image" and options.get(b"filename") == b"" and not content:
            return
        found[name].append(bytes(content))

    def end() -> None:
        nonlocal ended
        ended = True

    callbacks: Any = {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, stop: field.extend(data[start:stop]),
        "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
        "on_header_end": header_done,
        "on_part_data": lambda data, start, stop: content.extend(data[start:stop]),
        "on_part_end": part_done,
        "on_end": end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # refuses a long boundary
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the body is not a multipart form: {error}") from error
    if not ended:
        raise Refused(400, "the body is not a multipart form: it ends before its last boundary")
    return found


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
