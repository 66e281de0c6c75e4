"""The stage `gpu` of `simimg bench`: its datasets, its table and its plot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from simimg.bench.bench_plots import Bar, aligned, interval
from simimg.bench.gpu_speed import GpuSpeeds, TrainSpeed, measure_gpus, num_images, public_figures
from simimg.bench.gpu_tasks import SYNTHETIC
from simimg.bench.image_sets import ImageSet
from simimg.bench.record_sets import records_of
from simimg.commands.console import note
from simimg.errors import UsageError


def measure_gpu_stage(
    pictures: Callable[[], ImageSet], cache_dir: Path, *, quick: bool, watch: Callable[[int], Callable[[], object]]
) -> GpuSpeeds:
    """Measure; raise UsageError if there is no GPU and the run is not a quick one."""
    start = time.monotonic()
    devices = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in devices]
    if not names and not quick:
        raise UsageError(
            "--stage=gpu: TensorFlow uses no GPU here; `simimg doctor` reports why. To try the command on CPU devices, "
            "add --quick."
        )
    with contextlib.suppress(RuntimeError):  # TensorFlow has started in this process, and keeps the memory it has
        tf.config.set_visible_devices([], "GPU")  # the processes that measure need all of it
    count, side = num_images(quick)
    note(f"preparing {count:,} images of {side} px")
    images = pictures()
    folders = {
        encoding: records_of(images, count, side, encoding, cache_dir, spread=True).split.dataset_dir
        for encoding in ("raw", "jpeg")
    }
    return measure_gpus(folders, names, quick=quick, start=start, note=note, watch=watch)


def gpu_plot(found: GpuSpeeds) -> dict[str, Any]:
    """Return the title and the bars of the plot: training on one device with each source of data."""
    mine = _of_one_device(found)
    bars = [Bar(speed.source, speed.images_per_s, speed.ci95, True) for speed in mine if speed.source != SYNTHETIC]
    limit = next((speed.images_per_s for speed in mine if speed.source == SYNTHETIC), 0.0)
    what = f"{mine[0].preset}, batches of {mine[0].batch_size}, {found.devices[0]}" if mine else ""
    title = "Training on one GPU, images per second" if found.are_gpus else "Training on a CPU device, which is no GPU"
    return {"title": title, "what": what, "bars": bars, "limit": ("synthetic data", limit)}


def _of_one_device(found: GpuSpeeds) -> list[TrainSpeed]:
    """Return the speeds of the main preset on one device."""
    alone = [speed for speed in found.trainings if (speed.num_devices, speed.precision) == (1, "float32")]
    return [speed for speed in alone if speed.preset == alone[0].preset]


def gpu_table(found: GpuSpeeds) -> list[str]:
    """Return what the devices are, all figures, and which targets are met."""
    lines = list(_heading(found))
    if found.augmentations:
        lines += ["", "augmentation, on one device", *aligned(_augmentations(found))]
        lines += [
            "GB/s: pixels read as uint8 and written as float32; of memory: as a share of the bandwidth above",
            *filter(None, [public_figures(found)]),
        ]
    if found.trainings:
        lines += ["", "training", *aligned(_trainings(found))]
        lines.append("batch: images per device; peak memory: of a device, with synthetic data")
    if found.embedding:
        speed = found.embedding
        memory = "" if speed.peak_bytes is None else f", peak memory {_gigabytes(speed.peak_bytes)}"
        rate = f"{speed.images_per_s:,.0f} images/s ({interval(speed.ci95, ',.0f')})"
        lines += ["", f"embedding of `index`: {rate} in batches of {speed.batch_size} by {speed.engine}{memory}"]
    lines += ["", *(target.sentence for target in found.targets)] if found.targets else []
    if found.not_run:
        lines += ["", f"not measured, because the time was up: {'; '.join(found.not_run)}"]
    return lines


def _heading(found: GpuSpeeds) -> list[str]:
    heading = []
    if not found.are_gpus:
        heading.append(
            f"THESE ARE NO GPUS, but {len(found.devices)} CPU devices. The figures show only that the command runs to "
            "its end. No target is checked."
        )
    elif found.quick:
        heading.append("--quick: the sizes are too small for the figures to mean anything. No target is checked.")
    names = {name: found.devices.count(name) for name in found.devices}
    heading.append(
        f"{', '.join(f'{count} x {name}' for name, count in names.items())}; measured in {found.seconds:,.0f} s"
    )
    if found.memory_gb_per_s is not None:
        heading.append(
            f"memory bandwidth of a device, by a copy, reads and writes counted: {found.memory_gb_per_s:,.1f} GB/s"
        )
    return heading


def _augmentations(found: GpuSpeeds) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "with", "batch", "px", "ms", "95 % interval", "GB/s", "of memory")]
    for speed in found.augmentations:
        share = "" if speed.ratio_to_memory is None else f"{100 * speed.ratio_to_memory:.1f} %"
        sizes = (f"{speed.batch_size:,}", f"{speed.image_size}")
        times = (f"{speed.ms:,.2f}", interval(speed.ci95, ",.2f"), f"{speed.gb_per_s:,.1f}")
        rows.append((speed.name, speed.tool, *sizes, *times, share))
    return rows


def _trainings(found: GpuSpeeds) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            "",
            "precision",
            "devices",
            "batch",
            "data",
            "images/s",
            "95 % interval",
            "of synthetic",
            "waiting",
            "peak memory",
        )
    ]
    for speed in found.trainings:
        rate = (f"{speed.images_per_s:,.0f}", interval(speed.ci95, ",.0f"))
        shares = (f"{100 * speed.ratio_to_synthetic:.1f} %", f"{100 * speed.input_share:.1f} %")
        about = (speed.preset, speed.precision, f"{speed.num_devices}", f"{speed.batch_size}", speed.source)
        rows.append((*about, *rate, *shares, "-" if speed.peak_bytes is None else _gigabytes(speed.peak_bytes)))
    return rows


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
