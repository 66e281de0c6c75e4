"""A run on two replicas is the run on one: the same examples, the same augmented pixels, the same losses."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import AugmentConfig, augment
from simimg.input import Order, open_reader
from simimg.training import StepInfo, TrainConfig, Watcher, distribute, make_strategy, train

pytestmark = pytest.mark.own_process

AUGMENTS_BY_XLA = True
AUGMENTATION = AugmentConfig(rotation_degrees=20, horizontal_flip=True, crop_min_area=0.5, colour_jitter=0.3)


@functools.cache
def batches(dataset_dir: Path, num_devices: int, **options: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids `[steps, 12]` and augmented pixels `[steps, 12, 32, 32, 3]` of two epochs, replica after replica."""
    strategy = make_strategy(num_devices)
    with strategy.scope():
        reader, _ = open_reader(dataset_dir, "train", **options)
    order = Order(
        num_examples=54, global_batch_size=12, num_epochs=2, seed=3, num_replicas=strategy.num_replicas_in_sync
    )

    def replica(element, epoch):
        batch = reader.batch(element)
        return batch.id, augment(AUGMENTATION, 3, epoch, batch.id, batch.image)

    @tf.function
    def augmented(element, epoch):
        return strategy.run(replica, args=(element, epoch))

    ids, pixels = [], []
    for step, batch in enumerate(distribute(strategy, reader, order)):
        parts = augmented(batch, tf.constant(step // order.steps_per_epoch, tf.int64))
        ids.append(np.concatenate([part.numpy() for part in strategy.experimental_local_results(parts[0])]))
        pixels.append(np.concatenate([part.numpy() for part in strategy.experimental_local_results(parts[1])]))
    return np.stack(ids), np.stack(pixels)


@pytest.mark.parametrize("options", [{}, {"kind": "mapped"}, {"cache": "device"}], ids=str)
def test_the_same_batches(datasets: dict[str, Path], options: dict[str, str]) -> None:
    one_ids, one_pixels = batches(datasets["raw"], 1)
    two_ids, two_pixels = batches(datasets["raw"], 2, **options)
    assert one_ids.shape == (8, 12)
    np.testing.assert_array_equal(one_ids, two_ids)
    np.testing.assert_array_equal(one_pixels, two_pixels)
    reader, _ = open_reader(datasets["raw"], "train")
    assert len(np.unique(one_pixels.reshape(96, -1), axis=0)) > 90, "the pictures are not augmented one by one"
    assert set(one_ids.ravel().tolist()) <= set(reader.gather(tf.range(54, dtype=tf.int64)).id.numpy().tolist())


@pytest.mark.parametrize("preset", ["tutorial", "small"])
def test_the_same_losses_step_by_step(datasets: dict[str, Path], tmp_path: Path, preset: str) -> None:
    """Over the first steps, before the rounding of sums, which differs, has been amplified by the training."""
    losses = {}
    for num_devices in (1, 2):
        seen: list[float] = []
        config = TrainConfig.with_preset(
            {
                "dataset_dir": datasets["raw"],
                "model_dir": tmp_path / f"{preset}{num_devices}",
                "preset": preset,
                "epochs": 3,
                "global_batch_size": 54,  # a step an epoch, so that each step is reported
                "optimizer": "sgd",
                "learning_rate": 0.01,
                "rotation_degrees": 20.0,
                "test_views": "mirrored",
                "num_devices": num_devices,
            }
        )
        result = train(config, Watcher(step=lambda info, seen=seen: seen.append(info.loss)))
        assert len(seen) == 3
        losses[num_devices] = [*seen, *(line["test_loss"] for line in result.history)]
    np.testing.assert_allclose(losses[1], losses[2], atol=1e-5)
    assert len(set(np.round(losses[1][:3], 6))) == 3, "the loss does not move"


def test_more_devices_than_there_are() -> None:
    from simimg.errors import UsageError

    with pytest.raises(UsageError, match="TensorFlow has started in this process with 2 CPU device"):
        make_strategy(5)


def test_step_info_is_complete() -> None:
    assert [field.name for field in dataclasses.fields(StepInfo)][:2] == ["step", "num_steps"]
