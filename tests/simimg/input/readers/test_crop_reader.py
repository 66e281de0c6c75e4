"""Crops of images in their own shapes: a function of (seed, epoch, id) alone, whatever reads them."""

import io
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg.errors import DataError, UsageError
from simimg.input import Order, Position, open_reader, reading, train_batches
from simimg.input.readers.crop_reader import CropReader
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.example import decode_example
from tfrecords.format.shard import ShardReader

NUM_IMAGES = 24  # of the split to train on
SIDE = 32


@pytest.fixture(scope="module")
def shapes(scene: Callable[..., Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 images of 24 shapes, JPEG, in one split and several shards."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = tuple(int(side) for side in rng.integers(40, 130, 2))
        scene(number, size).save(path, quality=90, subsampling=number % 3)
    config = ConvertConfig(
        image_dir=str(folder / "photos"),
        data_dir=folder / "data",
        name="shapes",
        resize="short",
        image_size=64,
        splits="train=1",
        num_workers=1,
    )
    return convert(config).dataset_dir


def order(**changes: Any) -> Order:
    given = {"num_examples": NUM_IMAGES, "global_batch_size": 8, "num_epochs": 2, "seed": 7}
    return Order(**{**given, **changes})


def read(dataset_dir: Path, wanted: Order, **options: Any) -> list[tuple[np.ndarray, ...]]:
    reader, _ = open_reader(dataset_dir, "train", image_size=SIDE, **options)
    return [
        tuple(part.numpy() for part in reader.batch(batch))
        for batch in reading(reader.split, train_batches(reader, wanted))
    ]


def joined(batches: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_replicas_threads_and_resuming_see_the_same_pixels(shapes: Path) -> None:
    whole = read(shapes, order())
    assert [batch[0].shape for batch in whole] == [(8, SIDE, SIDE, 3)] * 6
    images, labels, ids = joined(whole)
    assert images.dtype == np.uint8
    for half in (ids[:NUM_IMAGES], ids[NUM_IMAGES:]):
        assert len(set(half.tolist())) == NUM_IMAGES
    by_id = [dict(zip(ids[part].tolist(), images[part], strict=True)) for part in (slice(24), slice(24, 48))]
    assert not any(np.array_equal(by_id[0][id], by_id[1][id]) for id in by_id[0])  # another epoch, another crop
    for changes in ({"num_replicas": 8}, {"num_replicas": 2}):
        for mine, theirs in zip(joined(read(shapes, order(**changes))), (images, labels, ids), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(joined(read(shapes, order(), num_threads=7)), (images, labels, ids), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    later = joined(read(shapes, order(start=Position(1, 1))))
    np.testing.assert_array_equal(later[0], images[32:])
    second = joined(read(shapes, order(num_replicas=2, first_replica=1, num_local_replicas=1)))
    rows = np.arange(48).reshape(6, 2, 4)[:, 1].ravel()
    np.testing.assert_array_equal(second[0], images[rows])
    other = joined(read(shapes, order(seed=8)))
    assert not np.array_equal(other[0][np.argsort(other[2][:24])], images[np.argsort(ids[:24])])


def by_id(batches: Iterable[Any]) -> dict[int, np.ndarray]:
    """The images of batches by their ids."""
    return {
        id: image for batch in batches for id, image in zip(batch.id.numpy().tolist(), batch.image.numpy(), strict=True)
    }


def test_load_gives_the_same_crops_in_any_order(shapes: Path) -> None:
    images, _, ids = joined(read(shapes, order()))
    for shuffle, size in ((True, 8), (False, 5), (False, 24)):
        loaded = simimg.load(
            shapes, batch_size=size, shuffle=shuffle, seed=7, epochs=2, image_size=SIDE, crop="random", ids=True
        )
        assert loaded.image_size == SIDE
        batches = list(loaded)
        for epoch in (0, 1):
            part = slice(epoch * NUM_IMAGES, (epoch + 1) * NUM_IMAGES)
            found = by_id(batches[epoch * len(batches) // 2 : (epoch + 1) * len(batches) // 2])
            assert found.keys() == set(ids[part].tolist())
            assert all(np.array_equal(found[id], image) for id, image in zip(ids[part], images[part], strict=True))


def test_central_crops_are_those_of_the_stored_images(shapes: Path) -> None:
    stored = {
        int(example["id"]): example["image"]
        for path in shapes.glob("*.tfrecord-*-of-0000?")
        for payload in ShardReader(path)
        for example in [decode_example(payload)]
    }
    loaded = simimg.load(shapes, batch_size=7, image_size=SIDE, ids=True)
    assert loaded.num_examples == NUM_IMAGES
    for batch in loaded:
        for id, pixels in zip(batch.id.numpy().tolist(), batch.image.numpy(), strict=True):
            image = Image.open(io.BytesIO(stored[id])).convert("RGB")
            short = round(SIDE * 8 / 7)
            resized = tuple(short * length // min(image.size) for length in image.size)
            left, top = (round((length - SIDE) / 2) for length in resized)
            expected = image.resize(resized, Image.Resampling.BILINEAR).crop((left, top, left + SIDE, top + SIDE))
            assert np.abs(pixels - np.asarray(expected, np.int16)).max() <= 1
    assert next(iter(simimg.load(shapes, batch_size=2, ids=True))).image.shape == (2, 224, 224, 3)
    shuffled = by_id(simimg.load(shapes, batch_size=24, shuffle=True, crop="center", image_size=SIDE, ids=True))
    plain = by_id(loaded)
    assert plain.keys() == shuffled.keys()
    assert all(np.array_equal(plain[id], shuffled[id]) for id in plain)


def test_crops_of_squares(datasets: dict[str, Path]) -> None:
    """Any JPEG dataset can be cropped, if that is asked for."""
    reader, why = open_reader(datasets["jpeg"], "train", crop="random", image_size=24)
    assert isinstance(reader, CropReader)
    assert why.startswith("images are cut to 24 px while they are decoded")
    assert next(iter(simimg.load(datasets["jpeg"], crop="center", image_size=16, ids=True))).image.shape == (
        32,
        16,
        16,
        3,
    )
    assert next(iter(simimg.load(datasets["jpeg"], ids=True))).image.shape == (32, 32, 32, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "middle"}, "--crop=middle: should be one of auto, random, center"),
        ({"image_size": 5000}, r"--image_size=5000: should be 1..4096 px"),
        ({"kind": "resident"}, "--reader=resident: images are cut while they are decoded from mapped shards"),
        ({"kind": "stream"}, "--reader=stream: images are cut"),
        ({"cache": "device"}, "--cache=device: images are cut"),
        ({"data_service": "grpc://a:1"}, "--data_service=grpc://a:1: images are cut"),
    ],
)
def test_what_cannot_be_read_so(shapes: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_reader(shapes, "train", **options)


def test_squares_that_cannot_be_cut(datasets: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"--image_size=16: the images of .* have 32 px. Leave it out"):
        open_reader(datasets["jpeg"], "train", image_size=16)
    for encoding in ("raw", "png"):
        with pytest.raises(UsageError, match=f"--crop=random: crops are cut from JPEG shards .* has {encoding} images"):
            open_reader(datasets[encoding], "train", crop="random")


def test_damaged_sizes(shapes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    (sidecar,) = copy.glob("sizes/*.sizes")
    lines = sidecar.read_bytes().splitlines(keepends=True)
    sidecar.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match=r"\.sizes should have one line `width height` for each of the 24 records"):
        open_reader(copy, "train")
    sidecar.write_bytes(b"".join([b"9 9\n", *lines[1:]]))
    with pytest.raises(DataError, match="record 0 at byte 0: it has [0-9]+ x [0-9]+ px instead of 9 x 9"):
        read(copy, order())
    reader, _ = open_reader(copy, "train", image_size=SIDE, on_corrupt="skip")
    _, _, ids = joined([tuple(part.numpy() for part in batch) for batch in train_batches(reader, order())])
    assert (ids == -1).sum() == 2
    assert list(reader.corrupt) == [0]
    sidecar.unlink()
    with pytest.raises(DataError, match="sizes"):
        open_reader(copy, "train")
