"""What tests of the converter share: its configuration, a dataset made in one go, and processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.plan import shard_plan as plan_module
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).parents[3]
WAIT_S = 60  # far more than any of this takes: a hang, not a slow machine, fails a test

AConfig = Callable[..., ConvertConfig]


def a_config(image_dir: Path, data_dir: Path, **values: Any) -> ConvertConfig:
    """Returns a small conversion in this process, which is what most tests are about."""
    given = {"image_dir": str(image_dir), "data_dir": data_dir, "image_size": 8, "num_workers": 1, **values}
    return ConvertConfig(**given)


def interrupt_at(num_done: int) -> Callable[[ConvertProgress], None]:
    """Returns a progress callback that is interrupted as by Ctrl-C once so many files are done."""

    def progress(progress: ConvertProgress) -> None:
        if progress.num_done >= num_done:
            raise KeyboardInterrupt

    return progress


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and mtime of each file in a folder: a file that is written again has others."""
    found = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        status = entry.stat()
        found[entry.name] = (status.st_ino, status.st_mtime_ns)
    return found


@pytest.fixture(name="a_config", scope="session")
def _a_config() -> AConfig:
    return a_config


@pytest.fixture(name="interrupt_at", scope="session")
def _interrupt_at() -> Callable[[int], Callable[[ConvertProgress], None]]:
    return interrupt_at


@pytest.fixture(name="identities", scope="session")
def _identities() -> Callable[[Path], dict[str, tuple[int, int]]]:
    return identities


@pytest.fixture(scope="session")
def expected(
    photos: Path, tmp_path_factory: pytest.TempPathFactory, digests_of: Callable[[Path], dict[str, str]]
) -> dict[str, str]:
    """The files of the photos' dataset at 8 px, in 9 shards, converted in one go: SHA-256 by name. Only to be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 4)
        return digests_of(convert(a_config(photos, tmp_path_factory.mktemp("expected"))).dataset_dir)


@pytest.fixture
def mine(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos that the test may change."""
    return Path(shutil.copytree(photos, tmp_path / "mine" / "zoo"))


CHILD = textwrap.dedent(
    """
    import sys, time, traceback
    from pathlib import Path
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig
    from tfrecords.convert.plan import shard_plan
    from tfrecords.convert.workers import pool
    from tfrecords.base_errors import SimimgError

    def progress(progress):
        if progress.num_done >= stop_at:
            print("here", flush=True)
            time.sleep(600)

    if __name__ == "__main__":
        shard_plan.MIN_EXAMPLES_PER_SHARD = 4
        stop_at, num_workers = int(sys.argv[3]), int(sys.argv[4])
        print("begins", flush=True)
        try:
            convert(ConvertConfig(image_dir=sys.argv[1], data_dir=Path(sys.argv[2]), image_size=8,
                                  num_workers=num_workers, **eval(sys.argv[5])), progress=progress)
            print("done", flush=True)
        except SimimgError as error:
            print(type(error).__name__, error.exit_code, error, flush=True)
        except KeyboardInterrupt:
            print("KeyboardInterrupt", flush=True)
    """
)


class Child:
    """A process that converts, in its own process group, and stands still when `stop_at` files are done."""

    def __init__(
        self, folder: Path, image_dir: Path, data_dir: Path, *, stop_at: int = 10**9, num_workers: int, **options: Any
    ) -> None:
        folder.mkdir(exist_ok=True)
        script = folder / "child.py"
        script.write_text(CHILD)
        self.errors = folder / "errors.txt"
        arguments = [str(script), str(image_dir), str(data_dir), str(stop_at), str(num_workers), repr(options)]
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=environment(),
            )
        assert self.line() == "begins"

    def line(self) -> str:
        """Returns the next line that it prints."""
        assert self.process.stdout is not None
        text = b""
        while not text.endswith(b"\n"):  # by the byte: a buffer would hide the next line from select
            ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
            assert ready, f"the child hangs after {text!r}"
            part = os.read(self.process.stdout.fileno(), 1)
            assert part, f"the child ended after {text!r}: {self.errors.read_text()}"
            text += part
        return text.decode().strip()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole group, as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def living(self) -> set[int]:
        """Returns the processes of the group that run (and are not just waiting to be reaped)."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it may end just now
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.add(int(stat.parent.name))
        return found

    def ends(self) -> bool:
        """Tells whether all processes of the group end by themselves."""
        deadline = time.monotonic() + WAIT_S
        while self.living() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.living():
            return False
        self.process.wait(WAIT_S)  # with all of its threads, the last of which lets go of the lock
        return True

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def environment() -> dict[str, str]:
    """Returns the environment in which a child finds this tree."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(name="environment", scope="session")
def _environment() -> dict[str, str]:
    return environment()


@pytest.fixture
def start_child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a `Child`; none of them outlives the test."""
    children: list[Child] = []

    def start(image_dir: Path, data_dir: Path, **options: Any) -> Child:
        children.append(Child(tmp_path / f"child_{len(children)}", image_dir, data_dir, **options))
        return children[-1]

    yield start
    for child in children:
        child.signal(signal.SIGKILL)
