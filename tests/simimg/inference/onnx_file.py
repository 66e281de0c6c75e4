"""Writes tiny ONNX networks, byte by byte (onnx.proto), so that the tests need no package for it.

A convolution with squares of `PATCH` px, ReLU, the mean over the image, and a product: `[n, 3, h, w]` to `[n, DIM]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

PATCH = 4
CHANNELS = 24
DIM = 16
FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10  # TensorProto.DataType
FLOAT_ATTRIBUTE, INT_ATTRIBUTE, INTS_ATTRIBUTE = 1, 2, 7  # AttributeProto.AttributeType

Shape = Sequence[int | str | None]


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(operator: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    data = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, operator)
    for name, value in attributes.items():
        if isinstance(value, int):
            attribute = field(3, value) + field(20, INT_ATTRIBUTE)
        else:
            attribute = b"".join(field(8, number) for number in value) + field(20, INTS_ATTRIBUTE)
        data += field(5, field(1, name) + attribute)
    return data


def tensor(name: str, values: np.ndarray, outside: str = "") -> bytes:
    data = b"".join(field(1, size) for size in values.shape) + field(2, FLOAT) + field(8, name)
    if outside:
        return data + field(13, field(1, "location") + field(2, outside)) + field(14, 1)
    return data + field(9, values.astype("<f4").tobytes())


def value(name: str, type: int, shape: Shape) -> bytes:
    dims = [b"" if size is None else field(1, size) if isinstance(size, int) else field(2, size) for size in shape]
    tensor_type = field(1, type) + field(2, b"".join(field(1, dim) for dim in dims))
    return field(1, name) + field(2, field(1, tensor_type))


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    parts = ((1, nodes), (5, tensors), (11, inputs), (12, outputs))
    graph = b"".join(field(number, item) for number, items in parts for item in items) + field(2, "graph")
    data = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))
    return data + b"".join(field(14, field(1, key) + field(2, text)) for key, text in (metadata or {}).items())


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(CHANNELS, 3, PATCH, PATCH)).astype("f4"), rng.normal(size=(CHANNELS, DIM)).astype("f4")


def write_network(
    path: Path,
    *,
    layout: str = "nchw",
    type: int = FLOAT,
    shape: Shape | None = None,
    batch: int | str | None = "batch",
    size: int | str | None = 32,
    seed: int = 0,
    outputs: Sequence[str] = ("embedding",),
    metadata: Mapping[str, str] | None = None,
    outside: str = "",
) -> Path:
    """Writes a network; `pooled` in `outputs` is the mean over the image, `map` what the mean is taken of.

    With `outside`, the weights of the product are in a file of this name beside it.
    """
    convolution, product = weights(seed)
    nodes, last = [], "image"
    if type != FLOAT:
        nodes, last = [node("Cast", ["image"], "float", to=FLOAT)], "float"
    if layout == "nhwc":
        nodes.append(node("Transpose", [last], "transposed", perm=(0, 3, 1, 2)))
        last = "transposed"
    nodes += [
        node("Conv", [last, "convolution"], "patches", strides=(PATCH, PATCH)),
        node("Relu", ["patches"], "map"),
        node("GlobalAveragePool", ["map"], "mean"),
        node("Flatten", ["mean"], "pooled", axis=1),
        node("MatMul", ["pooled", "product"], "embedding"),
    ]
    shape = shape or ([batch, 3, size, size] if layout == "nchw" else [batch, size, size, 3])
    shapes: dict[str, Shape] = {
        "embedding": [batch, DIM],
        "pooled": [batch, CHANNELS],
        "map": [batch, CHANNELS, None, None],
    }
    tensors = [tensor("convolution", convolution), tensor("product", product, outside)]
    described = [value(name, FLOAT, shapes[name]) for name in outputs]
    path.write_bytes(model(nodes, [value("image", type, shape)], described, tensors, metadata))
    if outside:
        (path.parent / outside).write_bytes(product.tobytes())
    return path


def expected(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns the unit vector of `[size, size, 3]`, as the network computes it from these numbers."""
    convolution, product = weights(seed)
    side = len(pixels) // PATCH
    patches = pixels.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, -1)
    mapped = np.maximum(patches.astype(np.float64) @ convolution.reshape(CHANNELS, -1).T, 0)
    vector = mapped.mean(axis=0) @ product
    return vector / np.linalg.norm(vector)
