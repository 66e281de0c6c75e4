"""What a GPU would run: TensorFlow's wheel registers its kernels for GPUs on any machine, so graphs can be checked.

Of three logical devices, the first is the host, and the other two are the devices that train. A graph is traced for
them as for two GPUs. Then each node is looked up: whether it has a kernel for GPUs of its types, and in which memory
that kernel takes and leaves each tensor.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

pytestmark = pytest.mark.own_process

# What runs on the host, by op and type, and why that is right.
ON_HOST = {
    ("Timestamp", ()): "measures how long a host waits; one call in fifty",
    ("Const", ("STRING",)): "names of classes are strings, which are in the host's memory",
    ("GatherV2", ("INT32", "INT64", "STRING")): "the same",
}
# Where the host waits for a device in each step, by the ops at both ends, and why that is right.
WAITS = {
    ("All", "If"): "under float16, Keras leaves out an update whose gradients are not finite",
    ("Equal", "If"): "under float16, Keras counts the updates since it last changed the scale of the loss",
}


@pytest.fixture(scope="module", autouse=True)
def _devices() -> None:
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8 pictures of 32 px."""
    folder = tmp_path_factory.mktemp("placement")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"photos/{name}/{number}.png")
    options = {"image_dir": folder / "photos", "data_dir": folder, "image_size": 32, "num_workers": 1}
    return convert(ConvertConfig(name="two", splits="train=0.75,test=0.25", **options)).dataset_dir


@pytest.fixture(autouse=True)
def _as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has runs use the second and third device, and augment as on a GPU."""
    import tensorflow as tf

    from simimg.augment import augmentation
    from simimg.training import run_setup

    def strategy(num_devices: int = 0, cross_device_ops: str = "auto") -> tf.distribute.Strategy:
        names = [f"CPU:{number + 1}" for number in range(num_devices or 1)]
        return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.OneDeviceStrategy(names[0])

    monkeypatch.setattr(run_setup, "make_strategy", strategy)
    made = augmentation._augmented
    monkeypatch.setattr(
        augmentation, "_augmented", lambda config, seed, _, channels: made(config, seed, True, channels)
    )


def traced(dataset: Path, *, timed: bool = False, **options: Any) -> Any:
    """Returns the graph of several steps of a training, with its library of functions."""
    import tensorflow as tf

    from simimg.training import TrainConfig
    from simimg.training.builders import build_state
    from simimg.training.metrics import balanced
    from simimg.training.run_setup import open_run_setup
    from simimg.training.train_step import _several_steps, distribute, training_step

    given = {"dataset_dir": dataset, "model_dir": dataset / "none", "epochs": 2, "global_batch_size": 4, **options}
    setup = open_run_setup(TrainConfig.with_preset(given))
    config, strategy, reader, order = setup.config, setup.strategy, setup.reader, setup.order
    with strategy.scope():
        state = build_state(config, 32, 2, setup.num_steps)
    weights = balanced(np.array([6, 6])) if config.class_weights == "balanced" else None
    step = training_step(config, strategy, state, order, reader, class_weights=weights)
    run = _several_steps(step, timed=timed, num_sums=3 + len(config.objective_info.others))
    zero = tf.constant(0, tf.int64)
    elements = iter(distribute(strategy, reader, order))
    return run.get_concrete_function(elements, zero, zero, tf.constant(1)).graph.as_graph_def()


@functools.cache
def registered(op: str) -> list[Any]:
    from tensorflow.python.framework import kernels

    return [
        kernel
        for kernel in kernels.get_registered_kernels_for_op(op).kernel
        if kernel.device_type in ("GPU", "DEFAULT")  # DEFAULT is any device
    ]


def kernel_of(node: Any) -> Any:
    """Returns the registered kernel that a GPU has for a node and its types, or None."""

    def fits(constraint: Any) -> bool:
        value = node.attr[constraint.name]
        types = [value.type] if value.WhichOneof("value") == "type" else list(value.list.type)
        return all(type in constraint.allowed_values.list.type for type in types)

    return next((kernel for kernel in registered(node.op) if all(map(fits, kernel.constraint))), None)


def type_names(node: Any) -> tuple[str, ...]:
    """Returns the types among a node's attributes, by the names of the attributes."""
    return names_of([value.type for _, value in sorted(node.attr.items()) if value.WhichOneof("value") == "type"])


def names_of(types: Iterable[int]) -> tuple[str, ...]:
    from tensorflow.core.framework import types_pb2

    return tuple(types_pb2.DataType.Name(value).removeprefix("DT_") for value in types)


def functions_of(node: Any) -> list[str]:
    """Returns the names of the functions that a node calls."""
    lists = [[value.func, *value.list.func] for value in node.attr.values()]
    return [function.name for found in lists for function in found if function.name]


def without_kernel(graph: Any) -> dict[tuple[str, tuple[str, ...]], str]:
    """Returns the nodes that a GPU has no kernel for: an example of each op and types."""
    compiled = {name for node in all_nodes(graph) if node.attr["_XlaMustCompile"].b for name in functions_of(node)}
    found = {}
    for name, nodes in bodies(graph):
        for node in nodes:
            if name not in compiled and kernel_of(node) is None:
                found[node.op, type_names(node)] = node.name
    return found


def bodies(graph: Any) -> Iterator[tuple[str, Any]]:
    yield "", graph.node
    for function in graph.library.function:
        yield function.signature.name, function.node_def


def all_nodes(graph: Any) -> list[Any]:
    return [node for _, nodes in bodies(graph) for node in nodes]


CALLS = ("PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While", "StatelessWhile")


def in_loops(graph: Any) -> list[Any]:
    """Returns the bodies of the loops of a graph, and all functions that they call."""
    library = {function.signature.name: function for function in graph.library.function}
    names = [node.attr["body"].func.name for node in all_nodes(graph) if node.op in ("While", "StatelessWhile")]
    found: dict[str, Any] = {}
    while names:
        name = names.pop()
        if name in library and name not in found:
            found[name] = library[name]
            for node in library[name].node_def:
                if not node.attr["_XlaMustCompile"].b:
                    names += functions_of(node)
    return list(found.values())


class Loop:
    """The nodes of a function, each with its place and with the memory of its tensors."""

    def __init__(self, function: Any) -> None:
        self.arguments = {argument.name: argument.type for argument in function.signature.input_arg}
        self.nodes = {node.name: node for node in function.node_def}
        self.constants: set[str] = set()
        for node in function.node_def:  # in topological order
            self._note_constant(node)

    def _note_constant(self, node: Any) -> None:
        """Notes a node that TensorFlow computes once, because its inputs are constants."""
        from tensorflow.python.framework import op_def_registry

        sources = [name.partition(":")[0] for name in node.input if not name.startswith("^")]
        is_pure = not op_def_registry.get(node.op).is_stateful and node.op not in CALLS
        if node.op == "Const" or (sources and is_pure and self.constants.issuperset(sources)):
            self.constants.add(node.name)

    @staticmethod
    def is_on_host(node: Any) -> bool:
        return kernel_of(node) is None or node.device.endswith("CPU:0")

    def in_host_memory(self, node: Any, port: str, type: int) -> bool:
        from tensorflow.core.framework import types_pb2

        if self.is_on_host(node) or type == types_pb2.DT_RESOURCE:
            return True
        if port in kernel_of(node).host_memory_arg:
            return True
        return type == types_pb2.DT_INT32 and (node.op in CALLS or node.name in self.constants)

    def copies(self) -> Iterator[tuple[bool, Any, Any]]:
        """Yields the tensors that change memory: whether it is to the host, the node before and the node after."""
        from tensorflow.core.framework import types_pb2
        from tensorflow.python.framework import op_def_registry

        for node in self.nodes.values():
            if node.name in self.constants:
                continue
            ports = [(port.name, type) for port in op_def_registry.get(node.op).input_arg for type in types(node, port)]
            for (port, type), source in zip(ports, (name for name in node.input if name[0] != "^"), strict=True):
                name, _, rest = source.partition(":")
                before = self.nodes.get(name)
                if before is None:  # an argument of the function
                    left_on_host = type in (types_pb2.DT_INT32, types_pb2.DT_RESOURCE)
                else:
                    left_on_host = self.in_host_memory(before, rest.partition(":")[0], type)
                if left_on_host != self.in_host_memory(node, port, type):
                    yield not left_on_host, before, node

    def control_edges(self) -> Iterator[tuple[str, str]]:
        """Yields the names of nodes or arguments on a device, and of the nodes on the host that wait for them."""
        from tensorflow.core.framework import types_pb2

        in_host_memory = (types_pb2.DT_INT32, types_pb2.DT_RESOURCE)
        for node in filter(self.is_on_host, self.nodes.values()):
            for name in (name[1:] for name in node.input if name.startswith("^")):
                here = self.nodes.get(name)
                if not self.is_on_host(here) if here is not None else self.arguments[name] not in in_host_memory:
                    yield name, node.name


def types(node: Any, port: Any) -> list[int]:
    if port.type_list_attr:
        return list(node.attr[port.type_list_attr].list.type)
    count = node.attr[port.number_attr].i if port.number_attr else 1
    return [node.attr[port.type_attr].type if port.type_attr else port.type] * count


def op_of(node: Any) -> str:
    return "argument" if node is None else str(node.op)


def faults(graph: Any) -> list[str]:
    """Returns what a GPU has no kernel for, and where a loop makes its host wait for it, unless there is a reason."""
    found = [f"no kernel: {key} {name}" for key, name in without_kernel(graph).items() if key not in ON_HOST]
    for function in in_loops(graph):
        loop = Loop(function)
        for to_host, before, node in loop.copies():
            if not to_host or (op_of(before), node.op) not in WAITS:
                way = "device to host" if to_host else "host to device"
                found.append(f"{way}: {op_of(before)} {before.name if before else ''} to {node.op} {node.name}")
        found += [f"control edge: {before} to {after}" for before, after in loop.control_edges()]
    for node in all_nodes(graph):
        if node.op in ("While", "StatelessWhile"):
            found += counters(graph, node)
    return found


def counters(graph: Any, loop: Any) -> list[str]:
    """Returns the nodes of a loop's condition that a GPU computes in its own memory, so that the host waits for it."""
    from tensorflow.python.framework import op_def_registry

    name = loop.attr["cond"].func.name
    function = next(function for function in graph.library.function if function.signature.name == name)
    nodes = Loop(function)
    computed = [node for node in function.node_def if node.name not in nodes.constants]
    ports = [(node, port) for node in computed for port in op_def_registry.get(node.op).output_arg]
    return [
        f"loop condition: {node.op} {type_names(node)} {node.name}"
        for node, port in ports
        if node.op != "Identity"  # around each result of a function; TensorFlow removes it when it inlines the function
        for type in types(node, port)
        if not nodes.in_host_memory(node, port.name, type)
    ]


AUGMENTED = {
    "rotation_degrees": 20.0,
    "vertical_flip": True,
    "crop_min_area": 0.5,
    "colour_jitter": 0.4,
    "grayscale": 0.2,
    "blur": 2.0,
    "min_jpeg_quality": 20.0,
    "cutout": 0.3,
    "quarter_turns": 0.1,
    "paste": 0.2,
    "bars": 0.2,
}
TINY = {"preset": "tutorial", "horizontal_flip": True}
QUEUE = {"preset": "copy", "queue_size": 8, "num_devices": 2}
STEPS: dict[str, dict[str, Any]] = {
    "tutorial": {"preset": "tutorial"},
    "small on two devices": {"preset": "small", "num_devices": 2},
    "lite0": {"preset": "lite0", "resolution": 32},  # lite1 has more of the same layers, and pair has no steps
    "copy": {"preset": "copy"},
    "copy with a queue": {**QUEUE, "model": "tutorial", "weights": "none", "train_backbone": True, "border": "reflect"},
    "augmented": {**TINY, **AUGMENTED, "border": "nearest"},
    "policies": {**TINY, "rand_augment": "2,9", "three_augment": True, "noise": 9.0, "erase": 0.5, "num_devices": 2},
    "mixed": {**TINY, "augmix": 3.0, "mixup": 0.2, "cutmix": 1.0, "class_weights": "balanced", "num_devices": 2},
    "lamb": {**TINY, "optimizer": "lamb", "weight_decay": 0.1, "num_devices": 2},
    "on the devices": {**TINY, "cache": "device", "num_devices": 2},
    "in parts": {**TINY, "accumulate": 2, "class_weights": "balanced", "optimizer": "adamw", "num_devices": 2},
    "float16": {**TINY, "precision": "float16", "clip_norm": 1.0, "optimizer": "sgd", "ema": 0.9},
    "bfloat16": {**TINY, "precision": "bfloat16", "clip_norm": 1.0, "schedule": "cosine", "weight_decay": 0.01},
    "xla": {**TINY, "xla": True, "loss": "categorical", "label_smoothing": 0.1, "num_devices": 2},
}


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_steps(dataset: Path, options: dict[str, Any]) -> None:
    graph = traced(dataset, **options)
    assert faults(graph) == []
    fetched = [node for function in in_loops(graph) for node in function.node_def if node.op == "IteratorGetNext"]
    crossing = ("INT64",) if options.get("cache") == "device" else ("UINT8", "INT32", "INT64")
    types = [names_of(node.attr["output_types"].list.type) for node in fetched]
    assert types == [crossing] * options.get("num_devices", 1)


@pytest.mark.parametrize(
    ("kind", "options", "crossing"),
    [
        ("multi", {"num_devices": 2, "accumulate": 2}, ("UINT8", "UINT8", "INT64")),
        ("multi", {"cache": "device", "precision": "bfloat16", "mixup": 0.2, "xla": True}, ("INT64",)),
        ("float", {"num_devices": 2, "accumulate": 2, "cache": "device"}, ("INT64",)),
        ("float", {"xla": True, "ema": 0.9}, ("UINT8", "FLOAT", "INT64")),
    ],
)
def test_steps_of_other_labels(dataset: Path, kind: str, options: dict[str, Any], crossing: tuple[str, ...]) -> None:
    """Several labels per image, and numbers."""
    table = dataset.parents[1] / f"{kind}.csv"
    if not table.exists():
        head = "path,labels" if kind == "multi" else "path,x,y"
        cells = ["a;b", "b", "", "a"] if kind == "multi" else ["1,2", "3,4.5", "0,1", "5,5"]
        rows = [f"photos/{'ab'[number % 2]}/{number // 2}.png,{cells[number % 4]}" for number in range(16)]
        table.write_text("\n".join([head, *rows]))
    made = ConvertConfig(
        table=str(table), label_type=kind, data_dir=table.parent, name=kind, image_size=32, num_workers=1
    )
    graph = traced(convert(made).dataset_dir, **TINY, **options)
    assert faults(graph) == []
    fetched = [node for function in in_loops(graph) for node in function.node_def if node.op == "IteratorGetNext"]
    types = [names_of(node.attr["output_types"].list.type) for node in fetched]
    assert types == [crossing] * options.get("num_devices", 1)


STILL_READ: list[Any] = []  # TensorFlow may crash if an iterator ends while its dataset calls Python


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_next_batches_are_on_the_devices(dataset: Path, monkeypatch: pytest.MonkeyPatch, num_devices: int) -> None:
    """As uint8, and before they are asked for: otherwise, a device would wait for each batch to arrive."""
    import tensorflow as tf

    from simimg.input import Batch
    from simimg.training import TrainConfig, run_setup, train_step

    read: list[int] = []

    def counted(batch: Batch) -> Any:
        read_before = tf.numpy_function(lambda: read.append(0) or len(read), [], tf.int64)
        with tf.control_dependencies([read_before]):
            return Batch(*[tf.identity(part) for part in batch])

    real = train_step.train_batches
    monkeypatch.setattr(train_step, "train_batches", lambda reader, order: real(reader, order).map(counted))
    given = {"dataset_dir": dataset, "model_dir": dataset / "none", "epochs": 9, "global_batch_size": 4}
    setup = run_setup.open_run_setup(TrainConfig.with_preset({**TINY, **given, "num_devices": num_devices}))
    batches = iter(train_step.distribute(setup.strategy, setup.reader, setup.order))
    STILL_READ.append((batches, counted))
    parts = setup.strategy.experimental_local_results(next(batches).image)
    assert [part.device[-5:] for part in parts] == ["CPU:1", "CPU:2"][:num_devices]
    assert {part.dtype for part in parts} == {tf.uint8}
    for _ in range(100):
        if len(read) >= 3 * num_devices:  # the first batch, and two that are ready
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(read)} batches were read")


def test_timed_steps_wait_for_the_device(dataset: Path) -> None:
    """For the step before and for the batch; so on a GPU, one call in fifty is timed."""
    found = faults(traced(dataset, timed=True, **TINY))
    assert [fault.partition(":")[0] for fault in found] == ["host to device"] * 2 + ["control edge"] * 2, found


def test_what_a_gpu_cannot_run_is_found() -> None:
    """Each kind of fault, in a graph that has them all."""
    import tensorflow as tf

    variable = tf.Variable(tf.zeros([8], tf.int32))

    @tf.function
    def run(pixels: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([])
        for number in tf.range(count):  # int64
            some = tf.gather(tf.tile(pixels, [2, 1]), [0, 1])  # uint8
            same = tf.reduce_sum(tf.cast(tf.cast(some[0], tf.int32) == variable, tf.float32))  # int32
            with tf.control_dependencies([same]):
                now = tf.timestamp()
            total += same + tf.cast(now + tf.cast(number, tf.float64), tf.float32)
        return total

    with tf.device("CPU:1"):
        graph = run.get_concrete_function(tf.zeros([2, 8], tf.uint8), tf.constant(2, tf.int64)).graph.as_graph_def()
    found = faults(graph)
    kinds = {
        *("no kernel: ('Tile', ('UINT8', 'INT32'))", "no kernel: ('GatherV2', ('INT32', 'INT32', 'UINT8'))"),
        *("loop condition: Less ('INT64',)", "control edge: ", "device to host: ", "host to device: "),
    }
    assert {kind for kind in kinds if any(fault.startswith(kind) for fault in found)} == kinds, found


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    from simimg.training import TrainConfig, train

    folder = tmp_path_factory.mktemp("runs") / "run"
    given = {**TINY, "dataset_dir": dataset, "model_dir": folder, "epochs": 1, "global_batch_size": 4}
    train(TrainConfig.with_preset({**given, "test_views": "cropped"}))
    return folder


def graph_of(function: Any, *arguments: Any) -> Any:
    import tensorflow as tf

    return tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()


@pytest.mark.parametrize("preset", ["small", "pair", "copy"])
def test_evaluation(dataset: Path, preset: str) -> None:
    """Of a network of each kind, over all views; pair is lite1 beside lite2. Copies are made on the device, too."""
    import tensorflow as tf

    from simimg.evaluation import compiled, copy_of
    from simimg.training import TrainConfig
    from simimg.training.builders import build_model
    from simimg.training.linear_probe import features_of

    config = TrainConfig.with_preset({"dataset_dir": dataset, "preset": preset})
    model = build_model(config, 32, 2)
    pixels, ids = tf.TensorSpec([4, 32, 32, 3], tf.uint8), tf.TensorSpec([4], tf.int64)
    forward = compiled(model, views=config.test_views)
    assert faults(graph_of(forward, pixels)) == []
    if preset == "copy":
        assert faults(graph_of(lambda id, image: copy_of(config.augmentation, 0, id, image), ids, pixels)) == []
    if config.probe:
        assert faults(graph_of(features_of(model), tf.TensorSpec([4, 32, 32, 3]))) == []


def test_embedding_and_export(finished: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    from simimg.inference.keras_network import KerasNetwork
    from simimg.models.saved_model import export_saved_model

    for model, output in (("lite0", "embedding"), (str(finished), "probabilities")):
        network = KerasNetwork(model, output, 8)
        assert faults(network._copies.trace(tf.uint8).graph.as_graph_def()) == []
    export_saved_model(finished, tmp_path / "exported")
    served = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    assert faults(served.graph.as_graph_def()) == []


STARTS = """
import sys
import tensorflow as tf
from tensorflow.python.eager import context
import simimg
from simimg.inference.keras_network import KerasNetwork
from simimg.models.saved_model import export_saved_model
from pathlib import Path

class Reached(BaseException):
    pass

def grow(gpu, value):
    assert (gpu, value) == ("a GPU", True)
    assert not context.context()._initialized, "TensorFlow has started"
    raise Reached

listed = tf.config.get_visible_devices
tf.config.get_visible_devices = lambda kind=None: ["a GPU"] if kind == "GPU" else listed(kind)
tf.config.experimental.set_memory_growth = grow
data, run = map(Path, sys.argv[1:])
for start in (
    lambda: simimg.train(dataset_dir=data, preset="tutorial", deterministic=True),
    lambda: simimg.evaluate(run, data),
    lambda: KerasNetwork(str(run), "probabilities", 8),
    lambda: export_saved_model(run, run / "exported"),
):
    try:
        start()
    except Reached:
        print("reached")
"""


def test_memory_grows_before_the_first_operation(dataset: Path, finished: Path) -> None:
    """Otherwise TensorFlow takes all memory of all GPUs."""
    command = [sys.executable, "-c", STARTS, str(dataset), str(finished)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["reached"] * 4, done.stderr
