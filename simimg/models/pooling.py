"""Pooling of feature maps for search: the generalised mean, between the average and the maximum."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["GeneralizedMeanPooling2D"]

_LEAST = 1e-6  # the cube root has no slope at zero


@keras.saving.register_keras_serializable(package="simimg")
class GeneralizedMeanPooling2D(keras.layers.Layer):
    """`mean(x ** p) ** (1 / p)` over width and height (Radenović et al., "Fine-tuning CNN Image Retrieval", PAMI 2019).

    p = 1 is the average, a large p nearly the maximum; 3 is what they learn and what copy detectors use: what is small
    in the picture counts, as it has to when the other picture is a crop. Input float `[batch, h, w, channels]`,
    negative values taken as zero; output `[batch, channels]`, float32 under mixed precision too.

    Args:
        power: p.
        **kwargs: what every Keras layer takes.
    """

    def __init__(self, power: float = 3.0, **kwargs: Any) -> None:
        """Keep the power."""
        super().__init__(**{"dtype": "float32", **kwargs})
        self.power = power

    def call(self, inputs: Any) -> Any:
        """Pool."""
        raised = keras.ops.maximum(inputs, _LEAST) ** self.power
        return keras.ops.mean(raised, axis=(1, 2)) ** (1 / self.power)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for `.keras` files."""
        return {**super().get_config(), "power": self.power}
