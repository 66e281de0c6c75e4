"""Tasks for the tests of what runs them: small shards of drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.convert.workers.shard_worker import ShardTask

NUM_SHARDS, NUM_FILES = 6, 5


def a_task(folder: Path, files: Any, *, name: str = "shard-0", **values: Any) -> ShardTask:
    """Returns a task that writes the shard `name` below `folder`; rows, paths, ids and labels have to be given."""
    given = {
        "shard": folder / "shards" / name,
        "receipt": folder / "receipts" / f"{name}.json",
        "inputs": "these files",
        "files": files,
        "places": None,
        "image": ImageOptions(image_size=8),
        "encoding": "raw",
        "jpeg_quality": 95,
        "hashed": False,
        "durable": True,
    }
    return ShardTask(**{**given, **values})


def tasks_of_folder(folder: Path, files: Any) -> list[ShardTask]:
    """Returns the tasks of the images of class `a` that `make_folder` draws."""
    for name in ("shards", "receipts"):
        (folder / name).mkdir()
    tasks = []
    for number in range(NUM_SHARDS):
        rows = np.arange(NUM_FILES * number, NUM_FILES * (number + 1))
        paths = tuple(f"a/image_{row}{'.png' if row % 2 else '.jpg'}" for row in rows.tolist())
        tasks.append(a_task(folder, files, name=f"shard-{number}", paths=paths, rows=rows, ids=rows, labels=rows))
    return tasks
