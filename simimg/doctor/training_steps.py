"""Trains one step with each kind of option on the devices of this machine, so that a failure has its cause beside it.

Each training runs in a child process, which some failures end: XLA aborts it for a GPU that it cannot compile for, and
a library of another version can end it, too. The remaining trainings then run in a new process. All of them together
take at most `TOTAL_S` seconds; those for which no time is left are reported as not run.

    python -P -m simimg.doctor.training_steps
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simimg.child_process import Outcome, run_tasks, serve_tasks
from simimg.doctor.check_result import CheckResult
from simimg.doctor.training_failures import Failure, cause_of
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

TOTAL_S = 110.0
# A step takes seconds. The first one on a GPU for which kernels are compiled takes minutes; see `cause_of`.
STEP_S = 60.0
_CPU_DEVICES = 2  # which stand for two GPUs where there is none
_IMAGE_SIZE, _BATCH = 32, 8  # images per device
_CLASSES = ("dark", "light")
_MODULE = "simimg.doctor.training_steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A training of one step: what is special about it, and its options beside those of all steps."""

    name: str
    options: dict[str, Any]
    needs_gpu: bool = False
    on: str = "all"  # devices; or `one`, or `both`, on one device and on all


_EVERY_AUGMENTATION = {
    "rotation_degrees": 20.0,
    "crop_min_area": 0.35,
    "colour_jitter": 0.4,
    "vertical_flip": True,
    "grayscale": 0.2,
    "blur": 2.0,
    "min_jpeg_quality": 30.0,
    "cutout": 0.3,
    "quarter_turns": 0.2,
    "paste": 0.2,
    "bars": 0.2,
    "rand_augment": "2,9",
    "three_augment": True,
    "noise": 9.0,
    "erase": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
}

# The most common ones first: where time is short, the others are not run.
STEPS = (
    Step(name="preset tutorial", options={}, on="both"),
    Step(name="preset small", options={"preset": "small"}),
    Step(name="bfloat16", options={"precision": "bfloat16"}),
    Step(name="float16, clipped gradients", options={"precision": "float16", "clip_norm": 1.0}),
    Step(name="--cache=device", options={"cache": "device"}),
    Step(name="similarity", options={"preset": "copy", "model": "tutorial", "train_backbone": True, "queue_size": 16}),
    Step(name="--cross_device_ops=nccl", options={"cross_device_ops": "nccl"}, needs_gpu=True),
    Step(name="--cross_device_ops=hierarchical", options={"cross_device_ops": "hierarchical"}),
    Step(name="--cross_device_ops=cpu", options={"cross_device_ops": "cpu"}),
    Step(name="--accumulate=2", options={"accumulate": 2}),
    Step(name="averaged weights", options={"ema": 0.9}),
    Step(name="every augmentation", options=_EVERY_AUGMENTATION, on="one"),
    Step(name="--optimizer=lamb", options={"optimizer": "lamb"}),
    Step(name="--xla", options={"xla": True}, needs_gpu=True, on="both"),
    Step(name="AugMix", options={"augmix": 3.0}, needs_gpu=True, on="one"),  # XLA takes long to compile it for a CPU
)


def check_training(
    gpus: Sequence[str],
    *,
    steps: Sequence[Step] = STEPS,
    run: Callable[..., list[Outcome]] = run_tasks,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> CheckResult:
    """Train each step on all devices, and some on one; return which ones work, and why the others fail.

    Args:
        gpus: the names of the GPUs that TensorFlow uses; without one, the processor is used as one and as two devices.
        steps: the trainings.
        run: runs tasks, as `run_tasks`.
        progress: called with the number of trainings that are done and their total.
    """
    until = time.monotonic() + TOTAL_S
    kind, most = ("GPU", len(gpus)) if gpus else ("CPU device", _CPU_DEVICES)
    chosen = [step for step in steps if gpus or not step.needs_gpu]
    if most == 1:
        pairs = [(1, step) for step in chosen if "cross_device_ops" not in step.options]
    else:  # what works on several devices is not trained again on one
        pairs = [(1, step) for step in chosen if step.on != "all"] + [
            (most, step) for step in chosen if step.on != "one"
        ]
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, len(pairs))

    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="steps-") as folder:
        dataset_dir = _dataset(Path(folder), most)
        for number in sorted({number for number, _ in pairs}):  # devices are set up once per process
            tasks = [
                _task(dataset_dir, Path(folder) / f"run-{number}-{place}", number, step)
                for place, (of, step) in enumerate(pairs)
                if of == number
            ]
            outcomes += run(_MODULE, tasks, until=until, task_s=STEP_S, progress=count)
    return _result(kind, pairs, outcomes, gpus)


def _dataset(folder: Path, num_devices: int) -> Path:
    """Return a dataset with one global batch of noise to train on, and as much to test."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(_CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(_BATCH * num_devices):
            pixels = rng.integers(100 * label, 100 * label + 156, (_IMAGE_SIZE, _IMAGE_SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    config = ConvertConfig(
        image_dir=str(folder / "images"),
        data_dir=folder,
        name="noise",
        image_size=_IMAGE_SIZE,
        splits="train=0.5,test=0.5",
        copies="ignore",
        num_workers=1,
    )
    return convert(config).dataset_dir


def _task(dataset_dir: Path, model_dir: Path, num_devices: int, step: Step) -> dict[str, Any]:
    return {
        "preset": "tutorial",
        "epochs": 1,
        "global_batch_size": _BATCH * num_devices,
        "test_views": "one",
        **step.options,
        "num_devices": num_devices,
        "dataset_dir": str(dataset_dir),
        "model_dir": str(model_dir),
    }


def _result(
    kind: str, pairs: Sequence[tuple[int, Step]], outcomes: Sequence[Outcome], gpus: Sequence[str]
) -> CheckResult:
    of = {True: f"1 {kind}", False: f"{max(number for number, _ in pairs)} {kind}s"}
    works = {step.name for (number, step), outcome in zip(pairs, outcomes, strict=True) if outcome.how == "returned"}
    failures: dict[Failure, list[str]] = collections.defaultdict(list)
    found: list[dict[str, Any]] = []
    rows = []
    for (number, step), outcome in zip(pairs, outcomes, strict=True):
        named = f"{step.name}, {of[number == 1]}"
        shown = f"works, {outcome.seconds:.1f} s" if outcome.how == "returned" else outcome.how
        failure = None
        if outcome.how not in ("returned", "not run"):
            failure = cause_of(outcome, several=number > 1)
            failures[failure].append(named)  # of several errors with one cause, the first one is shown
        rows.append((named, shown))
        found.append(
            {
                "name": step.name,
                "num_devices": number,
                "options": step.options,
                "outcome": outcome.how,
                "seconds": round(outcome.seconds, 2),
                "error": outcome.error if failure else None,
                "cause": str(failure) if failure else None,
                "next_step": failure.next_step if failure else None,
            }
        )
    notes = []
    if not gpus:
        notes.append(
            f"TensorFlow uses no GPU, so the steps were trained on {_CPU_DEVICES} CPU devices. This checks simimg and "
            "its options, and says nothing about GPUs."
        )
    if left := sum(outcome.how == "not run" for outcome in outcomes):
        notes.append(f"{left} of {len(pairs)} training steps were not run, because {TOTAL_S:.0f} s were over.")
    return CheckResult(
        title="training steps",
        facts={"kind": kind, "devices": list(gpus), "steps": found},
        rows=tuple(rows),
        problems=tuple(_problem(failure, names, works) for failure, names in failures.items()),
        notes=tuple(notes),
    )


def _problem(failure: Failure, names: list[str], works: set[str]) -> str:
    others = f" and {len(names) - 3} more" if len(names) > 4 else ""
    shown = "; ".join(names if len(names) <= 4 else names[:3])
    text = f"a training step fails with {shown}{others}: {failure}. {failure.next_step}"
    others_work = [name for name in ("--cross_device_ops=hierarchical", "--cross_device_ops=cpu") if name in works]
    if failure.is_between_devices and others_work:
        text += f" Here {others_work[0]} works."
    return text


def main() -> None:
    """Train one step for each task on standard input; called in a child process."""
    from simimg.training import TrainConfig, train

    def run(task: dict[str, Any]) -> None:
        paths = {name: Path(task[name]) for name in ("dataset_dir", "model_dir")}
        train(TrainConfig.with_preset({**task, **paths}))

    serve_tasks(run)


if __name__ == "__main__":
    main()
