"""The weights of another run as the start of a model, whatever either of them was trained for."""

from __future__ import annotations

from pathlib import Path

import keras

from simimg.errors import ModelError, UsageError
from simimg.models.heads import EMBEDDING, PROBABILITIES


def start_from(model: keras.Model, path: Path) -> None:
    """Give a model the weights of one that was trained before, all but those of the softmax.

    Between a classifier and a network for copies the weights of the embedding stay as well, if only one has any.

    Args:
        model: whose weights are set.
        path: the folder of a finished run, or a `.keras` file, of a model of the same kind.

    Raises:
        UsageError: nothing of the kind is there.
        ModelError: the model there is of another kind.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".keras":
        raise UsageError(f"--weights={path}: neither imagenet, none, the folder of a finished run, nor a .keras file.")
    other = keras.saving.load_model(file, compile=False)
    mine, theirs = (_layers(found) for found in (model, other))
    for some, others in ((mine, theirs), (theirs, mine)):
        if EMBEDDING not in others:
            some.pop(EMBEDDING, None)
    if list(mine) != list(theirs):
        odd = sorted(set(mine) ^ set(theirs))
        raise ModelError(f"{file} is of another kind of model ({other.name}): {', '.join(odd[:3]) or 'other layers'}.")
    for name, layer in mine.items():
        if [w.shape for w in layer.weights] != [w.shape for w in theirs[name].weights]:
            raise ModelError(f"{file}: the layer {name!r} has other shapes there than in this model.")
        layer.set_weights(theirs[name].get_weights())


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    return {layer.name: layer for layer in model.layers if layer.weights and layer.name != PROBABILITIES}
