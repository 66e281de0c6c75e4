"""Conversions to a URL: whole or not there, resumed after any end, one writer at a time, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import ConversionError, Interrupted, UsageError
from tfrecords.convert import engine
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.state.receipts import write_receipt
from tfrecords.convert.workers.pool import Runner
from tfrecords.convert.workers.receipt_watch import ReceiptWatch
from tfrecords.convert.workers.shard_worker import Monitor, Task, pack, unpack
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import ShardInfo
from tfrecords.storage import claims, drivers
from tfrecords.storage.claims import claimed
from tfrecords.storage.handover import put_probe
from tfrecords.storage.remote_conversion import abort_uploads, remote_target, remove_leftovers
from tfrecords.storage.remote_dataset import local_dataset
from tfrecords.storage.uploads import Upload

DATA, URL = "s3://own/data", "s3://own/data/zoo/1.0.0"
IN_MEMORY = "memory://data"
# Converts as the test does, and gets a signal when so many files were sent.
KILLED = """
import os, sys, time
from tfrecords.storage import remote_conversion, uploads
put, count = uploads.Upload._put, [int(sys.argv[3])]
def killed(self, *arguments, **options):
    count[0] -= 1
    if count[0] < 0:
        os.kill(os.getpid(), int(sys.argv[4]))
        time.sleep(60)
    return put(self, *arguments, **options)
uploads.Upload._put = killed
uploads._NUM_THREADS = 1
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
if __name__ == "__main__":
    with remote_conversion.remote_target(sys.argv[1], "zoo") as target:
        config = dict(image_dir=sys.argv[2], name="zoo", image_size=16, num_workers=1)
        made = convert(ConvertConfig(data_dir=target.data_dir, **config)).dataset_dir
        target.send(made, print)
        target.finish()
"""


def converted(url: str, photos: Path, **options: Any) -> ConvertSummary:
    config = ConvertConfig(image_dir=str(photos), name="zoo", image_size=16, num_workers=1)
    with remote_target(url, "zoo", whole=options.get("append", False)) as target:
        summary = engine.convert(dataclasses.replace(config, data_dir=target.data_dir, **options))
        if target.is_new(summary.dataset_dir):
            target.send(summary.dataset_dir, lambda text: None)
        target.finish()
    return summary


@pytest.fixture
def memory(cache: Path) -> Iterator[Any]:
    driver = fsspec.filesystem("memory")
    driver.mkdir("/data")
    yield driver
    driver.rm("/data", recursive=True)


def digests_at(url: str, digests_of: Callable[..., Any]) -> dict[str, str]:
    found = digests_of(local_dataset(url, verified=False))
    del found[".url"]
    return found


def test_the_same_bytes_as_in_a_folder(
    empty: Any, cache: Path, photos: Path, made: Path, digests_of: Callable[..., Any]
) -> None:
    summary = converted(DATA, photos)
    assert summary.num_converted == 40
    assert digests_at(URL, digests_of) == digests_of(made)
    assert not list((cache / "conversions").iterdir())
    assert not [path for path in empty.find("own/data") if ".writing" in path]
    again = converted(DATA, photos)
    assert (again.num_converted, again.num_examples) == (0, 40)
    with pytest.raises(UsageError, match=rf"^{URL} was made with other options: --seed=0 there, 1 now"):
        converted(DATA, photos, seed=1)
    assert digests_at(URL, digests_of) == digests_of(made)


@pytest.mark.parametrize("sent", [0, 2, 5, 6])
def test_ended_at_any_file(
    empty: Any, store: Any, photos: Path, made: Path, digests_of: Callable[..., Any], sent: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if store.kind == "moto" and sent in (0, 5):
        pytest.skip("each server has two of them")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    how = signal.SIGINT if sent == 2 else signal.SIGKILL
    command = [sys.executable, str(script), DATA, str(photos), str(sent), str(int(how))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if how == signal.SIGINT:
        assert ended.stderr.strip().endswith("Interrupted: interrupted; the same command resumes the conversion.")
    else:
        assert ended.returncode == -signal.SIGKILL
    assert len([path for path in empty.find("own/data") if ".writing" not in path]) == sent
    with pytest.raises(UsageError, match="has no dataset_info.json|it is being written|does not exist"):
        local_dataset(URL)
    put, names = Upload._put, []

    def counted(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        names.append(name)
        return put(self, name, *arguments, **options)

    monkeypatch.setattr(Upload, "_put", counted)
    summary = converted(DATA, photos)
    assert summary.num_converted == 0  # the shards were finished
    assert len(names) <= 7 - min(sent, 5) + 1  # what was sent and written down is not sent again
    assert names[-2:] == ["layout.json", "dataset_info.json"]
    assert digests_at(URL, digests_of) == digests_of(made)
    assert not [path for path in empty.find("own/data") if ".writing" in path]


def test_a_second_writer_is_refused(empty: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote_target(DATA, "zoo") as target:
        assert target._claim.conditional  # both servers refuse to write an object that exists
        with pytest.raises(ConversionError, match=rf"{URL}: .*, pid {os.getpid()}, is writing it since .* Wait until"):
            converted(DATA, photos)
    other = {"host": "elsewhere", "boot": "b", "start": "1", "pid": 1, "since": "then"}
    empty.pipe_file("own/data/zoo/.1.0.0.writing/other", json.dumps(other).encode())
    with pytest.raises(ConversionError, match="elsewhere, pid 1, is writing it since then"):
        converted(DATA, photos)
    monkeypatch.setattr(claims, "_STALE_S", -1.0)  # it has not been renewed for long
    converted(DATA, photos)
    assert not [path for path in empty.find("own/data") if ".writing" in path]


def test_a_new_version_that_is_sent_is_not_cleaned(
    memory: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor written by another process, though what `--append` holds from its beginning is the version before."""
    converted(IN_MEMORY, photos)
    images = tmp_path / "images"
    shutil.copytree(photos, images)
    first = min(path for path in images.rglob("*") if path.is_file())
    Image.new("RGB", (16, 16), "red").save(first.with_name("new.png"))
    put = Upload._put

    def cleaned(self: Any, name: str, **options: Any) -> Any:
        if name == "layout.json":
            with pytest.raises(ConversionError, match=r"zoo/1\.1\.0: .*, pid \d+, is writing it since"):
                remove_leftovers(f"{IN_MEMORY}/zoo/1.1.0")
        return put(self, name, **options)

    monkeypatch.setattr(Upload, "_put", cleaned)
    assert converted(IN_MEMORY, images, image_dir=str(images), append=True).num_examples == 41
    assert verify(local_dataset(f"{IN_MEMORY}/zoo/1.1.0", verified=False)).ok
    assert not [path for path in memory.find("/data") if ".writing" in path]


def test_what_an_interrupted_conversion_of_other_files_had_sent_is_removed(memory: Any, photos: Path) -> None:
    """It would be in the dataset, and fail its verification; what is of no dataset stays."""
    names = ("zoo-train.tfrecord-00000-of-00009", "idx/zoo-train.tfrecord-00000-of-00009.idx", "quarantine.jsonl")
    for name in (*names, "layout.json", "notes.txt"):
        memory.pipe_file(f"/data/zoo/1.0.0/{name}", b"old")
    converted(IN_MEMORY, photos)
    assert not [name for name in names if memory.exists(f"/data/zoo/1.0.0/{name}")]
    memory.rm_file("/data/zoo/1.0.0/notes.txt")
    assert verify(local_dataset(f"{IN_MEMORY}/zoo/1.0.0", verified=False)).ok


def test_a_claim_that_ends_while_it_is_renewed_is_gone(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_RENEW_S", 0.01)
    begun, go, renewed = threading.Event(), threading.Event(), threading.Event()
    put = memory.pipe_file

    def slow(path: str, value: bytes, **options: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            go.wait(10)
        put(path, value, **options)
        if go.is_set():
            renewed.set()

    with claimed(memory, "/data/zoo/1.0.0", IN_MEMORY, "--data_dir"):
        monkeypatch.setattr(memory, "pipe_file", slow)
        assert begun.wait(10)
    go.set()
    assert renewed.wait(10)
    end = time.monotonic() + 10
    while memory.find("/data") and time.monotonic() < end:
        time.sleep(0.01)
    assert not memory.find("/data")


def test_who_was_taken_for_dead_publishes_nothing(empty: Any, photos: Path) -> None:
    with pytest.raises(ConversionError, match="did not reach the store for 10 minutes"):  # noqa: SIM117
        with remote_target(DATA, "zoo") as target:
            config = ConvertConfig(image_dir=str(photos), name="zoo", image_size=16, num_workers=1)
            engine.convert(dataclasses.replace(config, data_dir=target.data_dir))
            empty.rm("own/data/zoo/.1.0.0.writing", recursive=True)
            target.send(target.dataset_dir, lambda text: None)
    assert not empty.exists("own/data/zoo/1.0.0/dataset_info.json")


def test_the_last_object_is_never_overwritten(empty: Any, photos: Path) -> None:
    """Whoever writes it without a claim, such as a copy of a dataset, stays."""
    with pytest.raises(ConversionError, match="dataset_info.json: another conversion has just written it"):  # noqa: SIM117
        with remote_target(DATA, "zoo") as target:
            config = ConvertConfig(image_dir=str(photos), name="zoo", image_size=16, num_workers=1)
            engine.convert(dataclasses.replace(config, data_dir=target.data_dir))
            empty.pipe_file("own/data/zoo/1.0.0/dataset_info.json", b"another")
            target.send(target.dataset_dir, lambda text: None)
    assert empty.cat_file("own/data/zoo/1.0.0/dataset_info.json") == b"another"


def open_upload(driver: Any, key: str) -> None:
    found = driver.call_s3("create_multipart_upload", Bucket="own", Key=key)
    driver.call_s3(
        "upload_part", Bucket="own", Key=key, UploadId=found["UploadId"], PartNumber=1, Body=b"x" * (5 << 20)
    )


def uploads(driver: Any) -> list[str]:
    return sorted(one["Key"] for one in driver.call_s3("list_multipart_uploads", Bucket="own").get("Uploads") or ())


def test_leftovers_are_removed(empty: Any, photos: Path) -> None:
    keys = ["data/zoo/1.0.0/a", "data/zoo/1.0.0/b", "data/zoo/1.0.0-other/c"]
    for key in keys:
        open_upload(empty, key)
    assert uploads(empty) == sorted(keys)
    empty.pipe_file("own/data/zoo/1.0.0/layout.json", b"{}")
    empty.pipe_file("own/data/zoo/1.0.0/zoo-train.tfrecord-00000-of-00001", b"half")
    assert remove_leftovers(URL) == (4, False)
    assert uploads(empty) == ["data/zoo/1.0.0-other/c"]
    assert not [path for path in empty.find("own/data") if path != "own/data"]  # a folder, for SeaweedFS
    open_upload(empty, keys[0])
    converted(DATA, photos)  # removes them, too
    assert uploads(empty) == ["data/zoo/1.0.0-other/c"]
    assert remove_leftovers(URL) == (0, True)
    local_dataset(URL)
    empty.pipe_file("own/data/zoo/2.0.0/holiday.mov", b"precious")
    with pytest.raises(UsageError, match="has objects that are of no conversion, e.g. own/data/zoo/2.0.0/holiday.mov"):
        remove_leftovers("s3://own/data/zoo/2.0.0")
    with pytest.raises(UsageError, match="s3://own/data: should be the URL of a dataset"):
        remove_leftovers("s3://own/data")
    abort_uploads(empty, "own/data")
    assert converted(DATA, photos).num_converted == 0  # what is in 2.0.0 is no dataset


def test_who_may_not_write(empty: Any, store: Any, photos: Path, use_store: Callable[..., None]) -> None:
    with pytest.raises(UsageError, match="--data_dir=s3://no-bucket/data does not exist. Check the name of the bucket"):
        converted("s3://no-bucket/data", photos)
    if store.kind == "moto":  # which checks no secrets
        return
    use_store({"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "of-a-reader"})
    with pytest.raises(UsageError, match=rf"--data_dir={URL}: the store refuses access \(.*\)\. Check the cred"):
        converted(DATA, photos)


def test_what_fails_for_a_moment_and_ctrl_c(memory: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tfrecords.storage.uploads.in_threads", interrupted)
        with pytest.raises(Interrupted, match="the same command resumes"):
            converted(IN_MEMORY, photos)
    assert not memory.find("/data/zoo/1.0.0")
    monkeypatch.setattr(drivers, "WAITS_S", (0.01, 0.01))  # both failures may be of one file
    put, failures = type(memory).put_file, iter([TimeoutError("slow"), ConnectionError("lost")])

    def shaky(self: Any, *arguments: Any, **options: Any) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return put(self, *arguments, **options)

    monkeypatch.setattr(type(memory), "put_file", shaky)
    assert converted(IN_MEMORY, photos).num_examples == 40


class Empty(Task):
    """Makes a shard of nothing."""

    def run(self, monitor: Monitor) -> None:
        self.shard.write_bytes(b"x")
        write_receipt(
            self.receipt, self.inputs, ShardInfo(file=self.shard.name, num_examples=0, num_bytes=1, sha256="")
        )


class Elsewhere(Runner):
    """Runs tasks as machines do that share no folder with this one; each task twice, as after a lost node."""

    def run(self, tasks: Any, on_done: Any, on_progress: Any) -> None:
        watch = ReceiptWatch(tasks, on_done, on_progress)
        for task in list(watch.waiting):
            for element in (pack(task), pack(task)):
                unpack(element).run_elsewhere(Monitor())
                assert not task.handover or not list(task.shard.parent.iterdir())
        watch.settle()
        assert not watch.waiting


@pytest.mark.parametrize("options", [{}, {"encoding": "jpeg", "resize": "short"}])
def test_machines_without_a_common_folder(
    memory: Any, photos: Path, tmp_path: Path, digests_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:  # fmt: skip
    config = ConvertConfig(
        image_dir=str(photos), data_dir=tmp_path, name="zoo", image_size=16, num_workers=1, **options
    )
    here = engine.convert(config)
    opened = engine.open_runner
    monkeypatch.setattr(
        engine, "open_runner", lambda name, *args, **kwargs: (
            opened(name, *args, **kwargs) if name == "local" else Elsewhere()
        )
    )  # fmt: skip
    with remote_target(IN_MEMORY, "zoo") as target:
        elsewhere = dataclasses.replace(config, data_dir=target.data_dir, engine="ray")
        there = engine.convert(elsewhere, handover=target.handover)
        assert digests_of(there.dataset_dir) == digests_of(here.dataset_dir)
        assert not memory.find("/data/zoo/.1.0.0.shards")  # also what was put twice
        target.send(there.dataset_dir, lambda text: None)
        target.finish()
    assert not memory.find("/data/zoo/.1.0.0.shards")
    put_probe(target.handover, "late")  # of a machine that was given up
    assert remove_leftovers(target.url) == (1, True)


def test_what_is_handed_over_is_listed_once(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray reports it, task by task, while others have put theirs already; or all of them at once."""
    listed: list[str] = []
    find = type(memory).find

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        found = find(self, *arguments, **options)
        listed.extend(found)
        return found

    monkeypatch.setattr(type(memory), "find", noted)
    (tmp_path / "receipts").mkdir()
    for number in (1, 20):
        names = [f"zoo-{number}.tfrecord-{shard:05d}-of-00020" for shard in range(20)]
        tasks = [
            Empty(
                shard=tmp_path / name,
                receipt=tmp_path / "receipts" / f"{name}.json",
                inputs="",
                rows=np.arange(1),
                handover=f"{IN_MEMORY}/zoo/.1.0.0.shards",
            )
            for name in names
        ]
        for task in tasks:
            task.run_elsewhere(Monitor())
        listed.clear()
        done: list[Any] = []
        watch = ReceiptWatch([], done.append)
        for first in range(0, 20, number):
            watch.waiting.extend(tasks[first : first + number])
            watch.settle()
        assert {task.shard.name for task in done} == {*names}
        assert len(listed) <= 2 * 2 * len(tasks)  # a shard and its receipt
        assert not find(memory, "/data")


def test_a_server_that_ignores_conditions(memory: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some do, which answer that an object was created, and overwrite the one that was there."""
    pipe = type(memory).pipe_file
    monkeypatch.setattr(type(memory), "pipe_file", lambda self, path, value, mode=None: pipe(self, path, value))
    with claimed(memory, "/data/zoo/1.0.0", f"{IN_MEMORY}/zoo/1.0.0", "--data_dir") as claim:
        assert not claim.conditional
        with pytest.raises(ConversionError, match="is writing it"):
            converted(IN_MEMORY, photos)
    assert converted(IN_MEMORY, photos).num_examples == 40


def test_the_engine_itself_takes_no_url(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--data_dir=s3://own/data: this has to be a path of this machine"):
        engine.convert(ConvertConfig(image_dir=str(photos), data_dir=Path(DATA), num_workers=1))
    assert not os.listdir(tmp_path)
