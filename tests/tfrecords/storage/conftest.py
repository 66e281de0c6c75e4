"""Two object stores of this machine: moto, which imitates S3, and SeaweedFS, whose listings and secrets are real."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

KEY, SECRET = "simimg", "of-this-test"


@dataclasses.dataclass(frozen=True)
class Store:
    """A server with the bucket `own`, and how its clients find it: environment variables."""

    kind: str
    variables: dict[str, str]

    def driver(self) -> Any:
        """What a program of somebody else uses."""
        import s3fs

        endpoint = self.variables["AWS_ENDPOINT_URL"]
        return s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=endpoint, use_listings_cache=False)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def command_of(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent)) or ""


def seaweed_command(weed: str, folder: Path) -> tuple[list[str], int]:
    allowed = {"accessKey": KEY, "secretKey": SECRET}
    reader = {"accessKey": "reader", "secretKey": "of-a-reader"}
    config = {
        "identities": [
            {"name": "own", "credentials": [allowed], "actions": ["Admin", "Read", "Write", "List"]},
            {"name": "reader", "credentials": [reader], "actions": ["Read:own", "List:own"]},
        ]
    }
    (folder / "s3.json").write_text(json.dumps(config))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = iter(free_ports(2 * len(names)))
    flags = {name: next(ports) for name in names}
    flags |= {f"{name}.grpc": next(ports) for name in names}
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3"]
    command += ["-volume.max=8", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"]
    return [*command, *(f"-{name}={port}" for name, port in flags.items())], flags["s3.port"]


@pytest.fixture(scope="session", params=["moto", "seaweedfs"])
def running_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp(request.param)
    program = command_of({"moto": "moto_server", "seaweedfs": "weed"}[request.param])
    if not program:
        pytest.skip(f"{request.param} is not installed")
    if request.param == "moto":
        port = free_ports(1)[0]
        command = [program, "-H", "127.0.0.1", "-p", str(port)]
    else:
        command, port = seaweed_command(program, folder)
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    endpoint = f"http://127.0.0.1:{port}"
    store = Store(
        request.param,
        {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"},
    )
    try:
        make_bucket(store, folder / "log")
        yield store
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # SeaweedFS does not end by SIGTERM
        server.wait()


def make_bucket(store: Store, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            store.driver().mkdir("own")
            return
        except Exception:
            if time.monotonic() > end:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.3)


@pytest.fixture
def store(running_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server, as the environment of this process names it."""
    use(running_store.variables, monkeypatch)
    return running_store


@pytest.fixture
def use_store(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    return lambda variables: use(variables, monkeypatch)


def use(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # a driver keeps the environment that it was made in
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache."""
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SIMIMG_CACHE_BYTES", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def empty(store: Store, cache: Path) -> Any:
    """A driver of somebody else; there is nothing below s3://own/data."""
    driver = store.driver()
    if driver.find("own/data"):
        driver.rm("own/data", recursive=True)
    return driver


@pytest.fixture(scope="session")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset of this machine: 30 examples to train on and 10 to test."""
    data_dir = tmp_path_factory.mktemp("data")
    config = ConvertConfig(image_dir=str(photos), data_dir=data_dir, name="zoo", image_size=16, num_workers=1)
    return convert(config).dataset_dir
