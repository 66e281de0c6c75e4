"""On Apache Beam: the same bytes as without, errors in one sentence, a clean stop, nothing left behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.convert import ConvertConfig, ConvertProgress, convert, engine
from tfrecords.convert import beam as beam_module
from tfrecords.convert.beam import check_beam, run_beam
from tfrecords.convert.beam_worker import pack
from tfrecords.convert.images import PictureOptions
from tfrecords.convert.worker import ShardTask
from tfrecords.errors import ConversionError, UsageError

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
    monkeypatch.setattr(beam_module, "run_beam", lambda tasks, *_: elements.extend(map(pack, tasks)))
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
          File "tfrecords/convert/worker.py", line 101, in writing
            raise ConversionError(
        tfrecords.errors.ConversionError: /data/a cannot be written: No space left. Make room.

        During handling of the above exception, another exception occurred:

          File "tfrecords/convert/worker.py", line 101, in writing
        tfrecords.errors.ConversionError: /data/a cannot be written: No space left. Make room. [while running 'write']
        """
    )
    assert str(beam_module._explained(RuntimeError(text))) == "/data/a cannot be written: No space left. Make room."
    other = str(beam_module._explained(RuntimeError("Traceback:\n  line 1\nTypeError: no. [while running 'write']")))
    assert other.startswith("Apache Beam could not finish: TypeError: no. What is finished stays")
    assert str(beam_module._explained(ValueError())).startswith("Apache Beam could not finish: ValueError.")


# The same bytes


@needs_beam
@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_same_bytes_as_local_workers(
    photos: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests, encoding: str
) -> None:
    (tmp_path / "zoo").symlink_to(photos)
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


@needs_beam
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--no_such=1", "does not know '--no_such=1'"),
        ("--direct_num_workers 2 stray", "does not know 'stray'"),
        ("--direct_num_worker=2", "does not know '--direct_num_worker=2'"),  # no guesses
        ("-x", "does not know '-x'"),
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
    options: str,
) -> None:
    """A folder stands where a shard should; when it is gone, the same command goes on."""
    config = a_config(photos, tmp_path, engine="beam", beam_options=options)
    shard = tmp_path / "zoo" / ".1.0.0.work" / "shards" / "zoo-train.tfrecord-00003-of-00007"
    shard.mkdir(parents=True)
    with pytest.raises(ConversionError) as caught:
        convert(config)
    assert str(caught.value) == (
        f"{shard} cannot be written: Is a directory. What is finished stays; make room or make the folder writable, "
        "and give the same command again."
    )
    if options == TWO:  # with a loopback the worker is this process, and Beam prints what it raises
        assert capfd.readouterr() == ("", "")
    shard.rmdir()
    assert digests_of(convert(config).dataset_dir) == expected


@needs_beam
def test_workers_that_see_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., list[ShardTask]]
) -> None:
    """What they write does not arrive here: the wait for it ends, and the engine says what is the matter."""
    monkeypatch.setattr(beam_module, "_SETTLE_S", 1.0)
    tasks = [dataclasses.replace(task, receipt=tmp_path / "here" / task.receipt.name) for task in stand_in("")]
    (tmp_path / "here").mkdir()
    elsewhere = [Elsewhere(task, tmp_path) for task in tasks]
    watch = beam_module._Watch(list(tasks), pytest.fail, lambda *_: None)
    start = time.monotonic()
    watch.settle()
    assert 1.0 <= time.monotonic() - start < WAIT_S
    assert len(elsewhere) == len(tasks)
    assert "under the same path" in engine._NOT_THERE


# Stops


@needs_beam
def test_a_worker_that_dies_is_reported_with_its_file(
    tmp_path: Path, stand_in: Callable[..., list[ShardTask]], capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = stand_in("os.kill(os.getpid(), signal.SIGKILL) if path.endswith('image_7.png') else None")
    with pytest.raises(ConversionError, match=r"died \(SIGKILL, .* memory runs out\) while it converted a/image_7.png"):
        run_beam(iter(tasks), TWO, lambda _: None, lambda *_: None)
    assert not list((tmp_path / "shards").glob(f".*{os.getpid()}*"))
    assert capfd.readouterr() == ("", "")


@needs_beam
def test_a_worker_that_cannot_start_is_reported_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., list[ShardTask]], tmp_path: Path
) -> None:
    tasks = stand_in("")
    (tmp_path / "numpy.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ConversionError, match=r"died \(exit code 1\): ImportError: a broken installation"):
        run_beam(iter(tasks), TWO, lambda _: None, lambda *_: None)


@needs_beam
def test_ctrl_c_ends_all_and_the_same_command_goes_on(slow: Slow, expected: dict[str, str]) -> None:
    slow.start()
    slow.waits_in_a_worker()
    os.killpg(slow.process.pid, signal.SIGINT)  # to the workers, too, as from a terminal
    out, err = slow.ends()
    assert out.startswith("Interrupted 130 interrupted with ")
    assert "of 9 shards finished; the same command goes on there." in out
    assert err == ""
    assert not list(slow.work.rglob("*.tmp-*"))
    slow.goes_on(expected)


@needs_beam
def test_ctrl_c_to_the_parent_alone(slow: Slow) -> None:
    slow.start()
    slow.waits_in_a_worker()
    slow.process.send_signal(signal.SIGINT)
    assert slow.ends()[0].startswith("Interrupted 130 ")


@needs_beam
def test_workers_of_a_parent_that_was_killed_end_and_the_same_command_goes_on(
    slow: Slow, expected: dict[str, str]
) -> None:
    slow.start()
    slow.waits_in_a_worker()
    slow.process.kill()
    slow.ends()
    slow.goes_on(expected)


@needs_beam
def test_all_processes_killed_and_what_is_finished_is_not_done_again(
    slow: Slow, expected: dict[str, str], identities: Callable[[Path], dict[str, tuple[int, int]]]
) -> None:
    slow.start()
    slow.waits_in_a_worker()
    deadline = time.monotonic() + WAIT_S
    while not list((slow.work / "receipts").glob("zoo*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(slow.process.pid, signal.SIGKILL)
    slow.ends()
    finished = {path.name.removesuffix(".json") for path in (slow.work / "receipts").glob("zoo*")}
    assert finished
    before = identities(slow.work / "shards")
    slow.goes_on(expected)
    after = identities(slow.data_dir / "zoo" / "1.0.0")
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}


def a_task(folder: Path, files: Any, **values: Any) -> ShardTask:
    given = {
        "shard": folder / "shards" / "shard-0",
        "receipt": folder / "receipts" / "shard-0.json",
        "inputs": "",
        "files": files,
        "places": None,
        "picture": PictureOptions(image_size=8),
        "encoding": "raw",
        "jpeg_quality": 95,
        "hashed": False,
    }
    return ShardTask(**{**given, **values})
