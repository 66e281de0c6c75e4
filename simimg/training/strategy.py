"""The devices that a run trains on: one device, all GPUs of a machine, or those of several machines.

    one device                   OneDeviceStrategy, which adds nothing to a step
    several GPUs                 MirroredStrategy: each GPU has a copy of the weights and an equal part of every batch
    TF_CONFIG of several workers MultiWorkerMirroredStrategy: the same, over machines

TF_CONFIG is JSON in each worker's environment; only the index differs: {"cluster": {"worker": ["host1:2222",
"host2:2222"]}, "task": {"type": "worker", "index": 0}}. The first worker is the chief. Only the chief writes into the
run's folder, which all workers must be able to read.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from simimg.errors import TrainingError, UsageError, WorkerLost
from simimg.models.gpu_memory import grow_gpu_memory

if TYPE_CHECKING:
    from simimg.training.train_config import TrainConfig

# What TensorFlow, its collective operations, cuDNN and XLA say, under several types of errors.
_OUT_OF_MEMORY = re.compile(r"\bOOM when|out.of.memory|alloc_failed|failed to allocate|tensor is not initialized", re.I)
_PEER_LEFT = re.compile(
    r"heartbeat|incarnation|remote process exited|connection (reset|refused|closed)|socket closed|broken pipe", re.I
)
_PEER_ERRORS = (tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.UnavailableError)  # gRPC's codes

_GROUP_KEYS = itertools.count(1_000_000, 100)  # a strategy needs few
CROSS_DEVICE_OPS = ("auto", "nccl", "hierarchical", "cpu")


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train together: their number, and the index of this one."""

    count: int = 1
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def workers() -> Workers:
    """Returns the workers of TF_CONFIG, or one worker without it.

    Raises:
        UsageError: TF_CONFIG is not valid, or names other roles than workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return Workers()
    try:
        values = json.loads(text)
        addresses, task = values["cluster"]["worker"], values["task"]
        found = Workers(len(addresses), int(task["index"]))
        if set(values["cluster"]) != {"worker"} or task["type"] != "worker" or not 0 <= found.index < found.count:
            raise ValueError("other roles than workers, or an index that no worker has")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"TF_CONFIG={text} cannot be used ({error!r}). It should be like "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    return found


def make_strategy(num_devices: int = 0, cross_device_ops: str = "auto") -> tf.distribute.Strategy:
    """Returns the strategy for the available devices, with one replica per device.

    Without a GPU, the CPU is split into `num_devices` logical devices. They are not faster than one, but behave like
    that many GPUs, and sum gradients by the same operations. Calls with equal arguments return the same strategy.

    Args:
        num_devices: 0 for all GPUs, or one CPU device if there is no GPU.
        cross_device_ops: how gradients are summed over devices: nccl, GPU to GPU; hierarchical, in groups of GPUs, for
            machines where NCCL hangs or gives NaN; cpu, through host memory; auto, TensorFlow's choice, which is NCCL
            between GPUs and a ring between CPU devices.

    Raises:
        UsageError: there are fewer GPUs, or TensorFlow has started with fewer CPU devices in this process; NCCL is
            chosen without GPUs, or `num_devices` with several workers.
    """
    gpus = grow_gpu_memory()
    if num_devices > len(gpus) > 0:
        raise UsageError(f"--num_devices={num_devices}: this machine has {len(gpus)} GPUs. Give at most {len(gpus)}.")
    if not gpus and cross_device_ops == "nccl":
        raise UsageError(f"--cross_device_ops={cross_device_ops} is for GPUs, and there is none. Leave it out.")
    if workers().count > 1:
        return _multi_worker(num_devices, cross_device_ops)
    count = num_devices or len(gpus) or 1
    if not gpus and count > 1:
        _split_processor(count)
    kind = "GPU" if gpus else "CPU"
    if count == 1:
        return tf.distribute.OneDeviceStrategy(f"{kind}:0")
    return _mirrored(kind, count, cross_device_ops)


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of replicas of this process; it is the same for all workers."""
    return int(strategy.num_replicas_in_sync) // workers().count


def agreed(strategy: tf.distribute.Strategy, values: dict[str, float]) -> dict[str, float]:
    """Returns the mean of each value over the workers, so that all of them make the same decision.

    Every worker must call it at the same point of the program.
    """
    if workers().count == 1:
        return values
    mean = _mean_over_replicas(strategy)(tf.constant(list(values.values()), tf.float64))
    return dict(zip(values, map(float, mean.numpy()), strict=True))


@functools.cache
def _mean_over_replicas(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a compiled function; it is cached because it runs after each call of the steps."""

    @tf.function
    def mean(mine: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.identity, args=(mine,)), axis=None)

    return mean


@contextmanager
def device_errors(config: TrainConfig) -> Iterator[None]:
    """Turns TensorFlow's errors in the block about devices and workers into those that say what to do.

    Errors about the data are DataErrors by then, and any other error, such as one of cuDNN, passes unchanged.

    Raises:
        TrainingError: a device is out of memory.
        WorkerLost: another worker left, or has restarted.
    """
    try:
        yield
    except tf.errors.OpError as error:
        lines = [line.strip() for line in error.message.splitlines() if line.strip()]
        if reason := next((line for line in lines if _OUT_OF_MEMORY.search(line)), ""):
            raise TrainingError(_memory_text(config, reason)) from None
        says_so = [line for line in lines if _PEER_LEFT.search(line)]
        if workers().count == 1 or not (says_so or isinstance(error, _PEER_ERRORS)):
            raise
        says_so += [line for line in lines if "abort" in line or "task" in line]
        says_so += [line for line in reversed(lines) if not line.startswith("[[")]  # the trace stands before it
        reason = says_so[0] if says_so else type(error).__name__
        raise WorkerLost(
            f"another worker was lost ({reason[:200]}). Give the same command again on all workers to resume the run "
            "from its last checkpoint."
        ) from None


def _memory_text(config: TrainConfig, reason: str) -> str:
    name = "per_replica_batch_size" if config.per_replica_batch_size else "global_batch_size"
    tries = [f"a smaller --{name} than {getattr(config, name)}"]
    if config.precision == "float32":
        tries.append("--precision=bfloat16")
    if config.objective != "similarity":
        tries.append(f"--accumulate={2 * config.accumulate}")
    return (
        f"a device is out of memory ({reason[:200]}). If another process uses it, end that one and give the same "
        f"command again. Otherwise try {' or '.join(tries)}, in another --model_dir."
    )


@functools.cache
def _mirrored(kind: str, count: int, cross_device_ops: str) -> tf.distribute.Strategy:
    """Returns the strategy for these devices: the same object for all runs of a process.

    TensorFlow knows a sum over devices by the number of its group of devices and its own. Every new strategy begins to
    count at the same numbers, so a second strategy would take the sums of the first for its own, and fail because their
    shapes differ. Strategies of other devices get other numbers; those below are for strategies of the program that
    uses simimg.
    """
    ways = {
        "cpu": lambda: tf.distribute.ReductionToOneDevice("CPU:0"),
        "nccl": lambda: tf.distribute.NcclAllReduce(num_packs=0),
        "hierarchical": lambda: tf.distribute.HierarchicalCopyAllReduce(num_packs=0),
        "auto": lambda: None,
    }

    class Mirrored(tf.distribute.MirroredStrategy):
        _collective_key_base = next(_GROUP_KEYS)

    devices = [f"{kind}:{index}" for index in range(count)]
    return _summing_single_tensors(Mirrored(devices, cross_device_ops=ways[cross_device_ops]()))


def _multi_worker(num_devices: int, cross_device_ops: str) -> tf.distribute.Strategy:
    if num_devices:
        raise UsageError(
            f"--num_devices={num_devices}: with several workers, each one trains on all of its GPUs. "
            "Hide GPUs with CUDA_VISIBLE_DEVICES instead."
        )
    if cross_device_ops == "hierarchical":
        raise UsageError("--cross_device_ops=hierarchical is for one machine. Choose nccl, cpu or auto.")
    return _multi_worker_mirrored(cross_device_ops)


@functools.cache
def _multi_worker_mirrored(cross_device_ops: str) -> tf.distribute.Strategy:
    """Returns the strategy for the workers of TF_CONFIG, of which TensorFlow allows one per process."""
    implementations = tf.distribute.experimental.CommunicationImplementation
    chosen = {"auto": implementations.AUTO, "nccl": implementations.NCCL, "cpu": implementations.RING}
    options = tf.distribute.experimental.CommunicationOptions(implementation=chosen[cross_device_ops])
    return _summing_single_tensors(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options))


def _summing_single_tensors(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    """Returns `strategy`, whose collectives no longer pack a single tensor.

    TensorFlow flattens and joins the tensors of a sum, and then splits and reshapes the result. A step sums one tensor
    at a time, for which that is eleven operations per sum and replica that do nothing, one in six of a large step. They
    cost time when a step is traced and optimized.
    """
    for launcher in getattr(strategy.extended._cross_device_ops, "_launchers", ()):
        launcher.batch_all_reduce = functools.partial(_all_reduce, launcher, launcher.batch_all_reduce)
    return strategy


def _all_reduce(launcher: Any, packed: Callable[..., list[Any]], packs: list[list[Any]], options: Any) -> list[Any]:
    if [len(pack) for pack in packs] == [1]:
        return [launcher.all_reduce(packs[0][0], None, options)]
    return packed(packs, options)


def _split_processor(count: int) -> None:
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise UsageError(
                f"--num_devices={count}: TensorFlow has started in this process with {there} CPU device(s). "
                "Create the devices before TensorFlow computes anything."
            ) from None
