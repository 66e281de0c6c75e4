"""Which of two formulations computes an augmentation on a device: TensorFlow's operations, or one compiled by XLA.

Both give the same pixels up to rounding. A processor always uses XLA, whose loops are several times as fast. Which is
faster on a GPU is not known beforehand: XLA reads and writes the pixels fewer times, but the operations have kernels
written for GPUs. So a new kind of GPU is measured once, which takes about two seconds, and the result is kept in

    ~/.cache/simimg/gpus.json     {"<name of the GPU>, TensorFlow <version>": {"operations": ms, "xla": ms}}

or in `$XDG_CACHE_HOME/simimg` if that variable is set: milliseconds per batch. Without a folder that can be written,
each process measures anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from tfrecords.format.atomic_files import atomic_file, json_bytes, parse_json
from tfrecords.machine_limits import user_cache

FORMULATIONS = ("auto", "operations", "xla")
_MEASURED_S = 0.5  # for each of the two; compiling takes about a second more
_MIN_CALLS = 5

Milliseconds = dict[str, float]

_IN_USE: dict[str, Milliseconds | None] = {}  # what this process goes by, whatever happens to the file


def resolved(formulation: str) -> str:
    """Returns `operations` or `xla` for one of `FORMULATIONS`.

    `auto` is `xla` on a processor; on a GPU, it is what `choose` has found, and `operations` before that.
    """
    if formulation != "auto":
        return formulation
    if not tf.config.list_logical_devices("GPU"):
        return "xla"
    measured = [_known(name_of(gpu)) for gpu in tf.config.list_physical_devices("GPU")[:1]]
    return fastest(measured[0]) if measured and measured[0] else "operations"


def choose(measure: Callable[[str], Callable[[], tf.Tensor]], name: str) -> tuple[Milliseconds, bool]:
    """Returns the milliseconds per batch of both formulations on a kind of device, and whether they were known.

    Args:
        measure: returns, for a formulation, the function that augments a batch on the device, whose result is small.
        name: of the kind of device, see `name_of`.
    """
    if known := _known(name):
        return known, True
    found = {formulation: _milliseconds(measure(formulation)) for formulation in FORMULATIONS[1:]}
    _keep(name, found)
    return found, False


def fastest(found: Milliseconds) -> str:
    """Returns the formulation that took the least time."""
    return min(found, key=lambda formulation: found[formulation])


def name_of(device: tf.config.PhysicalDevice) -> str:
    """Returns the name of a kind of device: all devices of this name are equally fast."""
    kind = tf.config.experimental.get_device_details(device).get("device_name", device.device_type)
    return f"{kind}, TensorFlow {tf.__version__}"


def _milliseconds(augmented: Callable[[], tf.Tensor]) -> float:
    augmented().numpy()  # compiles
    start, count, last = time.perf_counter(), 0, None
    while count < _MIN_CALLS or time.perf_counter() - start < _MEASURED_S:
        last = augmented()
        count += 1
    assert last is not None
    last.numpy()  # which waits for the device
    return round(1000 * (time.perf_counter() - start) / count, 4)


def _file() -> Path | None:
    cache = user_cache()
    return cache and cache / "gpus.json"


def _read() -> dict[str, Milliseconds]:
    """Returns what is known; a file that cannot be read, or that is not of this form, counts as none."""
    file = _file()
    try:
        found = parse_json(file.read_bytes()) if file else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(name: str) -> Milliseconds | None:
    """Returns what is known of a kind of device. One process never changes its formulation, but by measuring."""
    if name not in _IN_USE:
        _IN_USE[name] = _times(_read().get(name))
    return _IN_USE[name]


def _times(found: object) -> Milliseconds | None:
    if isinstance(found, dict) and set(found) == set(FORMULATIONS[1:]):
        with contextlib.suppress(TypeError, ValueError):
            return {formulation: float(ms) for formulation, ms in found.items()}
    return None


def _keep(name: str, found: Milliseconds) -> None:
    _IN_USE[name] = found
    if not (file := _file()):
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.parent), atomic_file(file, sync=False) as written:
            written.write(json_bytes({**_read(), name: found}))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process is in this block, unless the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which releases it
