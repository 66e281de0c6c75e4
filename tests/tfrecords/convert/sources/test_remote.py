"""Sources behind URLs: a memory file system in this process, and a web server read by two spawned processes."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.sources import Files, Source, open_source, read_errors
from tfrecords.convert.sources import remote as remote_module
from tfrecords.convert.sources.remote import check_url, read_url, redacted
from tfrecords.format.quarantine import Reason, Refusal

FILES = {"cat/10.jpg": b"c10", "cat/9.jpg": b"c9", "dog/deep/벌 나비.png": b"d", "docs/a.pdf": b"", "README": b"r"}


@pytest.fixture
def memory() -> Iterator[Any]:
    """A store of objects that this process alone has."""
    driver = fsspec.filesystem("memory")
    driver.store.clear()
    driver.pseudo_dirs[:] = [""]
    for name, content in FILES.items():
        driver.pipe(f"/zoo/{name}", content)
    driver.pipe("/zoo/.cache/1.jpg", b"hidden")
    driver.pipe("/zoo/cat/.hidden.jpg", b"hidden")
    yield driver
    driver.store.clear()


def write_folder(folder: Path) -> str:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def read_all(source: Source) -> dict[str, bytes]:
    files = pickle.loads(pickle.dumps(source.files))
    places = [None] * len(source.paths) if source.places is None else [tuple(place) for place in source.places.tolist()]
    return {source.paths[id]: files.read(source.paths[id], places[id]) for id in source.usable().tolist()}


def test_a_remote_folder_is_as_the_local_one(memory: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "zoo")
    (tmp_path / "zoo" / ".cache").mkdir()
    (tmp_path / "zoo" / "cat" / ".hidden.jpg").write_bytes(b"hidden")
    remote, local = open_source("memory://zoo"), open_source(folder)
    assert remote.class_names == local.class_names == ("cat", "dog")
    assert remote.paths == local.paths == ["cat/9.jpg", "cat/10.jpg", "dog/deep/벌 나비.png", "README"]
    assert remote.labels.tolist() == local.labels.tolist()
    assert remote.sizes.tolist() == local.sizes.tolist()
    assert remote.sha256() == local.sha256()
    assert remote.notes == local.notes
    assert remote.location == "memory://zoo"
    assert read_all(remote) == read_all(local)
    assert open_source("memory://zoo/").paths == remote.paths
    assert open_source("memory://zoo", categories=("dog",)).paths == ["dog/deep/벌 나비.png"]


def test_stamps_change_with_the_content(memory: Any) -> None:
    before = open_source("memory://zoo").stamps.tolist()
    assert 0 not in before
    memory.pipe("/zoo/cat/9.jpg", b"x9")
    after = open_source("memory://zoo").stamps.tolist()
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True]


def test_a_remote_flat_folder(memory: Any) -> None:
    source = open_source("memory://zoo/cat")
    assert (source.class_names, source.paths) == (("cat",), ["9.jpg", "10.jpg"])


def test_a_folder_that_cannot_be_listed_is_not_left_out(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ls = type(memory).ls

    def fail(driver: Any, path: str, **options: Any) -> Any:
        if path.endswith("dog"):
            raise PermissionError("Access Denied")
        return ls(driver, path, **options)

    monkeypatch.setattr(type(memory), "ls", fail)
    with pytest.raises(UsageError, match=r"memory://zoo cannot be read: PermissionError: Access Denied"):
        open_source("memory://zoo")


def test_remote_tables(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/zoo/t.csv", b"path,label\ncat/9.jpg,a\nnowhere.jpg,b\n/root.jpg,b\n")
    source = open_source("", table="memory://zoo/t.csv")
    assert source.paths == ["cat/9.jpg", "nowhere.jpg", "/root.jpg"]
    assert source.sizes.tolist() == [-1, -1, -1]
    assert {id: refusal.reason for id, refusal in source.refused.items()} == {2: Reason.UNREADABLE}
    assert source.files.read("cat/9.jpg", None) == b"c9"
    with pytest.raises(Refusal, match="unreadable: it does not exist"):
        source.files.read("nowhere.jpg", None)
    (tmp_path / "1.jpg").write_bytes(b"local")
    (tmp_path / "t.csv").write_text("path,label\nmemory://zoo/cat/9.jpg,a\n1.jpg,b\n")
    assert read_all(open_source("", table=f"{tmp_path}/t.csv")) == {"memory://zoo/cat/9.jpg": b"c9", "1.jpg": b"local"}
    (tmp_path / "t.csv").write_text("path,label\ncat/9.jpg,a\n")
    assert read_all(open_source("memory://zoo", table=f"{tmp_path}/t.csv")) == {"cat/9.jpg": b"c9"}


def test_a_remote_parquet_table(memory: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": ["cat/9.jpg"], "label": [1]}), buffer)
    memory.pipe("/zoo/t.parquet", buffer.getvalue())
    assert read_all(open_source("", table="memory://zoo/t.parquet")) == {"cat/9.jpg": b"c9"}


def test_remote_archives(memory: Any) -> None:
    packed = {"tar": io.BytesIO(), "zip": io.BytesIO()}
    with tarfile.open(fileobj=packed["tar"], mode="w") as tar, zipfile.ZipFile(packed["zip"], "w") as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            archive.writestr(name, content)
    expected = read_all(open_source("memory://zoo"))
    for kind, buffer in packed.items():
        memory.pipe(f"/packed/a-0.{kind}", buffer.getvalue())
        for pattern in (f"a-0.{kind}", f"a-*.{kind}", f"a-{{0..0}}.{kind}"):
            assert read_all(open_source(f"memory://packed/{pattern}")) == expected


def test_remote_samples(memory: Any) -> None:
    for shard in range(2):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in {"1.jpg": b"%d" % shard, "1.cls": b"%d" % shard}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        memory.pipe(f"/wds/s-{shard}.tar", buffer.getvalue())
    memory.pipe("/wds/classes.txt", b"cat\ndog\n")
    source = open_source("memory://wds/s-*.tar")
    assert source.class_names == ("cat", "dog")
    assert read_all(source) == {"s-0.tar/1.jpg": b"0", "s-1.tar/1.jpg": b"1"}


def test_what_is_not_there(memory: Any) -> None:
    with pytest.raises(UsageError, match=r"--image_dir=memory://nowhere does not exist\. Check the address"):
        open_source("memory://nowhere")
    with pytest.raises(UsageError, match=r"--image_dir=memory://nowhere\.tar does not exist"):
        open_source("memory://nowhere.tar")
    with pytest.raises(UsageError, match=r"memory://zoo/\*\.tar: no file matches"):
        open_source("memory://zoo/*.tar")
    with pytest.raises(UsageError, match=r"--table=memory://zoo/t\.csv does not exist"):
        open_source("", table="memory://zoo/t.csv")


def test_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match=r"--image_dir=foo://x: unknown protocol foo://\. Known are file, http, "):
        open_source("foo://x")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    url = f"{protocol}://bucket/photos"
    message = rf"there is no driver for {protocol}://\. .*[Ii]nstall {package} to access .*"
    with pytest.raises(UsageError, match=rf"--image_dir={url}: {message}"):
        open_source(url)
    with pytest.raises(UsageError, match=message):
        open_source("", table=f"{url}.csv")
    (tmp_path / "t.csv").write_text(f"path,label\n{url}/1.jpg,a\n")
    with pytest.raises(UsageError, match=rf"row 2:.*{message}"):
        open_source("", table=f"{tmp_path}/t.csv")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("Access Denied"),
        ValueError("https://me:hunter2@host/x?X-Amz-Signature=hunter2 is bad"),
    ],
)
def test_errors_about_a_file_are_refusals(memory: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise error

    source = open_source("memory://zoo")
    monkeypatch.setattr(type(memory), "cat_file", fail)
    with pytest.raises(Refusal) as caught:
        source.files.read("cat/9.jpg", None)
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.detail.startswith(type(error).__name__)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError("reset by peer"), TimeoutError(), RuntimeError("https://a:hunter2@host/x")])
def test_errors_of_the_network_are_not(memory: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise error

    source = open_source("memory://zoo")
    monkeypatch.setattr(type(memory), "cat_file", fail)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        source.files.read("cat/9.jpg", None)
    assert "hunter2" not in str(caught.value)


def test_running_out_of_memory_is_no_refusal(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise MemoryError

    source = open_source("memory://zoo")
    monkeypatch.setattr(type(memory), "cat_file", fail)
    with pytest.raises(MemoryError):
        source.files.read("cat/9.jpg", None)


def test_a_huge_object_is_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "MAX_FILE_BYTES", 2)
    with pytest.raises(Refusal) as caught:
        open_source("memory://zoo").files.read("cat/10.jpg", None)
    assert caught.value.reason is Reason.TOO_LARGE


def test_one_request_per_object(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("memory://zoo")
    monkeypatch.setattr(type(memory), "info", lambda *_, **__: pytest.fail("it is asked for"))
    monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: b"content")
    assert set(read_all(source).values()) == {b"content"}


SECRETS = [
    "s3://AKIA:hunter2@bucket/x", "https://me:hunter2@host:99/x", "http://host/x?X-Amz-Signature=hunter2",
    "http://host/x?a=b&sig=hunter2", "http://host/x?token=hunter2", "https://host/x?X-Goog-Credential=hunter2",
    "sftp://me:hunter2@host/x", "simplecache::https://me:hunter2@host/x",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_in_addresses_are_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    (tmp_path / "t.csv").write_text(f'path,label\n"{url}",a\n')
    for image_dir, table in (
        (url, ""),
        (f"{url}.tar", ""),
        ("", url),
        (url, f"{tmp_path}/t.csv"),
        ("", f"{tmp_path}/t.csv"),
    ):
        with pytest.raises(UsageError, match="contains a password, a key or a signature") as caught:
            open_source(image_dir, table=table)
        assert "hunter2" not in str(caught.value)
        assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["abfs://container@account.dfs.core.windows.net/x", "sftp://me@host:22/x", "http://h/x?w=9"]
)
def test_addresses_without_secrets_are_taken(url: str) -> None:
    check_url(url)


@given(
    st.text(max_size=20),
    st.text(st.characters(exclude_characters="/@: \n\t", exclude_categories=["Z", "C"]), min_size=4),
)
def test_redaction(before: str, secret: str) -> None:
    assert secret not in redacted(f"{before} https://me:{secret}@***").replace("https://***", "", 1).replace(
        before, "", 1
    )


# Over HTTP


needs_http = pytest.mark.skipif(
    not (importlib.util.find_spec("aiohttp") and importlib.util.find_spec("requests")),
    reason="needs aiohttp and requests",
)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """As the standard library's, quiet, and answering to requests for a range of bytes."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.translate_path(self.path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or not os.path.isfile(path):
            return super().do_GET()
        data = Path(path).read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a web server on this machine."""
    handler = functools.partial(Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", tmp_path
        listening.shutdown()
        thread.join()


Members = list[tuple[str, tuple[int, int, int] | None]]


def read_in_two_processes(work: list[tuple[Files, Members]]) -> list[Any]:
    """Returns what each of two fresh processes reads, started at the same time, or the refusal's text."""
    code = """
import pickle, sys
from tfrecords.format.quarantine import Refusal
def read(files, path, place):
    try: return files.read(path, place)
    except Refusal as refusal: return str(refusal)
work = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps([[read(files, *member) for member in members] for files, members in work]))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-c", code]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) for _ in range(2)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(pickle.dumps(work))
        worker.stdin.close()
        worker.stdin = None  # communicate() would flush it
    return [pickle.loads(worker.communicate(timeout=60)[0]) for worker in workers]


@needs_http
def test_two_processes_read_from_a_web_server(server: tuple[str, Path]) -> None:
    url, folder = server
    local = open_source(write_folder(folder / "zoo"))
    (folder / "zoo/cat/a#b%20&?c.jpg").write_bytes(b"odd")
    with tarfile.open(folder / "zoo.tar", "w") as tar:
        tar.add(folder / "zoo", "zoo")
    (folder / "zoo" / "t.csv").write_text("path,label\ncat/9.jpg,a\ndog/deep/벌 나비.png,b\nnowhere.jpg,a\n")
    listed = open_source(f"{url}/zoo")
    assert listed.class_names == local.class_names
    assert listed.paths == ["cat/9.jpg", "cat/10.jpg", "cat/a#b%20&?c.jpg", "dog/deep/벌 나비.png", "README", "t.csv"]
    assert set(listed.sizes.tolist()) == {-1}
    table = open_source("", table=f"{url}/zoo/t.csv")
    archive = open_source(f"{url}/zoo.tar")
    assert archive.places is not None
    place = tuple(archive.places[archive.paths.index("cat/10.jpg")].tolist())
    work: list[tuple[Files, Members]] = [
        (listed.files, [("cat/9.jpg", None), ("cat/a#b%20&?c.jpg", None), ("dog/deep/벌 나비.png", None)]),
        (table.files, [("dog/deep/벌 나비.png", None), ("nowhere.jpg", None)]),
        (archive.files, [("cat/10.jpg", place)]),
    ]
    expected = [[b"c9", b"odd", b"d"], [b"d", "unreadable: it does not exist"], [b"c10"]]
    assert read_in_two_processes(work) == [expected, expected]


@needs_http
def test_a_chained_address(server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "1.jpg").write_bytes(b"content")
    assert remote_module.RemoteFiles(f"simplecache::{url}").read("1.jpg") == b"content"
    assert read_url(f"simplecache::{url}/1.jpg") == b"content"
    assert read_url(f"simplecache::{url}/1.jpg", 3, 5) == b"te"


@needs_http
def test_a_web_server_that_is_gone(server: tuple[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:1/zoo cannot be read: ClientConnectorError"):
        open_source("http://127.0.0.1:1/zoo")
    files = remote_module.RemoteFiles("http://127.0.0.1:1/zoo")
    with pytest.raises(OSError, match="Cannot connect"):
        files.read("1.jpg", None)


@needs_http
def test_a_row_whose_server_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_errors, "_WAITS_S", ())
    (tmp_path / "t.csv").write_text("path,label\nhttp://127.0.0.1:1/a.jpg,x\n")
    with pytest.raises(ConversionError, match=r"^http://127\.0\.0\.1:1/a\.jpg cannot be read: "):
        open_source("", table=f"{tmp_path}/t.csv")


@needs_http
def test_answers_of_a_web_server(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those about a name are refusals, the others stop the conversion. A table asks for each file when it is opened."""
    url, folder = server

    def answer(handler: Ranges) -> None:
        handler.send_error(int(handler.path[1:4]))

    monkeypatch.setattr(Ranges, "do_GET", answer)
    monkeypatch.setattr(Ranges, "do_HEAD", answer)
    monkeypatch.setattr(read_errors, "_WAITS_S", (0.0,))
    for status in (403, 404, 410, 400, 401, 408, 429, 500, 503):
        files = remote_module.RemoteFiles(url)
        (folder / "t.csv").write_text(f"path,label\n{url}/{status}.jpg,a\n")
        if status in (403, 404, 410):
            with pytest.raises(Refusal):
                files.read(f"{status}.jpg", None)
            assert open_source("", table=f"{folder}/t.csv").stamps.tolist() == [0]
        else:
            with pytest.raises(OSError, match=str(status)):
                files.read(f"{status}.jpg", None)
            with pytest.raises(ConversionError, match=rf"cannot be read: .*{status}.*What is finished stays"):
                open_source("", table=f"{folder}/t.csv")


@needs_http
@pytest.mark.parametrize("says_size", [True, False])
def test_a_huge_file_of_the_web_is_not_read_whole(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, says_size: bool
) -> None:
    """Even if the server does not say how long it is."""
    url, _ = server
    monkeypatch.setattr(remote_module, "MAX_FILE_BYTES", 1 << 20)
    sent: list[int] = []

    def answer(handler: Ranges) -> None:
        handler.send_response(200)
        if says_size:
            handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1 << 10):
                sent.append(handler.wfile.write(bytes(1 << 20)))

    monkeypatch.setattr(Ranges, "do_GET", answer)
    with pytest.raises(Refusal) as caught:
        remote_module.RemoteFiles(url).read("1.jpg", None)
    assert caught.value.reason is Reason.TOO_LARGE
    assert len(read_url(url, 7, 9)) > 2  # it does not do range requests either
    assert sum(sent) < 1 << 30


@needs_http
def test_stamps_of_the_web(server: tuple[str, Path]) -> None:
    """That server says when a file was modified."""
    url, folder = server
    write_folder(folder / "zoo")
    (folder / "t.csv").write_text(f"path,label\n{url}/zoo/cat/9.jpg,a\n")
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(folder / "zoo", "zoo")
    for location, table in ((f"{url}/zoo", ""), ("", f"{folder}/t.csv"), (f"{url}/a.tar", "")):
        before = open_source(location, table=table)
        assert before.stamps[0] < 0
        assert before.stamps.tolist() == open_source(location, table=table).stamps.tolist()
        for path in ("zoo/cat/9.jpg", "a.tar"):
            os.utime(folder / path, (1, len(path) + bool(table)))
        assert open_source(location, table=table).stamps[0] not in (before.stamps[0], 0)
    assert before.places is not None
    files = pickle.loads(pickle.dumps(before.files))
    with pytest.raises(ConversionError, match="a.tar has changed or vanished since"):
        files.read("", tuple(before.places[0].tolist()))


@needs_http
def test_a_web_server_without_ranges(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library's sends the whole file."""
    url, folder = server
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("cat/1.jpg", b"content")
    source = open_source(f"{url}/a.zip")
    assert read_all(source) == {"cat/1.jpg": b"content"}
    monkeypatch.delattr(Ranges, "do_GET")
    with pytest.raises(OSError, match="were asked for; the server may not do range requests"):
        source.files.read("cat/1.jpg", (0, 40, 50))
