"""`simimg serve`, and its sockets: who says nothing is hung up on, and it ends when it is told to."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from simimg.commands import serve as command
from simimg.commands.serve import Options, serve
from simimg.errors import UsageError
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web.http_server import _LimitedProtocol, listening, serving


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> list[str]:
    """What the command says on standard error; the model is the tests'."""
    said: list[str] = []
    monkeypatch.setattr(command.SearchIndex, "load_embedder", lambda self: embedder)
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
        if notes and "/?token=" in notes[-1]:
            return notes[-1].split()[-1]
        threading.Event().wait(0.05)
    raise AssertionError(f"no address in {notes}")


def test_it_says_where_it_is_answers_and_ends(index: SearchIndex, notes: list[str]) -> None:
    with running(Options(index_dir=(index.index_dir,), port=0)) as (stop, results):
        url = url_of(notes)
        assert url.startswith("http://127.0.0.1:")
        assert notes == [f"15 images are at {url}"]
        address, _, token = url.partition("?token=")
        assert len(token) == 48
        with urllib.request.urlopen(f"{address}api/collection?token={token}") as answer:
            assert len(json.load(answer)["path"]) == 15
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}api/collection")
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


def test_several_indexes(index: SearchIndex, notes: list[str], tmp_path: Path) -> None:
    other = Path(shutil.copytree(index.index_dir, tmp_path / "pets"))
    with running(Options(index_dir=(index.index_dir, other), port=0)) as (stop, results):
        address, _, token = url_of(notes).partition("?token=")
        assert notes[-1].startswith("30 images of 2 indexes are at ")
        with urllib.request.urlopen(f"{address}i/pets/api/collection?token={token}") as answer:
            assert len(json.load(answer)["path"]) == 15
        stop.set()
    assert results[0].values["plans"][1] == str(tmp_path / "pets-plan.json")
    with pytest.raises(UsageError, match=r"--plan=plan\.json is of one index"):
        Options(index_dir=(index.index_dir, other), plan=Path("plan.json"))


def test_indexes_at_urls(index: SearchIndex, notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(tmp_path / "cache"))
    store = pytest.importorskip("fsspec").filesystem("memory")
    store.put(str(index.index_dir), "/served/pets", recursive=True)
    url = Path("memory://served/pets")  # as options hold it
    with running(Options(index_dir=(index.index_dir, url), port=0)) as (stop, results):
        address, _, token = url_of(notes).partition("?token=")
        with urllib.request.urlopen(f"{address}api/indexes?token={token}") as answer:
            known = [(one["name"], one["address"]) for one in json.load(answer)]
        stop.set()
    store.rm("/served", recursive=True)
    assert known == [("photos", "/"), ("pets", "/i/pets/")]
    assert results[0].values["plans"][1] == str(tmp_path / "pets-plan.json")
    with pytest.raises(UsageError, match=r"two of the indexes would have the plan .*/pets-plan\.json\. Serve them one"):
        Options(index_dir=(url, Path("memory://other/pets")))


def test_a_text_encoder_is_of_the_indexes_that_it_fits(
    index: SearchIndex, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Encoder:
        def check(self, one: SearchIndex) -> None:
            if one is not fitting:
                raise UsageError("made with another model")

    encoder: Any = Encoder()
    monkeypatch.setattr(command, "open_text_encoder", lambda model: encoder)
    fitting, other = SearchIndex.open(index.index_dir), index
    assert command._text_encoders("", [fitting]) == [None]
    assert command._text_encoders("t.onnx", [fitting, other]) == [encoder, None]
    assert notes == ["no descriptions: made with another model"]
    with pytest.raises(UsageError, match="made with another model"):
        command._text_encoders("t.onnx", [other, other])


def test_a_browser_is_opened_if_it_is_wanted(
    index: SearchIndex, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, str]] = []

    def open_browser(address: str) -> None:
        file = Path(urllib.request.url2pathname(urlsplit(address).path))
        assert file.stat().st_mode & 0o077 == 0  # other users can see the address of the file, not what is in it
        opened.append((file, file.read_text()))

    monkeypatch.setattr(command.webbrowser, "open", open_browser)
    with running(Options(index_dir=(index.index_dir,), port=0, open=True)):
        url = url_of(notes)
    ((file, text),) = opened
    assert f'content="0; url={url}"' in text
    assert not file.exists()
    with running(Options(index_dir=(index.index_dir,), port=0)):
        pass
    assert url_of(notes[1:]) != url  # each start has a token of its own


def test_a_port_that_is_taken(index: SearchIndex, notes: list[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port={port}: Address already in use"):
            serve(Options(index_dir=(index.index_dir,), port=port), threading.Event())
    for port in (-1, 65536):
        with pytest.raises(UsageError, match=r"should be 0\.\.65535"):
            serve(Options(index_dir=(index.index_dir,), port=port), threading.Event())
    with pytest.raises(UsageError, match="--host=no.such.invalid"):
        serve(Options(index_dir=(index.index_dir,), port=0, host="no.such.invalid"), threading.Event())


def test_without_the_extra_it_says_how_to_install_it(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("simimg.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(UsageError, match=r"pip install 'simimg-tf\[web\]'"):
        serve(Options(index_dir=(index.index_dir,)), threading.Event())


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading a body."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WITH_BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


def answered(address: Any, asked: bytes = ASKED) -> socket.socket:
    """A connection whose first request was answered, and that stays open."""
    connection = socket.create_connection(address, timeout=60)
    connection.sendall(asked)
    received = b""
    while not received.endswith(b"ok"):
        received += (more := connection.recv(1000))
        assert more, received
    return connection


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[serving.__module__]
    monkeypatch.setattr(module, "_HEADERS_S", 0.3)
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


@pytest.mark.parametrize("asked", [ASKED, WITH_BODY])
@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: loc"])
def test_one_byte_of_the_next_request_is_not_a_request(
    monkeypatch: pytest.MonkeyPatch, asked: bytes, said: bytes
) -> None:
    monkeypatch.setattr(sys.modules[serving.__module__], "_KEEP_ALIVE_S", 0.3)
    listener = listening("127.0.0.1", 0)
    with serving(app, listener), answered(listener.getsockname(), asked) as waiting:
        with suppress(OSError):  # the limit may be over already
            waiting.sendall(said)
        assert ended(waiting)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("first", [b"", ASKED, WITH_BODY])
@pytest.mark.parametrize("said", [b"", b"G"])
def test_sixty_four_who_wait_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, first: bytes, said: bytes) -> None:
    module = sys.modules[serving.__module__]
    for name in ("_HEADERS_S", "_KEEP_ALIVE_S"):
        monkeypatch.setattr(module, name, 600.0)  # so that no limit of time is at work here
    listener = listening("127.0.0.1", 0)
    address = listener.getsockname()
    with serving(app, listener), ExitStack() as stack:
        waiting = []
        for _ in range(module._CONNECTIONS):
            one = answered(address, first) if first else socket.create_connection(address, timeout=60)
            one.sendall(said)
            waiting.append(stack.enter_context(one))
        for _ in range(3):
            stack.enter_context(answered(address))  # raises where it is refused
        assert all(ended(one) for one in waiting[:3])  # who had waited longest


def test_who_reads_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[serving.__module__], "_STALLED_S", 0.3)
    given_up = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):  # a gigabyte, which no socket buffers
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        given_up.set()  # what is sent to nobody takes no time

    listener = listening("127.0.0.1", 0)
    with serving(endless, listener), socket.create_connection(listener.getsockname()) as silent:
        silent.sendall(ASKED)
        assert given_up.wait(60)


def test_who_reads_slowly_is_waited_for() -> None:
    unsent, calls = [90, 50, 1, 1], []
    protocol = object.__new__(_LimitedProtocol)
    protocol.flow = SimpleNamespace(pause_writing=lambda: None)  # type: ignore[assignment]
    wait = SimpleNamespace(call_later=lambda delay_s, call, *given: calls.append((call, given)))
    protocol.loop = wait  # type: ignore[assignment]
    protocol.transport = SimpleNamespace(  # type: ignore[assignment]
        get_write_buffer_size=lambda: unsent.pop(0), abort=lambda: calls.append("aborted")
    )
    protocol.pause_writing()  # with 90 bytes
    for _ in range(3):
        call, given = calls[-1]
        call(*given)
    assert unsent == []
    assert calls[3:] == ["aborted"]  # only when not one byte was taken
