"""Hands finished shards over from machines that share no folder with the one that plans: through the target's store.

    <data_dir>/<name>/.<version>.shards/     shards, their sidecars, and their receipts

A worker makes a shard in a folder of its own, and puts whole files, the receipt last. Two attempts at a task put the
same bytes, so it does not matter which one is read, nor when a machine that was given up puts its own.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrecords.format.atomic_files import TEMPORARY
from tfrecords.storage.drivers import open_driver, patiently

if TYPE_CHECKING:
    from tfrecords.convert.workers.shard_worker import Monitor, Task

_WHAT = "--data_dir"


def run_and_hand_over(task: Task, monitor: Monitor) -> None:
    """Run a task in a temporary folder of this machine, and put what it made; see `Task.run` for errors.

    Raises:
        DataError: the store does not take a file, after several attempts.
    """
    driver, root = open_driver(task.handover, _WHAT)
    with tempfile.TemporaryDirectory(prefix="simimg-") as folder:
        shard, receipt = Path(folder, task.shard.name), Path(folder, "receipt", task.receipt.name)
        receipt.parent.mkdir()
        dataclasses.replace(task, shard=shard, receipt=receipt).run(monitor)
        for path in (*(path for path in sorted(Path(folder).iterdir()) if path.is_file()), receipt):

            def put(path: Path = path) -> None:
                driver.put_file(str(path), f"{root}/{path.name}")

            patiently(put, f"{task.handover}/{path.name}", doing="write")


def collect(tasks: Iterable[Task]) -> None:
    """Fetch what workers have handed over of these tasks to where the tasks have it, receipts last."""
    by_receipt = {task.receipt.name: task for task in tasks}
    for url in {task.handover for task in by_receipt.values()}:
        driver, root = open_driver(url, _WHAT)
        there = {path.rpartition("/")[2]: path for path in _listed(driver, root, url)}
        for name in by_receipt.keys() & there.keys():
            task = by_receipt[name]
            for file in sorted(there):
                if file.startswith(task.shard.name) and file != name:
                    _fetch(driver, there[file], task.shard.parent, url)
            _fetch(driver, there[name], task.receipt.parent, url)


def put_probe(url: str, name: str) -> None:
    """Put an empty file where shards are handed over, to find out whether this machine can; see `patiently`."""
    driver, root = open_driver(url, _WHAT)
    patiently(lambda: driver.pipe_file(f"{root}/{name}", b""), f"{url}/{name}", doing="write")


def remove_handed_over(url: str) -> int:
    """Remove everything that was handed over; return the number of objects."""
    driver, root = open_driver(url, _WHAT)
    found = _listed(driver, root, url)
    for path in found:
        with suppress(FileNotFoundError):
            driver.rm_file(path)
    return len(found)


def _listed(driver: Any, root: str, url: str) -> list[str]:
    def listed() -> list[str]:
        with suppress(FileNotFoundError):
            return [path for path in driver.find(root) if path != root]  # some servers list the folder itself
        return []

    return patiently(listed, url)


def _fetch(driver: Any, path: str, folder: Path, url: str) -> None:
    name = path.rpartition("/")[2]
    temporary = folder / f".{name}{TEMPORARY}handed-over"
    patiently(lambda: driver.get_file(path, str(temporary)), f"{url}/{name}")
    os.replace(temporary, folder / name)
