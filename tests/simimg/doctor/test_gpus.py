"""Why a GPU is not used, told by what can be seen: each cause by itself, with machines that are not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from simimg.doctor import GpuFacts, check_gpus, probe_gpus
from simimg.doctor.gpu_probe import Gpu, MigSlice
from simimg.doctor.gpus import kernels_for

BUILD = {
    "is_cuda_build": True,
    "cuda_version": "12.5.1",
    "cudnn_version": "9",
    "cuda_compute_capabilities": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
}
WANTED = (
    'nvidia-cuda-runtime-cu12<13.0,>=12.5.82; extra == "and-cuda"',
    'nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == "and-cuda"',
    'nvidia-nccl-cu12<3.0,>=2.27.7; extra == "and-cuda"',
)
LIBRARIES = {"nvidia-cuda-runtime-cu12": "12.9.79", "nvidia-cudnn-cu12": "9.13.0", "nvidia-nccl-cu12": "2.28.3"}
INSTALL = "pip install 'simimg-tf[gpu]'"


def gpu(index: int = 0, name: str = "NVIDIA A100", capability: str = "8.0", free: int = 39 << 30) -> Gpu:
    return Gpu(index=index, name=name, compute_capability=capability, memory_bytes=40 << 30, memory_free_bytes=free)


def sight(*gpus: Gpu, used: int | None = None, **changes: Any) -> GpuFacts:
    """A machine on which all is well, with changes; TensorFlow uses the first `used` GPUs."""
    there = GpuFacts(
        num_cards=len(gpus),
        driver="570.124.06",
        num_device_files=len(gpus),
        gpus=gpus,
        used=tuple((one.name, one.compute_capability) for one in gpus[:used]),
        tensorflow="2.21.0",
        build=BUILD,
        libraries=LIBRARIES,
        wanted=WANTED,
    )
    return dataclasses.replace(there, **changes)


def the_problem(there: GpuFacts) -> str:
    (problem,) = check_gpus(there).problems
    return problem


def test_all_is_well() -> None:
    found = check_gpus(sight(gpu()))
    assert (found.problems, found.notes) == ((), ())
    assert found.facts["gpus"] == [
        {
            "name": "NVIDIA A100",
            "compute_capability": "8.0",
            "memory_bytes": 40 << 30,
            "memory_free_bytes": 39 << 30,
            "kernels": "wheel",
        }
    ]
    assert ("GPU 0", "NVIDIA A100, compute capability 8.0, 39.0 GB free of 40.0 GB") in found.rows
    assert ("driver", "570.124.06") in found.rows
    assert ("nccl", "nvidia-nccl-cu12 2.28.3") in found.rows


def test_no_gpu_at_all_is_no_problem() -> None:
    found = check_gpus(GpuFacts(build=BUILD, tensorflow="2.21.0", wanted=WANTED))
    assert found.problems == ()
    assert found.rows == (("GPU", "none; training runs on the CPU"),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": {"is_cuda_build": False}}, ["built without CUDA", "pip uninstall -y tensorflow", INSTALL]),
        ({"environment": {"CUDA_VISIBLE_DEVICES": ""}}, ["CUDA_VISIBLE_DEVICES=''", "unset CUDA_VISIBLE_DEVICES"]),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "-1"}}, ["'-1' hides all GPUs", "unset CUDA_VISIBLE_DEVICES"]),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "4,0"}}, ["'4,0' hides all GPUs"]),
        ({"num_device_files": 0, "gpus": ()}, ["/dev/nvidia0", "docker run --gpus all"]),
        ({"driver": "470.256.02"}, ["driver 470.256.02 is too old", "CUDA 12.5.1", "525.60.13", "ubuntu-drivers"]),
        ({"libraries": {}}, ["libraries are missing (nvidia-cuda-runtime-cu12 and 2 more)", INSTALL]),
        ({"libraries": {**LIBRARIES, "nvidia-cudnn-cu12": "9.13.0"}}, ["simimg doctor --verbose"]),
        (
            {"libraries": {name: version for name, version in LIBRARIES.items() if "cudnn" not in name}},
            ["CUDA's libraries are missing (nvidia-cudnn-cu12)", INSTALL],
        ),
        ({"tensorflow": "2.22.0", "build": {**BUILD, "cuda_compute_capabilities": ["sm_90"]}}, ["8.0", "no kernels"]),
        ({"mig": {0: ()}}, ["GPU 0 is in MIG mode, but has no slice", "mig -i 0 -lgip", "nvidia-smi -i 0 -mig 0"]),
        (
            {"cuda_files": (Path("/usr/local/cuda-11.8/lib64/libcudart.so.11.0"),)},
            ["another CUDA (/usr/local/cuda-11.8/lib64/libcudart.so.11.0)", "unset LD_LIBRARY_PATH"],
        ),
        (
            {"cuda_files": (Path("/usr/local/cuda/lib64/libcudart.so.12"),)},
            ["take precedence over pip's", "unset LD_LIBRARY_PATH"],
        ),
    ],
)
def test_there_is_a_driver_and_no_gpu_is_used(changes: dict[str, Any], words: list[str]) -> None:
    problem = the_problem(sight(gpu(), used=0, **changes))
    assert problem.startswith("there is an NVIDIA driver, but TensorFlow finds no GPU")
    for word in words:
        assert word in problem


def test_a_card_without_a_driver() -> None:
    problem = the_problem(GpuFacts(num_cards=1, build=BUILD))
    assert "no driver" in problem
    assert "apt install nvidia-driver" in problem


def test_blackwell_has_no_kernels() -> None:
    there = sight(gpu(0, "NVIDIA GeForce RTX 5090", "12.0"), gpu(1))
    problem = the_problem(there)
    assert problem == (
        "NVIDIA GeForce RTX 5090 has compute capability 12.0, for which TensorFlow 2.21.0 has no kernels "
        "(tensorflow#111958). Hide it: export CUDA_VISIBLE_DEVICES=1, or use a nightly build: pip install tf-nightly"
    )
    alone = the_problem(sight(gpu(0, "NVIDIA GeForce RTX 5090", "12.0")))
    assert "CUDA_VISIBLE_DEVICES=-1" in alone


def test_a_card_that_is_too_old_has_no_kernels() -> None:
    problem = the_problem(sight(gpu(0, "NVIDIA GeForce GTX 980", "5.2")))
    assert "compute capability 5.2" in problem
    assert "it has sm_60, sm_70, sm_80, sm_89, compute_90" in problem
    assert "111958" not in problem


@pytest.mark.parametrize(
    ("capability", "source"),
    [
        ("5.2", None),
        ("6.1", "wheel"),
        ("7.5", "wheel"),
        ("8.6", "wheel"),
        ("8.9", "wheel"),
        ("9.0", "wheel"),
        ("10.0", "driver"),
        ("12.0", None),
    ],
)
def test_where_kernels_come_from(capability: str, source: str | None) -> None:
    assert kernels_for(capability, sight()) == source


def test_kernels_of_a_later_wheel() -> None:
    later = {**BUILD, "cuda_compute_capabilities": ["sm_80", "sm_100", "sm_120a"]}
    there = sight(tensorflow="2.22.0", build=later)
    assert [kernels_for(name, there) for name in ("7.5", "10.3", "12.0")] == [None, "wheel", "wheel"]
    assert kernels_for("7.5", sight(build={})) == "wheel"  # a build that does not say


def test_a_driver_that_cannot_compile_kernels() -> None:
    card = gpu(0, "NVIDIA B200", "10.0")
    assert check_gpus(sight(card)).problems == ()
    problem = the_problem(sight(card, driver="550.54.15"))
    assert "driver 550.54.15 cannot compile" in problem
    assert "555.42" in problem


def test_memory_that_another_process_holds() -> None:
    problem = the_problem(sight(gpu(free=1 << 30)))
    assert problem.startswith("NVIDIA A100 has only 1.0 GB of 40.0 GB memory free")
    assert "nvidia-smi" in problem


def test_libraries_of_another_version() -> None:
    problem = the_problem(sight(gpu(), libraries={**LIBRARIES, "nvidia-cudnn-cu12": "8.9.7.29"}))
    assert problem.startswith("nvidia-cudnn-cu12 8.9.7.29 is installed, but TensorFlow requires ")
    assert problem.endswith(INSTALL)
    other = the_problem(sight(gpu(), cuda_files=(Path("/opt/cuda/libcudnn.so.8.9.7"),)))
    assert other.startswith("LD_LIBRARY_PATH names another CUDA than TensorFlow's (/opt/cuda/libcudnn.so.8.9.7)")
    assert other.endswith(". Run: unset LD_LIBRARY_PATH")


def test_a_gpu_that_is_hidden_on_purpose_is_a_note() -> None:
    there = sight(gpu(0), gpu(1), environment={"CUDA_VISIBLE_DEVICES": "1"}, used=1)
    found = check_gpus(there)
    assert found.problems == ()
    assert found.notes == ("GPU 0 (NVIDIA A100) is not used: CUDA_VISIBLE_DEVICES=1 hides it.",)
    assert found.facts["idle_gpus"] == [{"name": "NVIDIA A100", "compute_capability": "8.0"}]


def test_a_gpu_that_tensorflow_passes_over_is_a_note() -> None:
    found = check_gpus(sight(gpu(0), gpu(1, "NVIDIA GeForce GT 710", "3.5"), used=1))
    assert found.notes == (
        "GPU 1 (NVIDIA GeForce GT 710) is not used: TensorFlow 2.21.0 has no kernels for its compute capability 3.5.",
    )


MATRIX = """ \t\x1b[4mGPU0\tGPU1\tGPU2\x1b[0m
 GPU0\tX\tOK\tCNS
 GPU1\tOK\tX\tOK
 GPU2\tCNS\tOK\tX

Legend:

  X    = Self
  OK   = Status Ok
  CNS  = Chipset not supported
"""


def test_gpus_that_do_not_reach_each_other() -> None:
    three = [gpu(number) for number in range(3)]
    found = check_gpus(sight(*three, p2p=MATRIX, iommu=True))
    assert found.problems == ()
    talk, iommu = found.notes
    assert "GPU0 and GPU2 (CNS)" in talk
    assert "GPU1" not in talk
    assert "/dev/shm" in talk
    assert "NCCL_P2P_DISABLE=1" in iommu
    assert check_gpus(sight(*three, p2p=MATRIX.replace("CNS", "OK"))).notes == ()


def test_several_gpus_need_nccl() -> None:
    libraries = {name: version for name, version in LIBRARIES.items() if "nccl" not in name}
    assert the_problem(sight(gpu(0), gpu(1), libraries=libraries)).startswith("NCCL, which several GPUs need")
    assert check_gpus(sight(gpu(0), libraries=libraries)).problems == ()


SLICES = (MigSlice(profile="1g.5gb", uuid="MIG-aaaa"), MigSlice(profile="1g.5gb", uuid="MIG-bbbb"))


def test_a_slice_of_a_gpu() -> None:
    """Its memory is not the memory that nvidia-smi lists for the GPU."""
    there = sight(gpu(free=1 << 30), mig={0: SLICES}, used=0)
    found = check_gpus(dataclasses.replace(there, used=(("NVIDIA A100 MIG 1g.5gb", "8.0"),)))
    assert found.problems == ()
    assert found.facts["gpus"][0]["memory_free_bytes"] is None
    assert found.facts["mig_slices"] == {
        "0": [{"profile": "1g.5gb", "uuid": name} for name in ("MIG-aaaa", "MIG-bbbb")]
    }
    (note,) = found.notes
    assert note.startswith("GPU 0 is divided by MIG (1g.5gb, 1g.5gb). A run can use one compute instance of each GPU")
    assert "CUDA_VISIBLE_DEVICES=MIG-aaaa" in note
    (older,) = check_gpus(
        dataclasses.replace(there, used=(("NVIDIA A100 MIG 1g.5gb", "8.0"),), driver="550.54.15")
    ).notes
    assert "With driver 550.54.15, a run can use one slice and no other GPU beside it." in older


def test_gpus_beside_a_slice() -> None:
    there = sight(gpu(0), gpu(1), mig={0: SLICES}, driver="535.129.03")
    found = check_gpus(dataclasses.replace(there, used=(("NVIDIA A100 MIG 1g.5gb", "8.0"),)))
    assert "GPU 1 (NVIDIA A100) is not used: with driver 535.129.03, a process sees a single slice" in found.notes[1]
    empty = check_gpus(dataclasses.replace(sight(gpu(0), gpu(1), mig={1: ()}), used=(("NVIDIA A100", "8.0"),)))
    assert empty.notes == ("GPU 1 (NVIDIA A100) is not used: it is in MIG mode and has no slice.",)


@pytest.mark.parametrize(("named", "hides"), [("MIG-aaaa", False), ("MIG-b", False), ("MIG-cccc,MIG-aaaa", True)])
def test_slices_that_are_named(named: str, hides: bool) -> None:
    problem = the_problem(sight(gpu(), used=0, mig={0: SLICES}, environment={"CUDA_VISIBLE_DEVICES": named}))
    assert ("hides all GPUs" in problem) == hides


# Seeing


SMI = """0, NVIDIA H100 80GB HBM3, 9.0, 81559, 81004, 550.54.15
1, NVIDIA T600, [N/A], 4096, [N/A], 550.54.15
"""


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\n", "470.256.02"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\nGCC version: 12\n",
            "560.35.03",
        ),
        ("something else\n", "unknown"),
    ],
)
def test_seeing(tmp_path: Path, line: str, version: str) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(line)
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030000\n")
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    (tmp_path / "cuda").mkdir()
    for name in ("libcudart.so.11.0", "libcudart.so", "libfoo.so.1"):
        (tmp_path / "cuda" / name).touch()
    commands = []

    def run(*command: str) -> str:
        commands.append(command)
        return MATRIX if "topo" in command else SMI

    there = probe_gpus(
        used=[("NVIDIA H100 80GB HBM3", "9.0")],
        tensorflow="2.21.0",
        build=BUILD,
        root=tmp_path,
        run=run,
        environment={"LD_LIBRARY_PATH": f"/nowhere:{tmp_path / 'cuda'}"},
    )
    assert there.driver == version
    assert (there.num_cards, there.num_device_files, there.iommu) == (1, 2, False)
    assert [(one.index, one.name, one.compute_capability) for one in there.gpus] == [
        (0, "NVIDIA H100 80GB HBM3", "9.0"),
        (1, "NVIDIA T600", None),
    ]
    assert (there.gpus[0].memory_bytes, there.gpus[1].memory_free_bytes) == (81559 << 20, None)
    assert there.cuda_files == (tmp_path / "cuda/libcudart.so.11.0",)
    assert there.p2p == MATRIX
    assert commands[-1] == ("nvidia-smi", "topo", "-p2p", "r")
    assert any(wish.startswith("nvidia-nccl-cu12") for wish in there.wanted)  # of the TensorFlow that is installed


def test_seeing_nothing(tmp_path: Path) -> None:
    there = probe_gpus(used=(), tensorflow="2.21.0", build=BUILD, root=tmp_path, run=lambda *_: "", environment={})
    assert (there.driver, there.gpus, there.num_cards, there.p2p) == ("", (), 0, "")
    assert check_gpus(there).problems == ()


def test_nvidia_smi_that_fails_says_nothing(tmp_path: Path) -> None:
    """Its error goes to standard output."""
    text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    there = probe_gpus(used=(), tensorflow="2.21.0", build=BUILD, root=tmp_path, run=lambda *_: text, environment={})
    assert there.gpus == ()


LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-c08d91cb)
  MIG 1c.3g.40gb  Device  0: (UUID: MIG-c788539f)
  MIG 1g.10gb     Device  1: (UUID: MIG-b4b2228d)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-c08d91cc)
GPU 2: NVIDIA T600 (UUID: GPU-c08d91cd)
"""


def test_seeing_slices(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        if "-L" in command:
            return LISTED
        return "0, Enabled\n1, Enabled\n2, [N/A]\n" if "mig.mode.current" in command[1] else SMI

    there = probe_gpus(used=(), tensorflow="2.21.0", build=BUILD, root=tmp_path, run=run, environment={})
    assert dict(there.mig) == {
        0: (MigSlice(profile="1c.3g.40gb", uuid="MIG-c788539f"), MigSlice(profile="1g.10gb", uuid="MIG-b4b2228d")),
        1: (),
    }
