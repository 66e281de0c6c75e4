"""Exports a trained model as a SavedModel that runs without simimg: pixels in, class names or embeddings out."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.inference import compiled
from simimg.models.model_folder import RunInfo, load_trained
from tfrecords.format.atomic_files import atomic_folder

__all__ = ["export_saved_model"]


def export_saved_model(model_dir: Path, out_dir: Path) -> RunInfo:
    """Writes the model of a finished run as a SavedModel, atomically, and returns the description of the run.

    The signature `serving_default` takes `image`, uint8 `[n, image_size, image_size, 3]`. It returns `probabilities`,
    float32 `[n, num_classes]`, `label`, string `[n]`, and `class_names`, string `[num_classes]`. If the model was
    trained to find copies, it returns `embedding`, float32 `[n, dim]` of L2 norm 1.

    Raises:
        ModelError: the folder has no finished run.
        UsageError: `out_dir` has other files in it.
    """
    model, info = load_trained(model_dir)
    if out_dir.exists() and any(out_dir.iterdir()) and not (out_dir / "saved_model.pb").exists():
        raise UsageError(f"--out_dir={out_dir} is not empty and not a SavedModel. Name a new folder.")
    module = tf.Module()
    module.model = model  # so that its weights are saved
    forward = compiled(model, views=info.config["test_views"])
    image = tf.TensorSpec([None, info.image_size, info.image_size, 3], tf.uint8, name="image")

    @tf.function(input_signature=[image])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if info.objective.score == "recall":
            return {"embedding": forward(image)}
        probabilities = forward(image)
        names = tf.constant(info.class_names)
        label = tf.gather(names, tf.argmax(probabilities, axis=1))
        return {"probabilities": probabilities, "label": label, "class_names": names}

    with atomic_folder(out_dir) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return info
