"""Knowledge distillation: a network learns the outputs of a finished run, its teacher, for the same pixels.

The teacher sees what the student sees, augmented and mixed, in inference mode. By default nothing else is learned: the
labels have no weight, and the temperature is 1, as in the distillation of ImageNet by Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent", CVPR 2022 (big_vision, configs/proj/distill/bit_i1k.py).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.model_folder import MODEL_FILE, check_trained, finished_file, load_run, load_trained
from simimg.training.train_config import TrainConfig
from tfrecords.format.image_size import ImageSize, image_shape

_SMALLEST = 1e-30  # probability; far above the smallest float32, so that gradients of the logarithm are finite


def check_teacher(config: TrainConfig, image_size: ImageSize, channels: int, class_names: tuple[str, ...]) -> None:
    """Checks that the teacher that `config` names, if it does, can teach on images of a split.

    Raises:
        UsageError: it has other classes or smaller images, or the options have no use for it.
        ModelError: the folder has no finished run.
    """
    for name in ("teacher_weight", "teacher_temperature"):
        if getattr(config, name) != 1 and not config.teacher:
            raise UsageError(f"--{name}={getattr(config, name):g} is for distillation. Add --teacher, or leave it out.")
    if not config.teacher:
        return
    given = f"--teacher={config.teacher}"
    if config.objective != "classes" or not config.epochs:
        what = f"--objective={config.objective}" if config.epochs else "--epochs=0"
        raise UsageError(f"{given} is for classifiers that are trained for an epoch or more, not {what}. Leave it out.")
    check_trained(config.teacher)
    finished_file(config.teacher, MODEL_FILE)
    info = load_run(config.teacher)
    if info.objective.score != "accuracy" or info.class_names != class_names:
        theirs, mine = (
            f"{len(names)} classes ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            for names in (info.class_names, class_names)
        )
        raise UsageError(
            f"{given} learned {theirs}, and the dataset has {mine}. Name a classifier of the same classes in the same "
            "order."
        )
    sizes = [image_shape(size) for size in (config.train_sizes or (image_size,))]
    height, width, depth = image_shape(info.image_size, info.channels)
    if depth != channels or any(h > height or w > width or h * width != w * height for h, w, _ in sizes):
        raise UsageError(
            f"{given} takes images of {width} x {height} px with {depth} channels, and those of this training have "
            f"{sizes[-1][1]} x {sizes[-1][0]} px with {channels}. They can be enlarged for the teacher, but neither "
            "reduced nor stretched. Train a teacher on larger images, or choose a smaller --image_size or --train_size."
        )


def teacher_of(config: TrainConfig, strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Returns the teacher as a function from a replica's pixels to probabilities; None if there is none.

    It was checked by `check_teacher`. The pixels are float32 `[batch, height, width, channels]`, 0..255, and are
    enlarged bilinearly to the teacher's size. The result is float32 `[batch, num_classes]`. The teacher's weights are
    on each device of the strategy.

    Raises:
        ModelError: the teacher cannot be loaded.
    """
    if not config.teacher:
        return None
    with strategy.scope():
        model, info = load_trained(config.teacher)
    model.trainable = False
    sides = image_shape(info.image_size)[:2]

    def probabilities(images: tf.Tensor) -> tf.Tensor:
        if tuple(images.shape[1:3]) != sides:
            images = tf.image.resize(images, sides)
        return model(images, training=False)

    return probabilities


def distillation_losses(taught: tf.Tensor, learned: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns each example's loss, float32 `[batch]`: T^2 times the divergence KL(teacher | student).

    Both are softmax(logits / T), computed from probabilities, float32 `[batch, num_classes]`, whose logarithms are the
    logits up to a constant. The factor T^2 keeps the size of the gradients (Hinton et al., "Distilling the Knowledge in
    a Neural Network", 2015, section 2). At T = 1 the gradient is that of the cross-entropy with the teacher's outputs.
    """
    own, other = (
        tf.nn.log_softmax(tf.math.log(tf.maximum(probabilities, _SMALLEST)) / temperature)
        for probabilities in (taught, learned)
    )
    return temperature**2 * tf.reduce_sum(tf.exp(own) * (own - other), axis=1)
