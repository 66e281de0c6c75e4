"""A model that starts from another run's weights."""

from pathlib import Path

import keras
import numpy as np
import pytest

from simimg.errors import ModelError, UsageError
from simimg.models.backbones import small, tutorial
from simimg.models.pretrained import start_from


def test_all_but_the_softmax(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    trained = tutorial(16, 7)
    trained.save(tmp_path / "model.keras")
    for path in (tmp_path, tmp_path / "model.keras"):
        model = tutorial(16, 3)
        head = model.get_layer("probabilities").get_weights()
        start_from(model, path)
        for layer in model.layers[:-1]:
            for mine, theirs in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(model.get_layer("probabilities").kernel, head[0])


def test_what_cannot_be_a_start(tmp_path: Path) -> None:
    model = tutorial(16, 3)
    with pytest.raises(UsageError, match="--weights=.*nothing: neither imagenet, none, the folder"):
        start_from(model, tmp_path / "nothing")
    tutorial(24, 3).save(tmp_path / "larger.keras")
    with pytest.raises(ModelError, match="the layer 'embedding' has other shapes there"):
        start_from(model, tmp_path / "larger.keras")
    small(32, 3).save(tmp_path / "small.keras")
    with pytest.raises(ModelError, match=r"has a model of another architecture \(small\)"):
        start_from(model, tmp_path / "small.keras")
