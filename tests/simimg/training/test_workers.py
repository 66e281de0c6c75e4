"""Two processes on 127.0.0.1 that train together: the same run as one, and what happens if one of them is lost."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import TrainingError, UsageError, WorkerLost
from simimg.training import TrainConfig, train
from simimg.training.strategy import Workers, device_errors, make_strategy, workers
from tests.forked_process import ForkedProcess
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).parents[3]
AUGMENTS_BY_XLA = True  # as the processes do that it starts
OPTIONS = {"preset": "tutorial", "epochs": 20, "global_batch_size": 18, "rotation_degrees": 20.0, "ema": 0.9}


def free_ports() -> list[int]:
    """Returns two ports below those that the system hands out, which another test could be given in the meantime."""
    ports: list[int] = []
    while len(ports) < 2:
        with socket.socket() as opened, contextlib.suppress(OSError):
            opened.bind(("127.0.0.1", random.SystemRandom().randrange(15_000, 30_000)))
            ports.append(opened.getsockname()[1])
    return ports


def start(index: int, ports: list[int], dataset_dir: Path, model_dir: Path, log: Path) -> subprocess.Popen[str]:
    config = {
        "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
        "task": {"type": "worker", "index": index},
    }
    told = [f"--{name}={value}" for name, value in {**OPTIONS, "checkpoint_every_s": 0.0}.items()]
    command = [
        sys.executable,
        "-u",
        "-m",
        "simimg",
        "train",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={model_dir}",
    ]
    with open(log, "a") as file:
        return ForkedProcess(
            [*command, *told],
            stdout=file,
            stderr=file,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)},
        )


def test_one_worker_is_killed_and_started_again(photos: Path, tmp_path: Path) -> None:
    """The chief, which writes: the other one notices, starts itself again, and waits for it to come back."""
    data = ConvertConfig(image_dir=photos, data_dir=tmp_path, image_size=16, num_workers=1)
    dataset_dir = convert(data).dataset_dir
    alone = train(
        TrainConfig.with_preset(
            {**OPTIONS, "dataset_dir": dataset_dir, "model_dir": tmp_path / "alone", "num_devices": 2}
        )
    )
    logs = [tmp_path / "0.txt", tmp_path / "1.txt"]
    ports = free_ports()
    processes = [start(index, ports, dataset_dir, tmp_path / "run", logs[index]) for index in range(2)]
    try:
        while not re.search(r"^epoch 3/", logs[0].read_text(), re.MULTILINE):
            assert processes[0].poll() is None, logs[0].read_text()
            time.sleep(0.02)
        processes[0].kill()
        processes[0].wait()
        processes[0] = start(0, ports, dataset_dir, tmp_path / "run", logs[0])
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], logs[0].read_text() + logs[1].read_text()
    assert "training on 2 x CPU in 2 processes: batch 18 in all, 9 per replica" in logs[0].read_text()
    assert "resuming from epoch" in logs[0].read_text()
    other = logs[1].read_text()
    assert "another worker was lost" in other
    assert "restarting, to wait for the other workers" in other
    assert "Traceback" not in other
    history = json.loads((tmp_path / "run" / "result.json").read_text())["history"]
    for mine, theirs in zip(history, alone.history, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    ends = [sorted((tmp_path / name / "checkpoints").iterdir())[-1] for name in ("alone", "run")]
    mine, theirs = (np.load(end / "state.npz") for end in ends)
    for name in mine.files:
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-3)


TRAINED = """
import json, sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

from simimg.models.backbones import NETWORKS
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.training import TrainConfig, load_model, train

dataset_dir, folder, is_alone = Path(sys.argv[1]), Path(sys.argv[2]), "alone" in sys.argv
if not is_alone:  # a worker takes all of its GPUs, but only one CPU device; these two stand for GPUs
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker_device: (
        tuple(f"{worker_device}/device:CPU:{number}" for number in range(2)), "CPU"
    )


def build(image_size, num_classes):
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    x = keras.layers.ReLU()(SynchronizedBatchNormalization(momentum=0.9, name="norm")(x))
    x = keras.layers.Flatten()(ExampleDropout(0.2, stream=1, name="dropout")(x))
    x = keras.layers.Dense(7, name="embedding")(x)
    return keras.Model(pixels, keras.layers.Dense(num_classes, "softmax", name="probabilities")(x))


NETWORKS["tutorial"] = build
for name, options in json.loads(sys.argv[-1]).items():
    if options.get("probe"):
        options["weights"] = str(folder / "classes")
    config = TrainConfig.with_preset({"dataset_dir": dataset_dir, "model_dir": folder / name, **options})
    print(name, train(config).history, flush=True)
"""
COMMON = {"model": "tutorial", "epochs": 2, "global_batch_size": 16, "optimizer": "sgd", "learning_rate": 0.01}
BOTH = {
    "classes": {"preset": "tutorial", **COMMON, "ema": 0.5, "clip_norm": 0.5, "accumulate": 2},
    "similarity": {
        "objective": "similarity",
        **COMMON,
        "embedding_dim": 6,
        "queue_size": 8,
        "temperature": 0.2,
        "blur": 0.0,  # it would make pictures of 8 px the same
        "min_jpeg_quality": 100.0,
    },
    "fitted": {"preset": "tutorial", **COMMON, "epochs": 1, "probe": True},  # to the features of the first run
}


def test_two_workers_with_two_devices_each(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Both objectives and a fitted softmax, one run after the other in the same processes: four replicas train as one
    does.
    """
    ports = free_ports()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    processes = []
    for index in (None, 0, 1):
        more = [] if index is not None else ["alone"]
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        folder = tmp_path / ("alone" if index is None else "together")
        processes.append(
            ForkedProcess(
                [sys.executable, "-c", TRAINED, str(tiny["two"]), str(folder), *more, json.dumps(BOTH)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment | ({} if index is None else {"TF_CONFIG": json.dumps(task)}),
            )
        )
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 3, "".join(errors[-3000:] for _, errors in outputs)
    assert outputs[1][0] == outputs[2][0]  # both workers print the same figures
    for name in BOTH:
        states = [
            np.load(max((tmp_path / run / name / "checkpoints").iterdir()) / "state.npz")
            for run in ("alone", "together")
        ]
        assert states[0].files == states[1].files
        for key in states[0].files:
            np.testing.assert_allclose(states[0][key], states[1][key], rtol=0, atol=1e-5, err_msg=f"{name} {key}")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_a_tf_config_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=r"^TF_CONFIG=.* cannot be used .* It should be like"):
        workers()


def test_a_tf_config_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers() == Workers(1, 0)
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert workers() == Workers(2, 1)
    assert not workers().is_chief
    with pytest.raises(UsageError, match="--num_devices=2: with several workers, each one trains on all of its GPUs"):
        make_strategy(2)


TWO = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})


def raised(kind: type[tf.errors.OpError], text: str, **options: object) -> Exception:
    """Returns what becomes of an error in a run."""
    message = f"Graph execution error:\n\nDetected at node x (most recent call last):\n{text}\n\t [[{{{{node x}}}}]]"
    config = TrainConfig(dataset_dir=Path(), **options)
    with pytest.raises((TrainingError, tf.errors.OpError)) as found, device_errors(config):
        raise kind(None, None, message)
    return found.value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tf.errors.UnavailableError, "Collective ops is aborted by: recvmsg:Connection reset by peer"),
        (tf.errors.UnavailableError, "failed to connect to all addresses"),
        (tf.errors.UnavailableError, "The following tasks are unhealthy (stopped sending heartbeats):"),
        (tf.errors.AbortedError, "/job:worker/task:1 unexpectedly tried to connect with a different incarnation."),
        (tf.errors.DeadlineExceededError, "Barrier timed out. Some tasks did not arrive: task:1"),
        (tf.errors.FailedPreconditionError, "Device current incarnation doesn't match with one in the group."),
        (tf.errors.InternalError, "NCCL: remote process exited or there was a network error"),
        (tf.errors.CancelledError, "Collective ops is aborted by: Socket closed"),
    ],
)
def test_a_worker_that_left(monkeypatch: pytest.MonkeyPatch, kind: type[tf.errors.OpError], text: str) -> None:
    assert isinstance(raised(kind, text), kind)  # there is no other worker
    monkeypatch.setenv("TF_CONFIG", TWO)
    found = raised(kind, text)
    assert type(found) is WorkerLost
    assert text[:40] in str(found)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tf.errors.InvalidArgumentError, "Incompatible shapes: [2,3] vs. [3,2]"),
        (tf.errors.InvalidArgumentError, "Collective ops is aborted by: Incompatible shapes on task:0"),
        (tf.errors.InternalError, "cuDNN launch failure : input shape ([32,3,8,8])"),
        (tf.errors.UnknownError, "CUDNN_STATUS_EXECUTION_FAILED in task 0"),
        (tf.errors.UnimplementedError, "DNN library is not found"),
        (tf.errors.NotFoundError, "No algorithm worked!"),
        (tf.errors.ResourceExhaustedError, "/job:worker/task:0: No space left on device"),
        (tf.errors.PermissionDeniedError, "task"),
    ],
)
def test_any_other_error_is_not_told_as_a_lost_worker(
    monkeypatch: pytest.MonkeyPatch, kind: type[tf.errors.OpError], text: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", TWO)
    assert type(raised(kind, text)) is kind


@pytest.mark.parametrize("tf_config", ["", TWO])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[64,9] by allocator GPU_0_bfc"),
        (tf.errors.ResourceExhaustedError, "Collective ops is aborted by: OOM when allocating tensor on task:1"),
        (tf.errors.ResourceExhaustedError, "Out of memory while trying to allocate 17179869184 bytes."),
        (tf.errors.InternalError, "Failed to allocate 8 bytes: CUDA_ERROR_OUT_OF_MEMORY"),
        (tf.errors.InternalError, "CUDNN_STATUS_ALLOC_FAILED"),
        (tf.errors.InternalError, "Dst tensor is not initialized."),
    ],
)
def test_out_of_memory_says_what_needs_less(
    monkeypatch: pytest.MonkeyPatch, kind: type[tf.errors.OpError], text: str, tf_config: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config)
    found = raised(kind, text, global_batch_size=64, accumulate=2)
    assert type(found) is TrainingError
    assert f"a device is out of memory ({text})" in str(found)
    wanted = "a smaller --global_batch_size than 64 or --precision=bfloat16 or --accumulate=4, in another --model_dir."
    assert str(found).endswith(wanted)
    options = {"per_replica_batch_size": 8, "precision": "bfloat16", "objective": "similarity"}
    assert "try a smaller --per_replica_batch_size than 8, in" in str(raised(kind, text, **options))


def test_a_device_that_is_really_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="OOM when allocating"), device_errors(TrainConfig(dataset_dir=tmp_path)):
        tf.zeros([1 << 46], tf.uint8) + tf.ones([1 << 46], tf.uint8)


DOCUMENT = (ROOT / "simimg" / "docs" / "many_gpus.md").read_text()


def test_the_tf_configs_of_the_document_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of machine 0 and 1, and the one in which a loop of the shell puts the index."""
    texts = re.findall(r"TF_CONFIG='(\{.*\})'", DOCUMENT)
    found = []
    for text in texts:
        for index in (0, 1):
            monkeypatch.setenv("TF_CONFIG", text.replace("'$index'", str(index)))
            found.append(workers())
    assert found == [Workers(2, 0)] * 2 + [Workers(2, 1)] * 2 + [Workers(2, 0), Workers(2, 1)]


def test_the_batch_and_the_rate_of_the_document(tmp_path: Path) -> None:
    line = r"`--preset=(\w+) --num_devices=(\d) --per_replica_batch_size=(\d+)`.*\n\n +training on (.*)"
    preset, num_devices, part, printed = re.findall(line, DOCUMENT)[0]
    given = {"dataset_dir": tmp_path, "preset": preset, "per_replica_batch_size": int(part)}
    config = TrainConfig.with_preset(given).resolved(int(num_devices))
    batch, rate = config.global_batch_size, config.learning_rate
    assert printed == f"{num_devices} x CPU: batch {batch} in all, {part} per replica; learning rate {rate:.3g}"


def test_a_process_has_one_strategy_for_its_devices() -> None:
    """A second one would take the sums of the first for its own."""
    assert make_strategy(2) is make_strategy(2)
    assert make_strategy(2) is not make_strategy(2, "hierarchical")
    assert isinstance(make_strategy(2), tf.distribute.MirroredStrategy)


def test_ways_between_devices_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="--cross_device_ops=nccl is for GPUs, and there is none"):
        make_strategy(2, "nccl")
