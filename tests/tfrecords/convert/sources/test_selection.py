"""Which files are looked at: hidden and system files, patterns, and files that belong to an image."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Selection, open_source, remote, walk
from tfrecords.convert.sources import table as table_source
from tfrecords.convert.sources.companion_files import companions_of
from tfrecords.convert.sources.labels import FileListing


def write(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return str(folder)


@pytest.mark.parametrize(
    ("pattern", "taken", "left_out"),
    [
        ("*.gif", "a.gif x/a.gif x/y/a.gif", "a.gif.jpg agif x/a.jpg"),
        ("x/*.gif", "x/a.gif", "a.gif y/x/a.gif x/y/a.gif"),
        ("**/x/*.gif", "x/a.gif y/x/a.gif y/z/x/a.gif", "a.gif x/y/a.gif"),
        ("x/**", "x/a.jpg x/y/a.jpg", "a.jpg y/x/a.jpg"),
        ("**", "a.jpg x/y/a.jpg", ""),
        ("x/**/a.jpg", "x/a.jpg x/y/z/a.jpg", "a.jpg y/a.jpg"),
        ("old/", "old/a.jpg x/old/y/a.jpg", "old x/old bold/a.jpg"),
        ("old", "old old/a.jpg x/old/a.jpg", "older old.jpg"),
        ("/old", "old/a.jpg old", "x/old/a.jpg"),
        ("x/old/", "x/old/a.jpg", "y/x/old/a.jpg x/old"),
        ("IMG_?[0-9].jpg", "IMG_a1.jpg x/IMG_11.jpg", "IMG_1.jpg IMG_1a.jpg img_11.jpg IMG_/1.jpg"),
        ("[!a]*.jpg", "b.jpg", "a.jpg"),
        ("a[!x]b.jpg", "ayb.jpg", "a/b.jpg axb.jpg"),
        ("a[.-0]b.jpg", "a.b.jpg a0b.jpg", "a/b.jpg"),
        ("[]!]1.jpg", "]1.jpg !1.jpg", "a1.jpg"),
        ("[!]]1.jpg", "a1.jpg", "]1.jpg"),
        ("[a&&~b-].jpg", "&.jpg -.jpg b.jpg", "c.jpg"),
        ("a[b.jpg", "a[b.jpg", "ab.jpg"),
        ("a(1)+.jpg", "a(1)+.jpg", "a1.jpg"),
        ("caf\u00e9/*", "cafe\u0301/1.jpg caf\u00e9/1.jpg", "cafe/1.jpg"),
    ],
)
def test_patterns(pattern: str, taken: str, left_out: str) -> None:
    for path in taken.split():
        assert Selection(include=[pattern]).takes(path), path
        assert not Selection(exclude=[pattern]).takes(path), path
    for path in left_out.split():
        assert not Selection(include=[pattern]).takes(path), path
        assert Selection(exclude=[pattern]).takes(path), path


def test_exclude_wins_and_what_matches_nothing_is_told() -> None:
    selection = Selection(include=["a/**", "*.png"], exclude=["*.gif", "*.tiff"])
    assert [path for path in ("a/1.jpg", "a/1.gif", "b/1.jpg") if selection.takes(path)] == ["a/1.jpg"]
    assert selection.notes() == [
        "1 file or folder is left out by --exclude",
        "1 file is left out: no --include matches",
        "--include=*.png matches nothing",
        "--exclude=*.tiff matches nothing",
    ]
    for pattern in ("", "/"):
        with pytest.raises(UsageError, match=r"--exclude=/?: a pattern should name files or folders"):
            Selection(exclude=[pattern])


SYSTEM = [
    "city/@eaDir/1.jpg/SYNOFILE_THUMB_XL.jpg", "#recycle/old.jpg", "@Recycle/old.jpg", "$RECYCLE.BIN/S-1/old.jpg",
    ".Trash-1000/files/old.jpg", "lost+found/1.jpg", "__MACOSX/city/._1.jpg", "city/._1.jpg", "city/.thumbnails/1.jpg",
    "System Volume Information/1.jpg", ".git/1.jpg", "city/.AppleDouble/1.jpg", "city/.DS_Store", "city/desktop.ini",
    "city/.ipynb_checkpoints/1-checkpoint.jpg", "city/Thumbs.db", "#snapshot/city/1.jpg", "city/.@__thumb/1.jpg",
]  # fmt: skip


def test_system_files_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, "city/1.jpg", "beach/2.jpg", *SYSTEM)
    source = open_source(folder)
    assert (source.class_names, source.paths) == (("beach", "city"), ["beach/2.jpg", "city/1.jpg"])
    (note,) = source.notes
    assert note.startswith("18 hidden or system files and folders are left out: ")
    assert note.endswith(" and 12 other names")
    assert walk(tmp_path) == ["beach/2.jpg", "city/1.jpg"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("city/1.jpg", "beach/2.jpg", *SYSTEM):
            archive.writestr(name, b"x")
    packed = open_source(str(tmp_path / "all.zip"))
    assert (packed.class_names, packed.paths) == (source.class_names, source.paths)
    assert packed.notes[0].startswith("18 hidden or system files")


def test_a_system_folder_that_is_named_is_taken(tmp_path: Path) -> None:
    folder = write(tmp_path, "a/1.jpg", "#recycle/2.jpg", ".hidden/3.jpg")
    assert open_source(folder, include=["**", "#recycle/"]).class_names == ("#recycle", "a")


FILES = ["cat/1.jpg", "cat/2.gif", "cat/old/3.jpg", "dog/4.jpg", "dog/5.jpg", "old/6.jpg"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "url", "table"])
def test_patterns_mean_the_same_for_every_source(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "zoo", *FILES)
    image_dir, table = folder, ""
    if kind == "zip":
        image_dir = str(tmp_path / "zoo.zip")
        with zipfile.ZipFile(image_dir, "w") as archive:
            for name in FILES:
                archive.writestr(f"zoo/{name}", name)
    elif kind == "tar":
        image_dir = str(tmp_path / "zoo.tar")
        with tarfile.open(image_dir, "w") as archive:
            archive.add(folder, "zoo")
    elif kind == "url":
        image_dir = "memory://patterns"
        for name in FILES:
            fsspec.filesystem("memory").pipe(f"/patterns/{name}", b"x")
    elif kind == "table":
        table = str(tmp_path / "t.csv")
        Path(table).write_text("path,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in FILES))
    source = open_source(image_dir, table=table, include=["cat/", "*4.jpg", "old"], exclude=["*.gif", "cat/old/"])
    assert sorted(source.paths) == ["cat/1.jpg", "dog/4.jpg", "old/6.jpg"]
    assert source.class_names == ("cat", "dog", "old")
    assert "1 file is left out: no --include matches" in source.notes


def test_a_folder_of_which_nothing_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no image file"):
        open_source(write(tmp_path, "a/1.jpg"), exclude=["*.jpg"])


def test_companions() -> None:
    images = ["a/1.jpg", "a/2(1).jpg", "b/3.HEIC", "b/4.png", "b/5.jpg"]
    belong = [
        "a/1.xmp", "a/1.jpg.xmp", "a/1.jpg.supplemental-metadata.json", "a/2.jpg(1).json", "a/1.CR2", "b/3.MOV",
        "b/3.AAE", "b/4.txt", "b/4.png.txt", "b/5.caption",
    ]  # fmt: skip
    alone = ["a/metadata.json", "b/MVI_9.MP4", "b/7.xmp", "a/9.avi"]
    others = ["a/README", "a/notes.txt", "b/9.nef", "b/1.CR2", "b/3.pdf", "b/3"]
    found = companions_of(images, [*belong, *alone, *others])
    assert sorted(found.of_images) == sorted(belong)
    assert sorted(found.alone) == sorted(alone)
    assert found.num_files == 14
    (note,) = found.notes()
    assert note.startswith("left out, since they are no images: ")
    assert "that belong to no image, e.g. a/9.avi" in note
    raw = companions_of([], ["a/1.cr2", "a/1.xmp"])  # the sidecar of a RAW file, which is rejected itself
    assert (set(raw.of_images), set(raw.alone)) == ({"a/1.xmp"}, set())


def test_sidecars_are_no_rejected_files(
    tmp_path: Path, write_picture: Callable[..., None], a_config: Callable[..., ConvertConfig]
) -> None:
    for number in range(4):
        write_picture(tmp_path / "zoo" / "2020" / f"{number}.jpg", number)
        write(tmp_path / "zoo" / "2020", f"{number}.jpg.supplemental-metadata.json")
    write(tmp_path / "zoo" / "2020", "metadata.json", "MVI_1.MP4")
    config = a_config(tmp_path / "zoo", tmp_path / "data", max_refused="1%")
    summary = convert(config)
    assert (summary.num_examples, summary.num_refused) == (4, 0)
    assert summary.warnings == (
        "left out, since they are no images: 4 .json beside the images that they belong to; 1 .json and 1 .mp4 that "
        "belong to no image, e.g. 2020/MVI_1.MP4",
    )
    assert convert(config).num_converted == 0


@pytest.mark.parametrize("pattern", ["[z-a]*", "x/[!]", "[9-0].jpg", "[^]/"])
@pytest.mark.parametrize("flag", ["include", "exclude"])
def test_a_set_of_characters_that_cannot_be(pattern: str, flag: str) -> None:
    with pytest.raises(UsageError, match=rf"--{flag}=.*has no characters\. Write a range in ascending order"):
        Selection(**{flag: [pattern]})


def test_patterns_match_archives_with_and_without_their_single_top_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("set/photos/cat/1.jpg", "set/photos/dog/2.jpg", "set/photos/dog/3.jpg", "README"):
            archive.writestr(name, name)
    for pattern in ("cat/1*", "/cat/", "set/photos/cat/*", "**/photos/cat/", "/set/*/cat"):
        assert open_source(str(tmp_path / "a.zip"), include=[pattern]).paths == ["cat/1.jpg"], pattern
    source = open_source(str(tmp_path / "a.zip"), exclude=["set/photos/dog/3.jpg"])
    assert source.paths == ["cat/1.jpg", "dog/2.jpg", "../README"]


@pytest.mark.parametrize("kind", ["folder", "zip", "url", "table"])
def test_patterns_that_leave_nothing_are_named(tmp_path: Path, kind: str) -> None:
    where, table = write(tmp_path / "zoo", "cat/1.jpg", "dog/2.jpg"), ""
    if kind == "zip":
        where = str(tmp_path / "zoo.zip")
        with zipfile.ZipFile(where, "w") as archive:
            archive.writestr("cat/1.jpg", b"x")
            archive.writestr("dog/1.jpg", b"x")
    elif kind == "url":
        where = "memory://nothing-left"
        fsspec.filesystem("memory").pipe("/nothing-left/cat/1.jpg", b"x")
        fsspec.filesystem("memory").pipe("/nothing-left/dog/1.jpg", b"x")
    elif kind == "table":
        table = str(tmp_path / "t.csv")
        Path(table).write_text("path,label\ncat/1.jpg,a\ndog/2.jpg,b\n")
    with pytest.raises(
        UsageError,
        match=r"has no image file.*1 file or folder is left out by --exclude; 1 file is left out: no --include "
        r"matches; --include=\*\.gif matches nothing\. Change --include or --exclude\.$",
    ):
        open_source(where, table=table, include=["*.gif"], exclude=["dog/"])


def test_the_server_is_not_asked_for_stamps_of_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fsspec.filesystem("memory")
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"):
        driver.pipe(f"/stampless/{name}", b"x")
    asked: list[str] = []

    def stamp(found: FileListing, rows: Sequence[int], base: str) -> None:
        asked.extend(found.paths[row] for row in rows)

    monkeypatch.setattr(remote, "stamp_of", lambda info: 0)
    monkeypatch.setattr(remote, "add_stamps", stamp)
    monkeypatch.setattr(table_source, "add_stamps", stamp)
    open_source("memory://stampless", exclude=["dog/", "*2.jpg"])
    open_source("memory://stampless", categories=["dog"])
    table = tmp_path / "t.csv"
    table.write_text("path,label\ncat/1.jpg,1.0\ncat/2.jpg,1.0\ndog/3.jpg,2.0\n")
    open_source("memory://stampless", table=str(table), categories=["1"], exclude=["*2.jpg"])
    assert asked == ["cat/1.jpg", "dog/3.jpg", "cat/1.jpg"]
