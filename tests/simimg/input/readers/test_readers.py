"""Three readers, one face: the same examples, once each, from any position, for any division among replicas."""

import dataclasses
import io
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.errors import DataError, UsageError
from simimg.input import (
    Order,
    Position,
    choose_shuffle,
    eval_batches,
    mixing_of,
    open_reader,
    open_split,
    train_batches,
)
from simimg.input.permutation import Mixing
from simimg.input.pipeline import choose_reader
from simimg.input.split import reading
from tfrecords.format.absent_shards import supply_of
from tfrecords.format.example import decode_example
from tfrecords.format.shard import ShardReader
from tfrecords.storage.remote_dataset import local_dataset

READERS = [
    ("raw", "resident"),
    ("raw", "mapped"),
    ("raw", "stream"),
    ("jpeg", "resident"),
    ("jpeg", "mapped"),
    ("jpeg", "stream"),
    ("png", "resident"),
    ("png", "mapped"),
    ("png", "stream"),
]


def collect(dataset) -> list[tuple[np.ndarray, ...]]:
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def evaluated(dataset_dir: Path, kind: str, batch_size: int = 7) -> list[np.ndarray]:
    reader, _ = open_reader(dataset_dir, "train", kind)
    return [np.concatenate(column) for column in zip(*collect(eval_batches(reader, batch_size)), strict=True)]


def order(**changes) -> Order:
    return Order(**{"num_examples": 54, "global_batch_size": 8, "num_epochs": 3, "seed": 1, **changes})


@pytest.mark.parametrize("kind", ["resident", "mapped", "stream"])
def test_raw_examples_equal_the_records(datasets: dict[str, Path], kind: str) -> None:
    images, labels, ids = evaluated(datasets["raw"], kind)
    examples = [
        decode_example(payload)
        for path in sorted(datasets["raw"].glob("raw-train.tfrecord*"))
        for payload in ShardReader(path)
    ]
    assert ids[: len(examples)].tolist() == [example["id"] for example in examples]
    assert labels[: len(examples)].tolist() == [example["label"] for example in examples]
    for image, example in zip(images, examples, strict=False):
        assert image.tobytes() == example["image"]


@pytest.mark.parametrize(("encoding", "kind"), READERS)
@pytest.mark.parametrize("batch_size", [1, 9, 54, 60])
def test_evaluation_sees_every_example_once(
    datasets: dict[str, Path], encoding: str, kind: str, batch_size: int
) -> None:
    images, labels, ids = evaluated(datasets[encoding], kind, batch_size)
    real = ids >= 0
    assert sorted(ids[real].tolist()) == sorted(set(ids[real].tolist()))
    assert real.sum() == 54
    assert len(ids) == -(-54 // batch_size) * batch_size
    assert (images.dtype, labels.dtype, ids.dtype) == (np.uint8, np.int32, np.int64)
    resident = evaluated(datasets[encoding], "resident", batch_size)
    for mine, theirs in zip((images, labels, ids), resident, strict=True):
        np.testing.assert_array_equal(mine[real], theirs[real])


def test_png_and_raw_hold_the_same_pixels(datasets: dict[str, Path]) -> None:
    by_id = [
        dict(zip(ids.tolist(), images, strict=True))
        for images, _, ids in (evaluated(datasets[encoding], "stream", 54) for encoding in ("raw", "png"))
    ]
    assert by_id[0].keys() == by_id[1].keys()
    for id, image in by_id[0].items():
        np.testing.assert_array_equal(image, by_id[1][id])


def test_jpeg_is_decoded_as_accurately_as_pillow_does(datasets: dict[str, Path]) -> None:
    examples = [
        decode_example(payload)
        for path in sorted(datasets["jpeg"].glob("jpeg-train.tfrecord*-of-*1"))
        for payload in ShardReader(path)
    ]
    expected = np.array([np.asarray(Image.open(io.BytesIO(example["image"]))) for example in examples])
    for kind in ("resident", "mapped", "stream"):
        images, _, ids = evaluated(datasets["jpeg"], kind, 54)
        assert ids.tolist() == [example["id"] for example in examples]
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("mixing", [None, Mixing(block=4, blocks_per_window=3)])
def test_resident_and_mapped_train_on_the_same_batches(
    datasets: dict[str, Path], encoding: str, mixing: Mixing | None
) -> None:
    resident, mapped = (
        collect(train_batches(open_reader(datasets[encoding], "train", kind)[0], order(mixing=mixing)))
        for kind in ("resident", "mapped")
    )
    assert len(resident) == 18
    for mine, theirs in zip(resident, mapped, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("encoding", "kind"), READERS)
def test_training_order(datasets: dict[str, Path], encoding: str, kind: str) -> None:
    reader, _ = open_reader(datasets[encoding], "train", kind)
    whole = collect(train_batches(reader, order()))
    ids = np.array([batch[2] for batch in whole]).reshape(3, 48)
    assert all(len(set(epoch.tolist())) == 48 for epoch in ids)
    assert len({epoch.tobytes() for epoch in ids}) == 3

    resumed = collect(train_batches(reader, order(start=Position(1, 4))))
    assert len(resumed) == 8
    for mine, theirs in zip(resumed, whole[10:], strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)

    for first in (0, 2):
        local = collect(train_batches(reader, order(num_replicas=4, first_replica=first, num_local_replicas=2)))
        mine = np.array([batch[2] for batch in local]).reshape(18, 4)
        np.testing.assert_array_equal(mine, ids.reshape(18, 4, 2)[:, first : first + 2].reshape(18, 4))


def test_stream_with_several_epochs_in_one_position(datasets: dict[str, Path]) -> None:
    reader, _ = open_reader(datasets["raw"], "train", "stream")
    assert collect(train_batches(reader, order(start=Position(3, 0)))) == []


def test_two_iterations_over_streamed_shards(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has shards of its own, which end with it: one must not close what the other one opens."""
    fsspec.filesystem("memory").put(str(datasets["raw"]), "/streamed/raw", recursive=True)
    num_bytes = sum(path.stat().st_size for path in datasets["raw"].rglob("*") if path.is_file())
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SIMIMG_CACHE_BYTES", str(num_bytes - 1))
    folder = local_dataset("memory://streamed/raw", "train", streamed=True)
    supply: Any = supply_of(folder)
    lease, leases = supply.lease, weakref.WeakSet()

    def noted() -> Any:
        leases.add(made := lease())
        return made

    monkeypatch.setattr(supply, "lease", noted)
    batches = eval_batches(open_reader(folder, "train", "stream")[0], 1)
    both = [iter(batches), iter(batches)]
    first = [next(one).id.numpy() for one in both]
    assert first[0] == first[1]
    assert len(leases) == 2
    assert [batch.id.numpy() for batch in both[0]] == [batch.id.numpy() for batch in both[1]]
    del both
    assert not leases


@pytest.mark.parametrize("with_id", [True, False])
def test_a_folder_that_only_has_tfds_metadata(datasets: dict[str, Path], tmp_path: Path, with_id: bool) -> None:
    foreign = tmp_path / "png" / "1.0.0"
    shutil.copytree(datasets["png"], foreign)
    (foreign / "layout.json").unlink()
    if not with_id:
        features = json.loads((foreign / "features.json").read_text())
        del features["featuresDict"]["features"]["id"]
        (foreign / "features.json").write_text(json.dumps(features))
    images, labels, ids = evaluated(foreign, "stream", 54)
    own_images, own_labels, own_ids = evaluated(datasets["png"], "stream", 54)
    np.testing.assert_array_equal(images, own_images)
    np.testing.assert_array_equal(labels, own_labels)
    assert ids.tolist() == (own_ids.tolist() if with_id else list(range(54)))
    assert open_split(foreign, "test").class_names == ("boxes", "discs", "stripes")


def test_a_foreign_folder_of_another_form_is_refused(datasets: dict[str, Path], tmp_path: Path) -> None:
    foreign = tmp_path / "1.0.0"
    shutil.copytree(datasets["png"], foreign)
    (foreign / "layout.json").unlink()
    text = (foreign / "features.json").read_text().replace('"32"', '"-1"')
    (foreign / "features.json").write_text(text)
    with pytest.raises(DataError, match="gray, RGB or RGBA `image` of one size"):
        open_split(foreign, "train")


@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("kind", ["stream", "resident"])
@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_images_of_another_size_than_the_metadata_says(
    datasets: dict[str, Path], tmp_path: Path, encoding: str, kind: str, side: int
) -> None:
    foreign = Path(shutil.copytree(datasets[encoding], tmp_path / "1.0.0"))
    (foreign / "layout.json").unlink()
    text = (foreign / "features.json").read_text().replace('"32"', f'"{side}"')
    (foreign / "features.json").write_text(text)
    with pytest.raises(DataError, match=r"a record of split 'train' cannot be read"):
        reader, _ = open_reader(foreign, "train", kind)
        list(reading(reader.split, eval_batches(reader, 8)))


def test_mistakes(datasets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no split 'validation'. It has: train, test"):
        open_reader(datasets["raw"], "validation")
    foreign = tmp_path / "foreign"
    shutil.copytree(datasets["jpeg"], foreign)
    (foreign / "layout.json").unlink()
    with pytest.raises(UsageError, match=r"needs shards that `simimg convert` wrote.*has no layout\.json"):
        open_reader(foreign, "train", "mapped")
    with pytest.raises(UsageError, match=r"--on_corrupt=skip: a streamed shard.*--reader=mapped"):
        open_reader(datasets["raw"], "train", "stream", on_corrupt="skip")
    with pytest.raises(UsageError, match=r"Did you mean .*raw/1\.0\.0"):
        open_reader(datasets["raw"].parent, "train")
    with pytest.raises(UsageError, match="is not a folder"):
        open_reader(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has neither"):
        open_reader(tmp_path / "empty", "train")


@pytest.mark.parametrize("kind", ["resident", "mapped"])
def test_a_damaged_shard_is_named(datasets: dict[str, Path], tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "1.0.0"
    shutil.copytree(datasets["raw"], copy)
    (shard,) = copy.glob("raw-train*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=shard.name):
        open_reader(copy, "train", kind)
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name} is missing"):
        open_reader(copy, "train", kind)


def test_the_choice_of_a_reader(datasets: dict[str, Path]) -> None:
    raw, jpeg = open_split(datasets["raw"], "train"), open_split(datasets["jpeg"], "train")
    assert raw.decoded_bytes == 54 * 32 * 32 * 3
    assert choose_reader(raw, 4 * raw.decoded_bytes)[0] == "resident"
    assert choose_reader(raw, 4 * raw.decoded_bytes - 1)[0] == "mapped"
    assert choose_reader(jpeg, 4 * jpeg.decoded_bytes - 1)[0] == "mapped"
    foreign = dataclasses.replace(jpeg, indexed=False)
    assert choose_reader(foreign, 4 * jpeg.decoded_bytes - 1)[0] == "stream"
    assert "does not fit" in choose_reader(foreign, 0)[1]


def test_a_split_on_the_device(datasets: dict[str, Path]) -> None:
    """Only places come from the host, and what is gathered there is what the host would have sent."""
    device, reason = open_reader(datasets["raw"], "train", cache="device")
    assert "--cache=device" in reason
    host, _ = open_reader(datasets["raw"], "train", "resident")
    places = list(train_batches(device, order()))
    assert places[0].dtype == tf.int64
    fetch = tf.function(device.batch, jit_compile=True)
    for mine, theirs in zip(map(fetch, places), train_batches(host, order()), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    for mine, theirs in zip(collect(eval_batches(device, 10)), collect(eval_batches(host, 10)), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(UsageError, match="--cache=device: --reader=mapped keeps nothing"):
        open_reader(datasets["raw"], "train", "mapped", cache="device")


def test_the_choice_of_a_shuffle(datasets: dict[str, Path]) -> None:
    raw = open_split(datasets["raw"], "train")
    assert raw.stored_bytes == sum(path.stat().st_size for path in datasets["raw"].glob("raw-train.tfrecord*"))
    assert choose_shuffle(raw, raw.stored_bytes * 4 // 3 + 1) == "uniform"
    assert choose_shuffle(raw, raw.stored_bytes) == "windowed"
    assert mixing_of(raw, "uniform") is None
    assert mixing_of(raw, "windowed") == Mixing.of_bytes(raw.stored_bytes / 54)
