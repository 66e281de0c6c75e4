"""Stochastic depth for any residual network; it adds no weights.

In training, an example skips the residual branch of block l of L with the probability rate * l / L, and the branch is
divided by the probability that it stays (Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, equation 4;
they multiply by it in inference instead). Inference is that of the network without it.
"""

from __future__ import annotations

from typing import Any

import keras

from simimg.errors import UsageError
from simimg.models.dropout import ExampleDropout

_FIRST_STREAM = 1000
"""Stream of the first block's `ExampleDropout`; the other layers of a network have streams below."""


def with_stochastic_depth(network: keras.Model, rate: float) -> keras.Model:
    """Returns a copy of a functional network with the same weights whose residual branches are dropped by example.

    A block ends with a sum of two maps. The branch is the one with more layers between it and the input. A `Dropout` of
    whole examples that it ends with, such as EfficientNet's, gets the rate of the block instead of its own.

    Args:
        network: the network, whose blocks are not in an inner one.
        rate: that of the last block, 0 <= rate < 1.

    Raises:
        UsageError: the network has no residual blocks.
    """
    makers: dict[int, tuple[int, Any, Any]] = {}  # by a map's id: layers from the input, the last one, and the map
    drops: list[Any] = []

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        depths = [makers[id(tensor)][0] if id(tensor) in makers else 0 for tensor in keras.tree.flatten(args)]
        is_sum = type(layer).__name__ == "Add" and len(depths) == 2  # a layer, or the operation +
        if is_sum and all(depths) and depths[0] != depths[1]:
            maps = keras.tree.flatten(args)
            branch = depths.index(max(depths))
            maps[branch] = dropped(maps[branch])
            args = keras.tree.pack_sequence_as(args, maps)
        output = layer(*args, **kwargs)
        for tensor in keras.tree.flatten(output):
            makers[id(tensor)] = max(depths, default=0) + 1, layer, tensor
        return output

    def dropped(branch: Any) -> Any:
        _, maker, _ = makers[id(branch)]
        number = len(drops) + 1
        if isinstance(maker, keras.layers.Dropout) and maker.noise_shape:
            drops.append(maker)
            return branch
        whole = (None, *[1] * (len(branch.shape) - 1))
        drop = ExampleDropout(rate, stream=_FIRST_STREAM + number, noise_shape=whole, name=f"depth_drop{number}")
        drops.append(drop)
        return drop(branch)

    copy = keras.models.clone_model(
        network, clone_function=lambda layer: type(layer).from_config(layer.get_config()), call_function=called
    )
    if not drops:
        raise UsageError(f"--stochastic_depth={rate:g}: {network.name} has no residual blocks. Leave it out.")
    for number, drop in enumerate(drops, start=1):
        drop.rate = rate * number / len(drops)
    for layer in network.layers:
        if layer.weights and not isinstance(layer, keras.layers.Dropout):  # whose only variable is a seed
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy
