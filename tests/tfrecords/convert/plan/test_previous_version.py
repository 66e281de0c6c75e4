"""A dataset that is there already: left alone where it is what was asked for; else what differs is said."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tfrecords.base_errors import ConversionError, DataError, UsageError
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.previous_version import find_previous_version, listed_paths
from tfrecords.convert.sources import open_source, read_errors
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest, write_manifest
from tfrecords.format.quarantine import RefusedFile, read_quarantine, write_quarantine

AConfig = Callable[..., ConvertConfig]
Identities = Callable[[Path], dict[str, tuple[int, int]]]

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards


@pytest.fixture(autouse=True)
def _no_changes_meanwhile(mine: Path) -> Iterator[None]:
    """The clock of the file system ticks every 4 to 10 ms, and what changed in the same tick has to be read."""
    time.sleep(0.02)
    yield
    assert mine.is_dir()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from here on, by this process."""
    found: list[str] = []
    actual = FolderFiles.read

    def noting(files: FolderFiles, path: str, place: Any = None) -> bytes:
        found.append(path)
        return actual(files, path, place)

    monkeypatch.setattr(FolderFiles, "read", noting)
    return found


def edit(path: Path) -> None:
    """Changes a pixel's worth of bytes and neither the size nor the time of the last change."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# The same again


def test_a_second_call_does_nothing_and_says_so(
    mine: Path, tmp_path: Path, a_config: AConfig, identities: Identities, read: list[str]
) -> None:
    (mine / "ant" / "broken.jpg").write_bytes(b"")
    time.sleep(0.02)
    first = convert(a_config(mine, tmp_path / "data"))
    before = identities(first.dataset_dir)
    assert len(read) == 41
    read.clear()
    seen: list[ConvertProgress] = []
    second = convert(a_config(mine, tmp_path / "data", num_workers=0, max_refused="0"), progress=seen.append)
    assert identities(second.dataset_dir) == before
    assert (second.num_converted, second.images_per_s) == (0, 0)
    assert (second.num_examples, second.splits, second.num_refused) == (40, first.splits, 1)
    assert (second.reasons, second.warnings) == (first.reasons, first.warnings)
    assert seen == []
    assert read == []
    assert [path.name for path in (tmp_path / "data" / "zoo").iterdir()] == ["1.0.0"]


def test_only_what_was_touched_is_read_again(mine: Path, tmp_path: Path, a_config: AConfig, read: list[str]) -> None:
    (mine / "ant" / "broken.jpg").write_bytes(b"")
    time.sleep(0.02)
    convert(a_config(mine, tmp_path / "data"))
    for name in ("image_3.png", "broken.jpg"):
        os.utime(mine / "ant" / name)
    read.clear()
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0
    assert sorted(read) == ["ant/broken.jpg", "ant/image_3.png"]


def test_what_a_killed_call_left_is_removed(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    convert(a_config(mine, tmp_path / "data"))
    work = tmp_path / "data" / "zoo" / ".1.0.0.work"
    (work / "shards").mkdir(parents=True)
    (work / "shards" / "zoo-train.tfrecord-00000-of-00007").touch()
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0
    assert not work.exists()


# Other options


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 9}, "--image_size=8 there, 9 now."),
        ({"seed": 1, "resize": "pad"}, "--resize=stretch there, pad now; --seed=0 there, 1 now."),
        ({"encoding": "jpeg"}, "--encoding=raw there, jpeg now; --jpeg_quality=None there, 95 now."),
        ({"splits": "train=1"}, "--splits=train=0.75,test=0.25 there, train=1 now."),
        ({"background": "black"}, "--background=#ffffff there, #000000 now."),
        ({"categories": ("ant",)}, "--categories=[] there, ['ant'] now."),
        ({"copies": "exact", "append": True}, "--copies=near there, exact now."),
        (
            {"decode": "exact", "truncated": "keep"},
            "--decode=fast there, exact now; --truncated=refuse there, keep now.",
        ),
    ],
)
def test_other_options_are_named(
    mine: Path, tmp_path: Path, a_config: AConfig, changed: dict[str, Any], message: str, identities: Identities
) -> None:
    folder = convert(a_config(mine, tmp_path / "data")).dataset_dir
    before = identities(folder)
    with pytest.raises(UsageError) as caught:
        convert(a_config(mine, tmp_path / "data", **changed))
    end = "Choose another --name, or remove that folder."
    assert str(caught.value) == f"{folder} was made with other options: {message} {end}"
    assert identities(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


# Other files

OTHERS = r"made from other files of .*zoo"


def test_new_files_are_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    convert(a_config(mine, tmp_path / "data"))
    for number in (1, 2):
        os.link(mine / "ant" / "image_3.png", mine / "bee" / f"new_{number}.png")
    with pytest.raises(UsageError, match=rf"{OTHERS}: 2 new, e\.g\. bee/new_1\.png\. Give --append to add the new"):
        convert(a_config(mine, tmp_path / "data"))


def test_gone_files_are_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    convert(a_config(mine, tmp_path / "data"))
    (mine / "ant" / "image_3.png").unlink()
    with pytest.raises(UsageError, match=rf"{OTHERS}: 1 gone, e\.g\. ant/image_3\.png\. Choose another --name"):
        convert(a_config(mine, tmp_path / "data"))


def test_a_file_edited_in_place_is_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    """Of the same size, with its time set back: what tar and rsync do, too."""
    convert(a_config(mine, tmp_path / "data"))
    edit(mine / "ant" / "image_3.png")
    with pytest.raises(UsageError, match=rf"{OTHERS}: 1 changed, e\.g\. ant/image_3\.png\. Choose another --name"):
        convert(a_config(mine, tmp_path / "data"))
    with pytest.raises(UsageError, match=r"1 of its files have changed since, e\.g\. ant/image_3\.png\. --append adds"):
        convert(a_config(mine, tmp_path / "data", append=True))
    edit(mine / "ant" / "image_3.png")  # back
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0


def test_a_file_edited_while_others_were_converted_is_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    def progress(progress: ConvertProgress) -> None:
        if progress.num_done == progress.num_total:
            edit(mine / "ant" / "image_3.png")
            time.sleep(0.02)

    convert(a_config(mine, tmp_path / "data"), progress=progress)
    with pytest.raises(UsageError, match=rf"{OTHERS}: 1 changed, e\.g\. ant/image_3\.png"):
        convert(a_config(mine, tmp_path / "data"))


def test_a_file_that_cannot_be_read_any_more_has_changed(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    convert(a_config(mine, tmp_path / "data"))
    (mine / "ant" / "image_3.png").unlink()
    (mine / "ant" / "image_3.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match=rf"{OTHERS}: 1 changed, e\.g\. ant/image_3\.png"):
        convert(a_config(mine, tmp_path / "data"))


def test_mended_files_are_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    good = (mine / "ant" / "image_3.png").read_bytes()
    (mine / "ant" / "image_3.png").write_bytes(b"")
    (mine / "ant" / "image_4.jpg").unlink()
    (mine / "ant" / "image_4.jpg").symlink_to("nowhere")
    convert(a_config(mine, tmp_path / "data"))
    (mine / "ant" / "image_3.png").write_bytes(good)
    (mine / "ant" / "image_4.jpg").unlink()
    (mine / "ant" / "image_4.jpg").symlink_to("nowhere_else")  # as bad as before
    with pytest.raises(
        UsageError,
        match=rf"{OTHERS}: 1 rejected before and changed since, e\.g\. ant/image_3\.png\. Give --append to add the "
        "repaired ones, or choose another --name",
    ):
        convert(a_config(mine, tmp_path / "data"))


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("newer", [False, True])
def test_an_archive_that_was_replaced_is_told(
    mine: Path, tmp_path: Path, a_config: AConfig, kind: str, newer: bool
) -> None:
    """By one of the same size and time, made before the conversion or after it."""

    def pack(name: str) -> Path:
        path = tmp_path / f"{name}.{kind}"
        if kind == "tar":
            with tarfile.open(path, "w") as tar:
                tar.add(mine, "zoo")
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(mine.rglob("*.*")):
                    archive.write(file, file.relative_to(mine))
        os.utime(path, (10**9, 10**9))
        return path

    path = pack("zoo")
    config = a_config(path, tmp_path / "data")
    if newer:
        convert(config)
    edit(mine / "ant" / "image_3.png")
    other = pack("other")
    if not newer:
        convert(config)
    assert convert(config).num_converted == 0
    assert other.stat().st_size == path.stat().st_size
    other.rename(path)
    with pytest.raises(UsageError, match=r"1 changed, e\.g\. ant/image_3\.png"):
        convert(config)


def test_a_folder_in_the_place_of_another_is_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    """Its files are older than the dataset, and a file in a renamed folder keeps all of its times."""
    other = shutil.copytree(mine, tmp_path / "other")
    edit(other / "ant" / "image_3.png")
    time.sleep(0.02)
    convert(a_config(mine, tmp_path / "data"))
    mine.rename(tmp_path / "old")
    other.rename(mine)
    with pytest.raises(UsageError, match=r"1 changed, e\.g\. ant/image_3\.png"):
        convert(a_config(mine, tmp_path / "data"))


def test_a_link_that_leads_elsewhere_is_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    path = mine / "ant" / "image_3.png"
    for name in ("a", "b"):
        shutil.copy(path, tmp_path / f"{name}.png")
    edit(tmp_path / "b.png")
    path.unlink()
    path.symlink_to(tmp_path / "a.png")
    time.sleep(0.02)
    convert(a_config(mine, tmp_path / "data"))
    path.unlink()
    path.symlink_to(tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"1 changed, e\.g\. ant/image_3\.png"):
        convert(a_config(mine, tmp_path / "data"))


@pytest.mark.parametrize("kind", ["folder", "table"])
@pytest.mark.parametrize("with_stamps", [True, False])
def test_a_url_that_changed_is_told(
    mine: Path, tmp_path: Path, a_config: AConfig, kind: str, with_stamps: bool
) -> None:
    """Datasets of earlier versions have no stamps, so that every URL is read."""
    memory = fsspec.filesystem("memory")
    for path in mine.rglob("*.*"):
        memory.pipe(f"/zoo/{path.relative_to(mine)}", path.read_bytes())
    rows = "".join(f"memory://zoo/{path.relative_to(mine)},{path.parent.name}\n" for path in sorted(mine.rglob("*.*")))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
    config = a_config(
        *(("memory://zoo", tmp_path / "data") if kind == "folder" else ("", tmp_path / "data")),
        name="zoo",
        **({} if kind == "folder" else {"table": tmp_path / "t.csv"}),
    )
    folder = convert(config).dataset_dir
    if not with_stamps:
        forget_stamps(folder)
    read: list[str] = []
    actual = type(memory).cat_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "cat_file", lambda *values, **_: read.append(values[1]) or actual(*values))
        assert convert(config).num_converted == 0
    assert len(read) == (0 if with_stamps else 40)
    edit(mine / "ant" / "image_3.png")
    memory.pipe("/zoo/ant/image_3.png", (mine / "ant" / "image_3.png").read_bytes())
    with pytest.raises(UsageError, match=r"1 changed, e\.g\. .*ant/image_3\.png"):
        convert(config)
    memory.store.clear()


def forget_stamps(folder: Path) -> None:
    """Has the manifest as earlier versions wrote it."""
    manifest = read_manifest(folder)
    assert manifest.stamps.all()
    write_manifest(folder, dataclasses.replace(manifest, stamps=manifest.stamps * 0))


def test_a_data_set_of_an_earlier_version(mine: Path, tmp_path: Path, a_config: AConfig, read: list[str]) -> None:
    """Its files are read if they changed after its conversion began."""
    forget_stamps(convert(a_config(mine, tmp_path / "data")).dataset_dir)
    read.clear()
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0
    assert read == []
    edit(mine / "ant" / "image_3.png")
    with pytest.raises(UsageError, match=r"1 changed, e\.g\. ant/image_3\.png"):
        convert(a_config(mine, tmp_path / "data"))


def test_stamps_stay_with_their_files_in_a_new_version(
    mine: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None], read: list[str]
) -> None:
    convert(a_config(mine, tmp_path / "data"))
    write_picture(mine / "ant" / "image_10_and_a_half.png", 100)
    summary = convert(a_config(mine, tmp_path / "data", append=True))
    source = open_source(str(mine))
    manifest = read_manifest(summary.dataset_dir)
    assert dict(zip(manifest.paths, manifest.stamps.tolist(), strict=True)) == dict(
        zip(source.paths, source.stamps.tolist(), strict=True)
    )
    read.clear()
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0
    assert read == []


def test_a_fault_of_the_machine_is_no_change(
    mine: Path, tmp_path: Path, a_config: AConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(a_config(mine, tmp_path / "data"))
    os.utime(mine / "ant" / "image_3.png")

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(read_errors, "_WAITS_S", ())
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(ConversionError, match=r"ant/image_3\.png cannot be read: Input/output error"):
        convert(a_config(mine, tmp_path / "data"))


def test_all_of_it_is_told_at_once(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    good = (mine / "ant" / "image_3.png").read_bytes()
    (mine / "ant" / "image_3.png").write_bytes(b"")
    convert(a_config(mine, tmp_path / "data"))
    (mine / "ant" / "image_3.png").write_bytes(good)
    edit(mine / "ant" / "image_5.png")
    (mine / "bee" / "image_1.png").rename(mine / "bee" / "renamed.png")
    with pytest.raises(
        UsageError,
        match=r"zoo: 1 new, e\.g\. bee/renamed\.png; 1 gone, e\.g\. bee/image_1\.png; 1 changed, e\.g\. "
        r"ant/image_5\.png; 1 rejected before and changed since, e\.g\. ant/image_3\.png\. Give --append to add the "
        r"new",
    ):
        convert(a_config(mine, tmp_path / "data"))


def test_other_classes_of_the_same_files_are_told(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    table = tmp_path / "some.csv"
    for labels in ("xy", "yx"):
        table.write_text(f"path,label\nant/image_1.png,{labels[0]}\nbee/image_1.png,{labels[1]}\n")
        config = a_config(mine, tmp_path / "data", table=table)
        if labels == "xy":
            convert(config)
    with pytest.raises(
        UsageError,
        match=r"other files of .*csv: their sizes or classes differ\. Choose",
    ):
        convert(config)


# Adding to it


def test_append_adds_what_is_new_in_a_new_version(
    mine: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None]
) -> None:
    first = convert(a_config(mine, tmp_path / "data"))
    for number in range(3):
        write_picture(mine / "bee" / f"new_{number}.png", 100 + number)
    second = convert(a_config(mine, tmp_path / "data", append=True))
    assert second.dataset_dir == tmp_path / "data" / "zoo" / "1.1.0"
    assert (second.num_converted, second.num_examples) == (3, 43)
    assert verify(second.dataset_dir).ok
    assert verify(first.dataset_dir).ok
    rows = list(read_manifest(second.dataset_dir))
    assert [row.path for row in rows[40:]] == [f"bee/new_{number}.png" for number in range(3)]
    old = {row.path: (row.id, row.label, row.split) for row in read_manifest(first.dataset_dir)}
    assert {row.path: (row.id, row.label, row.split) for row in rows[:40]} == old
    for append in (True, False):  # the newest version is what there is now
        again = convert(a_config(mine, tmp_path / "data", append=append))
        assert (again.dataset_dir, again.num_converted, again.num_examples) == (second.dataset_dir, 0, 43)


def test_more_categories_are_appended_and_keep_the_labels_that_there_are(
    mine: Path, tmp_path: Path, a_config: AConfig
) -> None:
    convert(a_config(mine, tmp_path / "data", categories=("bee",)))
    summary = convert(a_config(mine, tmp_path / "data", categories=("ant", "bee"), append=True))
    assert (summary.num_converted, summary.num_examples) == (22, 40)
    assert Layout.load(summary.dataset_dir).class_names == ("bee", "ant")
    assert {(row.path[:3], row.label) for row in read_manifest(summary.dataset_dir)} == {("bee", 0), ("ant", 1)}
    assert verify(summary.dataset_dir).ok


def test_nothing_to_append_to(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    with pytest.raises(UsageError, match=r"--append: there is no dataset 'zoo' in .*data yet\. Leave --append out"):
        convert(a_config(mine, tmp_path / "data", append=True))
    assert not (tmp_path / "data").exists()


def test_the_newest_version_is_what_is_there(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    assert find_previous_version(a_config(mine, tmp_path / "data").resolved()) is None
    folder = convert(a_config(mine, tmp_path / "data")).dataset_dir
    for version in ("1.9.0", "1.10.0"):
        os.symlink(folder, folder.with_name(version))
    existing = find_previous_version(a_config(mine, tmp_path / "data").resolved())
    assert existing is not None
    assert existing.folder.name == "1.10.0"


def test_rows_by_what_became_of_them(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    (mine / "ant" / "image_3.png").write_bytes(b"")
    convert(a_config(mine, tmp_path / "data"))
    existing = find_previous_version(a_config(mine, tmp_path / "data").resolved())
    assert existing is not None
    os.link(mine / "ant" / "image_5.png", mine / "bee" / "another.png")
    source = open_source(str(mine))
    assert [source.paths[row] for row in existing.missing_rows(source)] == ["bee/another.png"]
    assert [source.paths[row] for row in existing.pending_rows(source)] == ["ant/image_3.png", "bee/another.png"]


# Only what a quarantine list names


def test_mended_files_of_the_quarantine_list_are_added(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    good = {name: (mine / "ant" / name).read_bytes() for name in ("image_3.png", "image_5.png", "image_7.png")}
    for name in good:
        (mine / "ant" / name).write_bytes(b"")
    first = convert(a_config(mine, tmp_path / "data"))
    assert (first.num_examples, first.num_refused) == (37, 3)
    listed = first.dataset_dir / "quarantine.jsonl"
    (mine / "ant" / "image_3.png").write_bytes(good["image_3.png"])
    (mine / "ant" / "image_5.png").write_bytes(good["image_5.png"][:-30])
    os.link(mine / "ant" / "image_9.png", mine / "bee" / "new.png")  # is not listed
    second = convert(a_config(mine, tmp_path / "data", append=True, only=listed))
    assert second.dataset_dir.name == "1.1.0"
    assert (second.num_converted, second.num_examples, second.num_refused) == (1, 38, 2)
    assert second.reasons == {"empty": 1, "truncated": 1}
    assert verify(second.dataset_dir).ok
    refused = {file.path: file.reason for file in read_quarantine(second.dataset_dir)}
    assert refused == {"ant/image_5.png": "truncated", "ant/image_7.png": "empty"}
    ids = [{row.path: row.id for row in read_manifest(each.dataset_dir)} for each in (first, second)]
    assert ids[0] == ids[1]
    rows = {row.path: row for row in read_manifest(second.dataset_dir)}
    assert (rows["ant/image_3.png"].status, rows["ant/image_3.png"].label) == ("ok", 0)

    with pytest.raises(UsageError, match=r"1 new, e\.g\. bee/new\.png\. Give --append"):
        convert(a_config(mine, tmp_path / "data"))
    (mine / "bee" / "new.png").rename(tmp_path / "new.png")
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0
    (tmp_path / "new.png").rename(mine / "bee" / "new.png")
    third = convert(a_config(mine, tmp_path / "data", append=True))
    assert (third.dataset_dir.name, third.num_converted, third.num_examples) == ("1.2.0", 1, 39)
    assert convert(a_config(mine, tmp_path / "data")).num_converted == 0


def test_files_that_are_as_bad_as_before_make_no_new_version(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    (mine / "ant" / "image_3.png").write_bytes(b"")
    folder = convert(a_config(mine, tmp_path / "data")).dataset_dir
    again = convert(a_config(mine, tmp_path / "data", append=True, only=folder / "quarantine.jsonl"))
    assert (again.dataset_dir, again.num_converted, again.num_examples) == (folder, 0, 39)
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


def test_a_list_makes_a_data_set_of_its_own(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    chosen = [RefusedFile(path=f"bee/image_{number}.png", reason="x", detail="y") for number in (1, 3)]
    write_quarantine(tmp_path, [*chosen, RefusedFile(path="bee/not_there.png", reason="x", detail="y")])
    config = a_config(mine, tmp_path / "data", only=tmp_path / "quarantine.jsonl", name="few")
    summary = convert(config)
    assert [row.path for row in read_manifest(summary.dataset_dir)] == ["bee/image_1.png", "bee/image_3.png"]
    assert Layout.load(summary.dataset_dir).class_names == ("ant", "bee")
    assert convert(config).num_converted == 0


def test_a_list_alone_does_not_add(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    (mine / "ant" / "image_3.png").write_bytes(b"")
    folder = convert(a_config(mine, tmp_path / "data")).dataset_dir
    with pytest.raises(UsageError, match=r"zoo/1\.0\.0 already exists\. Add --append to convert what --only names"):
        convert(a_config(mine, tmp_path / "data", only=folder / "quarantine.jsonl"))


def test_a_list_of_other_files(mine: Path, tmp_path: Path, a_config: AConfig) -> None:
    write_quarantine(tmp_path, [RefusedFile(path="cat/1.png", reason="x", detail="y")])
    with pytest.raises(UsageError, match=r"--only=.*jsonl: none of its 1 files is in .*zoo\."):
        convert(a_config(mine, tmp_path / "data", only=tmp_path / "quarantine.jsonl"))
    assert not (tmp_path / "data").exists()


def test_listed_paths(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(json.dumps({"path": "벌/\\xff.png"}) + '\n\n{"path": "b", "reason": "empty"}\n')
    assert listed_paths(str(tmp_path / "list")) == {"벌/\\xff.png", "b"}
    with pytest.raises(UsageError, match=r"--only=.*/none cannot be read: No such file or directory\. Name a"):
        listed_paths(str(tmp_path / "none"))
    for text in ("a.jpg\n", '{"file": "a"}\n', "[1]\n", "1\n"):
        (tmp_path / "list").write_text(text)
        with pytest.raises(
            UsageError, match=r"list is not a quarantine list: each line should be \{\"path\": \.\.\.\}"
        ):
            listed_paths(str(tmp_path / "list"))
    (tmp_path / "list").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a quarantine list"):
        listed_paths(str(tmp_path / "list"))


def test_a_data_set_that_lost_a_shard_is_not_added_to(
    mine: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None]
) -> None:
    folder = convert(a_config(mine, tmp_path / "data")).dataset_dir
    write_picture(mine / "bee" / "new.png", 100)
    (folder / "zoo-test.tfrecord-00001-of-00002").unlink()
    with pytest.raises(Exception, match=r"test\.tfrecord-00001-of-00002 is missing or damaged; nothing was added") as e:
        convert(a_config(mine, tmp_path / "data", append=True))
    assert not isinstance(e.value, ConversionError)
    assert not folder.with_name("1.1.0").exists()


@pytest.mark.parametrize(
    ("column", "number"), [("ids", 2**63 - 1), ("ids", -5), ("labels", 7), ("labels", -1), ("splits", -1)]
)
def test_a_manifest_with_numbers_that_cannot_be_continued(
    mine: Path, tmp_path: Path, a_config: AConfig, column: str, number: int
) -> None:
    folder = convert(a_config(mine, tmp_path)).dataset_dir
    manifest = read_manifest(folder)
    getattr(manifest, column)[3] = number
    write_manifest(folder, manifest)
    shutil.copy(mine / "ant" / "image_0.jpg", mine / "ant" / "image_99.jpg")
    with pytest.raises(DataError, match=r"manifest\.parquet contradicts layout\.json\. Run `simimg verify`"):
        convert(a_config(mine, tmp_path, append=True))
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]
