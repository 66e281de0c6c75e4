"""On Apache Beam: the same bytes as without, errors in one sentence, a clean stop, nothing left behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.state.receipts import write_receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.convert.workers import beam_local, receipt_watch
from tfrecords.convert.workers import beam_runner as beam_module
from tfrecords.convert.workers.beam_runner import BeamRunner
from tfrecords.convert.workers.shard_worker import ShardTask, pack
from tfrecords.format.layout import ShardInfo

from .shard_tasks import NUM_FILES, NUM_SHARDS, a_task, tasks_of_folder

Digests = Callable[[Path], dict[str, str]]
AConfig = Callable[..., ConvertConfig]

WAIT_S = 60  # far more than any of this takes: a hang, not a slow machine, fails a test
TWO = "--direct_num_workers=2"
# A job service in this process, as a cluster has one: jobs are submitted, watched and cancelled.
PORTABLE = "--runner=PortableRunner --job_endpoint=embed --environment_type=LOOPBACK"

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards
needs_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs the extra beam")


# Without Beam


def test_without_beam_the_error_says_what_to_install(
    photos: Path, tmp_path: Path, a_config: AConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UsageError, match=r"Install it with: pip install 'simimg-tf\[beam\]'"):
        convert(a_config(photos, tmp_path, engine="beam"))


def test_an_element_has_few_bytes_a_file_and_no_pixels(
    photos: Path, tmp_path: Path, a_config: AConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements: list[bytes] = []
    monkeypatch.setattr(BeamRunner, "run", lambda _, tasks, *__: elements.extend(map(pack, tasks)))
    with pytest.raises(ConversionError, match="is not there"):
        convert(a_config(photos, tmp_path, engine="beam"))
    assert len(elements) == 9
    assert max(map(len, elements)) < 1500  # one 24 x 20 picture has 1440 bytes of pixels, and there are 4 or 5
    many = np.arange(10_000)
    paths = tuple(f"some_class/image_{number:06d}.jpg" for number in many.tolist())
    assert len(pack(a_task(tmp_path, None, paths=paths, rows=many, ids=many, labels=many % 7))) < 16 * len(many)


def test_a_workers_error_is_found_in_the_traceback_that_a_runner_gives() -> None:
    text = textwrap.dedent(
        """
        RuntimeError: Error received from SDK harness for instruction 4: Traceback (most recent call last):
          File "tfrecords/convert/workers/shard_worker.py", line 101, in writing
            raise ConversionError(
        tfrecords.base_errors.ConversionError: /data/a cannot be written: No space left. Make room.

        During handling of the above exception, another exception occurred:

          File "tfrecords/convert/workers/shard_worker.py", line 101, in writing
        tfrecords.base_errors.ConversionError: /data/a cannot be written: No space left. Make room. [while running
        'write']
        """
    )
    assert str(beam_module._explained(RuntimeError(text))) == "/data/a cannot be written: No space left. Make room."
    other = str(beam_module._explained(RuntimeError("Traceback:\n  line 1\nTypeError: no. [while running 'write']")))
    assert other.startswith("Apache Beam could not finish: TypeError: no. Finished shards are kept")
    assert str(beam_module._explained(ValueError())).startswith("Apache Beam could not finish: ValueError.")


def test_the_last_words_of_a_dead_worker_are_read_whole_while_others_still_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(WAIT_S)
    (tmp_path / f"{os.getpid()}.log").write_text("Traceback:\nImportError: a bro")
    (tmp_path / f"{dead.pid}.log").write_text("Traceback:\nImportError: a broken installation\n")
    error = beam_local._death(RuntimeError("Worker subprocess exited with return code 1"), tmp_path, [])
    assert str(error).startswith("a Beam worker process died (exit code 1): ImportError: a broken installation. Finis")


# The same bytes


@needs_beam
@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_same_bytes_as_local_workers(
    photos: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests, encoding: str
) -> None:
    seen: list[ConvertProgress] = []
    config = a_config(photos, tmp_path / "beam", engine="beam", beam_options=TWO, encoding=encoding)
    summary = convert(config, progress=seen.append)
    found = digests_of(summary.dataset_dir)
    for num_workers in (1, 3):
        local = a_config(photos, tmp_path / str(num_workers), num_workers=num_workers, encoding=encoding)
        assert digests_of(convert(local).dataset_dir) == found
    assert len(found) == (14 if encoding == "raw" else 23)
    assert (summary.num_converted, summary.num_refused) == (40, 0)
    assert (seen[0], seen[-1]) == (ConvertProgress(0, 40, 0), ConvertProgress(40, 40, 0))
    assert convert(config).num_converted == 0


@needs_beam
@pytest.mark.parametrize("options", ["--direct_num_workers=2 --direct_runner_bundle_repeat=1", PORTABLE])
def test_same_bytes_when_tasks_are_repeated_and_on_a_job_service(
    photos: Path, tmp_path: Path, a_config: AConfig, expected: dict[str, str], digests_of: Digests, options: str
) -> None:
    assert digests_of(convert(a_config(photos, tmp_path, engine="beam", beam_options=options)).dataset_dir) == expected


@needs_beam
def test_refused_files_and_copies_are_as_without_beam(
    mine: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests
) -> None:
    (mine / "ant" / "image_3.png").write_bytes(b"<html>")
    (mine / "bee" / "image_4.jpg").write_bytes(b"")
    for number in range(5, 9):  # copies, so that shards have to be put together anew
        (mine / "bee" / f"copy_{number}.jpg").write_bytes((mine / "ant" / "image_6.jpg").read_bytes())
    seen: list[ConvertProgress] = []
    config = a_config(mine, tmp_path / "beam", engine="beam", beam_options=TWO)
    summary = convert(config, progress=seen.append)
    assert summary.num_refused == 2
    assert (seen[-1].num_done, seen[-1].num_refused) == (44, 2)
    assert digests_of(summary.dataset_dir) == digests_of(convert(a_config(mine, tmp_path / "local")).dataset_dir)


@needs_beam
def test_append(
    mine: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests, write_picture: Callable[..., None]
) -> None:
    configs = [
        a_config(mine, tmp_path / "local"),
        a_config(mine, tmp_path / "beam", engine="beam", beam_options=TWO),
    ]
    for config in configs:
        convert(config)
    for number in range(6):
        write_picture(mine / "ant" / f"new_{number}.png", 1000 + number)
    found = [convert(dataclasses.replace(config, append=True)) for config in configs]
    assert [summary.num_converted for summary in found] == [6, 6]
    assert found[1].dataset_dir.name == "1.1.0"
    assert digests_of(found[0].dataset_dir) == digests_of(found[1].dataset_dir)


# Errors


def check_beam(options: str) -> None:
    """Makes a pipeline with these options and runs nothing."""
    with beam_module._quiet():
        beam_module._begin(options, "")


@needs_beam
def test_a_runner_that_is_named_by_its_class_has_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `apache_beam.runners.dask.dask_runner.DaskRunner`, whose module Beam does not import by itself."""
    (tmp_path / "own_runner.py").write_text(
        "from apache_beam.options.pipeline_options import PipelineOptions\n"
        "from apache_beam.runners.runner import PipelineRunner\n"
        "class OwnOptions(PipelineOptions):\n"
        "    @classmethod\n"
        "    def _add_argparse_args(cls, parser):\n"
        "        parser.add_argument('--own_address')\n"
        "class OwnRunner(PipelineRunner):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_beam("--runner=own_runner.OwnRunner --own_address=here")
    with pytest.raises(UsageError, match=r"no_such\.Runner"):
        check_beam("--runner=no_such.Runner")


@needs_beam
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--no_such=1", "unknown option '--no_such=1'"),
        ("--direct_num_workers 2 stray", "unknown option 'stray'"),
        ("--direct_num_worker=2", "unknown option '--direct_num_worker=2'"),  # no guesses
        ("-x", "unknown option '-x'"),
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        ("--runner=NoSuchRunner", "Unexpected pipeline runner: NoSuchRunner"),
        ("--runner=DataflowRunner", "Missing required option: project"),
        ("--job_name='a", "No closing quotation"),
    ],
)
def test_an_option_that_beam_cannot_use(options: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_beam(options)
    assert str(caught.value).startswith(f"--beam_options={options}: ")
    assert capfd.readouterr() == ("", "")


@needs_beam
@pytest.mark.parametrize("options", ["", TWO, "--direct_num_workers 2 --job_name=a", "--flink_master=host:8081"])
def test_options_that_beam_knows(options: str) -> None:
    check_beam(options)


@needs_beam
@pytest.mark.parametrize("options", [TWO, PORTABLE])
def test_a_task_that_fails_says_so_in_the_workers_sentence(
    photos: Path,
    tmp_path: Path,
    a_config: AConfig,
    expected: dict[str, str],
    digests_of: Digests,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: str,
) -> None:
    """A folder comes to stand where a shard should; when it is gone, the same command goes on."""
    config = a_config(photos, tmp_path, engine="beam", beam_options=options)
    shard = tmp_path / "zoo" / ".1.0.0.work" / "shards" / "zoo-train.tfrecord-00003-of-00007"
    begin = WorkDir.begin

    def begin_and_stand_in_the_way(target: WorkDir, config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        begin(target, config, versions)
        shard.mkdir()

    with monkeypatch.context() as patch:
        patch.setattr(WorkDir, "begin", begin_and_stand_in_the_way)
        with pytest.raises(ConversionError) as caught:
            convert(config)
    assert str(caught.value) == (
        f"{shard} cannot be written: Is a directory. Finished shards are kept. Make room or make the folder writable, "
        "and give the same command again."
    )
    if options == TWO:  # with a loopback the worker is this process, and Beam prints what it raises
        assert capfd.readouterr() == ("", "")
    shard.rmdir()
    assert digests_of(convert(config).dataset_dir) == expected


# Stops


@needs_beam
def test_a_worker_that_dies_is_reported_with_its_file(
    stand_in: Callable[[str], list[ShardTask]], capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = stand_in("os.kill(os.getpid(), signal.SIGKILL) if path.endswith('image_7.png') else None")
    with pytest.raises(ConversionError, match=r"died \(SIGKILL, .* memory runs out\) while it converted a/image_7.png"):
        BeamRunner(TWO).run(iter(tasks), lambda _: None, lambda *_: None)
    assert capfd.readouterr() == ("", "")


@needs_beam
def test_a_worker_that_cannot_start_is_reported_with_its_last_words(
    stand_in: Callable[[str], list[ShardTask]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = stand_in("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "numpy.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "broken"), *sys.path])
    with pytest.raises(ConversionError, match=r"died \(exit code 1\): ImportError: a broken installation"):
        BeamRunner(TWO).run(iter(tasks), lambda _: None, lambda *_: None)


@needs_beam
def test_one_tasks_error_stops_the_other_workers_and_is_told_although_its_own_worker_ended(
    stand_in: Callable[[str], list[ShardTask]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam waits for the other worker, which would take minutes for its pictures; the one that failed ends before."""
    tasks = stand_in("1 / 0 if path == os.environ['FAILING'] else time.sleep(12)")
    monkeypatch.setenv("FAILING", tasks[0].paths[0])
    start = time.monotonic()
    with pytest.raises(ConversionError, match="Apache Beam could not finish: ZeroDivisionError: division by zero"):
        BeamRunner(TWO).run(iter(tasks), lambda _: None, lambda *_: None)
    assert time.monotonic() - start < 150


def test_what_other_machines_wrote_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipt_watch, "_SETTLE_S", 1.0)
    rows = np.arange(3)
    task = a_task(tmp_path, None, paths=("a", "b", "c"), rows=rows, ids=rows, labels=rows)
    task.receipt.parent.mkdir()
    task.shard.parent.mkdir()
    done: list[Any] = []
    counts: list[tuple[int, int]] = []
    watch = receipt_watch.ReceiptWatch([task], done.append, lambda *count: counts.append(count))
    start = time.monotonic()
    watch.settle()
    assert 1.0 <= time.monotonic() - start < WAIT_S
    assert (done, counts[-1]) == ([], (0, 0))

    task.shard.write_bytes(b"12345")
    info = ShardInfo(file=task.shard.name, num_examples=2, num_bytes=5, sha256="")
    write_receipt(task.receipt, "of other files", info)
    watch.look()
    assert done == []
    write_receipt(task.receipt, task.inputs, info)
    monkeypatch.setattr(receipt_watch, "_SETTLE_S", 10 * WAIT_S)
    start = time.monotonic()
    watch.settle()
    assert time.monotonic() - start < WAIT_S  # it does not wait for more
    assert (done, counts[-1]) == ([task], (3, 1))


@needs_beam
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_ends_all_and_the_same_command_goes_on(slow: Slow, to_all: bool) -> None:
    child = slow.child()
    if to_all:  # as from a terminal
        child.signal(signal.SIGINT)
    else:
        child.process.send_signal(signal.SIGINT)
    line = child.line()
    assert line.startswith("Interrupted 130 interrupted with ")
    assert line.endswith(" of 9 shards finished; the same command resumes there.")
    assert child.ends()
    assert child.errors.read_text() == ""
    assert not list(slow.work.rglob("*.tmp-*"))
    slow.goes_on()


@needs_beam
@pytest.mark.parametrize("all_of_them", [True, False])
def test_kill_leaves_no_process_and_the_same_command_goes_on(
    slow: Slow, all_of_them: bool, identities: Callable[[Path], dict[str, tuple[int, int]]]
) -> None:
    child = slow.child()
    deadline = time.monotonic() + WAIT_S
    while not list((slow.work / "receipts").glob("zoo*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if all_of_them:
        child.signal(signal.SIGKILL)
    else:
        child.process.kill()
    assert child.ends()
    finished = {path.name.removesuffix(".json") for path in (slow.work / "receipts").glob("zoo*")}
    assert 0 < len(finished) < 9
    before = identities(slow.work / "shards")
    slow.goes_on()
    after = identities(slow.data_dir / "zoo" / "1.0.0")
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}


READS = """
import os, signal, time
from pathlib import Path

class Reads:
    def __init__(self, folder):
        self.folder = Path(folder)

    def read(self, path, place):
        {first}
        return (self.folder / path).read_bytes()
"""


@pytest.fixture
def stand_in(
    tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[ShardTask]]:
    """Makes six shards of five pictures each, whose files do something first when they are read."""

    def make(first: str) -> list[ShardTask]:
        photos = make_folder(tmp_path / "photos", {"a": NUM_SHARDS * NUM_FILES})
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "stand_in_reads.py").write_text(READS.format(first=first or "pass"))
        monkeypatch.syspath_prepend(tmp_path / "modules")
        monkeypatch.delitem(sys.modules, "stand_in_reads", raising=False)
        return tasks_of_folder(tmp_path, importlib.import_module("stand_in_reads").Reads(photos))

    return make


@dataclasses.dataclass(frozen=True)
class Slow:
    """A conversion in processes of its own, whose workers take their time over each picture."""

    start: Callable[[], Any]
    data_dir: Path
    reading: Path
    goes_on: Callable[[], None]

    @property
    def work(self) -> Path:
        """Where everything unfinished lies."""
        return self.data_dir / "zoo" / ".1.0.0.work"

    def child(self) -> Any:
        """Returns its parent process when a worker is at its first picture."""
        child = self.start()
        deadline = time.monotonic() + WAIT_S
        while not self.reading.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.reading.exists()
        assert len(child.living()) >= 2
        return child


SLOWLY = """
import dataclasses, sys, time
from pathlib import Path
from tfrecords.convert import engine

class Slowly:
    def __init__(self, files):
        self.files = files

    def read(self, path, place):
        Path({reading!r}).touch()
        time.sleep(0.2)
        return self.files.read(path, place)

def opened(*arguments, open_source=engine.open_source, **options):
    source = open_source(*arguments, **options)
    return dataclasses.replace(source, files=sys.modules["sitecustomize"].Slowly(source.files))

engine.open_source = opened
"""


@pytest.fixture
def slow(
    photos: Path,
    tmp_path: Path,
    a_config: AConfig,
    start_child: Callable[..., Any],
    expected: dict[str, str],
    digests_of: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> Slow:
    """A slow conversion of the photos; each of its processes imports what makes it slow when it starts."""
    reading = tmp_path / "reading"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text(SLOWLY.format(reading=str(reading)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    options = {"engine": "beam", "beam_options": TWO}

    def goes_on() -> None:
        assert digests_of(convert(a_config(photos, tmp_path / "data", **options)).dataset_dir) == expected

    return Slow(
        lambda: start_child(photos, tmp_path / "data", num_workers=1, **options), tmp_path / "data", reading, goes_on
    )
