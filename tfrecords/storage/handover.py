"""Hands finished shards over from machines that share no folder with the one that plans: through the target's store.

    <data_dir>/<name>/.<version>.shards/<shard>/     a shard, its sidecars, and its receipt

A worker makes a shard in a folder of its own, and puts whole files, the receipt last. Two attempts at a task put the
same bytes, so it does not matter which one is read, nor when a machine that was given up puts its own.
Whoever planned the tasks fetches them, and removes what it has, so what is listed stays short.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrecords.convert.state.receipts import read_info
from tfrecords.format.atomic_files import TEMPORARY
from tfrecords.storage.drivers import open_driver, paths_below, patiently, remove_paths

if TYPE_CHECKING:
    from tfrecords.convert.workers.shard_worker import Monitor, Task

_WHAT = "handover"
_FEW_TASKS = 8  # each has its own listing; of more, those that are finished are found by one listing of them all


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
                driver.put_file(str(path), f"{root}/{task.shard.name}/{path.name}")

            patiently(put, f"{task.handover}/{path.name}", doing="write")


def collect(tasks: Iterable[Task]) -> None:
    """Fetch what workers have handed over of these tasks to where the tasks have it, receipts last, and remove it."""
    by_receipt = {task.receipt.name: task for task in tasks}
    for url in {task.handover for task in by_receipt.values()}:
        driver, root = open_driver(url, _WHAT)
        finished = set(by_receipt)
        if len(finished) > _FEW_TASKS:
            finished &= {path.rpartition("/")[2] for path in paths_below(driver, root, url)}
        for name in finished:
            _collect(driver, f"{root}/{by_receipt[name].shard.name}", by_receipt[name])


def _collect(driver: Any, root: str, task: Task) -> None:
    found = {path.rpartition("/")[2]: path for path in paths_below(driver, root, task.handover)}
    if (receipt := found.pop(task.receipt.name, None)) is None:
        return
    for path in found.values():
        _fetch(driver, path, task.shard.parent, task.handover)
    _fetch(driver, receipt, task.receipt.parent, task.handover)
    if read_info(task.receipt, task.inputs, task.shard) is not None:  # and not of an earlier call with other files
        remove_paths(driver, [receipt, *found.values()], task.handover)


def put_probe(url: str, name: str) -> None:
    """Put an empty file where shards are handed over, to find out whether this machine can; see `patiently`."""
    driver, root = open_driver(url, _WHAT)
    patiently(lambda: driver.pipe_file(f"{root}/{name}", b""), f"{url}/{name}", doing="write")


def remove_handed_over(url: str) -> int:
    """Remove everything that was handed over; return the number of objects."""
    driver, root = open_driver(url, _WHAT)
    found = paths_below(driver, root, url)
    remove_paths(driver, found, url)
    return len(found)


def _fetch(driver: Any, path: str, folder: Path, url: str) -> None:
    name = path.rpartition("/")[2]
    temporary = folder / f".{name}{TEMPORARY}handed-over"
    patiently(lambda: driver.get_file(path, str(temporary)), f"{url}/{name}")
    os.replace(temporary, folder / name)
