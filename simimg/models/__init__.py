"""The models: builders of classifiers, their pretrained weights, and the embedder for similarity search.

Every classifier is a functional `keras.Model` with one face:

    input   [batch, image_size, image_size, 3], pixels 0..255 (uint8 or float; the model scales them itself)
    output  float32 [batch, num_classes], softmax probabilities, layer "probabilities"
    inside  the layer "embedding", [batch, dim]: what `embedder` reads and normalises

Dropout draws its masks from (seed, step, place in the global batch) while a `dropout_scope` is open. Initial
weights come from Keras's global generator: call `keras.utils.set_random_seed` first, or two builds differ.
"""

from __future__ import annotations

from simimg.models.backbones import lite0, lite0_features, lite0_imagenet, small
from simimg.models.dropout import ExampleDropout, dropout_scope
from simimg.models.frozen import FrozenNormConv2D
from simimg.models.heads import embedder
from simimg.models.pretrained import load_lite0, read_lite0, read_torch_pickle
from simimg.models.tutorial import tutorial

__all__ = [
    "ExampleDropout",
    "FrozenNormConv2D",
    "dropout_scope",
    "embedder",
    "lite0",
    "lite0_features",
    "lite0_imagenet",
    "load_lite0",
    "read_lite0",
    "read_torch_pickle",
    "small",
    "tutorial",
]
