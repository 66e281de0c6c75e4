"""Request filter: checks Host and Origin, limits body size and time, and sets the security headers of responses.

- The Host header has to name this server. A page of another site whose name was made to resolve to this address (DNS
  rebinding) would send its own name.
- An Origin header, if present, has to be this server's, and the browser must not classify the request as `cross-site`
  or `same-site` (Sec-Fetch-Site, W3C Fetch Metadata). So no other page can search or write a plan. Only the front page
  can be opened by a link.
- Bodies are limited before they are read, and have to arrive in time. Clients that do not read a response are
  disconnected.
- Responses forbid the browser to guess their type or to load anything from elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Guard", "RequestError", "body_of"]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""Headers of every response."""

_PIECE_S = 15.0  # timeout for receiving the next part of a body, and for sending a part of a response
_BODY_S = 60.0  # timeout for receiving a whole body


class RequestError(Exception):
    """A request that is rejected, with an HTTP status 4xx and a message that says what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        """Take the application and the host that the server is bound to, a name or an IP address."""
        self._app = app
        self._host = host.strip("[]").lower()
        self._open = not _is_loopback(self._host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or reject it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await asyncio.wait_for(send(message), _PIECE_S)

        try:
            self._check(Headers(scope=scope), scope)
        except RequestError as refused:
            await JSONResponse({"error": refused.sentence}, refused.status)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check(self, headers: Headers, scope: Scope) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise RequestError(421, "This server has another name. Use the address that simimg serve printed.")
        for origin in headers.getlist("origin"):
            parts = _split(origin)
            if parts is None or parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                raise RequestError(403, "Only the search page itself may send this request.")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin"):
            linked = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
            if not linked:
                raise RequestError(403, "Only the search page itself may send this request.")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine, without a DNS query; any port will do, as with an SSH tunnel."""
        parts = _split(f"//{host}")
        name = (parts.hostname or "") if parts else ""
        if parts is None or parts.netloc != host or parts.username is not None or parts.path:
            return False
        if name == "localhost" or name == self._host or _is_loopback(name):
            return True
        return self._open and _is_address(name)  # DNS rebinding needs a name, not an address


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed on access; raises ValueError
    except ValueError:
        return None
    return parts


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


async def body_of(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: it is longer than `most` bytes, or too slow.
    """
    too_large = RequestError(413, f"This is too large. The limit is {most / (1 << 20):.0f} MB.")
    length = request.headers.get("content-length", "")
    if length and (not length.isdecimal() or int(length) > most):
        raise too_large
    body = bytearray()
    pieces = request.stream().__aiter__()
    try:
        async with asyncio.timeout(_BODY_S):
            while True:
                body += await asyncio.wait_for(anext(pieces), _PIECE_S)
                if len(body) > most:
                    raise too_large
    except StopAsyncIteration:
        return bytes(body)
    except TimeoutError:
        raise RequestError(408, "This took too long to arrive. Try again.") from None
