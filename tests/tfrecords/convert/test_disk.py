"""A disk that is full, read-only or without hard links: a clear error, nothing half, and the same command goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import ConversionError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

AConfig = Callable[..., ConvertConfig]
Digests = Callable[[Path], dict[str, str]]

pytestmark = pytest.mark.usefixtures("small_shards")

# What a conversion asks of the operating system to write.
CALLS = ("fsync", "replace", "rename", "link", "mkdir")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts file systems of memory, which only root may."""
    folders: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk_{len(folders)}"
        folder.mkdir()
        found = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if found.returncode:
            pytest.skip(f"no file system can be mounted here: {found.stderr.decode().strip()}")
        folders.append(folder)
        return folder

    with contextlib.suppress(FileNotFoundError):
        yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk(
    photos: Path, mounted: Callable[[str], Path], a_config: AConfig, digests_of: Digests, num_workers: int
) -> None:
    """40 photos of 64 px take 480 kB; there is room for some shards."""
    disk = mounted("size=256k")
    config = a_config(photos, disk, image_size=64, num_workers=num_workers)
    with pytest.raises(ConversionError) as caught:
        convert(config)
    assert "cannot be written: No space left on device. Finished shards are kept. Make room" in str(caught.value)
    assert str(disk / "zoo") in str(caught.value)
    assert not (disk / "zoo" / "1.0.0").exists()
    finished = sorted(path.name for path in (disk / "zoo" / ".1.0.0.work" / "receipts").glob("zoo*.json"))
    assert finished
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    summary = convert(config)
    assert summary.num_examples == 40 > summary.num_converted
    straight = convert(a_config(photos, mounted("size=4m"), image_size=64))
    assert digests_of(summary.dataset_dir) == digests_of(straight.dataset_dir)


def test_a_read_only_target(photos: Path, mounted: Callable[[str], Path], a_config: AConfig) -> None:
    disk = mounted("ro,size=1m")
    with pytest.raises(ConversionError, match=r"disk_0/zoo.* cannot be written: Read-only file system\. .*--data_dir"):
        convert(a_config(photos, disk))


def test_a_target_that_is_a_file(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConversionError, match="cannot be written: Not a directory"):
        convert(a_config(photos, tmp_path / "file"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", CALLS)
def test_each_call_may_fail(
    mine: Path,
    tmp_path: Path,
    a_config: AConfig,
    digests_of: Digests,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    """Every third of the calls fails once, in turn; then the same command finishes with the same bytes."""
    for copied in range(4):  # so that shards are put together anew
        shutil.copy(
            mine / "ant" / f"image_{copied}{'.png' if copied % 2 else '.jpg'}", mine / "bee" / f"x_{copied}.png"
        )
    expected = digests_of(convert(a_config(mine, tmp_path / "straight")).dataset_dir)
    real = getattr(os, call)
    num_calls, failing = 0, -1

    def fails_once(*arguments: Any, **options: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == failing:
            raise OSError(
                number, os.strerror(number), *(arguments[:1] if isinstance(arguments[0], (str, Path)) else ())
            )
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, fails_once)
    convert(a_config(mine, tmp_path / "counted"))
    total = num_calls
    assert total >= 1
    for at in range(1, total + 1, 3):
        num_calls, failing = 0, at
        data_dir = tmp_path / f"{call}_{at}"
        config = a_config(mine, data_dir)
        try:
            convert(config)
        except ConversionError as error:
            assert "cannot be written" in str(error), error
            assert "give the same command again" in str(error)
            failing = -1
            assert not (data_dir / "zoo" / "1.0.0").exists() or call == "fsync"
            convert(config)
        else:  # a copy serves as well where there are no links
            assert call == "link"
        failing = -1
        assert digests_of(data_dir / "zoo" / "1.0.0") == expected
        assert [path.name for path in (data_dir / "zoo").iterdir()] == ["1.0.0"]


def test_without_hard_links(
    photos: Path, tmp_path: Path, a_config: AConfig, expected: dict[str, str], digests_of: Digests, monkeypatch: Any
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert digests_of(convert(a_config(photos, tmp_path)).dataset_dir) == expected


def test_the_advice_fits_the_cause(photos: Path, tmp_path: Path, a_config: AConfig, monkeypatch: Any) -> None:
    (tmp_path / "zoo").touch()
    with pytest.raises(ConversionError, match=r"Not a directory\. .*Move away the file that has the name of a folder"):
        convert(a_config(photos, tmp_path))

    def unreadable(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(photos / "ant"))

    monkeypatch.setattr("tfrecords.convert.engine.open_source", unreadable)
    with pytest.raises(ConversionError, match=r"ant cannot be read: Input/output error\. ") as caught:
        convert(a_config(photos, tmp_path / "data"))
    assert "room" not in str(caught.value)
