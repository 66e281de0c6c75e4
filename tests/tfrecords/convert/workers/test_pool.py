"""The pool's promises: what its workers leave when they are stopped, fail, or are killed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import multiprocessing
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError
from tfrecords.convert.sources import open_source
from tfrecords.convert.state.receipts import read_info
from tfrecords.convert.workers import pool as pool_module
from tfrecords.convert.workers import pool_worker
from tfrecords.convert.workers.pool import Pool
from tfrecords.convert.workers.shard_worker import ShardTask, Task
from tfrecords.machine_limits import num_cores

from .shard_tasks import NUM_FILES, NUM_SHARDS, a_task

WAIT_S = 60  # far more than any of this takes: a hang, not a slow machine, fails a test

# Workers import it, so it is a module of its own.
ODD_FILES = textwrap.dedent(
    '''
    import dataclasses, os, threading, time

    @dataclasses.dataclass
    class OddFiles:
        """Files, some of which are not simply read: `what` says what happens when they are, by path."""

        files: object
        what: dict
        gate: str

        def read(self, path, place=None):
            what = self.what.get(path)
            if what == "held":  # until the file `gate` is there
                open(f"{self.gate}.{os.getpid()}", "w").close()
                while not os.path.exists(self.gate):
                    time.sleep(0.005)
            elif what == "exit":
                os._exit(7)
            elif what == "value":
                raise ValueError("no such thing")
            elif what == "unpicklable":
                raise type("HomeMade", (Exception,), {})(threading.Lock())
            return self.files.read(path, place)
    '''
)


@dataclasses.dataclass
class Shards:
    """Tasks for six shards of five pictures each, whose files can be odd."""

    folder: Path
    paths: list[str]
    make_files: Callable[..., Any]

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def receipts(self) -> Path:
        return self.folder / "receipts"

    def tasks(self, **odd: str) -> list[ShardTask]:
        """Returns the tasks; `_7="held"` makes file 7 a held one."""
        what = {self.paths[int(number[1:])]: how for number, how in odd.items()}
        files = self.make_files(open_source(str(self.folder / "photos")).files, what, str(self.gate))
        for folder in (self.shards, self.receipts):
            folder.mkdir(exist_ok=True)
        return [
            a_task(
                self.folder,
                files,
                name=f"shard-{number}",
                inputs="these",
                rows=np.arange(number * NUM_FILES, (number + 1) * NUM_FILES),
                paths=tuple(self.paths[number * NUM_FILES : (number + 1) * NUM_FILES]),
                ids=np.arange(NUM_FILES),
                labels=np.zeros(NUM_FILES, np.int64),
            )
            for number in range(NUM_SHARDS)
        ]

    def held(self) -> set[int]:
        """Returns the processes that came to a held file."""
        return {int(path.suffix[1:]) for path in self.folder.glob("gate.*")}

    def finished(self) -> list[str]:
        """Returns the names of the shards that are there, each whole and with its receipt, and nothing beside them."""
        names = sorted(path.name for path in self.shards.iterdir())
        assert sorted(path.name for path in self.receipts.iterdir()) == [f"{name}.json" for name in names]
        for name in names:
            assert read_info(self.receipts / f"{name}.json", "these", self.shards / name)
        return names


@pytest.fixture
def some(tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shards]:
    photos = make_folder(tmp_path / "photos", {"a": NUM_SHARDS * NUM_FILES})
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "odd_files.py").write_text(ODD_FILES)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    paths = sorted(f"a/{path.name}" for path in (photos / "a").iterdir())
    yield Shards(tmp_path, paths, importlib.import_module("odd_files").OddFiles)
    (tmp_path / "gate").touch()  # whatever a test that failed left
    del sys.modules["odd_files"]


def path_of(row: int) -> str:
    return f"file number {row}"


def run(
    tasks: list[ShardTask],
    on_done: Callable[[Task], None] = lambda _: None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    num_workers: int = 2,
) -> None:
    try:
        with Pool(num_workers, path_of) as pool:
            pool.run(iter(tasks), on_done, on_progress)
    finally:
        assert multiprocessing.active_children() == []


class Run(threading.Thread):
    """Runs the pool in a thread, so that a test can notice that it hangs."""

    def __init__(self, tasks: list[ShardTask]) -> None:
        super().__init__(daemon=True)
        self._tasks = tasks
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            run(self._tasks)
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """Returns how it ended."""
        self.join(WAIT_S)
        assert not self.is_alive(), "the pool hangs"
        return self.error


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.005)


@pytest.fixture
def opened_at_the_end(some: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the gate open when the workers were told to stop, and are waited for: without the word they would go on."""
    end = pool_worker.Worker.end

    def opening(worker: Any) -> None:
        some.gate.touch()
        end(worker)

    monkeypatch.setattr(pool_worker.Worker, "end", opening)


# Work


def test_every_shard_is_written_with_one_worker_and_with_two(some: Shards) -> None:
    contents = []
    for num_workers in (1, 2):
        tasks = some.tasks()
        done: list[Task] = []
        counts: list[tuple[int, int]] = []
        run(tasks, done.append, lambda *count, counts=counts: counts.append(count), num_workers)
        assert sorted(map(id, done)) == sorted(map(id, tasks))
        assert counts[-1] == (30, 0)
        assert counts == sorted(counts)
        assert len(some.finished()) == NUM_SHARDS
        contents.append({path.name: path.read_bytes() for path in (*some.shards.iterdir(), *some.receipts.iterdir())})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_refused_files_are_counted(some: Shards, num_workers: int) -> None:
    (some.folder / "photos" / some.paths[7]).write_bytes(b"")
    (some.folder / "photos" / some.paths[20]).unlink()
    counts: list[tuple[int, int]] = []
    run(some.tasks(), on_progress=lambda *count: counts.append(count), num_workers=num_workers)
    assert counts[-1] == (30, 2)


def test_no_task_needs_no_worker() -> None:
    with Pool(4, path_of) as pool:
        pool.run(iter([]), lambda _: pytest.fail("a task"), lambda *_: None)
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("num_workers", "asked", "expected"), [(1, 8, 0), (3, 8, 3), (3, 2, 2)])
def test_workers_start_before_there_are_tasks(some: Shards, num_workers: int, asked: int, expected: int) -> None:
    with Pool(num_workers, path_of) as pool:
        pool.start(asked)
        until(lambda: len(multiprocessing.active_children()) == expected)
        before = {child.pid for child in multiprocessing.active_children()}
        pool.run(iter(some.tasks()[:2]), lambda _: None, lambda *_: None)
        assert {child.pid for child in multiprocessing.active_children()} == before
    assert multiprocessing.active_children() == []


def test_workers_that_are_dismissed_end_by_themselves(some: Shards) -> None:
    with Pool(2, path_of) as pool:
        pool.run(iter(some.tasks()), lambda _: None, lambda *_: None)
        assert len(multiprocessing.active_children()) == 2
        pool.dismiss()
        until(lambda: multiprocessing.active_children() == [])
    assert len(some.finished()) == NUM_SHARDS


def test_no_more_workers_than_tasks(some: Shards) -> None:
    with Pool(9, path_of) as pool:
        pool.run(iter(some.tasks()[:2]), lambda _: None, lambda *_: None)
        assert len(multiprocessing.active_children()) == 2


def test_workers_stay_for_the_next_run_which_is_counted_anew(some: Shards) -> None:
    tasks = some.tasks()
    counts: list[tuple[int, int]] = []
    with Pool(2, path_of) as pool:
        pool.run(iter(tasks[:4]), lambda _: None, lambda *_: None)
        before = {child.pid for child in multiprocessing.active_children()}
        pool.run(iter(tasks[4:]), lambda _: None, lambda *count: counts.append(count))
        assert {child.pid for child in multiprocessing.active_children()} == before
    assert counts[-1] == (10, 0)
    assert len(before) == 2
    assert len(some.finished()) == NUM_SHARDS


def test_a_task_is_taken_when_a_worker_is_free(some: Shards) -> None:
    """So that a million files are never all tasks at once."""
    num_taken = num_done = 0

    def taking() -> Iterator[ShardTask]:
        nonlocal num_taken
        for number in range(30):
            task = some.tasks()[number % NUM_SHARDS]
            num_taken += 1
            # Each worker has one under way, and one that it has finished; one is next.
            assert num_taken <= num_done + 2 * 2 + 1
            yield dataclasses.replace(
                task, shard=some.shards / f"{number}", receipt=some.receipts / f"{number}.json", durable=number % 2 == 0
            )

    def on_done(_: Task) -> None:
        nonlocal num_done
        num_done += 1

    with Pool(2, path_of) as pool:
        pool.run(taking(), on_done, lambda *_: None)
    assert (num_taken, num_done) == (30, 30)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_worker_holds_little_and_nothing_of_its_parent(some: Shards) -> None:
    """So that sixty-four of them fit."""
    ballast = np.ones(300 * 2**20, np.uint8)
    run = Run(some.tasks(_0="held", _5="held"))
    run.start()
    until(lambda: len(some.held()) == 2)
    for process in some.held():
        status = dict(re.findall(r"(\w+):\s+(\d+) kB", Path(f"/proc/{process}/status").read_text()))
        assert int(status["VmHWM"]) < 250 * 1024
        assert int(status["VmRSS"]) > 10 * 1024  # it is what it was taken for
    some.gate.touch()
    assert run.ended() is None
    assert ballast.any()


# Stops


@pytest.mark.usefixtures("opened_at_the_end")
def test_a_shard_that_cannot_be_written_stops_the_others(some: Shards) -> None:
    """A folder stands where a shard should; what is finished stays."""
    tasks = some.tasks(_7="held", _20="held")
    tasks[3].shard.mkdir()
    with pytest.raises(ConversionError, match="shard-3 cannot be written: Is a directory"):
        run(tasks)
    tasks[3].shard.rmdir()
    assert some.finished() == ["shard-0", "shard-2"]


@pytest.mark.usefixtures("opened_at_the_end")
def test_an_interrupt_leaves_no_half_shard_and_does_not_wait_for_its_end(some: Shards) -> None:
    def interrupt(*_: int) -> None:
        if len(some.held()) == 2:
            assert len(list(some.shards.glob(".*"))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(some.tasks(_6="held", _11="held"), on_progress=interrupt)
    assert some.finished() == ["shard-0"]
    run(some.tasks())
    assert len(some.finished()) == NUM_SHARDS


def test_an_interrupt_while_a_worker_starts_leaves_none(some: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[BaseProcess] = []
    start = BaseProcess.start

    def interrupted(process: BaseProcess) -> None:
        signal.raise_signal(signal.SIGINT)
        start(process)
        started.append(process)

    monkeypatch.setattr(BaseProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(some.tasks())
    assert len(started) == 1  # the interrupt waited until it had
    assert not started[0].is_alive()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_interrupt_before_the_pool_has_noted_a_start_leaves_no_worker(
    some: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(starter: ThreadPoolExecutor, start: Callable[[], Any]) -> None:
        submit(starter, start).result(WAIT_S)
        raise KeyboardInterrupt

    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(some.tasks())
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("in_main", [True, False])
def test_workers_leave_ctrl_c_to_their_parent(some: Shards, in_main: bool) -> None:
    """Also where the pool does not run in the main thread, which alone could have them inherit that."""
    tasks = some.tasks(_0="held", _5="held")

    def ctrl_c(*_: int) -> None:
        if len(some.held()) < 2:
            return
        for process in some.held():
            os.kill(process, signal.SIGINT)
        some.gate.touch()

    if in_main:
        run(tasks, on_progress=ctrl_c)
    else:
        thread = Run(tasks)
        thread.start()
        until(lambda: len(some.held()) == 2)
        ctrl_c()
        assert thread.ended() is None
    assert len(some.finished()) == NUM_SHARDS


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_ctrl_c_is_blocked_before_a_worker_could_ignore_it(some: Shards) -> None:
    run = Run(some.tasks(_0="held", _5="held"))
    run.start()
    until(lambda: len(some.held()) == 2)
    for process in some.held():
        masks = dict(re.findall(r"(Sig\w+):\s+(\w+)", Path(f"/proc/{process}/status").read_text()))
        bit = 1 << (signal.SIGINT - 1)
        assert int(masks["SigBlk"], 16) & bit  # inherited
        assert int(masks["SigIgn"], 16) & bit  # for a library that unblocks it
    some.gate.touch()
    assert run.ended() is None


# Deaths


@pytest.mark.usefixtures("opened_at_the_end")
def test_a_killed_worker_is_an_error_that_names_its_file_and_not_a_hang(some: Shards) -> None:
    run = Run(some.tasks(_2="held", _8="held"))
    run.start()
    until(lambda: len(some.held()) == 2)
    killed = max(some.held())
    os.kill(killed, signal.SIGKILL)
    error = run.ended()
    assert isinstance(error, ConversionError)
    assert re.fullmatch(
        rf"worker process {killed} died \(SIGKILL, which is also what the system sends when memory runs out\) while it "
        r"converted file number [28]\. Finished shards are kept\. .* fewer --num_workers .* move that file away\.",
        str(error),
    )
    for leftover in some.shards.glob(".*"):  # the killed one could not; the next conversion removes it
        leftover.unlink()
    assert some.finished() == []


def test_a_worker_that_a_library_ends_is_an_error_that_names_its_file(some: Shards) -> None:
    with pytest.raises(ConversionError, match=r"died \(exit code 7\) while it converted file number 7\."):
        run(some.tasks(_7="exit"))


def test_a_worker_that_dies_between_two_runs(some: Shards) -> None:
    """As one that the system picked when memory ran out."""
    tasks = some.tasks()
    with Pool(2, path_of) as pool:
        pool.run(iter(tasks[:2]), lambda _: None, lambda *_: None)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join(WAIT_S)
        with pytest.raises(ConversionError, match=r"died \(SIGKILL.* between two shards\."):
            pool.run(iter(tasks[2:]), lambda _: None, lambda *_: None)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [("value", ValueError, "no such thing"), ("unpicklable", RuntimeError, r"odd_files\.HomeMade: <unlocked.*")],
)
def test_a_bug_is_raised_with_its_traceback_and_its_file(
    some: Shards, what: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        run(some.tasks(_12=what))
    assert re.fullmatch(message, str(caught.value))
    notes = "\n".join(caught.value.__notes__)
    assert 'odd_files.py", line' in notes
    assert "in a worker process while it converted file number 12" in notes


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "Resource temporarily unavailable"), EOFError()])
def test_workers_that_cannot_start_are_an_error(
    some: Shards, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    started: list[BaseProcess] = []
    start = BaseProcess.start

    def second_fails(process: BaseProcess) -> None:
        if started:
            raise error
        start(process)
        started.append(process)

    monkeypatch.setattr(BaseProcess, "start", second_fails)
    with pytest.raises(ConversionError, match=r"worker processes cannot be started: .*with --num_workers=1\."):
        run(some.tasks())
    assert not started[0].is_alive()


def test_workers_that_nothing_can_end_are_left_behind(some: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that does not answer: neither the word nor the kill reaches them, and nobody may wait for that."""
    monkeypatch.setattr(pool_module, "_STOP_S", 0.01)
    monkeypatch.setattr(pool_worker, "_KILL_S", 0.01)
    spared: list[BaseProcess] = []  # which keeps the ends of their connections open, too
    monkeypatch.setattr(BaseProcess, "kill", lambda process: spared.append(process))

    def interrupt(*_: int) -> None:
        if len(some.held()) == 2:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            run(some.tasks(_2="held", _8="held"), on_progress=interrupt)  # no child is active for the interpreter
        assert {process.pid for process in spared} == some.held()
        assert [process.exitcode for process in spared] == [None, None]
    finally:
        for process in spared:
            os.kill(process.pid or 0, signal.SIGKILL)


def test_a_second_interrupt_ends_the_workers_at_once(some: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are held would keep the first one waiting for a minute."""
    join = BaseProcess.join
    joined: list[int] = []

    def interrupted(process: BaseProcess, timeout: float | None = None) -> None:
        joined.append(process.pid or 0)
        if len(joined) == 1:
            raise KeyboardInterrupt
        join(process, timeout)

    def interrupt(*_: int) -> None:
        if len(some.held()) == 2:
            monkeypatch.setattr(BaseProcess, "join", interrupted)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(some.tasks(_2="held", _8="held"), on_progress=interrupt)
    for process in some.held():
        until(lambda process=process: not Path(f"/proc/{process}").exists())


def test_workers_end_when_their_parent_dies(some: Shards, environment: dict[str, str]) -> None:
    """Also in the middle of a shard, and with no end of a connection to notice it by."""
    script = some.folder / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import pickle, sys
            sys.path.insert(0, {str(some.folder / "modules")!r})
            from tfrecords.convert.workers.pool import Pool

            if __name__ == "__main__":
                tasks = pickle.load(open({str(some.folder / "tasks")!r}, "rb"))
                with Pool(2, str) as pool:
                    pool.run(iter(tasks), lambda _: None, lambda *_: None)
            """
        )
    )
    (some.folder / "tasks").write_bytes(pickle.dumps(some.tasks(_1="held", _6="held")))
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    watched: list[int] = []
    try:
        until(lambda: len(some.held()) == 2 or parent.poll() is not None)
        watched = [os.pidfd_open(process) for process in some.held()]
        parent.kill()
        deadline = time.monotonic() + WAIT_S
        for descriptor in watched:
            assert select.select([descriptor], [], [], deadline - time.monotonic())[0], "a worker outlives its parent"
    finally:
        parent.kill()
        parent.wait(WAIT_S)
        some.gate.touch()
        for descriptor in watched:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    assert len(watched) == 2


def test_num_cores_is_what_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert num_cores() == len(before)


def test_freed_memory_is_used_again_instead_of_being_cleared_by_the_system() -> None:
    """A thread takes 64 MB three times, as an image of 16 megapixels does; the pages of the first time serve again."""
    code = textwrap.dedent("""
        import resource, threading
        from tfrecords.machine_limits import keep_freed_memory

        def take():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            blocks = [bytearray(1 << 24) for _ in range(4)]
            del blocks
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        keep_freed_memory()
        thread = threading.Thread(target=lambda: print(take(), take(), take()))
        thread.start()
        thread.join()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = map(int, done.stdout.split())
    assert max(others) < 0.1 * first
