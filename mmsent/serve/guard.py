"""What stands around every request: who may ask, for which host, from which page, and what browsers may do with it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from mmsent.serve.requests import Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The host of a Host header, lower case, without its port and a final dot; empty where it is none."""
    return place_of(f"//{header}")[0]


def place_of(url: str) -> tuple[str, int | None]:
    """Host and port of a URL or an origin, the port None where it is that of the scheme; ("", None) where it has none,
    such as `null`."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None
    usual = (80, 443) if not parts.scheme else ({"http": 80, "https": 443}.get(parts.scheme),)
    return host.removesuffix("."), None if port in usual else port


def is_address(host: str) -> bool:
    """Whether this is an address and no name."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


class Received:
    """Hands requests on as the application knows them: HEAD as GET, of which the server leaves out the body, and with
    the path before the service's own."""

    def __init__(self, app: App, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # a copy, for the server has to see HEAD in its own
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "method": method, "root_path": self._root_path}
        await self._app(scope, receive, send)


class Guard:
    """Puts the security headers on every answer, and refuses requests for a foreign host or from a foreign page.

    hosts: the host names that the service goes by; empty: any. A page elsewhere could otherwise point a name of its own
    at this machine and read what is served here (DNS rebinding); and no page but ours has a reason to post. An address
    as the host takes no name, so it is always accepted: probes and monitoring ask by it. /healthz, which tells nothing
    of the posts, is answered under any name.
    """

    def __init__(self, app: App, refuse: Callable[[Refused], App], hosts: Sequence[str]) -> None:
        self._app, self._refuse = app, refuse
        self._hosts = {host.lower().removesuffix(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [
                    (name, relative(scope) if name == b"location" else value)
                    for name, value in message.get("headers", ())
                ]
                names = {name.lower() for name, _ in given}
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
                if b"cache-control" not in names:
                    own.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*given, *own]}
            await send(message)

        reason = self._reason(scope)
        app = self._app if reason is None else self._refuse(Refused(403, reason))
        await app(scope, receive, sent)

    def _reason(self, scope: Scope) -> str | None:
        headers = dict(scope["headers"])
        given = headers.get(b"host", b"").decode("latin-1")
        host, port = place_of(f"//{given}")
        known = not self._hosts or host in self._hosts or is_loopback(host) or is_address(host)
        if not known and scope["path"].removeprefix(scope.get("root_path", "")) != "/healthz":
            return (
                f"this service does not answer to the host name {host[:100]!r}; its owner can allow it with "
                "--allow-host"
            )
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD"):
            page = place_of(origin.decode("latin-1"))
            # Behind a proxy that passes another Host on, the page's own name is one of those that the owner gave.
            ours = page == (host, port) or (page[0] in self._hosts and not is_loopback(page[0]))
            if not (page[0] and ours):
                return "requests from pages of other origins are refused"
        return None


def relative(scope: Scope) -> bytes:
    """Where the router sends a request with a slash too many or too few at its end, as seen from there: /predict/ to
    ../predict. The router itself would name scheme and host, which behind a proxy are not those of the client."""
    path = scope["path"].rstrip("/")
    name = quote(path.rsplit("/", 1)[-1])
    many = len(scope["path"]) - len(path)
    query = scope["query_string"].decode("latin-1")
    return (("../" * many + name if many else f"./{name}/") + (f"?{query}" if query else "")).encode("latin-1")


def require_key(given: str | None, key: str | None) -> None:
    """Raise Refused (401) unless an Authorization header carries the key. Takes the same time wherever it differs."""
    if key is None:
        return
    scheme, _, token = (given or "").partition(" ")
    same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), key.encode("utf-8"))
    if scheme.lower() != "bearer" or not same:
        raise Refused(401, "send the key: Authorization: Bearer KEY")
