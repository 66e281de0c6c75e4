"""Running a trained model on pixels: compiled functions, the test-time views that a prediction is averaged over, and
the export as a SavedModel, which runs without simimg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.gpu_memory import grow_gpu_memory
from simimg.models.heads import image_shape
from simimg.models.model_folder import RunInfo, load_trained
from tfrecords.format.atomic_files import atomic_folder

VIEWS = ("one", "mirrored", "cropped")
"""Test-time views: the image; the image and its mirror image; both, and five crops of each."""

_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra", "keras_metadata.pb"}
_CROP = 7 / 8  # of each side, at the corners and in the middle (Krizhevsky et al., NIPS 2012, section 4.1: 224 of 256)


def compiled(
    model: keras.Model, *, views: str = "one", strategy: tf.distribute.Strategy | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `model` as a compiled function from uint8 pixels to its outputs, float32, in inference mode.

    The network is compiled once, however many views there are. That takes a second or more, so keep the function if
    you predict more than once. The output is the mean over the `views`, one of `VIEWS`. With the `strategy` in whose
    scope the model was built, each device of this process computes an equal part of the batch, which must be divisible
    by their number, see `num_devices`.
    """

    @tf.function
    def whole(pixels: tf.Tensor) -> tf.Tensor:
        return model(pixels, training=False)

    output = whole if strategy is None or num_devices(strategy) == 1 else _divided(model, strategy)

    def forward(images: tf.Tensor) -> tf.Tensor:
        outputs = [output(view) for view in views_of(tf.cast(images, tf.float32), views)]
        return tf.add_n(outputs) / len(outputs)

    return forward


def num_devices(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of devices of this process that `strategy` computes on."""
    return len(strategy.extended.worker_devices)


def _divided(model: keras.Model, strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from pixels to the outputs of `model`, for which each device computes an equal part."""
    count = num_devices(strategy)

    @tf.function
    def outputs(parts: Any) -> Any:
        return strategy.run(lambda pixels: model(pixels, training=False), args=(parts,))

    def output(pixels: tf.Tensor) -> tf.Tensor:
        parts = tf.split(pixels, count)
        there = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % count]
        )
        return tf.concat(strategy.experimental_local_results(outputs(there)), 0)

    return output


def views_of(pixels: tf.Tensor, views: str) -> Iterator[tf.Tensor]:
    """Yields the test-time `views`, one of `VIEWS`, of images, float32 `[batch, size, size, 3]`: 1, 2 or 12 tensors of
    that shape.
    """
    yield pixels
    if views == "one":
        return
    yield tf.reverse(pixels, [2])
    if views == "mirrored":
        return
    first, size = tf.range(tf.shape(pixels)[0]), tf.shape(pixels)[1:3]
    left = 1 - _CROP
    for top, side in ((0.0, 0.0), (0.0, left), (left, 0.0), (left, left), (left / 2, left / 2)):
        box = tf.constant([[top, side, top + _CROP, side + _CROP]])  # in shares of the image's sides
        crop = tf.image.crop_and_resize(pixels, tf.repeat(box, tf.shape(first)[0], axis=0), first, size)
        crop.set_shape(pixels.shape)
        yield crop
        yield tf.reverse(crop, [2])


def export_saved_model(model_dir: Path, out_dir: Path) -> RunInfo:
    """Writes the model of a finished run as a SavedModel, atomically, and returns the description of the run.

    The signature `serving_default` takes `image`, uint8 `[n, height, width, 3]`. It returns `probabilities`,
    float32 `[n, num_classes]`, `label`, string `[n]`, and `class_names`, string `[num_classes]`. If the model was
    trained to find copies, it returns `embedding`, float32 `[n, dim]` of L2 norm 1; if it was trained for numbers,
    `values`, float32 `[n, num_targets]`, and `target_names`.

    Raises:
        ModelError: the folder has no finished run.
        UsageError: `out_dir` is a file, or has other files than a SavedModel in it.
    """
    grow_gpu_memory()
    model, info = load_trained(model_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"--out_dir={out_dir} is a file. Name a new folder.")
    there = {path.name for path in out_dir.iterdir()} if out_dir.exists() else set()
    if there and "saved_model.pb" not in there:
        raise UsageError(f"--out_dir={out_dir} is not empty and not a SavedModel. Name a new folder.")
    if others := sorted(there - _SAVED_MODEL):
        raise UsageError(f"--out_dir={out_dir} has {others[0]} beside its SavedModel. Move it, or name a new folder.")
    module = tf.Module()
    module.model = model  # so that its weights are saved
    forward = compiled(model, views=info.config["test_views"])
    image = tf.TensorSpec([None, *image_shape(info.image_size)], tf.uint8, name="image")

    @tf.function(input_signature=[image])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if info.objective.score == "recall":
            return {"embedding": forward(image)}
        names = tf.constant(info.class_names)
        if info.objective.lower_is_better:
            return {"values": forward(image), "target_names": names}
        probabilities = forward(image)
        label = tf.gather(names, tf.argmax(probabilities, axis=1))
        return {"probabilities": probabilities, "label": label, "class_names": names}

    with atomic_folder(out_dir) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return info
