"""`simimg serve`, and its sockets: who says nothing is hung up on, and it ends when it is told to."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from simimg.commands import serve as command
from simimg.commands.serve import Options, serve
from simimg.errors import UsageError
from simimg.similarity import Embedder, SearchIndex
from simimg.web.http_server import listening, serving


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> list[str]:
    """What the command says on standard error; the model is the tests'."""
    said: list[str] = []
    monkeypatch.setattr(command, "load_embedder", lambda name: embedder)
    monkeypatch.setattr(command, "note", said.append)
    return said


@contextmanager
def running(options: Options) -> Iterator[tuple[threading.Event, list[Any]]]:
    """The command in a thread: what stops it, and its result."""
    stop, results = threading.Event(), []
    thread = threading.Thread(target=lambda: results.append(serve(options, stop)))
    thread.start()
    try:
        yield stop, results
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def url_of(notes: list[str]) -> str:
    for _ in range(600):
        if notes and notes[-1].endswith("/"):
            return notes[-1].split()[-1]
        threading.Event().wait(0.05)
    raise AssertionError(f"no address in {notes}")


def test_it_says_where_it_is_answers_and_ends(index: SearchIndex, notes: list[str]) -> None:
    with running(Options(index_dir=index.index_dir, port=0)) as (stop, results):
        url = url_of(notes)
        assert url.startswith("http://127.0.0.1:")
        assert notes == [f"15 images are at {url}"]
        with urllib.request.urlopen(f"{url}api/collection") as answer:
            assert len(json.load(answer)["path"]) == 15
        asked = urllib.request.Request(url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(asked)
        stop.set()
    (result,) = results
    assert result.values["url"] == url
    assert result.values["plan"] == str(index.index_dir.with_name("photos-plan.json"))
    assert result.exit_code == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_a_browser_is_opened_if_it_is_wanted(
    index: SearchIndex, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    with running(Options(index_dir=index.index_dir, port=0, open=True)):
        url = url_of(notes)
    assert opened == [url]


def test_a_port_that_is_taken(index: SearchIndex, notes: list[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port={port}: Address already in use"):
            serve(Options(index_dir=index.index_dir, port=port), threading.Event())
    for port in (-1, 65536):
        with pytest.raises(UsageError, match=r"should be 0\.\.65535"):
            serve(Options(index_dir=index.index_dir, port=port), threading.Event())
    with pytest.raises(UsageError, match="--host=no.such.invalid"):
        serve(Options(index_dir=index.index_dir, port=0, host="no.such.invalid"), threading.Event())


def test_without_the_extra_it_says_how_to_install_it(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("simimg.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(UsageError, match=r"pip install 'simimg-tf\[web\]'"):
        serve(Options(index_dir=index.index_dir), threading.Event())


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[serving.__module__]
    monkeypatch.setattr(module, "_HEADERS_S", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener = listening("127.0.0.1", 0)
    address = listener.getsockname()
    with serving(app, listener):
        for said in (b"", b"GET / HT"):
            with socket.create_connection(address, timeout=10) as silent:
                silent.sendall(said)
                assert silent.recv(100) == b""
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/") as answer:
            assert answer.read() == b"ok"
            assert "server" not in answer.headers
