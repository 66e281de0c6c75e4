"""The engines that can compute one network, on the same photos: their speed, and how far their results differ.

The engines take turns in this process, each with as many threads as there are cores. The unit vectors are compared with
TensorFlow's. Whether the number of threads changes the bits is asked of a child process that may use one core:

    python -P -m simimg.bench.embedding_speed IMAGES.npy OUTPUTS.npz
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from simimg.bench.image_sets import ImageSet
from simimg.bench.measurements import Estimate, Run, estimate, ratios, take_turns, timed
from simimg.child_process import last_message, run_module
from simimg.errors import SimimgError, UsageError
from simimg.image_files import LoadedFile, load_files
from simimg.inference.inference_engine import has_bfloat16
from simimg.inference.network import Network
from simimg.inference.network_cache import converted_network
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.machine_limits import num_cores

__all__ = ["BATCH", "EngineSpeed", "EngineSpeeds", "check_batch", "load_engines", "measure_engines"]

BATCH = 32
_MODEL = "lite0"
_TURN_S = 2.0  # other processes disturb a shorter one by a factor of two
_SMALLER_BATCHES = (1, 8)
_TENSORFLOW = "TensorFlow, float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpeed:
    """An engine's costs and results.

    Attributes:
        name: the library and the precision.
        ms: wall time per image.
        cpu_ms: processor time of all cores per image.
        times_tensorflow: how many times as fast as TensorFlow it is.
        largest_difference: between a number of its unit vectors and of TensorFlow's.
        least_cosine: of its vector of an image to TensorFlow's.
        same_in_batches: whether an image's vector has the same bits in batches of 1, 8 and 32 images.
        same_with_threads: whether it has the same bits with one thread as with all; None if there is one core.
    """

    name: str
    ms: Estimate
    cpu_ms: Estimate
    times_tensorflow: Estimate
    largest_difference: float
    least_cosine: float
    same_in_batches: bool
    same_with_threads: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpeeds:
    """All engines.

    Attributes:
        what: a description of the network and its images.
        engines: the measured ones.
        not_measured: by name, why another engine was not.
        rounds: every counted run by engine.
    """

    what: str
    engines: tuple[EngineSpeed, ...]
    not_measured: dict[str, str]
    rounds: dict[str, list[Run]]


def check_batch(pictures: ImageSet) -> None:
    """Raises UsageError if there are too few images for a batch."""
    if len(pictures.files) < BATCH:
        raise UsageError(
            f"--stage=embedding measures batches of {BATCH} images, but --image_dir has {len(pictures.files)} "
            "undamaged JPEG files. Name a folder with more."
        )


def measure_engines(
    pictures: ImageSet, *, repeats: int, watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None
) -> EngineSpeeds:
    """Measures on a batch of 32 of the images, evenly chosen.

    Raises:
        UsageError: there are fewer images.
        SimimgError: LiteRT cannot run the network on this machine.
    """
    images = _batch(pictures)
    engines, not_measured = load_engines()
    tools = {name: partial(_turn, network, images) for name, network in engines.items()}
    outputs = {name: network(images).copy() for name, network in engines.items()}
    in_batches = {
        name: all(np.array_equal(_in_batches(network, images, size), outputs[name]) for size in _SMALLER_BATCHES)
        for name, network in engines.items()
    }
    one_core = _outputs_of_one_core(images) if num_cores() > 1 else None
    rounds, failures = take_turns(tools, repeats=repeats, progress=watch(len(tools) * (repeats + 1)))
    assert not failures
    speeds = []
    for name, runs in rounds.items():
        differences = np.abs(outputs[name] - outputs[_TENSORFLOW])
        lengths = np.linalg.norm(outputs[name], axis=1) * np.linalg.norm(outputs[_TENSORFLOW], axis=1)
        cosines = np.sum(outputs[name].astype(np.float64) * outputs[_TENSORFLOW], axis=1) / lengths
        speeds.append(
            EngineSpeed(
                name=name,
                ms=estimate([1000 * run.seconds / run.num_images for run in runs]),
                cpu_ms=estimate([1000 * run.cpu_seconds / run.num_images for run in runs]),
                times_tensorflow=estimate(ratios(runs, rounds[_TENSORFLOW])),
                largest_difference=float(differences.max()),
                least_cosine=float(cosines.min()),
                same_in_batches=in_batches[name],
                same_with_threads=None if one_core is None else np.array_equal(one_core[name], outputs[name]),
            )
        )
    side = images.shape[1]
    return EngineSpeeds(
        what=f"{_MODEL} at {side} x {side}, batches of {BATCH} photos, {num_cores()} threads",
        engines=tuple(speeds),
        not_measured=not_measured,
        rounds=rounds,
    )


def load_engines() -> tuple[dict[str, Network], dict[str, str]]:
    """Returns the networks by the names of their engines, LiteRT first, and why others cannot be loaded here.

    Raises:
        SimimgError: LiteRT cannot run the network on this machine.
    """
    from simimg.inference.keras_network import KerasNetwork
    from simimg.inference.litert_network import LiteRtNetwork

    converted = converted_network(_MODEL, "embedding")
    if converted.facts.refused:
        raise SimimgError(f"LiteRT cannot run {_MODEL} on this machine: {converted.facts.refused}.")
    engines: dict[str, Network] = {
        "LiteRT, float32": LiteRtNetwork(converted.content),
        _TENSORFLOW: KerasNetwork(_MODEL, "embedding", BATCH),
    }
    if importlib.util.find_spec("openvino") is None:
        return engines, {"OpenVINO": "it is not installed: pip install 'simimg-tf[fast]'"}
    from simimg.inference.openvino_network import OpenVinoNetwork

    engines["OpenVINO, float32"] = OpenVinoNetwork(converted.content, precision="float32")
    if not has_bfloat16():
        return engines, {"OpenVINO, bfloat16": "this processor has no instructions for it"}
    engines["OpenVINO, bfloat16"] = OpenVinoNetwork(converted.content)
    return engines, {}


def _batch(pictures: ImageSet) -> np.ndarray:
    """Returns photos as the network takes them, uint8 `[32, size, size, 3]`."""
    check_batch(pictures)
    files = pictures.files[:: len(pictures.files) // BATCH][:BATCH]
    options = ImageOptions(image_size=converted_network(_MODEL, "embedding").facts.image_size)
    loaded = [found for _, found in load_files(files, options, pictures.folder)]
    return np.stack([found.pixels for found in loaded if isinstance(found, LoadedFile) and found.pixels is not None])


def _turn(network: Network, images: np.ndarray) -> Run:
    def once() -> int:
        return len(network(images))

    return timed(once, min_s=_TURN_S, min_calls=1)


def _in_batches(network: Network, images: np.ndarray, size: int) -> np.ndarray:
    parts = [network(images[start : start + size]).copy() for start in range(0, len(images), size)]
    return np.concatenate(parts)


def _outputs_of_one_core(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs by engine of a process that may use one core, and so has one thread per engine."""
    with tempfile.TemporaryDirectory(prefix="one-core-") as folder:
        given, wanted = Path(folder) / "images.npy", Path(folder) / "outputs.npz"
        np.save(given, images)
        done = run_module("simimg.bench.embedding_speed", str(given), str(wanted), folder=Path(folder))
        if done.returncode:
            raise SimimgError(f"the engines cannot run in a process with one core: {last_message(done)}")
        with np.load(wanted) as file:
            return dict(file)


def main(given: str, wanted: str) -> None:
    """Write the outputs of each engine on one core for the images in a file."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow is imported, which asks only once
    images = np.load(given)
    outputs = {name: network(images) for name, network in load_engines()[0].items()}
    np.savez(wanted, allow_pickle=False, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
