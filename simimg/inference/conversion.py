"""Converts a Keras network to LiteRT's file format, and checks it against TensorFlow. It imports TensorFlow.

A process that has not imported TensorFlow runs this module in a child process instead, which takes its memory along
when it ends:

    python -m simimg.inference.conversion MODEL OUTPUT    writes the facts, a line of JSON, and the network
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import io
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simimg.errors import ModelError
from simimg.inference.inference_engine import MAX_DIFFERENCE
from simimg.inference.litert_network import LiteRtNetwork
from simimg.inference.network_cache import CANNOT_LOAD, SHIPPED_MODELS, ConversionFailed, NetworkFacts
from simimg.models.model_folder import MODEL_FILE, load_model
from simimg.standard_error import captured_stderr
from tfrecords.convert.image.color import gray_of
from tfrecords.convert.image.decoder import resize
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.image_size import ImageSize, image_size_of

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_NUM_CHECKED = 12


def load_network(model: str, output: str) -> tuple[keras.Model, str]:
    """Return a network that maps pixels to an output, and the fingerprint of its weights.

    Args:
        model: a name in `SHIPPED_MODELS`, or the folder of a model.
        output: `embedding`, unit vectors for search, or `probabilities` of a trained classifier.

    Raises:
        ModelError: the folder has no finished run, or the shipped weights are not installed.
    """
    import keras

    from simimg.models.backbones import lite_features
    from simimg.models.heads import search_embedder
    from simimg.models.served_network import in_float32

    if model in SHIPPED_MODELS:
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")  # whatever the caller's own models compute in
        try:
            network = lite_features(model)
            return search_embedder(network), _weights_sha256(network)
        finally:
            keras.config.set_dtype_policy(policy)
    network, info = load_model(Path(model))
    network = in_float32(network)
    if info.class_names:
        fingerprint = file_sha256(Path(model) / MODEL_FILE)
    else:  # a second import is the same model, although the times in its file differ
        fingerprint = f"{_weights_sha256(network)}-{info.image_size}"
    return network if output == "probabilities" else search_embedder(network), fingerprint


def convert_network(model: str, output: str, *, refused: str = "") -> tuple[bytes, NetworkFacts]:
    """Return a network, see `load_network`, as a `.tflite` file; if LiteRT cannot run it, b"" and facts that say why.

    `refused` is a known reason, with which the conversion is not tried.

    Raises:
        ModelError: as `load_network`.
        ConversionFailed: the machine could not convert it now, for lack of memory for example.
    """
    import tensorflow as tf

    with captured_stderr(), tf.device("CPU"):  # a GPU's rounding is no measure
        network, fingerprint = load_network(model, output)
        content, reason, difference = b"", refused, 0.0
        if not refused:
            content, reason = _tflite(network)
        if not reason:
            try:
                converted = LiteRtNetwork(content, num_threads=1)
            except (ValueError, RuntimeError) as error:  # it lacks an operation that the converter has
                reason = _first_line(error)
            else:
                difference = _largest_difference(network, converted)
                if not difference <= MAX_DIFFERENCE:  # also if it is not a number
                    reason = f"its output differs from TensorFlow's by {difference:.1e}"
    facts = NetworkFacts(
        fingerprint=fingerprint,
        image_size=image_size_of(network.input_shape[2:0:-1]),
        channels=int(network.input_shape[-1]),
        dim=int(network.output_shape[-1]),
        largest_difference=difference,
        refused=reason,
    )
    return b"" if reason else content, facts


def _tflite(network: keras.Model) -> tuple[bytes, str]:
    """Return the file of a network with its variables as constants, or why LiteRT has none.

    The converter keeps Keras's variables as variables without values: the file is small, runs, and computes NaN.
    """
    import tensorflow as tf

    trainable = [tf.constant(variable.numpy()) for variable in network.trainable_variables]
    others = [tf.constant(variable.numpy()) for variable in network.non_trainable_variables]
    pixels = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32, name="pixels")

    @tf.function(input_signature=[pixels])
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        outputs, _ = network.stateless_call(trainable, others, pixels, training=False)
        return outputs

    converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()], tf.Module())
    try:
        return converter.convert(), ""
    except Exception as error:
        if type(error).__name__ != "ConverterError":  # which is in no public module
            raise ConversionFailed(_first_line(error)) from error
        missing = re.search(r"(?:Custom|Select|Flex) ops: (.+)", str(error))
        return b"", f"LiteRT lacks the operations {missing[1]}" if missing else _first_line(error)


def _largest_difference(network: keras.Model, converted: LiteRtNetwork) -> float:
    differences = []
    height, width, channels = network.input_shape[1:]
    for image in check_images(image_size_of((width, height)), channels):  # one by one, which takes less memory
        expected = network(image[None].astype(np.float32), training=False).numpy()
        differences.append(np.abs(converted(image[None]) - expected).max())
    return float(np.max(differences))


def check_images(image_size: ImageSize, channels: int = 3) -> np.ndarray:
    """Return a photograph, which Matplotlib installs, and sample images, uint8 `[n, height, width, channels]`."""
    images = []
    photo = importlib.resources.files("matplotlib") / "mpl-data/sample_data/grace_hopper.jpg"
    if photo.is_file():  # some distributions leave it out
        images.append(Image.open(io.BytesIO(photo.read_bytes())))
    with (
        (importlib.resources.files("simimg") / "sample/sample_images.zip").open("rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        names = sorted(name for name in archive.namelist() if name.endswith(".webp"))
        for name in names[:: len(names) // _NUM_CHECKED]:
            images.append(Image.open(io.BytesIO(archive.read(name))))
    pixels = np.stack([resize(image.convert("RGB"), image_size, "stretch") for image in images])
    return gray_of(pixels) if channels == 1 else pixels


def _weights_sha256(network: keras.Model) -> str:
    """Return a digest of all weights, the same whether normalizations are layers or part of a convolution."""
    digest = hashlib.sha256()
    layers = {layer.name: layer for layer in network.layers}
    norms = {name: layers[f"{name}_norm"] for name in layers if f"{name}_norm" in layers}
    for name, layer in layers.items():
        if name.endswith("_norm") and name.removesuffix("_norm") in norms:
            continue  # it followed its convolution
        for weight in [*layer.weights, *(norms[name].weights if name in norms else ())]:
            digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    """Return the first line of a message, which a dump of the network may follow, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def main(arguments: list[str]) -> int:
    """Convert a network to standard output; if it cannot be loaded, write the reason there."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no part of the network
    with os.fdopen(output, "wb") as file:
        try:
            content, facts = convert_network(*arguments)
        except ModelError as error:
            file.write(str(error).encode())
            return CANNOT_LOAD
        file.write(json.dumps(dataclasses.asdict(facts)).encode() + b"\n" + content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
