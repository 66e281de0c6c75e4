"""On Ray: the same bytes as without, whatever nodes come and go; errors in one sentence; nothing left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.workers import ray_attempts, ray_worker
from tfrecords.convert.workers.ray_attempts import Attempts
from tfrecords.convert.workers.ray_runner import RayRunner
from tfrecords.convert.workers.ray_worker import Agreement, Sign
from tfrecords.convert.workers.shard_worker import Monitor, ShardTask, Task, unpack

from .shard_tasks import NUM_FILES, NUM_SHARDS, tasks_of_folder

Digests = Callable[[Path], dict[str, str]]
AConfig = Callable[..., ConvertConfig]
Tasks = Callable[..., list[ShardTask]]

WAIT_S = 120  # far more than any of this takes: a hang, not a slow machine, fails a test

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


# Without Ray


def test_without_ray_the_error_says_what_to_install(
    photos: Path, tmp_path: Path, a_config: AConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Install it with: pip install 'simimg-tf\[ray\]'"):
        convert(a_config(photos, tmp_path, engine="ray"))


def an_agreement(folder: Path, **values: Any) -> Agreement:
    (folder / "probe").touch()
    given = {"versions": ray_worker.versions(), "folder": str(folder), "probe": "probe", "sample": None}
    return Agreement(**{**given, **values})


def test_a_node_with_other_versions_or_folders_says_how_it_differs(tmp_path: Path) -> None:
    assert an_agreement(tmp_path).check() == ""
    versions = tuple((name, "1.0" if name == "pillow" else version) for name, version in ray_worker.versions())
    here = dict(ray_worker.versions())["pillow"]
    found = an_agreement(tmp_path, versions=versions).check()
    assert found.startswith(f"has pillow {here} (here 1.0), which could make other pixels")
    assert "pixels 2, code " in dict(ray_worker.versions())["simimg"]
    found = an_agreement(tmp_path, probe="elsewhere").check()
    assert found == f"does not see {tmp_path}; mount it there under the same path"


def test_a_node_that_reads_other_images_says_which(tmp_path: Path) -> None:
    class Files:
        def read(self, path: str, place: object) -> bytes:
            return (tmp_path / path).read_bytes()

    (tmp_path / "a.jpg").write_bytes(b"here")
    digest = hashlib.sha256(b"here").digest()
    assert an_agreement(tmp_path, sample=(Files(), "a.jpg", None, digest)).check() == ""
    for path, bytes_there in (("a.jpg", digest[::-1]), ("b.jpg", digest)):
        found = an_agreement(tmp_path, sample=(Files(), path, None, bytes_there)).check()
        assert found == f"cannot read {path}; make the images visible there under the same path"


class Nothing(Task):
    """Writes an empty shard."""

    def run(self, monitor: Monitor) -> None:
        self.shard.touch()
        self.acknowledge(0)


class SlowStarts:
    """Stands for Ray, and for the runner of two nodes: `hung`, to which it gives what may run anywhere, never starts
    anything, and `sound` takes 0.3 s to start a worker.
    """

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=OSError)

    def __init__(self) -> None:
        self.given: list[str] = []
        self.begun: dict[int, float] = {}
        self.elements: dict[int, bytes] = {}

    def submit(self, element: bytes, agreement: Agreement, node_id: str = "") -> tuple[int, int]:
        assert len(self.given) < 100  # it goes on for ever
        self.given.append(node_id)
        number = len(self.given)
        self.begun[number] = time.monotonic() if node_id == "sound" else math.inf
        self.elements[number] = element
        return number, number

    def wait(self, handles: list[int], **_: Any) -> tuple[list[int], list[int]]:
        time.sleep(0.01)
        ended = [handle for handle in handles if time.monotonic() - self.begun[handle] > 0.3]
        for handle in ended:
            unpack(self.elements[handle]).run(Monitor())
        return ended, [handle for handle in handles if handle not in ended]

    def living_nodes(self) -> dict[str, Any]:
        return {name: {"Resources": {"CPU": 1}} for name in ("hung", "sound")}

    def room(self) -> int:
        return 2

    def has_free_core(self) -> bool:
        return True

    def signs(self) -> dict[int, tuple[float, Sign]]:
        return {}

    def get(self, handle: int) -> None: ...

    def cancel(self, handle: int, **_: Any) -> None: ...

    def forget(self, attempt: int) -> None: ...


def test_workers_that_start_slowly_beside_a_node_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given again waits twice as long each time, and nothing more is left to Ray's choice."""
    ray: Any = SlowStarts()
    monkeypatch.setattr(ray_attempts, "imported_ray", lambda: ray)
    monkeypatch.setattr(ray_attempts, "living_nodes", ray.living_nodes)
    monkeypatch.setattr(ray_attempts, "_READ_S", 0.01)
    monkeypatch.setattr(ray_attempts, "_SILENT_S", 0.05)
    names = [str(number) for number in range(6)]
    tasks = [
        Nothing(shard=tmp_path / f"{n}", receipt=tmp_path / f"{n}.json", inputs="", rows=np.arange(1)) for n in names
    ]
    done: list[Any] = []
    Attempts(ray, an_agreement(tmp_path), done.append, lambda *_: None).run(iter(tasks))
    assert sorted(task.shard.name for task in done) == names
    assert ray.given[:2] == ["", ""]
    assert "" not in ray.given[2:]


@needs_ray
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("here", "should be HOST:PORT, as in 10.0.0.1:6379, or auto"),
        ("127.0.0.1:9", "Connection refused"),
        ("ray://127.0.0.1:10001", "Ray's client does not run tasks as the cluster does"),
    ],
)
def test_an_address_where_no_cluster_is_ends_at_once(address: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=f"--ray_address={address}: {reason}"), RayRunner(address, 0, str) as runner:
        runner.start(1)
    assert time.monotonic() - start < WAIT_S / 2


# On this machine


@needs_ray
def test_same_bytes_as_local_workers(
    mine: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests, capfd: pytest.CaptureFixture[str]
) -> None:
    """With files that are rejected, and copies, for which shards are put together anew."""
    (mine / "ant" / "image_3.png").write_bytes(b"<html>")
    for number in range(5, 9):
        (mine / "bee" / f"copy_{number}.jpg").write_bytes((mine / "ant" / "image_6.jpg").read_bytes())
    seen: list[ConvertProgress] = []
    lines: list[object] = []
    config = a_config(mine, tmp_path / "ray", engine="ray", num_workers=2, encoding="png")
    summary = convert(config, progress=seen.append, describe=lines.append)
    local = a_config(mine, tmp_path / "local", encoding="png")
    assert digests_of(summary.dataset_dir) == digests_of(convert(local).dataset_dir)
    assert (summary.num_converted, summary.num_refused) == (43, 1)
    assert (seen[-1].num_done, seen[-1].num_refused) == (44, 1)
    assert lines[0] == "Ray: starting"
    assert convert(config).num_converted == 0
    assert capfd.readouterr() == ("", "")


# On a cluster


@dataclasses.dataclass
class Nodes:
    """A cluster in processes of this machine: a head without cores, and nodes with two cores each."""

    cluster: Any

    def add(self, **options: Any) -> Any:
        """Returns a new node."""
        return self.cluster.add_node(num_cpus=2, object_store_memory=80 << 20, **options)

    @property
    def address(self) -> str:
        return str(self.cluster.address)


def processes_of(node: Any) -> list[psutil.Process]:
    """Returns a node's raylet with all that it started."""
    (raylet,) = node.all_processes["raylet"]
    parent = psutil.Process(raylet.process.pid)
    return [parent, *parent.children(recursive=True)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    yield Nodes(cluster)
    ray.shutdown()
    cluster.shutdown()


# Workers of Ray import it, so it is a module of its own; a file may do something when it is read.
READS = """
import os, time
from pathlib import Path

class Reads:
    def __init__(self, folder, first):
        self.folder, self.first = Path(folder), first

    def read(self, path, place):
        exec(self.first, {"os": os, "time": time, "Path": Path, "path": path, "folder": self.folder})
        return (self.folder / path).read_bytes()
"""


@pytest.fixture
def tasks_of(tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Makes six shards of five images each, whose files do something first when they are read."""

    def make(first: str) -> list[ShardTask]:
        photos = make_folder(tmp_path / "photos", {"a": NUM_SHARDS * NUM_FILES})
        return tasks_of_folder(tmp_path, importlib.import_module("ray_reads").Reads(photos, first))

    return make


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the module whose files are read; every process of the cluster finds it."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "ray_reads.py").write_text(READS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        yield folder


class Run(threading.Thread):
    """Runs tasks in the background."""

    def __init__(self, nodes: Nodes, tasks: list[ShardTask]) -> None:
        super().__init__()
        self.done: list[str] = []
        self.counts: list[tuple[int, int]] = []
        self.error: BaseException | None = None
        self._nodes, self.tasks = nodes, tasks
        self.start()

    def run(self) -> None:
        try:
            with RayRunner(self._nodes.address, 0, lambda row: f"file {row}") as runner:
                runner.run(
                    iter(self.tasks),
                    lambda task: self.done.append(task.shard.name),
                    lambda *counts: self.counts.append(counts),
                )
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """Waits for the end, and returns the error."""
        self.join(WAIT_S)
        assert not self.is_alive()
        return self.error


def until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def held(tmp_path: Path) -> list[int]:
    """Returns the processes that wait at a file, until there is one with the name `gate`."""
    return [int(path.suffix[1:]) for path in tmp_path.glob("held.*")]


HOLD = """
if path == 'a/image_5.png':
    (folder.parent / f'held.{os.getpid()}').touch()
    while not (folder.parent / 'gate').exists():
        time.sleep(0.01)
"""


@needs_ray
@pytest.mark.parametrize("how", ["orphaned", "killed", "frozen"])
def test_a_node_that_is_lost_costs_only_its_tasks(
    nodes: Nodes, tasks_of: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests_of: Digests, how: str
) -> None:
    """A worker that is orphaned goes on, and its result counts."""
    monkeypatch.setattr(ray_attempts, "_SILENT_S", 8.0)
    first = nodes.add()
    run = Run(nodes, tasks_of(HOLD))
    until(lambda: held(tmp_path) and len(run.done) == NUM_SHARDS - 1)
    (at,) = held(tmp_path)
    second = nodes.add()  # joins late
    lost = processes_of(first)
    assert at in [process.pid for process in lost]
    for process in lost[:1] if how == "orphaned" else lost:
        process.send_signal(signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
    until(lambda: len(held(tmp_path)) == 2 or how == "orphaned")
    (tmp_path / "gate").touch()
    assert run.ended() is None
    assert sorted(run.done) == [f"shard-{number}" for number in range(NUM_SHARDS)]
    assert run.counts[-1] == (5 * NUM_SHARDS, 0)
    for process in lost:
        if process.is_running():
            process.kill()
    found = digests_of(tmp_path / "shards")
    for task in run.tasks:
        task.shard.unlink()
        task.run(Monitor())
    assert found == digests_of(tmp_path / "shards")
    for node in (first, second):
        nodes.cluster.remove_node(node, allow_graceful=False)


@needs_ray
def test_errors_are_one_sentence(nodes: Nodes, tasks_of: Tasks, tmp_path: Path) -> None:
    node = nodes.add()
    tasks = tasks_of("if path == 'a/image_12.jpg': 1 / 0\nif path == 'a/image_7.png': time.sleep(3); os._exit(9)")
    error = Run(nodes, tasks[2:3]).ended()
    assert str(error).startswith("Ray could not finish: ZeroDivisionError: division by zero. Finished shards are kept")

    error = Run(nodes, tasks[1:2]).ended()
    assert isinstance(error, ConversionError)
    start = "a Ray worker process died 3 times with shard-1, the last time while it converted file 7 on "
    assert str(error).startswith(start)

    tasks[3].shard.mkdir()
    error = Run(nodes, tasks[3:4]).ended()
    assert str(error).startswith(f"{tasks[3].shard} cannot be written: Is a directory. Finished shards are kept.")
    nodes.cluster.remove_node(node, allow_graceful=False)


@needs_ray
def test_a_node_with_another_version_is_refused(nodes: Nodes, tasks_of: Tasks, tmp_path: Path) -> None:
    (tmp_path / "other" / "pillow-1.0.dist-info").mkdir(parents=True)
    node = nodes.add(env_vars={"PYTHONPATH": os.pathsep.join([str(tmp_path / "other"), os.environ["PYTHONPATH"]])})
    error = Run(nodes, tasks_of("")).ended()
    assert isinstance(error, ConversionError)
    here = dict(ray_worker.versions())["pillow"]
    assert re.fullmatch(
        rf"the Ray node .+ has pillow 1\.0 \(here {here}\), which could .+ the same versions there\.", str(error)
    )
    assert not list((tmp_path / "shards").iterdir())
    nodes.cluster.remove_node(node, allow_graceful=False)


@needs_ray
@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra onnx")
def test_an_index_has_the_bytes_of_one_that_was_made_here(
    nodes: Nodes, photos: Path, tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simimg import api
    from simimg.similarity import index_tasks

    monkeypatch.setattr(index_tasks, "IMAGES_PER_PART", 7)
    node = nodes.add()
    found = {}
    for name, options in {"here": {}, "ray": {"engine": "ray", "ray_address": nodes.address}}.items():
        made = api.index(photos, tmp_path / name, model=tiny_model, **options)
        assert made.num_embedded == 40
        found[name] = {file.name: file.read_bytes() for file in (tmp_path / name / "generation-000001").iterdir()}
    assert len(found["here"]) >= 3
    assert found["ray"] == found["here"]
    nodes.cluster.remove_node(node, allow_graceful=False)
