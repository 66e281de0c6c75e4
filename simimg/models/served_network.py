"""The network that an export holds: stock layers in float32, with the test-time views of its run inside.

It maps pixels 0..255, float32 `[batch, height, width, 3]`, to what `simimg.models.saved_model.compiled` computes with
those views, to rounding.
"""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np

from simimg.models.keras_applications import finalize_states
from simimg.models.stock_layers import with_stock_layers

CROP = 7 / 8  # of each side, at the corners and in the middle (Krizhevsky et al., NIPS 2012, section 4.1: 224 of 256)

PLACES = ((0.0, 0.0), (0.0, 1 - CROP), (1 - CROP, 0.0), (1 - CROP, 1 - CROP), ((1 - CROP) / 2, (1 - CROP) / 2))
"""Top and left of each crop, in shares of the image's sides."""


def served_network(model: keras.Model, views: str) -> keras.Model:
    """Returns a copy of a network that averages its output over the test-time `views`, one of `VIEWS`.

    The views of all images are one batch inside, so the network is there once.
    """
    network = with_stock_layers(in_float32(model), for_converters=True)
    if views == "one":
        return network
    pixels = keras.Input(batch_shape=network.input_shape, dtype="float32", name="pixels")
    shown = [pixels]
    if views == "cropped":
        shown += [_crop(pixels, top, left, number) for number, (top, left) in enumerate(PLACES)]
    ops, num_views = keras.ops, 2 * len(shown)
    shown += [ops.flip(view, axis=2) for view in shown]
    outputs = network(ops.concatenate(shown, axis=0))
    mean = ops.mean(ops.reshape(outputs, (num_views, -1, outputs.shape[-1])), axis=0)
    return keras.Model(pixels, mean, name=f"{network.name}_views")


def in_float32(network: keras.Model) -> keras.Model:
    """Returns a network that was trained in mixed precision with the same weights in float32; others as they are."""
    text = json.dumps(network.get_config())
    plain = text.replace('"mixed_bfloat16"', '"float32"').replace('"mixed_float16"', '"float32"')
    if plain == text:
        return network
    rebuilt = type(network).from_config(json.loads(plain))
    rebuilt.set_weights(network.get_weights())
    finalize_states(rebuilt)
    return rebuilt


def _crop(pixels: Any, top: float, left: float, number: int) -> Any:
    """Returns the part `CROP` of each side from `top` and `left`, enlarged bilinearly to the size of `pixels`.

    As in `tf.image.crop_and_resize`, the first and the last row are exactly at the part's edges. Both directions are
    products with a matrix, for which every runtime has an operation.
    """
    _, *shape = pixels.shape
    fixed = {"trainable": False, "dtype": "float32"}
    rows = keras.layers.EinsumDense("bhwc,hk->bkwc", tuple(shape), name=f"crop{number}_rows", **fixed)
    columns = keras.layers.EinsumDense("bhwc,wk->bhkc", tuple(shape), name=f"crop{number}_columns", **fixed)
    crop = columns(rows(pixels))
    rows.set_weights([_enlarging(shape[0], top)])
    columns.set_weights([_enlarging(shape[1], left)])
    return crop


def _enlarging(size: int, start: float) -> np.ndarray:
    """Returns the bilinear weights of `size` rows, float32 `[size, size]`, for as many between two shares of them."""
    at = np.clip(np.linspace(start, start + CROP, size) * (size - 1), 0, size - 1)
    above = np.minimum(at.astype(np.int64), max(size - 2, 0))
    weights = np.zeros((size, size), np.float32)
    weights[above, np.arange(size)] += 1 - (at - above)
    weights[np.minimum(above + 1, size - 1), np.arange(size)] += at - above
    return weights
