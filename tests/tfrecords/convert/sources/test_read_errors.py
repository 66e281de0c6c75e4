"""What a file is to blame for, and what the machine is: only the former is refused, whatever the source is."""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfrecords
from tfrecords.base_errors import ConversionError
from tfrecords.convert.engine import convert
from tfrecords.convert.image import image_formats
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Files, image_folder, open_source, read_errors, remote
from tfrecords.convert.sources.container_files import Containers
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.sources.read_errors import machine_errors, read_file, refusal_of
from tfrecords.convert.sources.remote import RemoteFiles
from tfrecords.convert.workers.shard_worker import Monitor, ShardTask
from tfrecords.format.quarantine import Reason, Refusal

AConfig = Callable[..., ConvertConfig]
Making = tuple[str, dict[str, Any]]

OWN = ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG", "EILSEQ", "ENXIO", "ENODEV")
MACHINE = ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "ENOSPC", "ETIMEDOUT", "ECONNRESET", "EHOSTDOWN")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_errors, "_WAITS_S", (0.0, 0.0, 0.0))


# The rule


@given(st.sampled_from(sorted(errno.errorcode)))
def test_a_number_of_the_system_is_about_the_file_or_the_machine(number: int) -> None:
    error = OSError(number, os.strerror(number), "/a/1.jpg")
    own = {getattr(errno, name) for name in OWN}
    assert not own & {getattr(errno, name) for name in MACHINE}
    if number in own:
        assert refusal_of(error, "/a/1.jpg").reason in (Reason.UNREADABLE, Reason.LINK_LOOP)
    else:
        with pytest.raises(OSError, match=r"/a/1\.jpg") as caught:
            refusal_of(error, "/a/1.jpg")
        assert caught.value is error


class Answer(Exception):
    """As the libraries of drivers raise it: each has the status of the answer somewhere else."""

    def __init__(self, where: str, status: int) -> None:
        super().__init__(f"answer {status}")
        holder: Any = self
        if "." in where:
            holder = self.response = type("Response", (), {})()
        setattr(holder, where.rpartition(".")[2], status)


@given(st.sampled_from(["status", "code", "status_code", "response.status_code"]), st.integers(400, 599))
def test_an_answer_of_a_server(where: str, status: int) -> None:
    """Also where a driver calls everything a missing file."""
    error = Answer(where, status)
    missing = FileNotFoundError("http://host/1.jpg")
    missing.__cause__ = error
    for each in (error, missing):
        if status in (403, 404, 410, 414, 451):
            assert refusal_of(each).detail == f"Answer: answer {status}"
        else:
            with pytest.raises(OSError, match=f"answer {status}"):
                refusal_of(each)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("x"), PermissionError("Access Denied"), IsADirectoryError("x"), ValueError("no address")],
)
def test_what_drivers_say_of_a_file(error: Exception) -> None:
    assert refusal_of(error).reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError("x"),
        OSError("reset by peer"),
        RuntimeError("Session is closed"),
        EOFError(),
        json.JSONDecodeError("an error page", "", 0),
        type("ClientOSError", (OSError,), {"__module__": "aiohttp"})(errno.EACCES, "cannot connect"),
    ],
)
def test_what_drivers_say_of_the_network(error: Exception) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        refusal_of(error)
    assert caught.value.errno is not None  # a parser's has none


@pytest.mark.parametrize(
    ("code", "is_about_file"),
    [("AccessDenied", True), ("AllAccessDisabled", True), ("ExpiredToken", False), ("RequestTimeTooSkewed", False)],
)
def test_what_s3_forbids(code: str, is_about_file: bool) -> None:
    """As its driver raises it; credentials that have expired say nothing about a file."""
    error = PermissionError("forbidden")
    error.__cause__ = type("ClientError", (Exception,), {"response": {"Error": {"Code": code}}})()
    if is_about_file:
        assert refusal_of(error).reason is Reason.UNREADABLE
    else:
        with pytest.raises(OSError, match="forbidden") as caught:
            refusal_of(error)
        assert caught.value.errno == errno.EIO


def test_an_object_that_s3_does_not_have() -> None:
    """Its driver raises what it was told as the cause, where it did not look for the object before."""
    error = FileNotFoundError("The specified key does not exist.")
    answer = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
    error.__cause__ = type("ClientError", (Exception,), {"response": answer})("NoSuchKey")
    assert refusal_of(error).detail == "ClientError: NoSuchKey"


def test_a_file_is_read_again_where_that_helps() -> None:
    class Failing:
        def __init__(self, *errors: Exception) -> None:
            self.errors = list(errors)

        def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
            if self.errors:
                raise self.errors.pop(0)
            return b"whole"

    fault = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert read_file(Failing(fault, fault, fault), "1.jpg") == b"whole"
    with pytest.raises(ConversionError) as caught:
        read_file(Failing(*[fault] * 4), "a/1.jpg")
    assert str(caught.value).startswith("a/1.jpg cannot be read: Too many open files. This is a fault of the machine")
    assert "What is finished stays: give the same command again." in str(caught.value)
    with pytest.raises(Refusal):
        read_file(Failing(Refusal(Reason.EMPTY, "")), "1.jpg")
    with pytest.raises(MemoryError):
        read_file(Failing(MemoryError()), "1.jpg")


def test_the_message_has_no_secrets() -> None:
    with pytest.raises(ConversionError) as caught, machine_errors("https://me:hunter2@host/x?sig=hunter2"):
        raise OSError("https://host/x?X-Amz-Signature=hunter2 is gone")
    assert "hunter2" not in str(caught.value)


# Every source


def packed(photos: Path, path: Path, names: list[Path]) -> None:
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.add(name, name.relative_to(photos))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.write(name, name.relative_to(photos))


@pytest.fixture(params=["folder", "table", "tar", "zip", "tfds", "url", "url table", "url tar"])
def making(request: pytest.FixtureRequest, photos: Path, tmp_path: Path, a_config: AConfig) -> Iterator[Making]:
    """A kind of source, and the options that convert the photos from it, in shards of their own copy."""
    kind = request.param
    names = sorted(photos.rglob("*.*"))
    memory = fsspec.filesystem("memory")
    if kind == "folder":
        options: dict[str, Any] = {"image_dir": shutil.copytree(photos, tmp_path / "zoo")}
    elif kind == "table":
        copy = shutil.copytree(photos, tmp_path / "zoo")
        rows = "".join(f"{name.relative_to(photos)},{name.parent.name}\n" for name in names)
        (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
        options = {"image_dir": copy, "table": tmp_path / "t.csv"}
    elif kind in ("tar", "zip"):
        for number in range(10):
            packed(photos, tmp_path / f"zoo-{number}.{kind}", names[number::10])
        options = {"image_dir": tmp_path / f"zoo-*.{kind}"}
    elif kind == "tfds":
        options = {"image_dir": convert(a_config(photos, tmp_path / "first", encoding="png", name="first")).dataset_dir}
    else:
        for name in names:
            memory.pipe(f"/zoo/{name.relative_to(photos)}", name.read_bytes())
        options = {"image_dir": "memory://zoo"}
        if kind == "url table":
            rows = "".join(f"memory://zoo/{name.relative_to(photos)},{name.parent.name}\n" for name in names)
            (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
            options = {"image_dir": "", "table": tmp_path / "t.csv"}
        elif kind == "url tar":
            packed(photos, tmp_path / "zoo.tar", names)
            memory.pipe("/zoo.tar", (tmp_path / "zoo.tar").read_bytes())
            options = {"image_dir": "memory://zoo.tar"}
    yield kind, {"name": "zoo", "encoding": "png", **options}
    memory.store.clear()


def fail_from(monkeypatch: pytest.MonkeyPatch, kind: str, num_before: int, number: int) -> None:
    """Has every read of a source's content fail after so many, with this error of the operating system."""
    count = iter(range(10**9))

    def failing(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*values: Any, **options: Any) -> Any:
            if next(count) >= num_before:
                raise OSError(number, os.strerror(number))
            return read(*values, **options)

        return reading

    if "url" in kind:
        driver = type(fsspec.filesystem("memory"))
        monkeypatch.setattr(driver, "cat_file", failing(driver.cat_file))
    else:
        name = "read" if kind in ("folder", "table") else "pread"
        monkeypatch.setattr(os, name, failing(getattr(os, name)))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("number", [getattr(errno, name) for name in MACHINE])
def test_no_file_is_refused_for_a_fault_of_the_machine(
    making: Making, tmp_path: Path, a_config: AConfig, number: int
) -> None:
    """In the midst of a conversion, of which the finished shards stay and are used."""
    kind, options = making
    config = a_config(options.pop("image_dir"), tmp_path / "data", **options)
    listing = 0
    if kind in ("tar", "zip", "tfds"):
        with pytest.MonkeyPatch.context() as patch:  # a listing reads from the same files
            reads: list[int] = []
            pread = os.pread
            patch.setattr(os, "pread", lambda *values: reads.append(1) or pread(*values))  # type: ignore[func-returns-value]
            open_source(str(config.image_dir))
            listing = len(reads)
    with pytest.MonkeyPatch.context() as patch:
        fail_from(patch, kind, listing + 25, number)
        with pytest.raises(ConversionError, match=r"cannot be read: .*What is finished stays") as caught:
            convert(config)
    assert os.strerror(number) in str(caught.value)
    assert not (tmp_path / "data" / "zoo" / "1.0.0").exists()
    receipts = sorted((tmp_path / "data" / "zoo" / ".1.0.0.work" / "receipts").iterdir())
    assert all(json.loads(path.read_bytes())["refused"] == {} for path in receipts)
    summary = convert(config)
    assert (summary.num_examples, summary.num_refused) == (40, 0)
    assert summary.num_converted < 40 or not receipts


def num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_worker_has_as_many_descriptors_after_any_number_of_tasks(making: Making, tmp_path: Path) -> None:
    """Each task comes with a copy of the source's files, as through the connection of a worker."""
    _, options = making
    source = open_source(str(options["image_dir"]), table=str(options.get("table", "")))
    rows = source.usable()
    (tmp_path / "shards").mkdir()
    task = ShardTask(
        shard=tmp_path / "shards" / "shard",
        receipt=tmp_path / "shards" / "receipt",
        inputs="",
        files=source.files,
        rows=rows,
        paths=tuple(source.paths[row] for row in rows.tolist()),
        ids=rows,
        labels=source.labels[rows],
        places=None if source.places is None else source.places[rows],
        image=ImageOptions(image_size=8),
        encoding="raw",
        jpeg_quality=95,
        hashed=False,
        durable=False,
    )
    content = pickle.dumps(task)
    counts = []
    for _ in range(20):
        pickle.loads(content).run(Monitor())
        counts.append(num_descriptors())
    assert set(counts) == {counts[0]}
    assert json.loads((tmp_path / "shards" / "receipt").read_bytes())["refused"] == {}


def test_a_process_that_may_open_fewer_files_than_there_are_archives(tmp_path: Path, photos: Path) -> None:
    names = sorted(photos.rglob("*.*"))
    for number, name in enumerate(names):
        packed(photos, tmp_path / f"zoo-{number}.tar", [name])
    code = f"""
    import os, resource
    from pathlib import Path
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig

    limit = len(os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    config = ConvertConfig(image_dir={f"{tmp_path}/zoo-*.tar"!r}, data_dir=Path({str(tmp_path / "data")!r}),
                           image_size=8, num_workers=1, copies="ignore")
    summary = convert(config)
    print(summary.num_examples, summary.num_refused)
    """
    root = str(Path(tfrecords.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env={"PYTHONPATH": root}
    )
    assert done.stdout.split() == ["40", "0"], done.stderr


# Where the machine hides behind a file


def test_a_folder_that_is_gone_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "2.jpg").touch()
    files = FolderFiles(str(tmp_path / "zoo"))
    with pytest.raises(Refusal, match="No such file"):
        files.read("1.jpg")
    (tmp_path / "zoo" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError):  # a mount that was lost leaves an empty folder
        files.read("1.jpg")
    (tmp_path / "zoo").rmdir()
    with pytest.raises(FileNotFoundError):
        files.read("1.jpg")


@pytest.mark.parametrize("call", ["stat", "scandir"])
def test_a_fault_while_a_folder_is_listed(photos: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    actual = getattr(os, call)

    def fail(path: Any, *values: Any, **options: Any) -> Any:
        if "bee" in str(path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return actual(path, *values, **options)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ConversionError, match=r"bee.* cannot be read: Input/output error\. This is a fault"):
        open_source(str(photos))


@pytest.mark.parametrize(
    "files",
    [
        RemoteFiles("sftp://host"),
        FolderFiles("."),
        Containers(("sftp://host/a.tar",), (100,), (0,)),
    ],
)
def test_a_driver_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    """That of SFTP connects when it is made, others look for credentials, or miss a package."""

    def fail(url: str) -> Any:
        raise RuntimeError("SSH session not active")

    monkeypatch.setattr(remote, "_driver", fail)
    with pytest.raises(ConversionError, match="SSH session not active"):
        read_file(files, "sftp://host/1.jpg", (0, 0, 10))


def test_a_fault_while_an_entry_of_a_folder_is_looked_at(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the folder of a class would be one rejected file."""

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path = entry.name, entry.path

        def is_dir(self) -> bool:
            if self.name == "bee":
                raise OSError(errno.EIO, "Input/output error", self.path)
            return os.path.isdir(self.path)

    listing = image_folder._listing
    monkeypatch.setattr(image_folder, "_listing", lambda *of: [Entry(entry) for entry in listing(*of)])
    with pytest.raises(ConversionError, match=r"bee cannot be read: Input/output error\. This is a fault"):
        open_source(str(photos))


def test_a_fault_while_an_archive_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    containers = Containers.of([str(tmp_path / "a.tar")])

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Too many open files"):
            containers.read_range(0, 0, 1)
    monkeypatch.setattr(builtins, "open", fail)
    with pytest.raises(ConversionError, match="Too many open files"):
        open_source(str(tmp_path / "a.tar"))


def test_a_fault_while_one_of_several_archives_is_listed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(sorted(photos.rglob("*.*"))[:2]):
        packed(photos, tmp_path / f"{number}.tar", [name])
    pread, second = os.pread, (tmp_path / "1.tar").stat().st_ino

    def fail(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == second:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ConversionError, match=rf"^{tmp_path}/1\.tar cannot be read: Input/output error"):
        open_source(f"{tmp_path}/*.tar")


def test_a_fault_while_a_list_of_classes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the classes would have other names."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in {"1.jpg": b"1", "1.cls": b"0"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (tmp_path / "classes.txt").write_text("ant\n")
    assert open_source(str(tmp_path / "a.tar")).class_names == ("ant",)

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ConversionError, match=r"classes\.txt cannot be read: Input/output error"):
        open_source(str(tmp_path / "a.tar"))


def test_a_decoder_that_cannot_be_loaded_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(12)
    image_formats._formats.cache_clear()

    def fail(name: str) -> Any:
        raise ImportError("libheif.so: cannot open shared object file: Too many open files")

    monkeypatch.setattr(importlib, "import_module", fail)
    with (
        pytest.raises(OSError, match="pillow-heif cannot be loaded: .*Too many open files"),
        image_formats.reading(heic),
    ):
        image_formats.open_image(heic)
    image_formats._formats.cache_clear()


def test_an_error_of_the_system_while_decoding_is_no_refusal() -> None:
    with pytest.raises(OSError, match="Cannot allocate"), image_formats.reading(b""):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(Refusal), image_formats.reading(b""):
        raise OSError("broken data stream")


def test_the_size_of_an_object_is_known_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/big/1.jpg", bytes(10))
    monkeypatch.setattr("tfrecords.convert.sources.remote.MAX_FILE_BYTES", 9)
    monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: pytest.fail("it is read"))
    files: Files = RemoteFiles("memory://big")
    with pytest.raises(Refusal) as caught:
        files.read("1.jpg", None)
    assert caught.value.reason is Reason.TOO_LARGE
    memory.store.clear()
