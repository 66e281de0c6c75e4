"""The HTTP server of the search page. It runs in a thread, on a socket that listens before the server starts.

No connection keeps others out, whatever it sends or leaves unsent:

1. A request's line and headers have to be complete ten seconds after the connection was opened, or thirty seconds after
   the response before it. More bytes do not extend that time. For bodies, see `simimg.web.request_guard.body_of`.
2. A client that takes nothing of a response for ten seconds is disconnected.
3. If there are as many connections as allowed, a new one takes the place of the one that has waited longest for its
   request or its client.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from simimg.errors import SimimgError, UsageError

_CONNECTIONS = 64  # a browser opens six
_HEADERS_S = 10.0  # timeout for the first request of a connection
_KEEP_ALIVE_S = 30  # timeout for the next one
_STALLED_S = 10.0  # timeout for a response that is not read
_HEADERS_BYTES = 16 << 10
_START_S, _POLL_S = 120.0, 0.05
_END_S = 2


class _LimitedProtocol(H11Protocol):
    """One connection, with the limits that uvicorn has no options for: its keep-alive timer ends with the next byte."""

    _timeout: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request(_HEADERS_S)
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_awaiting_request:
            _cancel(self._timeout)

    def on_response_complete(self) -> None:
        self._await_request(_KEEP_ALIVE_S)
        super().on_response_complete()  # which may begin with a request that came in meanwhile
        if not self._is_awaiting_request:
            _cancel(self._timeout)

    def pause_writing(self) -> None:
        super().pause_writing()
        unsent = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(_STALLED_S, self._disconnect, "_stalled", unsent)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._timeout)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def _await_request(self, limit_s: float) -> None:
        _cancel(self._timeout)
        self._timeout = self.loop.call_later(limit_s, self._disconnect, "_timeout", math.inf)
        self._waiting_since = self.loop.time()

    def _disconnect(self, timer: str, unsent: float) -> None:
        """Disconnect the client, unless it has taken a part of what was `unsent`, in bytes, and is taking more."""
        left = self.transport.get_write_buffer_size()
        if 0 < left < unsent:
            setattr(self, timer, self.loop.call_later(_STALLED_S, self._disconnect, timer, left))
        else:
            self.transport.abort()

    @property
    def _is_awaiting_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        if len(self.connections) <= _CONNECTIONS:
            return
        others = [one for one in self.connections if isinstance(one, _LimitedProtocol) and one is not self]
        waiting = [one for one in others if one._is_awaiting_request or one.flow.write_paused]
        if waiting:
            longest = min(waiting, key=lambda one: one._waiting_since)
            self.connections.discard(longest)  # now, as several connections may be accepted at once
            longest.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


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
        http=_LimitedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS + 1,  # it answers 503 at the limit
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
