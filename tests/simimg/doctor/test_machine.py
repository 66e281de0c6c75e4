"""Versions, memory, cores, disk and limits, as machines have them that are not there."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
from collections import namedtuple
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from simimg.doctor import check_disk, check_limits, check_machine, check_versions, file_system
from simimg.doctor.disk import disk_speed
from simimg.doctor.machine import memory_bandwidth
from tfrecords.machine_limits import cpu_quota, memory_limit, num_cores

GB = 1 << 30
Memory = namedtuple("Memory", "total available")
Usage = namedtuple("Usage", "total used free")
FACTS = {"processor": "a processor", "cores": "8", "memory": "32.0 GB", "system": "Linux", "versions": "none"}


# Versions


def installed(**versions: str) -> Any:
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        if name == "grain":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    return version


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what simimg requires."""
    return lambda *wishes: monkeypatch.setattr(importlib.metadata, "requires", lambda _: list(wishes))


def test_versions(requires: Any) -> None:
    requires("keras<4,>=3.15", "numpy", 'pytest; extra == "test"')
    found = check_versions()
    assert found.problems == ()
    assert found.facts["keras"] == importlib.metadata.version("keras")
    assert [name for name, _ in found.rows[:2]] == ["simimg", "Python"]


def test_versions_that_do_not_fit(requires: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requires("keras<4,>=3.15", "grain>=1")
    monkeypatch.setattr(importlib.metadata, "version", installed(keras="3.9.2"))
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.4")
    found = check_versions()
    python, keras, grain = found.problems
    assert python.startswith("this is Python 3.10.4, but simimg requires <3.14,>=3.11")
    assert keras == "keras 3.9.2 is installed, but simimg requires <4,>=3.15. Run: pip install 'keras<4,>=3.15'"
    assert grain == "the package grain is missing. Run: pip install 'grain>=1'"


def test_another_package_of_the_same_name(requires: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `simimg` on the package index installs the same import name and command."""
    requires()
    there = {"simimg": ["simimg-tf", "simimg"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: there)
    (problem,) = check_versions().problems
    assert problem.startswith(
        "the package simimg, another program with the same import name and command, is installed."
    )
    assert problem.endswith("pip uninstall -y simimg && pip install --force-reinstall --no-deps simimg-tf")
    there["simimg"].remove("simimg")
    assert check_versions().problems == ()


def test_what_is_required_is_installed_here() -> None:
    assert check_versions().problems == ()


# Memory and cores


def machine(root: Path, *, total: float = 32 * GB, free: float = 16 * GB, cores: int = 8) -> Any:
    values = {"visible_cores": cores, "memory_bandwidth": 21.04, "machine_facts": FACTS}
    given = {name: mock.Mock(return_value=value) for name, value in values.items()}
    memory = mock.patch("psutil.virtual_memory", return_value=Memory(int(total), int(free)))
    with memory, mock.patch.multiple("simimg.doctor.machine", **given):
        return check_machine(root)


def cgroup(root: Path, lines: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_limits(tmp_path: Path) -> None:
    found = machine(tmp_path)
    assert (found.problems, found.notes) == ((), ())
    assert ("cores", "8") in found.rows
    assert ("memory", "16.0 GB free of 32.0 GB") in found.rows
    assert ("memory speed", "21.0 GB/s, copied by one thread, reads and writes counted") in found.rows
    assert found.facts["memory_gb_per_s"] == 21.0
    assert found.facts["memory_limit_bytes"] is None


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        (
            "0::/docker/abc\n",
            {
                "docker/abc/memory.max": "max\n",
                "docker/memory.max": f"{4 * GB}\n",
                "docker/abc/cpu.max": "150000 100000\n",
            },
        ),
        ("0::/\n", {"memory.max": f"{4 * GB}\n", "cpu.max": "150000 100000\n"}),  # its own namespace, as in a container
        (
            "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                "memory/docker/abc/memory.limit_in_bytes": f"{4 * GB}\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cpu/docker/abc/cpu.cfs_quota_us": "150000\n",
                "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
    ids=["v2", "v2 in a container", "v1"],
)
def test_the_limits_of_a_container(tmp_path: Path, lines: str, files: dict[str, str]) -> None:
    root = cgroup(tmp_path, lines, files)
    assert memory_limit(root) == 4 * GB
    assert cpu_quota(root) == 1.5
    found = machine(root)
    assert found.problems == ()
    memory, cores = found.notes
    assert memory == "the container may use 4.0 GB of the 32.0 GB memory of the machine."
    assert cores.startswith("the container may use the time of 1.5 cores, but sees 8.")
    with mock.patch("tfrecords.machine_limits.visible_cores", return_value=8):
        assert num_cores(root) == 1
    assert ("cores", "8, time of 1.5") in found.rows
    assert ("memory", "4.0 GB free of 4.0 GB") in found.rows


def test_no_limits_are_none(tmp_path: Path) -> None:
    root = cgroup(tmp_path, "0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"})
    assert (memory_limit(root), cpu_quota(root)) == (None, None)
    assert (memory_limit(tmp_path / "other"), cpu_quota(tmp_path / "other")) == (None, None)


def test_little_memory(tmp_path: Path) -> None:
    (problem,) = machine(tmp_path, free=0.5 * GB).problems
    assert problem.startswith("only 512 MB of 32.0 GB memory are free")
    assert "--memory" in problem
    assert machine(tmp_path, free=0.1 * GB).facts["memory_gb_per_s"] is None  # no room to measure


def test_memory_bandwidth() -> None:
    assert 0.05 < memory_bandwidth() < 5_000


# Disk


def disk(folder: Path, *, free: float = 100 * GB, kind: str = "ext4", **changes: Any) -> Any:
    mounts = folder / "mountinfo"
    mounts.write_text(f"22 1 0:21 / / rw,relatime shared:1 - {kind} /dev/sda rw\n")
    usage = changes.pop("usage", lambda _: Usage(200 * GB, 0, int(free)))
    speed = changes.pop("speed", lambda _: (512.0, 2048.0))
    with mock.patch("shutil.disk_usage", usage), mock.patch("simimg.doctor.disk.disk_speed", speed):
        return check_disk(folder, **{"mounts": mounts, **changes})


def test_disk(tmp_path: Path) -> None:
    found = disk(tmp_path)
    assert (found.problems, found.notes) == ((), ())
    assert dict(found.rows) == {
        "folder": str(tmp_path),
        "file system": "ext4",
        "free": "100.0 GB of 200.0 GB",
        "speed": "writes 512 MB/s, reads 2,048 MB/s",
    }
    assert found.facts["read_mb_per_s"] == 2048.0


def test_a_full_disk(tmp_path: Path) -> None:
    found = disk(tmp_path, free=GB)
    (problem,) = found.problems
    assert problem.startswith(f"only 1.0 GB are free on the disk of {tmp_path}; 2.0 GB are needed")
    assert disk(tmp_path, free=0.01 * GB).facts["write_mb_per_s"] is None  # nothing is written


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    def fail(folder: Path) -> tuple[float, float]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (problem,) = disk(tmp_path, speed=fail).problems
    assert problem.startswith(f"{tmp_path} cannot be written to (Permission denied)")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre"])
def test_a_network_file_system(tmp_path: Path, kind: str) -> None:
    (note,) = disk(tmp_path, kind=kind).notes
    assert f"network file system ({kind})" in note


def test_other_file_systems(tmp_path: Path) -> None:
    assert disk(tmp_path, kind="tmpfs").rows[-1][1].endswith(" from memory")
    (note,) = disk(tmp_path, kind="overlay").notes
    assert "--volume" in note
    unknown = disk(tmp_path, mounts=tmp_path / "missing")
    assert unknown.facts["file_system"] is None


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
        "23 22 0:22 / /data rw shared:7 master:1 - xfs /dev/sdb rw\n"
        "24 23 0:23 / /data/my\\040photos rw - nfs4 host:/photos rw\n"
        "25 24 0:24 / /over rw - tmpfs tmpfs rw\n"
        "26 25 0:25 / /over rw - btrfs /dev/sdc rw\n"
    )
    kinds = {
        name: file_system(Path(name), mounts) for name in ("/", "/database", "/data/a", "/data/my photos/b", "/over")
    }
    assert list(kinds.values()) == ["ext4", "ext4", "xfs", "nfs4", "btrfs"]


def test_the_speed_of_a_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = disk_speed(tmp_path)
    assert write > 0
    assert read > 0
    assert list(tmp_path.iterdir()) == []

    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="No space left"):
        disk_speed(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Limits


def limits(
    *, num_gpus: int = 0, soft: int = 20_000, hard: int = 1 << 20, total: float = 16 * GB, free: float = 15 * GB
) -> Any:
    usage = mock.patch("shutil.disk_usage", return_value=Usage(int(total), 0, int(free)))
    with usage, mock.patch("resource.getrlimit", return_value=(soft, hard)):
        return check_limits(num_gpus=num_gpus)


def test_limits() -> None:
    found = limits()
    assert found.problems == ()
    assert found.rows == (("open files", "20,000"), ("/dev/shm", "15.0 GB free of 16.0 GB"))
    assert limits(soft=-1).rows[0] == ("open files", "unlimited")


@pytest.mark.parametrize(
    ("soft", "hard", "command"),
    [
        (256, 1 << 20, "ulimit -n 4096"),
        (256, -1, "ulimit -n 4096"),
        (256, 2048, "ulimit -n 2048"),
        (256, 512, "nofile=4096"),
    ],
)
def test_few_open_files(soft: int, hard: int, command: str) -> None:
    (problem,) = limits(soft=soft, hard=hard).problems
    assert problem.startswith("only 256 files may be open at once, but 1,024 are needed. Run: ")
    assert command in problem


def test_shared_memory() -> None:
    full = limits(total=GB, free=1 << 20).problems
    assert len(full) == 1
    assert full[0].startswith("/dev/shm is full (1 MB free of 1.0 GB)")
    docker = limits(num_gpus=2, total=64 << 20, free=64 << 20).problems
    assert len(docker) == 1
    assert "/dev/shm has 64 MB" in docker[0]
    assert "--shm-size=1g" in docker[0]
    assert limits(num_gpus=1, total=64 << 20, free=64 << 20).problems == ()


def test_no_shared_memory(tmp_path: Path) -> None:
    missing = tmp_path / "shm"
    assert check_limits(num_gpus=1, shm=missing).rows[1] == (str(missing), "missing")
    with mock.patch("resource.getrlimit", return_value=(-1, -1)):
        (problem,) = check_limits(num_gpus=2, shm=missing).problems
    assert problem == f"{missing} is missing, but 2 GPUs communicate through it. Run: mount -t tmpfs tmpfs {missing}"
