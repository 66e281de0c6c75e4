"""The pool's promises: what its workers leave when they are stopped, fail, or are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert.plan import PlannedShard
from tfrecords.convert.pool import num_cores, run_pool
from tfrecords.convert.worker import Receipt, ShardTask
from tfrecords.errors import ConversionError

WAIT_S = 60  # far more than any of this takes: a hang, not a slow machine, fails a test


@pytest.fixture
def tasks(tmp_path: Path, make_folder: Callable[..., Path]) -> list[ShardTask]:
    """Six shards of five pictures each."""
    photos = make_folder(tmp_path / "photos", {"a": 30})
    paths = sorted(path.name for path in (photos / "a").iterdir())
    for folder in ("shards", "receipts"):
        (tmp_path / folder).mkdir()
    return [
        ShardTask(
            planned=PlannedShard(file=f"shard-{number}", split="train", shard=number, ids=tuple(range(5))),
            image_dir=photos / "a",
            paths=tuple(paths[5 * number : 5 * number + 5]),
            labels=(0,) * 5,
            shard_dir=tmp_path / "shards",
            receipt_dir=tmp_path / "receipts",
            image_size=8,
            resize="stretch",
            encoding="raw",
            jpeg_quality=95,
        )
        for number in range(6)
    ]


class HeldLock:
    """Holds the lock of the pool's counters, so that every worker waits after its first file until `release` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context = multiprocessing.get_context("spawn")
        self.make_array = context.Array
        self.release = threading.Event()
        self.counters: Any = None
        monkeypatch.setattr(context, "Array", self.held_array)

    def held_array(self, *arguments: Any) -> Any:
        self.counters = self.make_array(*arguments)
        held = threading.Event()

        def hold() -> None:
            with self.counters.get_lock():
                held.set()
                self.release.wait(WAIT_S)

        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(WAIT_S)
        return self.counters


class Run(threading.Thread):
    """Runs the pool in a thread, so that a test can notice that it hangs."""

    def __init__(self, tasks: list[ShardTask], on_progress: Callable[[int, int], None]) -> None:
        super().__init__(daemon=True)
        self.arguments = (tasks, 2, self.note, on_progress)
        self.receipts: list[Receipt] = []
        self.error: BaseException | None = None

    def note(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    def run(self) -> None:
        try:
            run_pool(*self.arguments)
        except BaseException as error:
            self.error = error


def test_every_shard_is_written_with_one_worker_and_with_two(tasks: list[ShardTask]) -> None:
    contents = []
    for num_workers in (1, 2):
        receipts: list[Receipt] = []
        counts: list[tuple[int, int]] = []
        run_pool(tasks, num_workers, receipts.append, lambda *count, counts=counts: counts.append(count))
        assert sorted(receipt.info.file for receipt in receipts) == [task.planned.file for task in tasks]
        assert counts[-1] == (30, 0)
        assert counts == sorted(counts)
        contents.append({path.name: path.read_bytes() for path in tasks[0].shard_dir.iterdir()})
        for path in [*tasks[0].shard_dir.iterdir(), *tasks[0].receipt_dir.iterdir()]:
            path.unlink()
    assert contents[0] == contents[1]
    assert len(contents[0]) == 6


def test_no_task_needs_no_worker() -> None:
    run_pool([], 4, lambda _: pytest.fail("a receipt"), lambda *_: None)
    assert multiprocessing.active_children() == []


def test_a_shard_that_cannot_be_written_stops_the_others(tasks: list[ShardTask]) -> None:
    """A folder stands where a shard should; what is finished stays, and no worker."""
    (tasks[1].shard_dir / tasks[1].planned.file).mkdir()
    with pytest.raises(ConversionError, match="shard-1 cannot be written: Is a directory"):
        run_pool(tasks, 2, lambda _: None, lambda *_: None)
    assert not list(tasks[0].shard_dir.glob(".*"))
    assert multiprocessing.active_children() == []


def test_an_interrupt_leaves_no_half_shard_and_no_worker(tasks: list[ShardTask]) -> None:
    def interrupt(*_: int) -> None:
        if list(tasks[0].shard_dir.glob(".*")) or list(tasks[0].shard_dir.iterdir()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pool(tasks, 2, lambda _: None, interrupt)
    assert not list(tasks[0].shard_dir.glob(".*"))
    finished = {path.name for path in tasks[0].shard_dir.iterdir()}
    assert {path.name.removesuffix(".json") for path in tasks[0].receipt_dir.iterdir()} == finished
    assert multiprocessing.active_children() == []


def test_an_interrupt_does_not_wait_for_the_end_of_a_shard(
    tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = HeldLock(monkeypatch)

    def release_when_told_to_stop() -> None:
        deadline = time.monotonic() + 5  # without the word to stop, workers would now finish their shards
        while not lock.counters.get_obj()[2] and time.monotonic() < deadline:
            time.sleep(0.01)
        lock.release.set()

    def interrupt(*_: int) -> None:
        if list(tasks[0].shard_dir.glob(".*")):
            threading.Thread(target=release_when_told_to_stop, daemon=True).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pool(tasks, 2, lambda _: None, interrupt)
    assert list(tasks[0].shard_dir.iterdir()) == list(tasks[0].receipt_dir.iterdir()) == []


def test_a_killed_worker_is_an_error_and_not_a_hang(tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a shard, while the lock of the counters is held, as by a worker killed just then."""
    lock = HeldLock(monkeypatch)
    in_a_shard = threading.Event()

    def on_progress(*_: int) -> None:
        if list(tasks[0].shard_dir.glob(".*")):
            in_a_shard.set()

    run = Run(tasks, on_progress)
    run.start()
    try:
        assert in_a_shard.wait(WAIT_S)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        run.join(WAIT_S)
        assert not run.is_alive()
    finally:
        lock.release.set()
    assert isinstance(run.error, ConversionError)
    assert "a worker process died" in str(run.error)
    assert "--num_workers" in str(run.error)
    assert run.receipts == []
    deadline = time.monotonic() + WAIT_S
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert multiprocessing.active_children() == []


def test_workers_leave_ctrl_c_to_their_parent(tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the pool does not run in the main thread, which alone could have them inherit that."""
    lock = HeldLock(monkeypatch)
    both_at_work = threading.Event()

    def on_progress(*_: int) -> None:
        if len(list(tasks[0].shard_dir.glob(".*"))) == 2:
            both_at_work.set()

    run = Run(tasks, on_progress)
    run.start()
    try:
        assert both_at_work.wait(WAIT_S)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
    finally:
        lock.release.set()
    run.join(WAIT_S)
    assert run.error is None
    assert len(run.receipts) == 6


def test_workers_that_cannot_start_are_an_error(tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch) -> None:
    resource_tracker.ensure_running()  # with the interpreter that works
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    run = Run(tasks, lambda *_: None)
    run.start()
    run.join(WAIT_S)
    assert not run.is_alive()
    assert isinstance(run.error, ConversionError)


def test_num_cores_is_what_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert num_cores() == len(before)
