"""What stands before every request: who may ask, how much, for how long; and what a browser may do with an answer.

- The Host has to be one of this server's names. A page of somebody else whose name was made to point here (DNS
  rebinding) would send its own.
- An Origin, where there is one, has to be this server's, and a browser must not call the request `cross-site` or
  `same-site` (Sec-Fetch-Site, of the W3C's Fetch Metadata): so no other page can have a plan written, or look for
  pictures. Only the front page may be reached by a link.
- Bodies are bounded before they are read, and have to arrive in time; whoever takes no answer is let go.
- Answers say that they are what they say they are, and may load nothing from elsewhere.
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

from simimg.web.request_errors import RequestError

__all__ = ["HEADERS", "Guard", "body_of"]

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
"""Of every answer."""

_PIECE_S = 15.0  # for the next piece of a body, or of an answer to be taken
_BODY_S = 60.0  # for all of a body


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        """Take the application and the address that it is bound to, a name or an IP address."""
        self._app = app
        self._host = host.strip("[]").lower()
        self._open = not _is_loopback(self._host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
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
            raise RequestError(
                421, "This server does not go by that name. Use the address that simimg serve has printed."
            )
        for origin in headers.getlist("origin"):
            parts = _split(origin)
            if parts is None or parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                raise RequestError(403, "Only the search page itself may ask this.")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin"):
            linked = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
            if not linked:
                raise RequestError(403, "Only the search page itself may ask this.")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host names this machine without asking any DNS; the port is anybody's, as of an SSH tunnel."""
        parts = _split(f"//{host}")
        name = (parts.hostname or "") if parts else ""
        if parts is None or parts.netloc != host or parts.username is not None or parts.path:
            return False
        if name == "localhost" or name == self._host or _is_loopback(name):
            return True
        return self._open and _is_address(name)  # an address is nobody's name


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is parsed when it is asked for
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
    """Returns the body of a request.

    Raises:
        Refused: it is longer than `most` bytes, of which no more are kept, or too slow.
    """
    too_large = RequestError(413, f"This is too large: {most / (1 << 20):.0f} MB is the most.")
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
