"""Tars and zips of class folders: the same source as the folder that was packed."""

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.sources import Source, open_source
from tfrecords.convert.sources import container_files as containers_module
from tfrecords.convert.sources.archive import expand_braces, open_archives
from tfrecords.convert.sources.tar import tar_members
from tfrecords.format.quarantine import Reason, Refusal

Pack = Callable[[Path, Mapping[str, bytes]], Path]


def pack_tar(path: Path, files: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pack_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=[pack_tar, pack_zip])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    suffix = ".tar" if request.param is pack_tar else ".zip"
    return lambda files, name="photos": request.param(tmp_path / f"{name}{suffix}", files)


def read_all(source: Source) -> dict[str, bytes]:
    files = pickle.loads(pickle.dumps(source.files))
    assert source.places is not None
    return {
        source.paths[id]: files.read(source.paths[id], tuple(source.places[id].tolist()))
        for id in source.usable().tolist()
    }


def refusal_of_reading(source: Source, path: str) -> Refusal:
    assert source.places is not None
    id = source.paths.index(path)
    with pytest.raises(Refusal) as caught:
        source.files.read(path, tuple(source.places[id].tolist()))
    return caught.value


def reasons(source: Source) -> dict[str, Reason]:
    return {source.paths[id]: refusal.reason for id, refusal in source.refused.items()}


FILES = {
    "dog/image_10.jpg": b"d10" * 400,
    "dog/image_9.jpg": b"d9",
    "cat/deep/1.png": b"",
    "cat/notes.txt": b"no label",
    "docs/manual.pdf": b"pdf",
    "README.md": b"readme",
}


def test_an_archive_is_the_folder_that_was_packed(pack: Callable[..., Path], tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    folder, archive = open_source(str(tmp_path / "photos")), open_source(str(pack(FILES)))
    assert archive.class_names == folder.class_names == ("cat", "dog")
    assert archive.paths == folder.paths
    assert archive.labels.tolist() == folder.labels.tolist()
    assert archive.sizes.tolist() == folder.sizes.tolist()
    assert archive.sha256() == folder.sha256()
    assert archive.notes == folder.notes
    assert reasons(archive) == reasons(folder)
    assert read_all(archive) == {folder.paths[id]: FILES[folder.paths[id]] for id in folder.usable()}


def test_single_top_folders_are_stripped(pack: Callable[..., Path]) -> None:
    source = open_source(str(pack({f"./a b/photos/{name}": content for name, content in FILES.items()})))
    assert source.class_names == ("cat", "dog")
    assert source.paths[0] == "cat/deep/1.png"
    source = open_source(
        str(pack({"README": b"", "photos/cat/1.jpg": b"", "photos/dog/1.jpg": b"", "photos/README": b""}))
    )
    assert source.paths == ["cat/1.jpg", "dog/1.jpg", "../README", "README"]
    assert set(reasons(source).values()) == {Reason.NO_CLASS_FOLDER}


def test_one_class_folder_is_not_stripped(pack: Callable[..., Path]) -> None:
    source = open_source(str(pack({"cat/1.jpg": b"", "cat/2.jpg": b""})))
    assert (source.class_names, source.paths) == (("cat",), ["cat/1.jpg", "cat/2.jpg"])
    source = open_source(str(pack({"photos/cat/1.jpg": b""})))
    assert (source.class_names, source.paths) == (("cat",), ["cat/1.jpg"])
    source = open_source(str(pack({"cat/deep/1.jpg": b"", "cat/deeper/1.jpg": b""})), categories=("cat",))
    assert source.class_names == ("cat",)


def test_pictures_without_folders_are_one_class(pack: Callable[..., Path]) -> None:
    source = open_source(str(pack({"10.jpg": b"", "9.jpg": b""}, name="my photos")))
    assert (source.class_names, source.paths) == (("my photos",), ["9.jpg", "10.jpg"])


def test_categories_choose_and_order(pack: Callable[..., Path]) -> None:
    source = open_source(str(pack(FILES)), categories=("dog",))
    assert (source.class_names, source.paths) == (("dog",), ["dog/image_9.jpg", "dog/image_10.jpg"])
    with pytest.raises(UsageError, match=r"has no folder 'dgo'\. Did you mean 'dog'"):
        open_source(str(pack(FILES)), categories=("dgo",))


def test_hidden_files_are_not_looked_at(pack: Callable[..., Path]) -> None:
    files = {
        "cat/1.jpg": b"",
        "__MACOSX/cat/._1.jpg": b"",
        "cat/.DS_Store": b"",
        ".git/2.jpg": b"",
        "dog/Thumbs.db": b"",
    }
    assert open_source(str(pack(files))).paths == ["cat/1.jpg"]


def test_any_name(pack: Callable[..., Path]) -> None:
    """A name that leads out of the archive is a name like any other: nothing is unpacked."""
    names = [
        "벌 나비/새\n1.jpg",
        "벌 나비/$a'b\"c.jpg",
        "x/../../../etc/passwd.jpg",
        "/abs/1.jpg",
        f"x/{'long' * 60}.jpg",
    ]
    files = {name: name.encode() for name in names}
    source = open_source(str(pack(files)))
    assert read_all(source) == {name.lstrip("/"): content for name, content in files.items()}


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        files = {"caf\udce9/\udcff.jpg": b"content"}
        source = open_source(str(pack_tar(tmp_path / "a.tar", files, format)))
        assert source.class_names == ("caf\\xe9",)
        assert read_all(source) == files


def test_empty_archives(pack: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"photos\.(tar|zip) has no image file \(0 other files\)"):
        open_source(str(pack({})))


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for content in (b"old", b"newer"):
            info = tarfile.TarInfo("cat/1.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = open_source(str(tmp_path / "a.tar"))
    assert read_all(source) == {"cat/1.jpg": b"newer"}
    assert source.notes == ("1 files are in an archive twice with the same name; the later one was used",)


def test_an_archive_that_changes_after_it_was_listed(pack: Callable[..., Path]) -> None:
    path = pack(FILES)
    source = open_source(str(path))
    assert source.stamps.tolist() == [path.stat().st_mtime_ns] * len(source.paths)
    path.chmod(0o600)  # changes the ctime alone
    assert read_all(source)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ConversionError, match=rf"{path} has changed or vanished since .*Give the same command again"):
        read_all(source)


def test_an_archive_that_vanishes(pack: Callable[..., Path]) -> None:
    path = pack(FILES)
    source = open_source(str(path))
    path.unlink()
    with pytest.raises(ConversionError, match=rf"{path} has changed or vanished since its members were listed"):
        read_all(source)


def test_an_archive_that_vanishes_does_not_close_the_others(tmp_path: Path) -> None:
    paths = [pack_tar(tmp_path / f"{number}.tar", {"cat/1.jpg": b"1"}) for number in range(2)]
    containers = containers_module.Containers.of([str(path) for path in paths])
    containers_module._opened.cache_clear()
    containers.read_range(0, 0, 1)
    paths[1].unlink()
    with pytest.raises(ConversionError):
        containers.read_range(1, 0, 1)
    assert containers_module._opened.cache_info().currsize == 1


def test_several_archives(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    pack_tar(tmp_path / "a_10.tar", {"dog/1.jpg": b"1", "cat/10.jpg": b"2"})
    pack_tar(tmp_path / "a_9.tar", {"cat/9.jpg": b"3"})
    for pattern in ("a_*.tar", "a_{9..10}.tar", "{a_10,a_9}.tar"):
        source = open_source(f"{tmp_path}/{pattern}")
        assert source.paths == ["cat/9.jpg", "cat/10.jpg", "dog/1.jpg"]
        assert read_all(source) == {"cat/9.jpg": b"3", "cat/10.jpg": b"2", "dog/1.jpg": b"1"}
    pack_tar(tmp_path / "more" / "a_9.tar", {"cat/9.jpg": b"3"})
    with pytest.raises(UsageError, match=r"a_9\.tar and \S*more/a_9\.tar both have a file 'cat/9\.jpg'\. Rename one"):
        open_source(f"{tmp_path}/{{,more/}}a_9.tar")


def test_a_copy_of_containers_closes_its_files(tmp_path: Path, num_open: Callable[[Path], int]) -> None:
    containers = containers_module.Containers.of([str(pack_tar(tmp_path / "a.tar", {"cat/1.jpg": b"1"}))])
    copy = pickle.loads(pickle.dumps(containers))
    assert copy == containers
    copy.read_range(0, 0, 1)
    assert num_open(tmp_path) == 1
    del copy
    gc.collect()
    assert num_open(tmp_path) == 0


def test_more_archives_than_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_open: Callable[[Path], int]
) -> None:
    three = functools.lru_cache(maxsize=3)(containers_module._opened.__wrapped__)
    monkeypatch.setattr(containers_module, "_opened", three)
    for number in range(8):
        pack_tar(tmp_path / f"{number}.tar", {f"cat/{number}.jpg": b"%d" % number})
    source = open_source(f"{tmp_path}/*.tar")
    assert source.places is not None
    for _ in range(2):
        for id, path in enumerate(source.paths):
            assert source.files.read(path, tuple(source.places[id].tolist())) == b"%d" % id
    assert num_open(tmp_path) == 3


def test_archives_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\*\.tar: no file matches\. Check the name, and quote it for the shell"):
        open_source(f"{tmp_path}/*.tar")
    pack_tar(tmp_path / "0.tar", {"cat/1.jpg": b""})
    with pytest.raises(UsageError, match=r"/1\.tar cannot be opened: No such file or directory"):
        open_source(f"{tmp_path}/{{0..1}}.tar")
    with pytest.raises(UsageError, match=r"nowhere\.zip cannot be opened"):
        open_source(f"{tmp_path}/nowhere.zip")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UsageError, match=r"pipe\.tar is not a regular file"):
        open_source(f"{tmp_path}/pipe.tar")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.zst", "a.TAR.XZ"])
def test_compressed_tars_are_to_be_uncompressed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match="is compressed as a whole.*Uncompress it first"):
        open_source(str(tmp_path / name))


def test_other_things_named_like_archives(tmp_path: Path) -> None:
    for name, what in (("a.tar", "is not a tar file"), ("a.zip", "is not a zip file or is truncated")):
        (tmp_path / name).write_bytes(b"<html>404</html>" * 100)
        with pytest.raises(UsageError, match=rf"/{name} {what}"):
            open_source(str(tmp_path / name))
    (tmp_path / "folder.tar" / "cat").mkdir(parents=True)
    (tmp_path / "folder.tar" / "cat" / "1.jpg").write_bytes(b"")
    assert open_source(str(tmp_path / "folder.tar")).paths == ["cat/1.jpg"]
    with pytest.raises(UsageError, match=r"should be tars only or zips only\. Received: \.tar \.zip"):
        open_archives(f"{tmp_path}/a.{{tar,zip}}")


@given(st.text("ab{},.0123", max_size=20))
@settings(max_examples=300)
def test_braces_never_fail_otherwise(text: str) -> None:
    try:
        assert expand_braces(text)
    except UsageError as error:
        assert "means more than" in str(error)


@given(st.integers(0, 2000), st.integers(0, 30), st.booleans(), st.integers(1, 6))
def test_brace_ranges(first: int, count: int, down: bool, width: int) -> None:
    numbers = [f"{number:0{width}d}" for number in range(first, first + count + 1)]
    numbers = numbers[::-1] if down else numbers
    padded = "0" in (numbers[0][0], numbers[-1][0])
    expected = numbers if padded or len({len(number) for number in numbers}) == 1 else [n.lstrip("0") for n in numbers]
    width = max(map(len, (numbers[0], numbers[-1]))) if padded else 0
    assert expand_braces(f"s-{{{numbers[0]}..{numbers[-1]}}}.tar") == [f"s-{int(n):0{width}d}.tar" for n in expected]


def test_braces() -> None:
    assert expand_braces("a-{000..002}.tar") == ["a-000.tar", "a-001.tar", "a-002.tar"]
    assert expand_braces("a-{9..11}") == ["a-9", "a-10", "a-11"]
    assert expand_braces("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    assert expand_braces("{x}{a..b}{}") == ["{x}{a..b}{}"]
    for text in ("{0..9999999999}", "{0..999}{0..999}"):
        with pytest.raises(UsageError, match="means more than 100000 files"):
            expand_braces(text)


# Tars


NAMES = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=60).filter(
    lambda name: name.strip(". ") and not name.startswith(".")
)


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=5).map("/".join), st.binary(max_size=1100), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=100)
def test_tar_members_are_those_of_tarfile(files: dict[str, bytes], format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = buffer.getvalue()
    members = list(tar_members(lambda offset, length: data[offset : offset + length], len(data), "a.tar"))
    assert [member.name for member in members] == list(files)
    assert [data[member.offset : member.offset + member.length] for member in members] == list(files.values())


def test_ustar_prefixes_and_old_tars(tmp_path: Path) -> None:
    name = f"{'folder/' * 18}1.jpg"  # longer than the 100 bytes of a name
    source = open_source(
        str(pack_tar(tmp_path / "a.tar", {f"cat/{name}": b"1", "dog/1.jpg": b"2"}, tarfile.USTAR_FORMAT))
    )
    assert read_all(source) == {f"cat/{name}": b"1", "dog/1.jpg": b"2"}
    data = bytearray((tmp_path / "a.tar").read_bytes())
    at = data.index(b"dog/1.jpg")
    data[at + 156 : at + 157], data[at + 257 : at + 265] = b"\0", bytes(8)  # as V7 wrote it
    checksum = sum(data[at : at + 148]) + 256 + sum(data[at + 156 : at + 512])
    data[at + 148 : at + 156] = b"%06o\0 " % checksum
    (tmp_path / "a.tar").write_bytes(data)
    assert read_all(open_source(str(tmp_path / "a.tar")))["dog/1.jpg"] == b"2"


def test_large_members_in_tars() -> None:
    """Sizes that do not fit into eleven octal digits, in GNU's way and in that of pax."""
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("cat/1.jpg")
        info.size = 1 << 34
        data = info.tobuf(format)
        num_bytes = len(data) + info.size + 1024

        def read_at(offset: int, length: int, data: bytes = data, end: int = num_bytes) -> bytes:
            return data[offset : offset + length] if offset < len(data) else bytes(min(length, end - offset))

        (member,) = tar_members(read_at, num_bytes, "a.tar")
        assert (member.name, member.size, member.offset) == ("cat/1.jpg", 1 << 34, len(data))


def test_links_and_devices_in_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("1", tarfile.REGTYPE),
            ("2", tarfile.LNKTYPE),
            ("3", tarfile.SYMTYPE),
            ("4", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(f"cat/{name}.jpg")
            info.type, info.linkname = kind, "cat/1.jpg"
            info.size = 600 if name in "23" else 0  # some give the size of what is linked to, of which nothing follows
            tar.addfile(info)
    source = open_source(str(tmp_path / "a.tar"))
    assert reasons(source) == {f"cat/{name}.jpg": Reason.NOT_A_FILE for name in "234"}
    assert "pack with --dereference" in source.refused[1].detail


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name, content in (("1.jpg", b"x"), ("3.jpg", b"3")):
        (tmp_path / "cat" / name).write_bytes(content)
    with open(tmp_path / "cat" / "2.jpg", "wb") as file:
        for hole in range(40):  # more than fit into one header
            file.seek(hole * 100_000)
            file.write(b"data")
    for format in ("gnu", "pax"):
        archive = tmp_path / f"{format}.tar"
        done = os.spawnlp(
            os.P_WAIT, "tar", "tar", "--sparse", f"--format={format}", "-C", str(tmp_path), "-cf", str(archive), "cat"
        )
        if done:
            pytest.skip("no GNU tar")
        source = open_source(str(archive))
        assert {os.path.basename(path): reason for path, reason in reasons(source).items()} == {
            "2.jpg": Reason.UNREADABLE
        }
        assert read_all(source) == {"cat/1.jpg": b"x", "cat/3.jpg": b"3"}


def test_a_tar_of_another_program(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    for format in ("gnu", "pax", "ustar", "v7"):
        archive = tmp_path / f"{format}.tar"
        done = os.spawnlp(
            os.P_WAIT, "tar", "tar", f"--format={format}", "-C", f"{tmp_path}/photos", "-cf", str(archive), "."
        )
        if done:
            pytest.skip("no GNU tar")
        assert open_source(str(archive)).sha256() == open_source(str(tmp_path / "photos")).sha256()


@pytest.mark.parametrize("end", [1, 511, 512, 513, 1024, 1535, 1536, 2047, 2048])
def test_a_tar_that_was_cut_off(tmp_path: Path, end: int) -> None:
    path = pack_tar(tmp_path / "a.tar", {"cat/1.jpg": b"x" * 100, "cat/2.jpg": b"y" * 100}, tarfile.USTAR_FORMAT)
    os.truncate(path, end)
    with pytest.raises(UsageError, match=r"/a\.tar is truncated.* Fetch or pack it again"):
        open_source(str(path))


def test_a_damaged_tar(tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "a.tar", {"cat/1.jpg": b"x" * 100, "cat/2.jpg": b"y" * 100}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        UsageError, match=r"/a\.tar is damaged: there is no header at byte 1024\. Fetch or pack it again"
    ):
        open_source(str(path))


@given(st.binary(max_size=2000), st.integers(0, 4000), st.integers(0, 255))
@settings(max_examples=200)
def test_garbage_in_tars_is_a_usage_error(garbage: bytes, at: int, value: int) -> None:
    info = tarfile.TarInfo("name" * 40 + ".jpg")
    info.size = 10
    whole = info.tobuf(tarfile.PAX_FORMAT) + bytes(512) + bytes(1024)
    flipped = bytearray(whole)
    flipped[at % len(whole)] = value
    for data in (garbage, bytes(flipped)):
        try:
            list(tar_members(lambda offset, length, data=data: data[offset : offset + length], len(data), "a.tar"))
        except UsageError as error:
            assert "a.tar" in str(error)


# Zips


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_methods(tmp_path: Path, method: int) -> None:
    assert read_all(open_source(str(pack_zip(tmp_path / "a.zip", {"cat/1.jpg": b"x" * 999}, method)))) == {
        "cat/1.jpg": b"x" * 999
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_that_are_not_read(tmp_path: Path, method: int) -> None:
    path = pack_zip(tmp_path / "a.zip", {"cat/1.jpg": b"x"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/2.jpg", b"y", method)
    source = open_source(str(path))
    assert reasons(source) == {"cat/2.jpg": Reason.UNREADABLE}
    assert f"compressed with method {method}; use deflate" in source.refused[1].detail


def test_zip_written_to_a_stream_with_a_comment_and_something_before_it(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in FILES.items():
            archive.writestr(name, content)
        archive.comment = b"comment PK\5\6 that looks like an end of 22 bytes"
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + pipe.data)
    source = open_source(str(tmp_path / "a.zip"))
    assert read_all(source)["dog/image_10.jpg"] == FILES["dog/image_10.jpg"]


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = pack_zip(tmp_path / "a.zip", FILES)
    assert b"PK\6\6" in path.read_bytes()
    source = open_source(str(path))
    assert read_all(source)["dog/image_10.jpg"] == FILES["dog/image_10.jpg"]
    assert source.sizes[source.paths.index("dog/image_10.jpg")] == 1200


def test_names_in_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("XXX/1.jpg", b"1")
        archive.writestr("YYYYYY/2.jpg", b"2")
        info = zipfile.ZipInfo("cat/3.jpg")
        info.create_system = 0
        archive.writestr(info, b"3")
    data = (tmp_path / "a.zip").read_bytes()
    data = data.replace(b"XXX", b"\x81b\x82").replace(b"YYYYYY", "벌벌".encode()).replace(b"cat/3.jpg", b"cat\\3.jpg")
    (tmp_path / "a.zip").write_bytes(data)
    source = open_source(str(tmp_path / "a.zip"))
    # As the format has it: code page 437, unless a flag says UTF-8, which macOS writes without the flag.
    assert sorted(read_all(source)) == sorted(["übé/1.jpg", "벌벌/2.jpg", "cat/3.jpg"])


def test_encrypted_members_and_links_in_zips_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("1", "2"):
            archive.writestr(f"cat/{name}.jpg", b"content")
        link = zipfile.ZipInfo("cat/3.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"1.jpg")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[entry + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    source = open_source(str(tmp_path / "a.zip"))
    assert reasons(source) == {"cat/2.jpg": Reason.UNREADABLE, "cat/3.jpg": Reason.NOT_A_FILE}
    assert source.refused[1].detail == "it is encrypted; pack it without a password"
    assert read_all(source) == {"cat/1.jpg": b"content"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_byte_in_a_zip(tmp_path: Path, method: int) -> None:
    content = os.urandom(500)
    path = pack_zip(tmp_path / "a.zip", {"cat/1.jpg": content}, method)
    data = bytearray(path.read_bytes())
    data[300] ^= 0x10
    path.write_bytes(data)
    assert refusal_of_reading(open_source(str(path)), "cat/1.jpg").reason is Reason.CORRUPT


def promise(path: Path, num_bytes: int) -> None:
    """Has the directory's only entry promise this size."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<L", num_bytes)
    path.write_bytes(data)


def test_zip_bombs(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "a.zip", {"cat/1.jpg": bytes(10_000_000), "cat/2.jpg": b""})
    promise(path, 1000)
    source = open_source(str(path))
    tracemalloc.start()
    refusal = refusal_of_reading(source, "cat/1.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert refusal.reason is Reason.TOO_LARGE
    assert "it unpacks to more than the 1000 bytes in the archive's directory" in refusal.detail
    promise(path, (1 << 30) + 1)
    assert reasons(open_source(str(path))) == {"cat/1.jpg": Reason.TOO_LARGE}
    assert refusal_of_reading(open_source(str(path)), "cat/1.jpg").reason is Reason.TOO_LARGE
    promise(path, 10_000_001)
    refusal = refusal_of_reading(open_source(str(path)), "cat/1.jpg")
    assert (refusal.reason, refusal.detail) == (
        Reason.CORRUPT,
        "it unpacks to 10000000 bytes instead of 10000001",
    )


def test_zips_that_were_cut_off_or_damaged(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "a.zip", {"cat/1.jpg": b"x" * 100, "cat/2.jpg": b"x" * 100})
    data = path.read_bytes()
    for end in (0, 10, len(data) - 22, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(UsageError, match=r"/a\.zip is not a zip file or is truncated.* Fetch or pack it again"):
            open_source(str(path))
    path.write_bytes(data[50:])
    with pytest.raises(UsageError, match=r"/a\.zip is one part of several, or damaged"):
        open_source(str(path))
    path.write_bytes(data.replace(b"PK\1\2", b"PK\1\3"))
    with pytest.raises(UsageError, match=r"/a\.zip is damaged: its directory ends early, at byte"):
        open_source(str(path))
    path.write_bytes(data.replace(b"PK\3\4", b"PK\3\5"))
    refusal = refusal_of_reading(open_source(str(path)), "cat/1.jpg")
    assert (refusal.reason, refusal.detail) == (Reason.CORRUPT, "the archive has no member at byte 0")


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=300)
def test_any_damage_to_a_zip_is_found(at: int, value: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", b"content" * 10)
        archive.writestr("cat/2.jpg", b"other" * 10)
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / f"test_archive_{os.getpid()}.zip"
    path.write_bytes(data)
    try:
        source = open_source(str(path))
        assert source.places is not None
        for id in source.usable().tolist():
            content = source.files.read("", tuple(source.places[id].tolist()))
            assert zlib.crc32(content) in (zlib.crc32(b"content" * 10), zlib.crc32(b"other" * 10))
    except (UsageError, Refusal):
        pass
    finally:
        path.unlink()


def test_what_is_open_stays_in_its_process(pack: Callable[..., Path]) -> None:
    """A descriptor's number means another file elsewhere."""
    source = open_source(str(pack(FILES)))
    assert source.places is not None
    source.files.read(source.paths[1], tuple(source.places[1].tolist()))
    source.files.read(source.paths[1], tuple(source.places[1].tolist()))
    assert b"_OpenFile" not in pickle.dumps(source.files)


def test_what_is_open_is_closed_with_its_source(pack: Callable[..., Path], num_open: Callable[[Path], int]) -> None:
    """A process that opened source after source came to the end of its descriptors."""
    path = pack(FILES)
    source = open_source(str(path))
    assert source.places is not None
    source.files.read(source.paths[1], tuple(source.places[1].tolist()))
    assert num_open(path) == 1
    del source
    gc.collect()
    assert num_open(path) == 0
