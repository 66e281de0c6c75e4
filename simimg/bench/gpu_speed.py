"""Speed of augmentation, training and embedding on the GPUs of this machine, in at most four minutes, with its targets.

    augmentation   each one by both formulations, beside the layers of Keras, and the memory bandwidth of the device
    training       presets with data on the device, resident, mapped and as JPEG, beside synthetic data that is always
                   there; three precisions; one device and several, with the same batch per device
    embedding      as `index` does it

The measurements run in child processes, see `gpu_tasks`, the most important ones first. One that fails, or ends its
process, is left out with the reason, and so are those for which no time is left.

Without a GPU, `quick` runs everything with tiny sizes on two CPU devices, which shows that the command works. Figures
of such a run say nothing about GPUs, and no target is checked.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simimg.bench.augmentation_costs import AUGMENTATIONS
from simimg.bench.gpu_tasks import MAIN, SOURCES, SYNTHETIC
from simimg.bench.measurements import Run, estimate, ratios
from simimg.child_process import Outcome, run_tasks

__all__ = [
    "AugmentSpeed",
    "EmbedSpeed",
    "GpuSpeeds",
    "Target",
    "TrainSpeed",
    "measure_gpus",
    "num_images",
    "public_figures",
]

TOTAL_S = 225.0
# The parts of that time after which the first and the second group of measurements are ended.
_MAIN_SHARE, _SCALING_SHARE = 0.55, 0.75
_TASK_S = 100.0
_MODULE = "simimg.bench.gpu_tasks"
_BYTES_PER_VALUE = 1 + 4  # uint8 in, float32 out
_LEAST_TO_SYNTHETIC, _MOST_WAITING, _LEAST_TO_MEMORY, _LEAST_SCALING = 0.97, 0.03, 0.5, 0.9
# keras-team/keras#23245: Keras's layers on a T4, with 64 images of 224 x 224 px.
_PUBLIC_BATCH, _PUBLIC_SIZE = 64, 224
_PUBLIC_MS = {"Keras RandomFlip": 49.8, "Keras RandomRotation": 56.3}
_ROTATION = "rotation and flip"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sizes:
    image_size: int
    num_images: int
    augmented: tuple[int, int]  # batch sizes
    copied_bytes: int
    presets: tuple[tuple[str, int], ...]  # with the batch size per device; the main one first
    precisions: tuple[str, ...]
    augmentations: tuple[str, ...]
    embedded: int  # images per batch, 0 for as many as `index` takes
    public_batch: int
    repeats: int
    min_s: float


_FULL = _Sizes(
    image_size=64,
    num_images=8_192,
    augmented=(256, 4_096),
    copied_bytes=1 << 28,
    presets=(("small", 256), ("tutorial", 256), ("lite0", 32), ("copy", 64)),
    precisions=("float32", "bfloat16", "float16"),
    augmentations=(*AUGMENTATIONS, "grayscale", "quarter turns", "paste", "bars"),
    embedded=0,
    public_batch=_PUBLIC_BATCH,
    repeats=5,
    min_s=0.1,
)
_QUICK = _Sizes(
    image_size=32,
    num_images=64,
    augmented=(4, 8),
    copied_bytes=1 << 20,
    presets=(("tutorial", 8),),
    precisions=("float32", "bfloat16", "float16"),
    augmentations=(_ROTATION,),
    embedded=2,
    public_batch=1,
    repeats=1,
    min_s=0.01,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSpeed:
    """Speed of an augmentation; `gb_per_s` counts the least of pixels, uint8 read and float32 written."""

    name: str
    tool: str  # a formulation, or `keras`
    batch_size: int
    image_size: int
    ms: float
    ci95: tuple[float, float] | None
    gb_per_s: float
    ratio_to_memory: float | None  # of the memory bandwidth, None if that was not measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSpeed:
    """Speed of training with data from a source; `ratio_to_synthetic` is a median over the rounds."""

    preset: str
    precision: str
    source: str
    num_devices: int
    batch_size: int  # per device
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio_to_synthetic: float
    input_share: float  # of the time, waiting for a batch
    peak_bytes: int | None  # of a device, with synthetic data


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedSpeed:
    """Speed of the network that `index` computes."""

    engine: str
    batch_size: int
    images_per_s: float
    ci95: tuple[float, float] | None
    peak_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A target, the value that was measured, and whether it meets the target, in words, too."""

    name: str
    value: float
    aim: str
    met: bool
    sentence: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuSpeeds:
    """All measurements; `targets` is empty unless the devices are GPUs and the sizes are those of a full run."""

    devices: tuple[str, ...]
    are_gpus: bool
    quick: bool
    memory_gb_per_s: float | None  # reads and writes counted
    augmentations: tuple[AugmentSpeed, ...]
    trainings: tuple[TrainSpeed, ...]
    embedding: EmbedSpeed | None
    targets: tuple[Target, ...]
    seconds: float
    not_run: tuple[str, ...]  # for which no time was left
    left_out: dict[str, str]  # what failed, and why
    rounds: dict[str, Any]  # every counted run, by measurement and tool


@dataclasses.dataclass(frozen=True)
class _Task:
    label: str
    arguments: dict[str, Any]


def num_images(quick: bool) -> tuple[int, int]:
    """Returns the number and the size in px of the images that `measure_gpus` trains with."""
    sizes = _QUICK if quick else _FULL
    return sizes.num_images, sizes.image_size


def measure_gpus(
    dataset_dirs: Mapping[str, Path],
    gpus: Sequence[str],
    *,
    quick: bool,
    start: float,
    run: Callable[..., list[Outcome]] = run_tasks,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> GpuSpeeds:
    """Measures on the GPUs; this process must not use them.

    Args:
        dataset_dirs: the datasets to train with, by encoding: `raw` and `jpeg`.
        gpus: the names of the GPUs that TensorFlow uses; without one, there are two CPU devices.
        quick: whether to use tiny sizes.
        start: the time by `time.monotonic()` when the command began.
        run: runs tasks, as `run_tasks`.
        note: called with a line about each phase.
        watch: takes the number of tasks and returns a function to call after each.
    """
    sizes = _QUICK if quick else _FULL
    devices = tuple(gpus) or ("CPU device",) * 2
    groups = _groups(sizes, {name: str(path) for name, path in dataset_dirs.items()}, len(devices))
    progress = watch(sum(len(tasks) for _, _, tasks in groups))
    found: dict[str, tuple[_Task, Outcome]] = {}
    task_s = math.inf if quick else _TASK_S
    for what, share, tasks in groups:
        note(f"measuring {what}")
        arguments = [task.arguments for task in tasks]
        outcomes = run(_MODULE, arguments, until=start + share * TOTAL_S, task_s=task_s, progress=progress)
        found |= {task.label: (task, outcome) for task, outcome in zip(tasks, outcomes, strict=True)}
    speeds = _speeds(found, devices, quick=quick, are_gpus=bool(gpus))
    targets = tuple(_targets(speeds, sizes)) if gpus and not quick else ()
    return dataclasses.replace(speeds, targets=targets, seconds=round(time.monotonic() - start, 1))


def _groups(sizes: _Sizes, dataset_dirs: dict[str, str], num_devices: int) -> list[tuple[str, float, list[_Task]]]:
    """Returns what is measured in one process, the share of the time at which it ends, and its tasks."""
    timing = {"repeats": sizes.repeats, "min_s": sizes.min_s}
    (main, main_batch), *presets = sizes.presets

    def augment(name: str, batch_size: int, image_size: int = sizes.image_size) -> _Task:
        arguments = {"kind": "augmentation", "name": name, "batch_size": batch_size, "image_size": image_size}
        return _Task(f"{name}, {batch_size} x {image_size} px", {**arguments, **timing})

    def train(preset: str, precision: str, sources: Sequence[str], count: int, batch_size: int) -> _Task:
        arguments: dict[str, Any] = {
            "kind": "training",
            "preset": preset,
            "precision": precision,
            "dataset_dirs": dataset_dirs,
        }
        arguments |= {"sources": list(sources), "num_devices": count, "batch_size": batch_size}
        return _Task(f"training {preset}, {precision}, {count} device{'s' * (count > 1)}", {**arguments, **timing})

    first = [
        _Task("memory bandwidth", {"kind": "memory_bandwidth", "num_bytes": sizes.copied_bytes, **timing}),
        *(augment(MAIN, batch_size) for batch_size in reversed(sizes.augmented)),
        train(main, "float32", tuple(SOURCES), 1, main_batch),
    ]
    counts = [count for count in (2, 4, 8, 16) if count < num_devices] + [num_devices] * (num_devices > 1)
    public = [augment(name, sizes.public_batch, _PUBLIC_SIZE) for name in (_ROTATION, *_PUBLIC_MS)]
    others = [
        *(train(main, precision, ("device",), 1, main_batch) for precision in sizes.precisions[1:]),
        _Task("embedding", {"kind": "embedding", "batch_size": sizes.embedded, **timing}),
        *public,
        *(train(preset, "float32", ("device", "mapped"), 1, batch_size) for preset, batch_size in presets),
        *(augment(name, batch_size) for name in sizes.augmentations for batch_size in sizes.augmented),
    ]
    scaling = [
        (f"{count} devices", _SCALING_SHARE, [train(main, "float32", ("device",), count, main_batch)])
        for count in counts
    ]
    if sizes is _QUICK:  # which has no limit of time
        return [("one device", math.inf, [*first, *others]), *((what, math.inf, tasks) for what, _, tasks in scaling)]
    return [("one device", _MAIN_SHARE, first), *scaling, ("the other options", 1.0, others)]


def _speeds(
    found: dict[str, tuple[_Task, Outcome]], devices: tuple[str, ...], *, quick: bool, are_gpus: bool
) -> GpuSpeeds:
    values = {label: (task, outcome.value) for label, (task, outcome) in found.items() if outcome.how == "returned"}
    rounds: dict[str, dict[str, list[Run]]] = {}
    for label, (_, value) in values.items():
        runs = value.get("rounds", value)
        rounds[label] = {
            tool: [Run(run["seconds"], int(run["num_images"]), 0) for run in turns] for tool, turns in runs.items()
        }
    memory = None
    if "memory bandwidth" in rounds:
        copies = rounds["memory bandwidth"]["copy"]
        memory = estimate([2 * run.num_images / run.seconds / 1e9 for run in copies]).median
    augmentations: list[AugmentSpeed] = []
    trainings: list[TrainSpeed] = []
    embedding = None
    for label, (task, value) in values.items():
        given, runs = task.arguments, rounds[label]
        if given["kind"] == "augmentation":
            augmentations += (_augmented(given, tool, turns, memory) for tool, turns in runs.items())
        elif given["kind"] == "training":
            trainings += (_trained(given, source, runs, value) for source in runs)
        elif given["kind"] == "embedding":
            rate = estimate([run.images_per_s for run in runs["embedding"]])
            about = {name: value[name] for name in ("engine", "batch_size", "peak_bytes")}
            embedding = EmbedSpeed(images_per_s=rate.median, ci95=rate.ci95, **about)
    return GpuSpeeds(
        devices=devices,
        are_gpus=are_gpus,
        quick=quick,
        memory_gb_per_s=memory,
        augmentations=tuple(augmentations),
        trainings=tuple(trainings),
        embedding=embedding,
        targets=(),
        seconds=0.0,
        not_run=tuple(label for label, (_, outcome) in found.items() if outcome.how == "not run"),
        left_out={
            label: outcome.error.partition("\n")[0][:300]
            for label, (_, outcome) in found.items()
            if outcome.how not in ("returned", "not run")
        },
        rounds={
            label: {tool: [dataclasses.asdict(run) for run in turns] for tool, turns in runs.items()}
            for label, runs in rounds.items()
        },
    )


def _augmented(given: dict[str, Any], tool: str, runs: list[Run], memory: float | None) -> AugmentSpeed:
    batch_size, image_size = given["batch_size"], given["image_size"]
    ms = estimate([1000 * batch_size * run.seconds / run.num_images for run in runs])
    gb_per_s = batch_size * image_size * image_size * 3 * _BYTES_PER_VALUE / ms.median / 1e6
    return AugmentSpeed(
        name=given["name"],
        tool=tool,
        batch_size=batch_size,
        image_size=image_size,
        ms=ms.median,
        ci95=ms.ci95,
        gb_per_s=gb_per_s,
        ratio_to_memory=gb_per_s / memory if memory else None,
    )


def _trained(given: dict[str, Any], source: str, runs: dict[str, list[Run]], value: dict[str, Any]) -> TrainSpeed:
    rate = estimate([run.images_per_s for run in runs[source]])
    return TrainSpeed(
        preset=given["preset"],
        precision=given["precision"],
        source=source,
        num_devices=given["num_devices"],
        batch_size=given["batch_size"],
        images_per_s=rate.median,
        ci95=rate.ci95,
        ratio_to_synthetic=estimate(ratios(runs[source], runs[SYNTHETIC])).median,
        input_share=value["input_shares"][source],
        peak_bytes=value["peak_bytes"],
    )


def _targets(speeds: GpuSpeeds, sizes: _Sizes) -> Iterator[Target]:
    """Yields the targets whose values were measured."""
    main = sizes.presets[0][0]
    mine = [speed for speed in speeds.trainings if (speed.preset, speed.precision) == (main, "float32")]
    for speed in mine:
        if speed.num_devices == 1 and speed.source != SYNTHETIC:
            share, name = speed.ratio_to_synthetic, f"training {main} from {speed.source}"
            yield _target(name, share, "of the speed with synthetic data", "at least", _LEAST_TO_SYNTHETIC)
            yield _target(name, speed.input_share, "of the time waiting for input", "under", _MOST_WAITING)
    largest = max(sizes.augmented)
    found = [speed for speed in speeds.augmentations if speed.name == MAIN and speed.batch_size == largest]
    if found and speeds.memory_gb_per_s:
        best = min(found, key=lambda speed: speed.ms)
        name = f"augmentation of {MAIN}, {best.tool}, batch {largest:,}"
        yield _target(name, best.ratio_to_memory or 0.0, "of the memory bandwidth", "at least", _LEAST_TO_MEMORY)
    alone = {speed.source: speed.images_per_s for speed in mine if speed.num_devices == 1}
    for speed in mine:
        if speed.num_devices > 1 and speed.source == "device" and speed.source in alone:
            share = speed.images_per_s / (speed.num_devices * alone[speed.source])
            of = f"of {speed.num_devices} times the speed of one"
            yield _target(f"training {main} on {speed.num_devices} GPUs", share, of, "over", _LEAST_SCALING)


def _target(name: str, value: float, of: str, how: str, limit: float) -> Target:
    met = {"at least": value >= limit, "over": value > limit, "under": value < limit}[how]
    aim = f"{how} {100 * limit:g} %"
    said = "met" if met else "MISSED"
    return Target(
        name=name, value=value, aim=aim, met=met, sentence=f"{name}: {100 * value:.1f} % {of}; target {aim}: {said}"
    )


def public_figures(speeds: GpuSpeeds) -> str:
    """Returns the public figures of Keras's layers on a T4 beside those measured here; empty if these are missing."""
    here = [
        speed for speed in speeds.augmentations if (speed.batch_size, speed.image_size) == (_PUBLIC_BATCH, _PUBLIC_SIZE)
    ]
    ours = [speed.ms for speed in here if speed.name == _ROTATION]
    keras = {speed.name: speed.ms for speed in here if speed.name in _PUBLIC_MS}
    if not ours or set(keras) != set(_PUBLIC_MS):
        return ""
    each = ", ".join(
        f"{name} {ms:.2f} ms (on a T4, keras#23245: {_PUBLIC_MS[name]:g} ms)" for name, ms in keras.items()
    )
    return f"{_PUBLIC_BATCH} images of {_PUBLIC_SIZE} px: {_ROTATION} {min(ours):.2f} ms for both; {each}"
