"""Converts images on a Ray cluster whose nodes are lost at random moments, and compares the bytes.

    sudo python -m tools.lose_ray_nodes --image_dir=photos --rounds=10

Each node is a set of processes of this machine with a network and a disk of its own (network and mount namespaces, with
iproute2): an address behind a bridge, and a small tmpfs in place of Ray's folder. Each round converts on two nodes. At
a random moment one of them is lost, and another one joins: its raylet is killed, or all of it, or it is frozen, or its
network is cut, or its disk is filled; or none is lost, and one joins late. The bytes have to be those of a conversion
without Ray. With `--data_url=s3://…`, the dataset is made there, and the nodes do not see the folders of the command;
the store has to answer at 10.77.0.1. Needs root and the extra `ray`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from simimg import convert
from tfrecords.base_errors import UsageError
from tfrecords.convert.workers import ray_attempts
from tfrecords.convert.workers.ray_cluster import connect, imported_ray, living_nodes
from tfrecords.locations import url_of
from tfrecords.storage.drivers import open_driver
from tfrecords.storage.remote_dataset import local_dataset

FAULTS = ("raylet", "killed", "frozen", "cut", "full", "late")
_BRIDGE, _NET, _PORT = "simimg0", "10.77.0", 6399
_RAY = "-m ray.scripts.scripts start --block --disable-usage-stats --object-store-memory=80000000"
_START_S = 120.0


def main() -> None:
    """Run all rounds; the exit code is 1 if one of them has other bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image_dir", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--data_url")
    options = parser.parse_args()
    ray_attempts._SILENT_S = 15.0  # the rounds with a frozen node would take minutes
    rng = random.Random(options.seed)
    faults = options.faults.split(",")
    rng.shuffle(faults)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as machines:
        there = options.data_url or Path(folder, "there")
        expected, seconds = converted(options.image_dir, Path(folder, "here"), engine="local", num_workers=1)
        tell(f"without Ray: {len(expected)} files in {seconds:.1f} s")
        nodes = [next(machines), next(machines)]
        deadline = time.monotonic() + _START_S
        while not imported_ray().is_initialized() or len(living_nodes()) < len(nodes):
            with contextlib.nullcontext() if time.monotonic() > deadline else contextlib.suppress(UsageError):
                connect(f"{_NET}.1:{_PORT}", 0)  # to a head that is still starting
            time.sleep(0.5)
        on_ray = {"engine": "ray", "ray_address": f"{_NET}.1:{_PORT}"}
        converted(options.image_dir, there, **on_ray)  # workers start, which takes most of the time
        found, undisturbed = converted(options.image_dir, there, **on_ray)
        tell(f"on two nodes: {undisturbed:.1f} s, {'same bytes' if found == expected else 'OTHER BYTES'}")
        all_same = found == expected
        for number in range(1, options.rounds + 1):
            fault = faults[number % len(faults)]
            after = rng.uniform(0.1, 0.9) * undisturbed
            lost = nodes.pop(rng.randrange(2))
            if fault == "late":
                lost.end()
            with ThreadPoolExecutor(1) as executor:
                result = executor.submit(converted, options.image_dir, there, **on_ray)
                time.sleep(after)
                is_late = result.done()
                lost.suffer(fault)
                nodes.append(next(machines))
                found, seconds = result.result()
            lost.end()
            same = "same bytes" if found == expected else "OTHER BYTES"
            same += ", but it had ended before" if is_late else ""
            tell(f"{number}: {fault} after {after:.1f} s: {seconds:.1f} s, {same}")
            all_same &= found == expected
    raise SystemExit(0 if all_same else 1)


@dataclasses.dataclass
class Machine:
    """A node of the cluster with the number `number`, whose last part of the address is that plus 1."""

    number: int
    disk: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, number: int, disk: Path) -> Machine:
        """Start a node; `disk` is the folder that it has a file system of its own for."""
        name, address = f"simimg{number}", f"{_NET}.{number + 1}"
        ip("netns", "add", name)
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}h", "master", _BRIDGE, "up")
        for given in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            ip("-n", name, *given.split())
        ip("-n", name, "route", "add", "default", "via", f"{_NET}.1")
        node = [
            sys.executable,
            *_RAY.split(),
            f"--address={_NET}.1:{_PORT}",
            f"--node-ip-address={address}",
            "--num-cpus=1",
        ]
        hidden = f"mount -t tmpfs tmpfs {os.environ['SIMIMG_CACHE_DIR']}"
        mounted = ["sh", "-c", f'mount -t tmpfs -o size=64m tmpfs {disk} && {hidden} && exec "$@"', "sh"]
        log = subprocess.DEVNULL
        words = ["ip", "netns", "exec", name, *mounted, *node]
        return cls(number, disk, subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the node."""
        numbers = subprocess.run(
            ["ip", "netns", "pids", f"simimg{self.number}"], capture_output=True, check=True
        ).stdout
        found = []
        for number in map(int, numbers.split()):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(number))
        return found

    def suffer(self, fault: str) -> None:
        """Do to the node what the fault is."""
        if fault == "cut":
            ip("link", "set", f"simimg{self.number}h", "down")
        elif fault == "full":
            fill = f"cat /dev/zero >{self.disk}/fill"
            words = ["nsenter", f"--target={self.process.pid}", "--mount", "sh", "-c", fill]
            subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
        elif fault != "late":
            processes = self.processes()
            if fault == "raylet":
                processes = [process for process in processes if process.name() == "raylet"]
            for process in processes:
                process.send_signal(signal.SIGSTOP if fault == "frozen" else signal.SIGKILL)

    def end(self) -> None:
        """Remove the node, if it is still there."""
        if not Path(f"/run/netns/simimg{self.number}").exists():
            return
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.1)
        self.process.wait()
        ip("link", "delete", f"simimg{self.number}h")
        ip("netns", "delete", f"simimg{self.number}")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Iterator[Machine]]:
    """Start a head without cores; yield its further machines, each of which is started when it is asked for.

    `folder` gets that of Ray, of which each machine has another one, and the cache, which the machines do not see.
    """
    disk, cache = folder / "ray", folder / "cache"
    disk.mkdir()
    cache.mkdir()
    os.environ["SIMIMG_CACHE_DIR"] = str(cache)
    ip("link", "add", _BRIDGE, "type", "bridge")
    head: subprocess.Popen[bytes] | None = None
    machines: list[Machine] = []
    try:
        ip("addr", "add", f"{_NET}.1/24", "dev", _BRIDGE)
        ip("link", "set", _BRIDGE, "up")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        words = [
            sys.executable,
            *_RAY.split(),
            "--head",
            f"--port={_PORT}",
            f"--node-ip-address={_NET}.1",
            "--num-cpus=0",
        ]
        words += ["--include-dashboard=false", f"--temp-dir={disk}"]
        head = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        yield started(machines, disk)
    finally:
        imported_ray().shutdown()  # without its cluster it would end this process, and nobody saw the error
        for machine in machines:
            machine.end()
        if head is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(head.pid).children(recursive=True):
                    process.kill()
            head.kill()
        ip("link", "delete", _BRIDGE)


def started(machines: list[Machine], disk: Path) -> Iterator[Machine]:
    """Yield machines as they are asked for, and keep them in a list."""
    for number in itertools.count(1):
        machines.append(Machine.start(number, disk))
        yield machines[-1]


def ip(*words: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *words], check=True)


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def converted(image_dir: str, data_dir: Path | str, **options: Any) -> tuple[dict[str, str], float]:
    """Return the SHA-256 of the files of a new dataset, by name, and the time that it took, in seconds."""
    if url := url_of(data_dir):
        driver, root = open_driver(url, "--data_url")
        if driver.exists(root):
            driver.rm(root, recursive=True)
    else:
        shutil.rmtree(data_dir, ignore_errors=True)
    start = time.monotonic()
    made = convert(image_dir, data_dir=data_dir, name="c", image_size=256, **options).dataset_dir
    seconds = time.monotonic() - start
    files = {path.name: path for path in local_dataset(made).iterdir() if path.is_file()}
    names = files.keys() - {"report.html", ".url"}
    return {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in sorted(names)}, seconds


if __name__ == "__main__":
    main()
