"""Builds the network and the optimizer that a configuration names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simimg.models.backbones import LITES, NETWORKS, lite
from simimg.models.heads import accept_sizes, copy_model, enlarged_to, fix_backbone, independent, numbers, output_model
from simimg.models.keras_applications import APPLICATIONS, application
from simimg.models.pretrained import start_from
from simimg.models.stochastic_depth import with_stochastic_depth
from simimg.training import optimizers
from simimg.training.checkpoints import State
from simimg.training.contrastive_loss import EmbeddingQueue
from simimg.training.train_config import TrainConfig
from tfrecords.format.image_size import ImageSize

_WARM_UP = 0.05  # of the steps, under the cosine schedule


Spread = tuple[Sequence[float], Sequence[float]]
"""The mean and the standard deviation of each target of a regression."""


def build_model(
    config: TrainConfig, image_size: ImageSize, num_classes: int, spread: Spread | None = None, channels: int = 3
) -> keras.Model:
    """Returns the network that `config` names, with its initial weights, for images with 3 `channels` or 1.

    `num_classes` is the number of targets under regression, and `spread` is theirs, by default 0 and 1.

    Raises:
        UsageError: the network cannot take images of this size, or the weights do not exist.
        ModelError: the weights cannot be loaded, or are those of another network.
    """
    num_outputs, gray = num_classes, {} if channels == 3 else {"channels": channels}
    if config.objective != "classes":
        num_classes = 2  # for a softmax that is then removed
    resolution = enlarged_to(image_size, config.resolution) if config.resolution else None
    start: str | None = None if config.start == "none" else config.start
    path = Path(start) if start not in (None, "imagenet") else None
    with _precision(config.precision):
        if config.model in APPLICATIONS:
            from_file = path is not None and path.suffix == ".h5"
            weights = start if from_file or start == "imagenet" else None
            model = application(
                config.model,
                image_size,
                num_classes,
                weights=weights,
                resolution=resolution,
                fixed=start is not None,
                stochastic_depth=config.stochastic_depth,
                **gray,
            )
            path = None if from_file else path
        elif config.model in LITES:
            # The weights of a fine-tuned run have fixed statistics, as ImageNet's weights do.
            weights = None if start is None else "imagenet"
            model = lite(config.model, image_size, num_classes, weights=weights, resolution=resolution, **gray)
        else:
            model = NETWORKS[config.model](image_size, num_classes, **gray)
        if config.stochastic_depth and config.model not in APPLICATIONS:
            model = with_stochastic_depth(model, config.stochastic_depth)
        if config.objective == "similarity":
            model = copy_model(model, config.embedding_dim)
        elif config.objective == "multilabel":
            model = output_model(model, independent(num_outputs))
        elif config.objective == "regression":
            model = output_model(model, numbers(*(spread or ([0.0] * num_outputs, [1.0] * num_outputs))))
        if path is not None:
            start_from(model, path)
        if not config.train_backbone:
            fix_backbone(model)
    return model


def build_state(
    config: TrainConfig,
    image_size: ImageSize,
    num_classes: int,
    num_steps: int,
    spread: Spread | None = None,
    channels: int = 3,
) -> State:
    """Returns a run's initial variables, which are a function of the seed; arguments and errors as in `build_model`.

    Call it in the scope of the strategy that trains.
    """
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, image_size, num_classes, spread, channels)
    average = build_model(config, image_size, num_classes, spread, channels) if config.ema else None
    if config.train_sizes:
        accept_sizes(model, config.train_sizes, f"--train_size={config.train_size}")
    optimizer = build_optimizer(config, num_steps)
    optimizer.build(model.trainable_variables)
    compares = config.objective == "similarity" and config.queue_size
    past = EmbeddingQueue.empty(config.queue_size, config.embedding_dim) if compares else None
    state = State(model, optimizer, average, past)
    state.copy_to_average()
    return state


def build_optimizer(config: TrainConfig, num_steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that `config` names, with its schedule for `num_steps`.

    Under float16 the optimizer scales the loss, so that small gradients are not rounded to 0 (Micikevicius et al.,
    "Mixed Precision Training", ICLR 2018, section 3.2). Its `apply` takes gradients that are summed over the replicas.
    """
    peak = config.learning_rate
    rate: Any = WarmUpCosine(peak, num_steps) if config.schedule == "cosine" else peak
    if config.optimizer == "rmsprop":
        optimizer: keras.optimizers.Optimizer = optimizers.RMSprop(rate, weight_decay=config.weight_decay)
    elif config.optimizer == "sgd":
        optimizer = optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    elif config.optimizer == "lamb":
        optimizer = optimizers.LAMB(rate, weight_decay=config.weight_decay)
    else:
        optimizer = optimizers.AdamW(rate, weight_decay=config.weight_decay)
    # Biases, and the scales and offsets of normalizations, have no weight decay (He et al., "Bag of Tricks", 2019).
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if config.precision == "float16" else optimizer


class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to the peak over 5 % of the steps, then half a cosine down to nearly 0 at the last step.

    The rise starts above 0, so that the first step is not wasted. Keras's CosineDecay with an initial rate of
    peak / (warm-up + 1) is the same schedule, but a quarter of its values differ in the last bit, which would change
    the results of runs. `num_steps` are those of the whole training.
    """

    def __init__(self, peak: float, num_steps: int) -> None:
        self.peak = peak
        self.num_steps = num_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate of a step, counted from 0, as a float32 scalar."""
        warm_up = min(round(_WARM_UP * self.num_steps), self.num_steps - 1)
        step = tf.cast(step, tf.float32)
        rise = (step + 1) / (warm_up + 1)
        fall = 0.5 * (1 + tf.cos(math.pi * (step - warm_up) / (self.num_steps - warm_up)))
        return self.peak * tf.where(step < warm_up, rise, fall)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"peak": self.peak, "num_steps": self.num_steps}


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Makes layers that are built in the block compute in `name`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
