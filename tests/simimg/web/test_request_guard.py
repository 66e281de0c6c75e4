"""Who may ask, how much, for how long; what a browser may do with an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from simimg.web import request_guard
from simimg.web.request_guard import HEADERS, Guard, RequestError, body_of

HOST = "127.0.0.1:8765"
TOKEN = "5ec2e7"


def client(host: str = "127.0.0.1", token: str = TOKEN) -> TestClient:
    async def front(request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    async def take(request: Request) -> JSONResponse:
        return JSONResponse(len(await body_of(request, 1000)))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestError)
        return JSONResponse({"error": error.sentence}, error.status)

    routes = [Route("/", front), Route("/api/thing", front), Route("/api/take", take, methods=["POST"])]
    app = Starlette(routes=routes, exception_handlers={RequestError: refused})
    asking = TestClient(Guard(app, host, TOKEN), base_url=f"http://{HOST}")
    if token:
        asking.params = {"token": token}
    return asking


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8765", "127.0.0.1", "localhost:8765", "LOCALHOST", "127.0.0.2:1", "[::1]:8765", "localhost:9000"],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert client().get("/api/thing", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5:8765", "",
     "127.0.0.1@evil.example", "evil.example#127.0.0.1", "evil.example/127.0.0.1", "0.0.0.0:8765", "localhost:x",
     "2130706433", "[::1", "::1"],
)  # fmt: skip
def test_other_names_are_not_dns_rebinding(host: str) -> None:
    answer = client().get("/api/thing", headers={"host": host})
    assert answer.status_code == 421
    assert "error" in answer.json()


def test_bound_to_all_addresses_only_addresses_are_names() -> None:
    opened = client("0.0.0.0")
    assert opened.get("/", headers={"host": "192.168.1.5:8765"}).status_code == 200
    assert opened.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client("photos.lan").get("/", headers={"host": "photos.lan:8765"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8765", "file://", "https://127.0.0.1",
     "http://127.0.0.1:8765.evil.example", "http://127.0.0.1:99999999"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_origins_are_refused(origin: str, method: str) -> None:
    path = "/api/take" if method == "POST" else "/api/thing"
    assert client().request(method, path, headers={"origin": origin}).status_code == 403


def test_its_own_origin_is_answered() -> None:
    assert client().post("/api/take", headers={"origin": f"http://{HOST}"}, content=b"abc").json() == 3


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_are_refused_but_a_link_to_the_front_page_is_not(site: str) -> None:
    linked = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert client().get("/", headers=linked).status_code == 200
    assert client().get("/api/thing", headers=linked).status_code == 403
    assert client().get("/", headers={**linked, "sec-fetch-mode": "no-cors"}).status_code == 403
    assert client().get("/api/thing", headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/thing", "/nowhere"])
@pytest.mark.parametrize("host", [HOST, "evil.example"])
def test_every_answer_has_the_headers(path: str, host: str) -> None:
    answer = client().get(path, headers={"host": host})
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy  # nothing from elsewhere


def test_bodies_are_bounded_by_what_they_say_and_by_what_they_are() -> None:
    assert client().post("/api/take", content=bytes(1000)).json() == 1000
    for content in (bytes(1001), iter([bytes(600), bytes(600)])):  # the second without a length
        answer = client().post("/api/take", content=content)
        assert answer.status_code == 413
        assert "too large" in answer.json()["error"]
    assert client().post("/api/take", headers={"content-length": "99999999999"}, content=b"x").status_code == 413


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "_PIECE_S", 0.05)

    async def nothing() -> dict[str, object]:
        await asyncio.sleep(10)
        return {}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(RequestError) as refused:
        asyncio.run(body_of(Request(scope, nothing), 10))
    assert refused.value.status == 408


def test_an_upload_that_is_given_up_is_no_exception() -> None:
    messages = iter([{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}])
    statuses = []

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"host", HOST.encode())]
    scope = {"type": "http", "method": "POST", "path": "/api/take", "query_string": b"token=5ec2e7", "headers": headers}
    asyncio.run(client().app(scope, receive, send))  # type: ignore[arg-type]
    assert statuses[0] == 400


def test_who_takes_no_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "_PIECE_S", 0.05)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(10)
        return {}

    async def send(message: object) -> None:
        await asyncio.sleep(10)

    asked = {"path": "/", "query_string": b"token=5ec2e7", "headers": [(b"host", b"localhost")]}
    with pytest.raises(TimeoutError):
        asyncio.run(
            Guard(PlainTextResponse("here"), "127.0.0.1", TOKEN)(
                {"type": "http", "method": "GET", **asked}, receive, send
            )
        )


def test_the_token_is_kept_in_a_cookie_of_this_port() -> None:
    asking = client(token="")
    assert asking.get("/").status_code == 403
    answer = asking.get(f"/?token={TOKEN}")
    assert answer.text == "here"
    assert answer.headers["set-cookie"] == f"simimg-8765={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    answer = asking.get("/api/thing")
    assert answer.text == "here"
    assert "set-cookie" not in answer.headers
    assert asking.get("/?token=of-an-earlier-start").text == "here"  # a bookmark
    assert asking.get("/", headers={"host": "127.0.0.1:8766"}).status_code == 403


def test_without_it_a_browser_is_told_what_to_do() -> None:
    answer = client(token="").get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert "Open the address that <code>simimg serve</code> printed" in answer.text
    assert "Open the address that simimg serve printed" in client(token="").get("/api/thing").json()["error"]
    assert TOKEN not in answer.text + str(answer.headers)


def is_known(query: bytes, cookie: bytes) -> bool:
    """Whether a request with this query and cookie is answered, whatever bytes they are."""
    statuses = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"host", HOST.encode()), (b"cookie", cookie)]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": headers}
    asyncio.run(Guard(PlainTextResponse("here"), "127.0.0.1", TOKEN)(scope, receive, send))
    return statuses[0] == 200


def test_the_whole_token_is_needed() -> None:
    assert is_known(b"token=5ec2e7", b"")
    assert is_known(b"", b"other=1; simimg-8765=5ec2e7")
    for wrong in (
        b"",
        b"5ec2e",
        b"5ec2e77",
        b"5EC2E7",
        b"5ec2e7%00",
        b"%ff%fe",
        b"\xff",
        "\u0665ec2e7".encode(),
    ):
        assert not is_known(b"token=" + wrong, b"")
        assert not is_known(b"", b"simimg=5ec2e7; simimg-80=5ec2e7; 5ec2e7; simimg-8765=" + wrong)


@given(query=st.binary(), cookie=st.binary())
def test_whatever_else_is_sent_is_refused(query: bytes, cookie: bytes) -> None:
    assert not is_known(query, cookie)
    assert not is_known(b"token=" + query, b"simimg-8765=" + cookie)
