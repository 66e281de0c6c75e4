"""The HTTP server of the search page. It runs in a thread, on a socket that listens before the server starts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from simimg.errors import SimimgError, UsageError

__all__ = ["listening", "serving"]

_CONNECTIONS = 64  # a browser opens six
_KEEP_ALIVE_S = 30
_HEADERS_S = 10.0  # timeout for the first request of a connection
_HEADERS_BYTES = 16 << 10
_START_S, _POLL_S = 120.0, 0.05
_END_S = 2


class _TimeoutProtocol(H11Protocol):
    """Closes connections that send no complete request within ten seconds; uvicorn has no option for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timeout = self.loop.call_later(_HEADERS_S, self._close_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timeout.cancel()
        super().connection_lost(exc)

    def _close_idle(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: the address is not of this machine, or is in use.
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
            f"--host={host} --port={port}: {error.strerror}. If the port is in use, --port=0 chooses a free one."
        ) from None
    return listener


@contextmanager
def serving(app: ASGIApp, listener: socket.socket) -> Iterator[threading.Event]:
    """Run the server until the block ends; yield, once it accepts requests, an event that is set when it ends."""
    config = uvicorn.Config(
        app,
        http=_TimeoutProtocol,
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
        for _ in range(round(_START_S / _POLL_S)):
            if server.started or ended.wait(_POLL_S):
                break
        if not server.started:
            raise SimimgError("the server did not start; the reason is printed above.")
        yield ended
    finally:
        server.should_exit = True
        thread.join(_END_S + 10)
        listener.close()
