"""Whether a server, or the proxy on the way to it, answers at all, so that nobody waits for a library that tries again
for minutes."""

from __future__ import annotations

import functools
import socket
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from mmsent.errors import first_line

ANSWER_SECONDS = 5.0  # for a server or a proxy to take a connection
KEPT_SECONDS = 30.0  # a proxy is asked again after so long


def unreached(url: str) -> str:
    """That a server, or the proxy to it, does not answer within seconds; empty where it does."""
    proxy = proxy_of(url)
    return _refused(proxy, _named(proxy)) if proxy else _refused(url, str(urlsplit(url).hostname))


def proxy_of(url: str) -> str:
    """The proxy that the environment names for a URL, as a URL; empty where there is none."""
    server = urlsplit(url)
    proxies = {} if proxy_bypass(server.hostname or "") else getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def dead_proxy(proxy: str) -> str:
    """The same of a proxy. For many requests: it is not asked each time."""
    return _asked(proxy, int(time.monotonic() / KEPT_SECONDS))


@functools.lru_cache(maxsize=8)
def _asked(proxy: str, moment: int) -> str:
    return _refused(proxy, _named(proxy))


def _named(proxy: str) -> str:
    return f"the proxy {urlsplit(proxy).hostname} (from the environment)"


def _refused(url: str, what: str) -> str:
    asked = urlsplit(url)
    try:
        port = asked.port or (443 if asked.scheme == "https" else 80)
        socket.create_connection((asked.hostname or "", port), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: a port that is no number
        return f"{what} cannot be reached ({first_line(error)})"
    return ""
