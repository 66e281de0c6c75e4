"""Exported files as functions from pixels to outputs, each computed by its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]
"""From images, uint8 `[n, size, size, 3]`, to outputs, float32 `[n, num_outputs]`."""


def of_saved_model(folder: Path, *, with_files: bool = True) -> Forward:
    """Returns a SavedModel's first signature; the signature for files has to give the same for the images as PNGs.

    Without `with_files`, that signature is not computed: it cuts files at their center, so no file has these pixels.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))

    def forward(images: np.ndarray) -> np.ndarray:
        signatures = loaded.signatures  # of variables that live as long as what was loaded
        found = signatures["serving_default"](image=tf.constant(images))
        name = next(key for key in ("probabilities", "embedding", "values") if key in found)
        outputs: np.ndarray = found[name].numpy()
        if not with_files:
            return outputs
        contents = tf.stack([tf.io.encode_png(image) for image in images])
        of_files = signatures["jpeg"](image_bytes=contents)[name].numpy()
        # Whichever differs more from the model is the one that is compared with it.
        return np.where(np.abs(of_files - outputs) > 1e-5, of_files, outputs)

    return forward


def _of_keras(file: Path) -> Forward:
    import keras

    network = keras.saving.load_model(file, compile=False)
    return lambda images: np.asarray(network.predict(images.astype(np.float32), verbose=0))


def _of_onnx(file: Path) -> Forward:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images.astype(np.float32)})[0])


def _of_litert(file: Path) -> Forward:
    from simimg.inference.litert_network import LiteRtNetwork

    return LiteRtNetwork(file.read_bytes())


def _of_openvino(file: Path) -> Forward:
    import openvino

    network = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.array(network(images.astype(np.float32))[0])


RUNTIMES: dict[str, Callable[[Path], Forward]] = {
    "keras": _of_keras,
    "onnx": _of_onnx,
    "litert": _of_litert,
    "openvino": _of_openvino,
}
