"""Stochastic depth for any residual network; it adds no weights.

In training, an example skips the residual branch of block l of L with the probability rate * l / L, and the branch is
divided by the probability that it stays (Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, equation 4;
they multiply by it in inference instead). Inference is that of the network without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from simimg.errors import UsageError
from simimg.models.dropout import ExampleDropout

_FIRST_STREAM = 1000
"""Stream of the first block's `ExampleDropout`; the other layers of a network have streams below."""

_PROJECTIONS = (
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
)
"""The layers of a shortcut that changes the shape of a map."""


class _Made(NamedTuple):
    """How a map was made: by which layer, out of which maps, and which map it is a projection of, by their ids."""

    depth: int  # layers between the input and this map
    layer: Any
    tensor: Any  # kept, or another one could get its id
    ancestors: frozenset[int]
    source: int


def with_stochastic_depth(network: keras.Model, rate: float) -> keras.Model:
    """Returns a copy of a functional network with the same weights whose residual branches are dropped by example.

    A block ends with a sum of two maps: a branch, and a shortcut, which is a map that the branch was made of, or a
    projection of one. Sums of siblings, as in NASNet's cells, are no blocks. A `Dropout` of whole
    examples that it ends with, such as EfficientNet's, gets the rate of the block instead of its own.

    Args:
        network: the network, whose blocks are not in an inner one.
        rate: that of the last block, 0 <= rate < 1.

    Raises:
        UsageError: the network has no residual blocks that can be told.
    """
    makers: dict[int, _Made] = {}  # by a map's id
    drops: list[Any] = []

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        maps = keras.tree.flatten(args)
        made = [makers[id(tensor)] for tensor in maps if id(tensor) in makers]
        if type(layer).__name__ == "Add" and len(made) == len(maps) == 2:  # a layer, or the operation +
            shortcut, branch = sorted(made, key=lambda one: one.depth)
            if shortcut.source in branch.ancestors and shortcut.depth < branch.depth:
                maps = [dropped(branch) if tensor is branch.tensor else tensor for tensor in maps]
                args = keras.tree.pack_sequence_as(args, maps)
        output = layer(*args, **kwargs)
        depth = max((one.depth for one in made), default=0) + 1
        ancestors = frozenset(id(one.tensor) for one in made).union(*(one.ancestors for one in made))
        is_projection = len(made) == 1 and isinstance(layer, _PROJECTIONS)
        for tensor in keras.tree.flatten(output):
            source = made[0].source if is_projection else id(tensor)
            makers[id(tensor)] = _Made(depth, layer, tensor, ancestors, source)
        return output

    def dropped(branch: _Made) -> Any:
        number = len(drops) + 1
        if isinstance(branch.layer, keras.layers.Dropout) and branch.layer.noise_shape:
            drops.append(branch.layer)
            return branch.tensor
        whole = (None, *[1] * (len(branch.tensor.shape) - 1))
        drop = ExampleDropout(rate, stream=_FIRST_STREAM + number, noise_shape=whole, name=f"depth_drop{number}")
        drops.append(drop)
        return drop(branch.tensor)

    copy = keras.models.clone_model(
        network, clone_function=lambda layer: type(layer).from_config(layer.get_config()), call_function=called
    )
    if not drops:
        raise UsageError(
            f"--stochastic_depth={rate:g}: {network.name} has no sums of a shortcut and a branch that can be told. "
            "Leave it out."
        )
    for number, drop in enumerate(drops, start=1):
        drop.rate = rate * number / len(drops)
    for layer in network.layers:
        if layer.weights and not isinstance(layer, keras.layers.Dropout):  # whose only variable is a seed
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy
