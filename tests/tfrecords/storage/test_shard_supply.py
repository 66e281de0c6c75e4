"""A dataset that is larger than the cache: its shards come one after the other, and nobody waits for somebody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.absent_shards import supply_of
from tfrecords.format.layout import Layout
from tfrecords.storage import shard_supply
from tfrecords.storage.object_cache import BYTES_VARIABLE
from tfrecords.storage.remote_dataset import local_dataset

URL = "memory://bucket/many/1.0.0"
SPLITS = "+".join(f"fold{number}" for number in range(1, 6))
READ = """
import sys, time
import fsspec
from tfrecords.format.absent_shards import supply_of
from tfrecords.storage.remote_dataset import local_dataset
fsspec.filesystem("memory").put(sys.argv[1], "/bucket/many/1.0.0", recursive=True)
leases = [supply_of(local_dataset("memory://bucket/many/1.0.0", sys.argv[2], streamed=True)).lease() for _ in "ab"]
names = sys.argv[3:]
print("ready", flush=True)
sys.stdin.readline()
for name, following in zip(names, [*names[1:], ""]):
    for lease in leases:
        with open(lease.path_of(name, following), "rb") as file:
            time.sleep(0.01)
            print(name, len(file.read()), flush=True)
"""


@pytest.fixture(scope="module")
def many(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of five shards of about one length."""
    data_dir = tmp_path_factory.mktemp("many")
    config = ConvertConfig(image_dir=str(photos), data_dir=data_dir, name="many", image_size=16, num_workers=1, folds=5)
    return convert(config).dataset_dir


@pytest.fixture
def shards(many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """The shards by name, of a dataset at a URL; the cache has room for the rest of it and one and a half of them."""
    driver = fsspec.filesystem("memory")
    driver.put(str(many), "/bucket/many/1.0.0", recursive=True)
    files = {info.file: many / info.file for infos in Layout.load(many).splits.values() for info in infos}
    others = sum(path.stat().st_size for path in many.rglob("*") if path.is_file() and path.name not in files)
    largest = max(path.stat().st_size for path in files.values())
    monkeypatch.setenv(BYTES_VARIABLE, str(others + largest * 3 // 2))
    yield files
    driver.rm("/bucket", recursive=True)


def num_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in (cache / "objects").iterdir())


def test_shard_after_shard(shards: dict[str, Path], cache: Path) -> None:
    """Within the bound, also while one is read ahead; a former one can be read again."""
    folder = local_dataset(URL, SPLITS, streamed=True)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} >= {"layout.json"}
    assert not list(folder.glob("*.tfrecord-*"))
    supply = supply_of(folder)
    assert supply is not None
    lease, names = supply.lease(), [*shards, *shards]
    for name, following in zip(names, [*names[1:], ""], strict=True):
        path = lease.path_of(name, following)
        assert num_bytes(cache) <= int(os.environ[BYTES_VARIABLE])
        assert Path(path).read_bytes() == shards[name].read_bytes()


def test_all_splits_are_streamed_or_none(shards: dict[str, Path], cache: Path) -> None:
    """Each split alone would fit, and once it was linked the others would have no room."""
    for number, (name, path) in enumerate(shards.items(), start=1):
        folder = local_dataset(URL, f"fold{number}", streamed=True)
        assert not list(folder.glob("*.tfrecord-*"))
        supply = supply_of(folder)
        assert supply is not None
        assert Path(supply.lease().path_of(name, "")).read_bytes() == path.read_bytes()
    assert local_dataset(URL, "dev", streamed=True) == folder  # which says later that there is no such split


def test_several_readers_and_processes(
    many: Path, shards: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of four readers in two processes has room for its shard only when the others have none."""
    others = sum(path.stat().st_size for path in many.rglob("*") if path.is_file() and path.name not in shards)
    monkeypatch.setenv(BYTES_VARIABLE, str(int(os.environ[BYTES_VARIABLE]) + others))  # of the other process
    command = [sys.executable, "-c", READ, str(many), SPLITS, *shards]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    wanted = [f"{name} {path.stat().st_size}" for name, path in shards.items() for _ in "ab"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.communicate(timeout=60)[0].splitlines() == wanted


def test_no_room_for_long(shards: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_supply, "_NO_ROOM_S", 0.3)
    folder = local_dataset(URL, SPLITS, streamed=True)
    supply: Any = supply_of(folder)
    first, second = list(shards)[:2]
    supply.remote.hold(*supply.shards[first])  # as other parts of a program do
    with pytest.raises(DataError, match=rf"{URL}/{second}: --cache_bytes=.* more are needed.*There was none for"):
        supply.lease().path_of(second, "")
    supply.remote.release(*supply.shards[first])
    assert Path(supply.lease().path_of(second, "")).read_bytes() == shards[second].read_bytes()


def test_who_needs_all_of_it_is_told_so(shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="bytes are needed at once"):
        local_dataset(URL, SPLITS)
    monkeypatch.setenv(BYTES_VARIABLE, "3k")
    with pytest.raises(UsageError, match="bytes are needed at once"):  # not even one shard
        local_dataset(URL, SPLITS, streamed=True)
