"""A convolution and the batch normalization after it, with fixed statistics, computed as one convolution."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="simimg")
class FrozenNormConv2D(keras.layers.Layer):
    """Convolution without bias, then batch normalization with given statistics, for fine-tuning.

    The statistics stay fixed, in training too. They were estimated on 1.28 million photographs, and the few small
    batches of a fine-tuning run would only make them worse. Keras's guide "Transfer learning & fine-tuning" also runs
    the layer in inference mode while its base model is trained. The kernel, gamma and beta are trained. With fixed
    statistics, gamma and beta are an affine map, and scaling channels is a cheap way to fit a new domain (Frankle et
    al., "Training BatchNorm and Only BatchNorm", ICLR 2021). Replicas have no statistics to exchange.

    A normalization with fixed statistics is linear, so it is folded into the kernel in the forward pass (Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
    3.2):

        scale = gamma / sqrt(moving_variance + epsilon)
        y = conv(x, kernel * scale) + (beta - moving_mean * scale)

    The parameters and their gradients are those of the two layers, but no map is stored between them, and TensorFlow
    fuses the bias with the activation that follows. Folding runs in float32 under mixed precision.

    Input [batch, h, w, channels], output [batch, ceil(h / strides), ceil(w / strides), filters], compute dtype. The
    default padding is TensorFlow's "SAME". It differs from an explicit padding if a stride skips pixels.

    Args:
        filters: output channels; None for a depthwise convolution, which keeps the number of channels.
        kernel_size: width and height of the kernel.
        strides: stride in both directions.
        epsilon: added to the variance.
        padding: zeros on each of the four sides, as in PyTorch.
        groups: parts of the channels that are convolved separately (ResNeXt); not for a depthwise convolution.
    """

    def __init__(
        self,
        filters: int | None,
        kernel_size: int,
        *,
        strides: int = 1,
        epsilon: float = 1e-3,
        padding: int | None = None,
        groups: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.epsilon = epsilon
        self.padding = padding
        self.groups = groups

    def build(self, input_shape: Any) -> None:
        """Creates the kernel, [k, k, in / groups, out] or depthwise [k, k, in, 1], and four vectors [out]."""
        channels = int(input_shape[-1])
        num_out, width = (channels, 1) if self.filters is None else (self.filters, self.filters)
        shape = (self.kernel_size, self.kernel_size, channels // self.groups, width)
        # autocast=False, because folding in bfloat16 would round the weights before they are multiplied.
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="he_normal", autocast=False)
        self.gamma = self._vector("gamma", num_out, "ones")
        self.beta = self._vector("beta", num_out, "zeros")
        self.moving_mean = self._vector("moving_mean", num_out, "zeros", trainable=False)
        self.moving_variance = self._vector("moving_variance", num_out, "ones", trainable=False)

    def call(self, inputs: Any) -> Any:
        """Convolves and normalizes; the same in training and in inference."""
        kernel = tf.convert_to_tensor(self.kernel)
        scale = tf.convert_to_tensor(self.gamma) * tf.math.rsqrt(self.moving_variance + self.epsilon)
        offset = tf.cast(self.beta - self.moving_mean * scale, self.compute_dtype)
        sides = [self.padding, self.padding]
        padding = "SAME" if self.padding is None else [[0, 0], sides, sides, [0, 0]]
        if self.filters is None:
            kernel = tf.cast(kernel * scale[:, tf.newaxis], self.compute_dtype)
            strides = [1, self.strides, self.strides, 1]
            return tf.nn.bias_add(tf.nn.depthwise_conv2d(inputs, kernel, strides, padding), offset)
        kernel = tf.cast(kernel * scale, self.compute_dtype)
        return tf.nn.bias_add(tf.nn.conv2d(inputs, kernel, self.strides, padding), offset)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, for `.keras` files."""
        names = ("filters", "kernel_size", "strides", "epsilon", "padding", "groups")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _vector(self, name: str, size: int, initializer: str, *, trainable: bool = True) -> Any:
        return self.add_weight(name=name, shape=(size,), initializer=initializer, trainable=trainable, autocast=False)
