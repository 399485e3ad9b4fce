"""The server process: it listens, and ends without dropping requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from mmsent.errors import UsageError
from mmsent.serve.limits import Limits

BACKLOG = 2048
# How long a client that has connected before the end may take to send its request's head.
GRACE = 1.0  # seconds


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError where the address is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host and --port"
        ) from error
    return bound


def serve(app: FastAPI, bound: socket.socket, limits: Limits, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept no new requests, answer the accepted ones and return."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        ws="none",
        timeout_graceful_shutdown=max(1, round(limits.drain)),
        timeout_keep_alive=30,
        backlog=BACKLOG,
    )
    server = _Server(config, ready)
    # uvicorn hands the signal on to whoever had it before; ending in good order is all that is wanted here.
    before = {number: signal.signal(number, server.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(server.serve(sockets=[bound]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def stop(self, *_: Any) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the clients that have connected and read their requests, before uvicorn hangs up on whoever has none."""
        arrived: list[socket.socket] = []
        for listening in sockets or ():
            with contextlib.suppress(OSError):
                while True:
                    arrived.append(listening.accept()[0])
        for server in self.servers:
            server.close()
        protocol: Any = self.config.http_protocol_class
        made = functools.partial(
            protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        for connection in arrived:
            await asyncio.get_running_loop().connect_accepted_socket(made, connection)
        until = time.monotonic() + GRACE
        await asyncio.sleep(0.05)
        while time.monotonic() < until and any(getattr(c, "cycle", c) is None for c in self.server_state.connections):
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
