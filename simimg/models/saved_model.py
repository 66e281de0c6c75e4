"""Running a trained model on pixels: compiled functions, the test-time views that a prediction is averaged over, and
the export as a SavedModel, which runs without simimg.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.device_copies import DeviceCopies
from simimg.models.gpu_memory import grow_gpu_memory
from simimg.models.image_bytes import decoded_images
from simimg.models.model_folder import RunInfo, load_trained
from simimg.models.served_network import CROP, PLACES, served_network
from tfrecords.format.atomic_files import atomic_folder
from tfrecords.format.image_size import image_shape

VIEWS = ("one", "mirrored", "cropped")
"""Test-time views: the image; the image and its mirror image; both, and five crops of each."""

SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra", "keras_metadata.pb")
CLASS_NAMES_FILE = "class_names.txt"


def compiled(
    model: keras.Model,
    *,
    views: str = "one",
    strategy: tf.distribute.Strategy | None = None,
    devices: Sequence[str] = (),
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `model` as a compiled function from uint8 pixels to its outputs, float32, in inference mode.

    The network is compiled once, however many views there are. That takes a second or more, so keep the function if
    you predict more than once. The output is the mean over the `views`, one of `VIEWS`. With the `strategy` in whose
    scope the model was built, each device of this process computes an equal part of the batch, which must be divisible
    by their number, see `num_devices`. So does each of the `devices` of a model that was built without a strategy, see
    `simimg.models.device_copies`.
    """
    output = _on_copies(model, devices) if len(devices) > 1 else outputs_of(model, strategy)

    def forward(images: tf.Tensor) -> tf.Tensor:
        outputs = [output(view) for view in views_of(tf.cast(images, tf.float32), views)]
        return tf.add_n(outputs) / len(outputs)

    return forward


def outputs_of(model: keras.Model, strategy: tf.distribute.Strategy | None = None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `model` as a compiled function from float32 pixels; see `compiled` for the strategy."""
    if strategy is not None and num_devices(strategy) > 1:
        return _divided(model, strategy)

    @tf.function(autograph=False)
    def whole(pixels: tf.Tensor) -> tf.Tensor:
        return model(pixels, training=False)

    return whole


def num_devices(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of devices of this process that `strategy` computes on."""
    return len(strategy.extended.worker_devices)


def _divided(model: keras.Model, strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from pixels to the outputs of `model`, for which each device computes an equal part."""
    count = num_devices(strategy)

    @tf.function(autograph=False)
    def outputs(parts: Any) -> Any:
        return strategy.run(lambda pixels: model(pixels, training=False), args=(parts,))

    def output(pixels: tf.Tensor) -> tf.Tensor:
        parts = tf.split(pixels, count)
        there = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % count]
        )
        return tf.concat(strategy.experimental_local_results(outputs(there)), 0)

    return output


def _on_copies(model: keras.Model, devices: Sequence[str]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from pixels to the outputs of `model`, for which each device computes an equal part."""
    copies = DeviceCopies(model, devices)
    return lambda pixels: tf.concat(copies(tf.split(pixels, len(devices))), 0)


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
    for top, left in PLACES:
        box = tf.constant([[top, left, top + CROP, left + CROP]])  # in shares of the image's sides
        crop = tf.image.crop_and_resize(pixels, tf.repeat(box, tf.shape(first)[0], axis=0), first, size)
        crop.set_shape(pixels.shape)
        yield crop
        yield tf.reverse(crop, [2])


def export_saved_model(
    model_dir: Path,
    out_dir: Path,
    *,
    background: tuple[int, int, int] = (255, 255, 255),
    check: Callable[[Path], object] = lambda folder: None,
) -> RunInfo:
    """Writes the model of a finished run as a SavedModel, atomically, and returns the description of the run.

    It runs wherever TensorFlow does, also in TensorFlow Serving and by the C API. The first dimension of every input
    and output is the batch. These are its signatures:

    * `serving_default` takes `image`, uint8 `[n, height, width, channels]`. It returns `probabilities`, float32
      `[n, num_classes]`, and `label`, string `[n]`. If the model was trained to find copies, it returns `embedding`,
      float32 `[n, dim]` of L2 norm 1; if it was trained for numbers, `values`, float32 `[n, num_targets]`.
    * `jpeg` takes `image_bytes`, string `[n]`, the contents of JPEG files, see `simimg.models.image_bytes`, and returns
      the same.
    * `class_names` takes `index`, int64 `[n]`, and returns `class_names`, string `[n]`, those of the classes or of the
      targets; an index without one gets an empty name. `assets/class_names.txt` has the names, too, one per line.

    Args:
        model_dir: the run's folder.
        out_dir: the folder to write; a SavedModel there is replaced.
        background: RGB, beside an image of the signature `jpeg` if the run's images were padded.
        check: called with the complete folder before it gets its name. If it raises an error, nothing is written.

    Raises:
        ModelError: the folder has no finished run.
        UsageError: `out_dir` is a file, or has other files than a SavedModel in it.
    """
    grow_gpu_memory()
    model, info = load_trained(model_dir)
    check_folder(out_dir, SAVED_MODEL_FILES, "SavedModel")
    network = served_network(model, info.config.get("test_views", "one"))
    names = () if info.objective.score == "recall" else info.class_names

    def of_pixels(image: tf.Tensor) -> dict[str, tf.Tensor]:
        # With oneDNN, a convolution of an empty batch has the shape of its input, so an empty batch is computed as one
        # image (findings/tensorflow_convolves_empty_batch.sh).
        num_images = tf.shape(image)[0]
        padded = tf.pad(image, [[0, tf.cast(num_images == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        outputs = network(tf.cast(padded, tf.float32), training=False)[:num_images]
        if not names:
            return {"embedding": outputs}
        if info.objective.lower_is_better:
            return {"values": outputs}
        return {"probabilities": outputs, "label": tf.gather(tf.constant(names), tf.argmax(outputs, axis=1))}

    # Not tf.saved_model.save of a tf.Module with the model, which restores other variables than those that the
    # signatures read: TensorFlow's C API, and with it Serving, finds them uninitialized.
    archive = keras.export.ExportArchive()
    archive.track(network)
    pixels = tf.TensorSpec([None, *image_shape(info.image_size, info.channels)], tf.uint8, name="image")
    serve = archive.add_endpoint("serving_default", of_pixels, input_signature=[pixels])

    def of_files(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve(
            decoded_images(
                image_bytes,
                image_size=info.image_size,
                resize=info.resize,
                background=background,
                channels=info.channels,
            )
        )

    contents = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("jpeg", of_files, input_signature=[contents])
    with tempfile.TemporaryDirectory() as temporary:
        if names:
            table = _table(write_class_names(Path(temporary), names))
            archive.track(table)
            index = tf.TensorSpec([None], tf.int64, name="index")
            archive.add_endpoint(
                "class_names", lambda index: {"class_names": table.lookup(index)}, input_signature=[index]
            )
        with atomic_folder(out_dir) as folder:
            archive.write_out(str(folder), verbose=False)
            check(folder)
    return info


def check_folder(out_dir: Path, files: Sequence[str], kind: str) -> None:
    """Raises UsageError unless `out_dir` is new or empty, or has an export of the same kind and nothing else.

    `files` are the names that an export can have; each has the first one.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"--out_dir={out_dir} is a file. Name a new folder.")
    there = {path.name for path in out_dir.iterdir()} if out_dir.exists() else set()
    if there and files[0] not in there:
        raise UsageError(f"--out_dir={out_dir} is not empty and not a {kind}. Name a new folder.")
    if others := sorted(there - set(files)):
        raise UsageError(f"--out_dir={out_dir} has {others[0]} beside its {kind}. Move it, or name a new folder.")


def write_class_names(folder: Path, names: Sequence[str]) -> Path:
    """Writes the names of the classes, in order, one per line, and returns the file."""
    path = folder / CLASS_NAMES_FILE
    path.write_text("".join(re.sub(r"[\r\n]+", " ", name) + "\n" for name in names), encoding="utf-8")
    return path


def _table(path: Path) -> tf.lookup.StaticHashTable:
    """Returns a table from line numbers to the lines of a file, which becomes an asset of the SavedModel."""
    lines = tf.lookup.TextFileInitializer(
        str(path), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    return tf.lookup.StaticHashTable(lines, default_value="")
