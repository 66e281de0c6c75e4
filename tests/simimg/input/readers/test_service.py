"""tf.data's service: a dispatcher and two worker processes on 127.0.0.1, of which some are killed."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simimg.commands import data_service
from simimg.errors import CorruptRecordError, DataError, UsageError
from simimg.input import Order, Position, input_warnings, open_reader, reading, train_batches
from simimg.input.readers import service as service_module
from simimg.training import TrainConfig, train
from tests.forked_process import ForkedProcess


class Processes:
    """Starts processes of `simimg data_service`."""

    def __init__(self) -> None:
        self.all: list[subprocess.Popen[str]] = []

    def start(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "simimg", "data_service", *flags]
        self.all.append(ForkedProcess(command, stderr=subprocess.PIPE, text=True))
        return self.all[-1]

    def address(self, process: subprocess.Popen[str]) -> str:
        """Waits until it is ready; returns what it says last."""
        assert process.stderr is not None
        line = next((line for line in iter(process.stderr.readline, "") if " is at " in line), None)
        assert line, "it ended"
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return line.rpartition("=")[2].strip()

    def service(self, num_workers: int = 2) -> str:
        """Returns the address of a dispatcher with workers."""
        address = self.address(self.start("--host=127.0.0.1"))
        for worker in [self.start(f"--dispatcher={address}") for _ in range(num_workers)]:
            self.address(worker)
        return address

    def kill(self) -> None:
        for process in self.all:
            process.kill()
            process.wait()


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of a dispatcher with two workers, that live on."""
    started = Processes()
    yield started.service()
    started.kill()


def order(**changes: Any) -> Order:
    return Order(**{"num_examples": 54, "global_batch_size": 6, "num_epochs": 8, "seed": 0, **changes})


def arrays(batches: Any) -> list[np.ndarray]:
    return [np.stack(column) for column in zip(*([part.numpy() for part in batch] for batch in batches), strict=True)]


def test_the_batches_are_those_of_other_readers(datasets: dict[str, Path], service: str) -> None:
    for encoding, changes in (
        ("raw", {}),
        ("jpeg", {"start": Position(2, 5)}),
        ("png", {"num_replicas": 3, "first_replica": 1, "num_local_replicas": 2}),
    ):
        here, _ = open_reader(datasets[encoding], "train", "mapped")
        there, reason = open_reader(datasets[encoding], "train", data_service=service)
        assert (there.kind, reason) == ("service", f"{service} reads and decodes")
        theirs = arrays(train_batches(here, order(**changes)))
        for mine, other in zip(arrays(train_batches(there, order(**changes))), theirs, strict=True):
            np.testing.assert_array_equal(mine, other)
        for mine, other in zip(arrays(there.eval_batches(7)), arrays(here.eval_batches(7)), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_a_worker_that_is_killed_loses_nothing(datasets: dict[str, Path], processes: Processes) -> None:
    address = processes.service()
    here, _ = open_reader(datasets["jpeg"], "train", "mapped")
    there, _ = open_reader(datasets["jpeg"], "train", data_service=address)
    killed = order(num_epochs=30)
    ids = []
    for number, batch in enumerate(train_batches(there, killed)):
        if number == 20:
            processes.all[1].kill()
        if number == 100:
            processes.address(processes.start(f"--dispatcher={address}"))
        ids.append(batch.id.numpy())
    np.testing.assert_array_equal(ids, arrays(train_batches(here, killed))[2])
    assert all(len(np.unique(epoch)) == 54 for epoch in np.reshape(ids, [30, 54]))


def test_all_workers_gone_or_the_dispatcher_ends_in_a_sentence(
    datasets: dict[str, Path], processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_PATIENCE_S", 3.0)
    address = processes.service(num_workers=0)
    reader, _ = open_reader(datasets["jpeg"], "train", data_service=address)
    with pytest.raises(DataError, match=rf"{address} has delivered nothing for 3 s. Check that its"):
        list(reading(reader.split, train_batches(reader, order())))
    processes.kill()
    with pytest.raises(UsageError, match=rf"--data_service={address} does not answer \(Connection refused\)"):
        open_reader(datasets["jpeg"], "train", data_service=address)


def test_workers_that_do_not_find_the_shards(datasets: dict[str, Path], service: str, tmp_path: Path) -> None:
    """As on machines that have another disk: here the shards are mapped before they go away."""
    shutil.copytree(datasets["raw"], tmp_path / "set")
    reader, _ = open_reader(tmp_path / "set", "train", data_service=service)
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"deliver few batches or none \(0 of the last 17\).*find .*set\.$"):
        list(reading(reader.split, train_batches(reader, order())))


def test_a_corrupt_record_is_named_or_skipped(datasets: dict[str, Path], service: str, tmp_path: Path) -> None:
    damaged = tmp_path / "set"
    shutil.copytree(datasets["jpeg"], damaged)
    (shard,) = damaged.glob("*-train*-of-00001")
    with open(shard, "r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(b"\0" * 40)
    reader, _ = open_reader(damaged, "train", data_service=service)
    with pytest.raises(CorruptRecordError, match=r"record \d+ at byte \d+: the checksum"):
        list(reading(reader.split, train_batches(reader, order())))
    reader, _ = open_reader(damaged, "train", data_service=service, on_corrupt="skip")
    ids = arrays(train_batches(reader, order(num_epochs=1)))[2]
    assert sorted(ids.ravel().tolist())[0] == -1
    assert len(set(ids.ravel().tolist())) == 54
    corrupt, recovered = input_warnings(reader)
    assert corrupt.startswith("1 corrupt record skipped so far, e.g. ")
    assert recovered == "1 batch not delivered by the data service so far, and read here"


def test_a_training(datasets: dict[str, Path], service: str, tmp_path: Path) -> None:
    options = {"dataset_dir": datasets["jpeg"], "preset": "tutorial", "epochs": 2, "global_batch_size": 18}
    results = [
        train(TrainConfig.with_preset({**options, "model_dir": tmp_path / name, **extra}))
        for name, extra in (("here", {"reader": "mapped"}), ("there", {"data_service": service}))
    ]
    assert results[0].history == results[1].history


def test_it_ends_when_it_is_told_to(processes: Processes) -> None:
    processes.service(num_workers=1)
    for process in reversed(processes.all):
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_what_cannot_be_used(datasets: dict[str, Path], tmp_path: Path) -> None:
    def opened(**options: Any) -> None:
        open_reader(datasets["raw"], "train", **options)

    for address in ("127.0.0.1:5050", "grpc://127.0.0.1", "http://a:1", "grpc://a:x", "grpc://a:1/b"):
        with pytest.raises(UsageError, match=f"--data_service={address}: should be grpc://HOST:PORT"):
            opened(data_service=address)
    with pytest.raises(UsageError, match="is a reader of its own. Leave out --reader and --cache"):
        opened(data_service="grpc://a:1", kind="mapped")
    stop = threading.Event()
    stop.set()
    for options, message in (
        ({"port": 70_000}, r"--port=70000: should be 0\.\.65535"),
        ({"dispatcher": "a:1"}, r"--dispatcher=a:1: should be grpc://HOST:PORT"),
        ({"dispatcher": "grpc://a:1", "work_dir": tmp_path}, "--work_dir applies to the dispatcher only"),
    ):
        with pytest.raises(UsageError, match=message):
            data_service.serve(data_service.Options(**options), stop)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UsageError, match="Another program may be listening on it"):
            data_service.serve(data_service.Options(port=taken.getsockname()[1]), stop)


def test_a_dispatcher_that_takes_notes(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    result = data_service.serve(data_service.Options(host="here", work_dir=tmp_path / "notes"), stop)
    assert result.values["role"] == "dispatcher"
    assert list((tmp_path / "notes").iterdir())
