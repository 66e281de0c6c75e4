"""The models: builders of classifiers, their pretrained weights, and the embedders for similarity search.

Every classifier is a functional `keras.Model` with one face:

    input   [batch, image_size, image_size, 3], pixels 0..255 (uint8 or float; the model scales them itself)
    output  float32 [batch, num_classes], softmax probabilities, layer "probabilities"
    inside  the layer "embedding", [batch, dim]: what `embedder` reads and normalises

`copy_model` makes of one a network that is trained for copies: its output is the embedding, normalised. `sscd`
is no classifier either, and ends with the layer "embedding".

Dropout draws its masks from (seed, step, place in the global batch) while a `dropout_scope` is open. Initial
weights come from Keras's global generator: call `keras.utils.set_random_seed` first, or two builds differ.
"""

from __future__ import annotations

from simimg.models.backbones import LITES, lite, lite_features, lite_imagenet, small
from simimg.models.copy_detector import copy_model, fix_backbone
from simimg.models.dropout import ExampleDropout, dropout_scope
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import PROBABILITIES, embedder, search_embedder
from simimg.models.initial_weights import start_from
from simimg.models.keras_applications import APPLICATIONS, application
from simimg.models.oriented_gradients import OrientedGradients
from simimg.models.pooling import GeneralizedMeanPooling2D
from simimg.models.pretrained import load_lite, read_lite, read_torch_pickle
from simimg.models.sscd import sscd
from simimg.models.torch_zip import read_torch_file
from simimg.models.tutorial_cnn import tutorial

# What `--model` knows that has no pretrained weights: each a function of (image_size, num_classes).
NETWORKS = {"small": small, "tutorial": tutorial}

__all__ = [
    "APPLICATIONS",
    "LITES",
    "NETWORKS",
    "PROBABILITIES",
    "ExampleDropout",
    "FrozenNormConv2D",
    "GeneralizedMeanPooling2D",
    "OrientedGradients",
    "application",
    "copy_model",
    "dropout_scope",
    "embedder",
    "fix_backbone",
    "lite",
    "lite_features",
    "lite_imagenet",
    "load_lite",
    "read_lite",
    "read_torch_file",
    "read_torch_pickle",
    "search_embedder",
    "small",
    "sscd",
    "start_from",
    "tutorial",
]
