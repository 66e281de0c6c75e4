"""Request filter: checks Host, Origin and token, limits body size and time, and sets the security headers of responses.

- The Host header has to name this server. A page of another site whose name was made to resolve to this address (DNS
  rebinding) would send its own name.
- An Origin header, if present, has to be this server's, and the browser must not classify the request as `cross-site`
  or `same-site` (Sec-Fetch-Site, W3C Fetch Metadata). So no other page can search or write a plan. Only the front page
  can be opened by a link.
- A request has to know the token of the server: in the address of the page, or later in the cookie that the page's
  response set. So other users of the machine cannot see the images. Browsers share cookies among the ports of a host,
  so the port is in the name of the cookie. It is not sent with requests that other sites make (SameSite).
- Bodies are limited before they are read, and have to arrive in time. Clients that do not read a response are
  disconnected.
- Responses forbid the browser to guess their type or to load anything from elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


_NO_TOKEN = "This request has no valid token. Open the address that simimg serve printed when it started."
_NO_TOKEN_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>simimg</title></head><body>
<h1>Open the address that <code>simimg serve</code> printed</h1>
<p>The whole address is needed: it ends with <code>?token=</code> and a secret that is new with each start, so that only
who started the server can see the images. You find it in the terminal in which <code>simimg serve</code> runs.</p>
</body></html>
"""


class RequestError(Exception):
    """A request that is rejected, with an HTTP status 4xx and a message that says what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, host: str, token: str) -> None:
        """Take the application, the host that the server is bound to, a name or an IP address, and the token."""
        assert token
        self._app = app
        self._token = token.encode()
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

        headers, cookie = Headers(scope=scope), ""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                response_headers = MutableHeaders(scope=message)
                response_headers.update(HEADERS)
                response_headers.setdefault("cache-control", "no-store")
                if cookie:
                    response_headers.append("set-cookie", cookie)
            await asyncio.wait_for(send(message), _PIECE_S)

        try:
            self._check(headers, scope)
        except RequestError as refused:
            await JSONResponse({"error": refused.sentence}, refused.status)(scope, receive, guarded)
            return
        name = f"simimg-{_split('//' + headers['host']).port or 80}"
        if self._is_token(QueryParams(scope["query_string"]).get("token", "")):
            cookie = f"{name}={self._token.decode()}; Path=/; HttpOnly; SameSite=Strict"
        elif not self._is_token(cookie_parser(headers.get("cookie", "")).get(name, "")):
            await _without_token(headers)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token)

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


def _without_token(headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(_NO_TOKEN_PAGE, 403)
    return JSONResponse({"error": _NO_TOKEN}, 403)


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


async def json_of(request: Request, most: int) -> Any:
    """Return the body of a request, which is JSON; raise as `body_of`, and for other bodies."""
    data = await body_of(request, most)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None


async def body_of(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: it is longer than `most` bytes, too slow, or incomplete.
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
    except ClientDisconnect:
        raise RequestError(400, "The connection was closed before everything arrived. Send it again.") from None
