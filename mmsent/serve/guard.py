"""What stands around every request: who may ask, for which host, from which page, and what browsers may do with it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

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
    """The host of a Host header or an origin's authority, lower case, without its port; empty where it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """Puts the security headers on every answer, and refuses requests for a foreign host or from a foreign page.

    hosts: the host names that the service goes by; empty: any. A page elsewhere could otherwise point a name of its own
    at this machine and read what is served here (DNS rebinding); and no page but ours has a reason to post.
    """

    def __init__(self, app: App, refuse: Callable[[Refused], App], hosts: Sequence[str]) -> None:
        self._app, self._refuse, self._hosts = app, refuse, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
                if b"cache-control" not in names:
                    own.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        reason = self._reason(scope)
        app = self._app if reason is None else self._refuse(Refused(403, reason))
        await app(scope, receive, sent)

    def _reason(self, scope: Scope) -> str | None:
        headers = dict(scope["headers"])
        given = headers.get(b"host", b"").decode("latin-1")
        host = host_of(given)
        if self._hosts and host not in self._hosts and not is_loopback(host):
            return (
                f"this service does not answer to the host name {host[:100]!r}; its owner can allow it with "
                "--allow-host"
            )
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD"):
            authority = urlsplit_authority(origin.decode("latin-1"))
            if authority != given.lower():
                return "requests from pages of other origins are refused"
        return None


def urlsplit_authority(origin: str) -> str:
    """Host and port of an origin; empty where it has none, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def require_key(given: str | None, key: str | None) -> None:
    """Raise Refused (401) unless an Authorization header carries the key. Takes the same time wherever it differs."""
    if key is None:
        return
    scheme, _, token = (given or "").partition(" ")
    same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), key.encode("utf-8"))
    if scheme.lower() != "bearer" or not same:
        raise Refused(401, "send the key: Authorization: Bearer KEY")
