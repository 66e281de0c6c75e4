"""The models: builders of classifiers, their pretrained weights, embedders for search, and folders of trained models.

Every classifier is a functional `keras.Model` with the same interface:

    input   [batch, image_size, image_size, 3], pixels 0..255 (uint8 or float; the model scales them itself)
    output  float32 [batch, num_classes], softmax probabilities, layer "probabilities"
    inside  the layer "embedding", [batch, dim], which `embedder` reads and normalizes

`copy_model` turns a classifier into a network that is trained to find copies; its output is the normalized embedding.
`import_sscd` makes a model that is not a classifier either, and ends with the layer "embedding".

Dropout draws its masks from (seed, step, place in the global batch) while a `dropout_scope` is open. Initial weights
come from Keras's global generator, so call `keras.utils.set_random_seed` first, or two builds differ.
"""

from __future__ import annotations

from simimg.models.backbones import LITES, lite, lite_features, small, tutorial
from simimg.models.dropout import ExampleDropout, dropout_scope
from simimg.models.heads import PROBABILITIES, copy_model, embedder, fix_backbone, search_embedder
from simimg.models.inference import VIEWS, compiled, export_saved_model, views_of
from simimg.models.keras_applications import APPLICATIONS, application
from simimg.models.model_folder import OBJECTIVES, Objective, RunInfo, load_model, load_run, load_trained
from simimg.models.pretrained import read_lite, start_from
from simimg.models.sscd import import_sscd

# The values of `--model` without pretrained weights, each a function of (image_size, num_classes).
NETWORKS = {"small": small, "tutorial": tutorial}

__all__ = [
    "APPLICATIONS",
    "LITES",
    "NETWORKS",
    "OBJECTIVES",
    "PROBABILITIES",
    "VIEWS",
    "ExampleDropout",
    "Objective",
    "RunInfo",
    "application",
    "compiled",
    "copy_model",
    "dropout_scope",
    "embedder",
    "export_saved_model",
    "fix_backbone",
    "import_sscd",
    "lite",
    "lite_features",
    "load_model",
    "load_run",
    "load_trained",
    "read_lite",
    "search_embedder",
    "small",
    "start_from",
    "tutorial",
    "views_of",
]
