"""One step with each kind of option: real ones on two CPU devices, and what is said of failures that a GPU may have."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from simimg.augment import AugmentConfig
from simimg.child_process import Outcome
from simimg.commands import doctor as command
from simimg.doctor import check_training
from simimg.doctor.training_failures import cause_of
from simimg.doctor.training_steps import STEPS, Step
from simimg.training import TrainConfig

WORKS = Outcome(how="returned", seconds=1.0)
GPUS = ["NVIDIA A100", "NVIDIA A100"]


@pytest.mark.usefixtures("forked_children")
def test_two_cpu_devices() -> None:
    """In a real process: a step whose failure does not end the others, and one that works."""
    calls: list[tuple[int, int]] = []
    steps = (Step(name="three parts", options={"accumulate": 3}), Step(name="tutorial", options={}))
    found = check_training([], steps=steps, progress=lambda done, total: calls.append((done, total)))
    assert [(step["name"], step["num_devices"], step["outcome"]) for step in found.facts["steps"]] == [
        ("three parts", 2, "raised"),
        ("tutorial", 2, "returned"),
    ]
    assert calls == [(1, 2), (2, 2)]
    (problem,) = found.problems
    assert problem.startswith("a training step fails with three parts, 2 CPU devices: UsageError: --accumulate=3: ")
    assert "says nothing about GPUs" in found.notes[0]
    assert found.rows[1][0] == "tutorial, 2 CPU devices"
    assert found.rows[1][1].startswith("works, ")
    result = command.result_of({"versions": command.doctor.check_versions(), "gpu": _no_gpus(), "training": found})
    assert result.exit_code == 1
    assert json.loads(json.dumps(result.values))["training"] == found.facts


def _no_gpus() -> Any:
    return command.doctor.check_gpus(command.doctor.GpuFacts())


@pytest.mark.parametrize("num_gpus", [0, 1, 2])
def test_the_matrix(num_gpus: int) -> None:
    """Each option is one that training has, and is tried on the devices that it concerns."""
    tasks: list[dict[str, Any]] = []

    def run(module: str, given: list[dict[str, Any]], **options: Any) -> list[Outcome]:
        tasks.extend(given)
        return [WORKS] * len(given)

    found = check_training(GPUS[:num_gpus], run=run)
    assert found.problems == ()
    assert len(tasks) == len(found.facts["steps"])
    for task in tasks:
        TrainConfig.with_preset(task)
    tried = {(step["name"], step["num_devices"]) for step in found.facts["steps"]}
    names = {step.name for step in STEPS}
    between = {name for name in names if name.startswith("--cross_device_ops")}
    if num_gpus == 1:
        assert tried == {(name, 1) for name in names - between}
    else:
        assert {name for name, number in tried if number == 1} >= {"preset tutorial", "every augmentation"}
        assert {name for name, number in tried if number == 2} >= {"similarity", "--accumulate=2", "--cache=device"}
        assert ("--cross_device_ops=nccl", 2) in tried or not num_gpus
        assert (("--xla", 1) in tried) == bool(num_gpus)
    assert len({task["model_dir"] for task in tasks}) == len(tasks)
    augmentations = {field.name for field in dataclasses.fields(AugmentConfig)} - {"border", "augment_with"}
    given = set().union(*(step.options for step in STEPS if "ugment" in step.name or "AugMix" in step.name))
    assert augmentations - given == {"horizontal_flip"}, "which the preset has"


@pytest.mark.parametrize(
    ("error", "cause", "next_step"),
    [
        (
            "InternalError: Graph execution error:\nFailed to load in-memory CUBIN: CUDA_ERROR_NO_BINARY_FOR_GPU",
            "has no kernels for this GPU that its driver can use (Failed to load in-memory CUBIN",
            "Install a newer driver or a newer TensorFlow",
        ),
        (
            "InternalError: 'cuLaunchKernel(...)' failed with 'CUDA_ERROR_INVALID_PTX'",
            "has no kernels for this GPU",
            "hide the GPU",
        ),
        ("UnimplementedError: DNN library is not found.", "cuDNN cannot be used", "pip install 'simimg-tf[gpu]'"),
        ("InternalError: CUDNN_STATUS_NOT_INITIALIZED", "cuDNN cannot be used", "unset LD_LIBRARY_PATH"),
        ("InternalError: libdevice not found at ./libdevice.10.bc", "CUDA's compiler", "--xla_gpu_cuda_data_dir"),
        (
            "InternalError: NCCL WARN Error: failed to extend /dev/shm/nccl-03v824 to 4194660 bytes",
            "NCCL cannot create its shared memory",
            "docker run --shm-size=1g",
        ),
        ("InternalError: NCCL: unhandled cuda error", "NCCL, which sums gradients", "NCCL_DEBUG=INFO"),
        (
            "InternalError: CUDA driver version is insufficient for CUDA runtime version",
            "the driver does not fit",
            "newer driver",
        ),
        ("TrainingError: a device is out of memory (OOM when allocating)", "out of memory even for", "nvidia-smi"),
        ("InternalError: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access", "reports a fault", "grep -i xid"),
        (
            "InvalidArgumentError: No OpKernel was registered to support Op 'GatherV2'",
            "has no kernel for this device",
            "Report it",
        ),
        (
            "InternalError: Graph execution error:\n\nDetected at node f defined at (most recent call last):\n"
            "<stack traces unavailable>\nDNN library initialization failed. Look at the errors above.\n [[{{node f}}]]",
            "cuDNN cannot be used (DNN library initialization failed. Look at the errors above)",
            "pip install",
        ),
        (
            "InternalError: Graph execution error:\n\nDetected at node f defined at (most recent call last):\n"
            "<stack traces unavailable>\nsomething {new} happened\n [[{{node f}}]]",
            "InternalError: Graph execution error: something {new} happened",
            "simimg doctor --train --json",
        ),
        ("KeyError: 'what nobody knows'", "KeyError: 'what nobody knows'", "simimg doctor --train --json"),
    ],
)
def test_each_cause_has_a_next_step(error: str, cause: str, next_step: str) -> None:
    found = cause_of(Outcome(how="raised", error=error), several=False)
    assert cause in str(found)
    assert next_step in found.next_step


def test_a_crash_is_explained_by_what_the_process_wrote() -> None:
    noise = (
        "E0000 cuda_dnn.cc:8310] Unable to register cuDNN factory: one has already been registered\n"
        "I0000 00:00:1722036155.242013   95507 cuda_dnn.cc:529] Loaded cuDNN version 90300\n"
        "2026-11-29 19:20:01.123456: W bfc_allocator.cc:1] ran out of memory; this is not a failure\n"
    )
    crash = Outcome(how="crashed", error="the process was ended by SIGABRT", messages=noise)
    assert cause_of(crash, several=False).cause == "the process was ended by SIGABRT"
    fatal = f"{noise}F0000 00:00:1722036155.242013   95507 nvptx_compiler.cc:1] Check failed: a.ok() is false\n"
    found = cause_of(dataclasses.replace(crash, messages=fatal), several=False)
    assert str(found) == "the process was ended by SIGABRT: nvptx_compiler.cc:1] Check failed: a.ok() is false"
    ptx = dataclasses.replace(
        crash, messages=f"{noise}2026-11-29 19:20:01.123456: ptxas fatal: Unsupported PTX version 8.7\n"
    )
    assert "has no kernels for this GPU" in cause_of(ptx, several=False).cause
    killed = cause_of(Outcome(how="crashed", error="the process was ended by SIGKILL"), several=False)
    assert "no memory is left" in killed.cause
    illegal = cause_of(Outcome(how="crashed", error="the process was ended by SIGILL"), several=False)
    assert "AVX" in illegal.next_step


def test_crashes_at_different_times_are_one_problem() -> None:
    def run(module: str, given: list[dict[str, Any]], **options: Any) -> list[Outcome]:
        said = "2026-11-29 19:20:{:02}.123456: F cuda.cc:1] CUDA_ERROR_INVALID_PTX in step {}\n"
        return [
            Outcome(how="crashed", error="the process was ended by SIGABRT", messages=said.format(number, number))
            for number in range(len(given))
        ]

    (problem,) = check_training(["NVIDIA GeForce RTX 5090"], run=run).problems
    assert "(F cuda.cc:1] CUDA_ERROR_INVALID_PTX in step 0)" in problem
    assert "preset tutorial, 1 GPU; preset small, 1 GPU; bfloat16, 1 GPU and 9 more" in problem


def test_failures_of_one_cause_are_one_problem() -> None:
    """NCCL hangs wherever it is used, and adding up in the host's memory works."""

    def run(module: str, given: list[dict[str, Any]], **options: Any) -> list[Outcome]:
        hangs = Outcome(how="hung", error="no answer for 60 s", seconds=60.0)
        by_host = ("cpu", "hierarchical")
        return [
            WORKS if task["num_devices"] == 1 or task.get("cross_device_ops") in by_host else hangs for task in given
        ]

    found = check_training(GPUS, run=run)
    (problem,) = found.problems
    assert problem.startswith(
        "a training step fails with preset tutorial, 2 GPUs; preset small, 2 GPUs; bfloat16, 2 GPUs"
    )
    assert "the devices wait for each other. Try NCCL_P2P_DISABLE=1" in problem
    assert problem.endswith("Here --cross_device_ops=hierarchical works.")
    assert found.notes == ()


def test_steps_that_were_not_run_are_counted() -> None:
    def run(module: str, given: list[dict[str, Any]], **options: Any) -> list[Outcome]:
        return [WORKS, *[Outcome(how="not run", error="no time was left")] * (len(given) - 1)]

    found = check_training(["NVIDIA T4"], run=run)
    count = len(found.facts["steps"])
    assert found.notes == (f"{count - 1} of {count} training steps were not run, because 110 s were over.",)
    assert found.problems == ()
