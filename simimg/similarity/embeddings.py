"""Pixels to embeddings: unit vectors whose inner product is the similarity of two images."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simimg import models
from simimg.errors import UsageError
from simimg.image_files import options_of
from simimg.models.model_folder import MODEL_FILE, load_model
from tfrecords.convert.image.color import WHITE
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.format.atomic_files import file_sha256

SHIPPED_MODELS = ("lite0",)  # at the resolution that its weights were made for


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A model that computes embeddings, and how images are prepared for it.

    Attributes:
        name: a shipped model's name, or the model folder.
        fingerprint: changes with the weights, so that an index is never searched with another model.
        image_size: side in px of the squares that the model takes.
        resize: how images become squares, see `tfrecords.convert.image.decoder.resize`.
        dim: length of an embedding before a projection (`simimg.similarity.projection`) shortens it.
        decode: as in `ImageOptions`, like the next two: what the dataset of a trained model was converted with.
        truncated: as in `ImageOptions`.
        background: as in `ImageOptions`.
    """

    name: str
    fingerprint: str
    image_size: int
    resize: str
    dim: int
    forward: Any
    decode: str = "fast"
    truncated: str = "refuse"
    background: tuple[int, int, int] = WHITE

    @property
    def image_options(self) -> ImageOptions:
        """How image files are loaded for the model."""
        return ImageOptions(
            image_size=self.image_size,
            resize=self.resize,
            decode=self.decode,
            truncated=self.truncated,
            background=self.background,
        )

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return embeddings, float32 `[batch, dim]` of L2 norm 1, of images, uint8 `[batch, size, size, 3]`.

        If `size` is not `image_size`, the images are resized, bilinearly and without aliasing.
        """
        pixels = tf.cast(tf.constant(images), tf.float32)
        if images.shape[1:3] != (self.image_size, self.image_size):
            pixels = tf.image.resize(pixels, [self.image_size, self.image_size], antialias=True)
        return self.forward(pixels).numpy()


def load_embedder(model: str) -> Embedder:
    """Return the embedder of a name in `SHIPPED_MODELS`, or of the folder of a finished run or of imported weights.

    Raises:
        UsageError: `model` is neither.
        ModelError: the folder has no finished run, or the shipped weights are not installed.
    """
    if model in SHIPPED_MODELS:
        return _shipped(model)
    folder = Path(model)
    if not folder.is_dir():
        raise UsageError(
            f"--model={model} is neither a folder of a trained model nor one of {', '.join(SHIPPED_MODELS)}."
        )
    network, info = load_model(folder)
    if info.class_names:
        fingerprint = file_sha256(folder / MODEL_FILE)
    else:  # a second import is the same model, although the times in its file differ
        fingerprint = f"{_weights_sha256(network)}-{info.image_size}"
    return _embedder(str(folder), fingerprint, options_of(info), network)


@functools.cache  # a second to build, and another for the first image
def _shipped(model: str) -> Embedder:
    network = models.lite_features(model)
    return _embedder(model, _weights_sha256(network), ImageOptions(image_size=network.input_shape[1]), network)


def _embedder(name: str, fingerprint: str, options: ImageOptions, network: keras.Model) -> Embedder:
    embedding = models.search_embedder(network)
    # One trace for batches of any length, because the last batch of a folder is nearly always short.
    signature = [tf.TensorSpec([None, options.image_size, options.image_size, 3], tf.float32)]
    forward = tf.function(lambda images: embedding(images, training=False), input_signature=signature)
    dim = int(embedding.output_shape[-1])
    return Embedder(name, fingerprint, dim=dim, forward=forward, **dataclasses.asdict(options))


def _weights_sha256(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in network.weights:
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()
