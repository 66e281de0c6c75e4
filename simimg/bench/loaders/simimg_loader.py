"""The readers of this project, shuffled and endless, read from Python; a run takes as many steps as an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_EPOCHS = 1_000_000  # more than any measurement needs

_BATCHES: list[Iterator[Any]] = []  # opened once, by `load`


def load(job: ReadJob) -> dict[str, Any]:
    """Opens the reader."""
    import tensorflow as tf

    from simimg.input import Order, batches_of, open_reader, train_batches

    kind, *unchecked = job.variant.split()  # "mapped unchecked" shows what the checksums cost
    flags = f"--reader={kind}{' --on_corrupt=unchecked' if unchecked else ''}"
    reader, _ = open_reader(
        Path(job.dataset_dir),
        "train",
        kind,
        num_threads=job.num_workers,
        on_corrupt="unchecked" if unchecked else "fail",
    )
    order = Order(num_examples=reader.split.num_examples, global_batch_size=job.batch_size, num_epochs=_EPOCHS, seed=0)
    _BATCHES.append(batches_of(train_batches(reader, order)))
    return {"versions": {"tensorflow": tf.__version__}, "settings": f"{flags}, uniform shuffle"}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that reads as many batches as an epoch has."""
    (batches,) = _BATCHES
    shape = (job.batch_size, job.image_size, job.image_size, 3)

    def run() -> int:
        num_images = 0
        for _ in range(job.num_images // job.batch_size):
            batch = next(batches)
            assert batch.image.shape == shape
            num_images += job.batch_size
        return num_images

    return run
