"""An HTTP server for the search page, in a thread, on a port that is known before it starts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from simimg.errors import SimimgError, UsageError

__all__ = ["listening", "serving"]

_CONNECTIONS = 64  # a browser opens six
_KEEP_ALIVE_S = 30
_HEADERS_S = 10.0
_HEADERS_BYTES = 16 << 10
_START_S = 120.0
_END_S = 2


class _Impatient(H11Protocol):
    """HTTP/1.1 that hangs up on whoever connects and does not say what he wants in ten seconds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hang_up = self.loop.call_later(_HEADERS_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        UsageError: the address is none of this machine, or something else listens there.
    """
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port={port}: should be 0..65535.")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(
            f"--host={host} --port={port}: {error.strerror}. Is something else listening there? --port=0 takes any."
        ) from None
    return listener


@contextmanager
def serving(app: ASGIApp, listener: socket.socket) -> Iterator[threading.Event]:
    """Serves until the block ends; yields, once requests are answered, an event that is set if the server ends."""
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_END_S,
        h11_max_incomplete_event_size=_HEADERS_BYTES,
    )
    server, ended = uvicorn.Server(config), threading.Event()

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    try:
        _wait_until(server, ended)
        yield ended
    finally:
        server.should_exit = True
        thread.join(_END_S + 10)
        listener.close()


def _wait_until(server: Any, ended: threading.Event) -> None:
    for _ in range(round(_START_S / 0.05)):
        if server.started:
            return
        if ended.wait(0.05):
            break
    raise SimimgError("the server did not start; its lines above say why.")
