"""The network and the optimizer that a configuration names."""

from __future__ import annotations

from typing import Any

import keras

from simimg import models
from simimg.training.config import TrainConfig

__all__ = ["build_model", "build_optimizer"]

_WARM_UP = 0.05  # of the steps, under the cosine schedule


def build_model(config: TrainConfig, image_size: int, num_classes: int) -> keras.Model:
    """Returns the untrained network that `config` names."""
    if config.model == "tutorial":
        return models.tutorial(image_size, num_classes)
    if config.model == "small":
        return models.small(image_size, num_classes)
    weights = None if config.weights == "none" else config.weights
    resolution = max(config.resolution, image_size) if config.resolution else None
    return models.lite0(image_size, num_classes, weights=weights, resolution=resolution)


def build_optimizer(config: TrainConfig, num_steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that `config` names, its schedule laid over `num_steps`."""
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        warm_up = min(round(_WARM_UP * num_steps), num_steps - 1)
        if warm_up:
            rate = keras.optimizers.schedules.CosineDecay(
                0.0, num_steps - warm_up, warmup_target=config.learning_rate, warmup_steps=warm_up
            )
        else:
            rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, num_steps)
    if config.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(rate, weight_decay=config.weight_decay)
    elif config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    # Biases, and the scales and offsets of normalisations, are not pulled to 0 (He et al., "Bag of Tricks", 2019).
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
