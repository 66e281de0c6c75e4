"""Datasets at URLs: the same examples as in a folder, nothing stale, and a sentence for everything that goes wrong."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import tfrecords
from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_verification import verify
from tfrecords.format.jpeg_frame import read_sizes
from tfrecords.format.naming import INFO_FILE, LAYOUT_FILE
from tfrecords.storage import drivers
from tfrecords.storage.remote_conversion import remove_leftovers
from tfrecords.storage.remote_dataset import local_dataset
from tfrecords.storage.remote_folder import origin_of

MEMORY = "memory://bucket/zoo/1.0.0"
URL = "s3://own/zoo/1.0.0"


@pytest.fixture
def memory(made: Path, cache: Path) -> Iterator[Any]:
    """The dataset in the memory of this process."""
    driver = fsspec.filesystem("memory")
    driver.put(str(made), "/bucket/zoo/1.0.0", recursive=True)
    yield driver
    driver.rm("/bucket", recursive=True)


@pytest.fixture
def remote(store: Any, made: Path, cache: Path) -> Any:
    """The dataset in a bucket; a driver of somebody else."""
    driver = store.driver()
    driver.put(str(made), "own/zoo/1.0.0", recursive=True)
    return driver


def shard_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if ".tfrecord-" in path.name}


def same_examples(location: str, made: Path, split: str) -> None:
    there, here = tfrecords.read(location, split), tfrecords.read(made, split)
    assert len(there) == len(here) > 0
    for one, other in zip(there[:], here[:], strict=True):
        assert (one == other).all()


def test_the_examples_of_a_split_and_only_its_shards(memory: Any, made: Path, cache: Path) -> None:
    same_examples(MEMORY, made, "test")
    (folder,) = (cache / "datasets").iterdir()
    assert shard_names(folder) == {path.name for path in made.glob("*-test.*")}
    assert local_dataset(Path(MEMORY), "train+test") == folder  # Path takes a slash away
    assert shard_names(folder) == shard_names(made)
    assert origin_of(folder) == MEMORY
    with pytest.raises(UsageError, match="has no split 'dev'"):
        tfrecords.read(MEMORY, "dev")


def test_images_in_their_own_shapes(memory: Any, photos: Path, tmp_path: Path) -> None:
    """Both kinds of sidecars are there: the offsets, and the sizes of the images."""
    config = ConvertConfig(image_dir=str(photos), data_dir=tmp_path, name="own", resize="short", num_workers=1)
    made = convert(config).dataset_dir
    memory.put(str(made), "/bucket/own/1.0.0", recursive=True)
    folder = local_dataset("memory://bucket/own/1.0.0", "test")
    (sizes,) = (folder / "sizes").iterdir()
    assert sizes.read_bytes() == (made / "sizes" / sizes.name).read_bytes()
    assert verify(local_dataset("memory://bucket/own/1.0.0", verified=False)).ok
    memory.rm_file(f"/bucket/own/1.0.0/{INFO_FILE}")
    assert remove_leftovers("memory://bucket/own/1.0.0")[1] is False
    assert not memory.find("/bucket/own")


def test_what_is_in_the_cache_is_not_read_again(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_dataset(MEMORY)
    monkeypatch.setattr(type(memory), "get_file", lambda *arguments: pytest.fail("it was read again"))
    local_dataset(MEMORY)
    again = pickle.loads(pickle.dumps(tfrecords.read(MEMORY, "test")))  # opens the URL again, wherever it is
    assert len(again) == 10


def test_a_path_of_this_machine_stays_one(made: Path) -> None:
    assert local_dataset(made) == made
    assert local_dataset(f"file://{made}") == made
    assert origin_of(made) == str(made.resolve())
    same_examples(f"file://{made}", made, "test")


def test_the_same_dataset_on_servers(remote: Any, made: Path, cache: Path, digests_of: Callable[..., Any]) -> None:
    same_examples(URL, made, "train")
    folder = local_dataset(URL, verified=False)
    assert verify(folder).problems == ()
    found = digests_of(folder)
    del found[".url"]
    assert found == digests_of(made)


def test_a_changed_dataset_is_read_anew(remote: Any, made: Path, cache: Path, store: Any) -> None:
    before = tfrecords.read(URL, "test")
    image = before[0].image
    (shard,) = made.glob("*-test.*")
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    store.driver().pipe_file(f"own/zoo/1.0.0/{shard.name}", bytes(damaged))
    with pytest.raises(DataError, match=f"{URL}/{shard.name}: its SHA-256 differs from the one in layout.json"):
        tfrecords.read(URL, "test")
    (problem,) = verify(local_dataset(URL, verified=False)).problems
    assert shard.name in problem
    assert (before[0].image == image).all()  # who has it open goes on
    store.driver().put_file(str(shard), f"own/zoo/1.0.0/{shard.name}")
    same_examples(URL, made, "test")


@pytest.mark.parametrize("name", [LAYOUT_FILE, INFO_FILE, "manifest.parquet"])
def test_a_lost_object(memory: Any, made: Path, name: str) -> None:
    memory.rm(f"/bucket/zoo/1.0.0/{name}")
    if name == INFO_FILE:
        with pytest.raises(UsageError, match="it is being written, or that was interrupted"):
            local_dataset(MEMORY)
    elif name == LAYOUT_FILE:  # as datasets of other programs
        assert shard_names(local_dataset(MEMORY)) == shard_names(made)
    else:
        assert [name in problem for problem in verify(local_dataset(MEMORY, verified=False)).problems] == [True]


def test_a_shard_of_another_length(memory: Any, made: Path) -> None:
    (shard,) = made.glob("*-test.*")
    memory.pipe_file(f"/bucket/zoo/1.0.0/{shard.name}", b"short")
    with pytest.raises(DataError, match=r"has 5 bytes, and layout.json says"):
        local_dataset(MEMORY)
    local_dataset(MEMORY, "train")


def test_what_fails_for_a_moment_is_tried_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "WAITS_S", (0.01, 0.01))
    read, failures = type(memory).get_file, iter([TimeoutError("slow"), ConnectionError("lost")])

    def shaky(self: Any, path: str, target: str) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        read(self, path, target)

    monkeypatch.setattr(type(memory), "get_file", shaky)
    local_dataset(MEMORY)

    def broken(self: Any, path: str, target: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setenv("SIMIMG_CACHE_DIR", os.environ["SIMIMG_CACHE_DIR"] + "-other")
    monkeypatch.setattr(type(memory), "get_file", broken)
    with pytest.raises(DataError, match=r"cannot be read: TimeoutError: no answer\. What is finished stays"):
        local_dataset(MEMORY)


def test_a_cache_that_is_too_small(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMIMG_CACHE_BYTES", "5k")
    with pytest.raises(UsageError, match=r"--cache_bytes=5000: [\d,]+ bytes are needed at once\. Give it more bytes"):
        local_dataset(MEMORY)


def test_names_that_lead_out_of_the_folder_are_left_out(memory: Any, cache: Path) -> None:
    for name in ("../evil", "idx/../../evil", "other/evil", ".hidden"):
        memory.store[f"/bucket/zoo/1.0.0/{name}"] = memory.store["/bucket/zoo/1.0.0/layout.json"]
    folder = local_dataset(MEMORY, verified=False)
    assert not [path for path in cache.rglob("*") if path.name in ("evil", ".hidden")]
    assert verify(folder).problems == ()


def test_who_may_not_read(remote: Any, store: Any, cache: Path, use_store: Callable[..., None]) -> None:
    with pytest.raises(UsageError, match="dataset_dir=s3://own/nothing does not exist. Check the name of the bucket"):
        tfrecords.read("s3://own/nothing", "train")
    with pytest.raises(UsageError, match="s3://no-bucket/zoo (does not exist|.*refuses access)"):
        tfrecords.read("s3://no-bucket/zoo", "train")
    if store.kind == "moto":  # which checks no secrets
        return
    refused = r"dataset_dir=s3://{}/zoo/1.0.0: the store refuses access \(.*\)\. Check the credentials of this machine"
    use_store({"AWS_SECRET_ACCESS_KEY": "wrong"})
    with pytest.raises(UsageError, match=refused.format("own")):
        tfrecords.read(URL, "train")
    use_store({"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "of-a-reader"})
    assert len(tfrecords.read(URL, "test")) == 10
    remote.mkdir("closed")
    with pytest.raises(UsageError, match=refused.format("closed")):
        tfrecords.read("s3://closed/zoo/1.0.0", "train")


def test_a_server_that_does_not_answer(
    cache: Path, use_store: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setattr(drivers, "_ANSWER_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        use_store({"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
        with pytest.raises(UsageError, match=r"does not answer as expected \(.*no answer for 0.5 s\)"):
            tfrecords.read(URL, "train")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://own/zoo", r"there is no driver for s3://\. Install it: pip install s3fs"),
        ("nowhere://own/zoo", r"unknown protocol nowhere://\. Known are s3, gs, az"),
        ("s3://key:secret@own/zoo", r"dataset_dir=s3://\*\*\*@own/zoo contains a password, a key or a signature"),
    ],
)
def test_urls_that_nothing_can_read(url: str, sentence: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(UsageError, match=sentence):
        tfrecords.read(url, "train")


def test_images_in_their_shapes_come_with_their_sizes(photos: Path, tmp_path: Path, cache: Path) -> None:
    config = ConvertConfig(
        image_dir=str(photos), data_dir=tmp_path, name="own", image_size=24, resize="short", num_workers=1
    )
    here = convert(config).dataset_dir
    driver = fsspec.filesystem("memory")
    driver.put(str(here), "/shapes/own/1.0.0", recursive=True)
    there = local_dataset("memory://shapes/own/1.0.0", "train")
    shards = [*here.glob("*-train.*")]
    for shard in shards:
        assert (read_sizes(there / shard.name, 30) == read_sizes(shard, 30)).all()
    assert {path.name for path in (there / "sizes").iterdir()} == {f"{shard.name}.sizes" for shard in shards}
    assert verify(local_dataset("memory://shapes/own/1.0.0")).problems == ()
    driver.rm("/shapes/own/1.0.0/dataset_info.json")
    assert remove_leftovers("memory://shapes/own/1.0.0")[1] is False
    assert not driver.find("/shapes/own/1.0.0")
