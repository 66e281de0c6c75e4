"""Several shards, damaged shards, and folders that TensorFlow Datasets wrote itself."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.errors import CorruptRecordError, DataError
from simimg.input import Order, Position, Reader, eval_batches, open_reader, open_split, reading, train_batches
from tfrecords.convert.engine import convert
from tfrecords.convert.plan import shard_plan as plan_module
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.example import decode_example
from tfrecords.format.naming import find_index
from tfrecords.format.record import footer, header
from tfrecords.format.record_layout import encode_record
from tfrecords.format.shard import ShardReader

NUM_TRAIN, NUM_STEPS = 54, 9  # 72 pictures, a quarter of them to test; batches of 6


@pytest.fixture(scope="module")
def sharded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pictures at 16 px, the 54 to train on in 8 shards. Only to be read."""
    data_dir = tmp_path_factory.mktemp("sharded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 4)
        options: dict[str, Any] = {"image_dir": photos, "data_dir": data_dir, "image_size": 16, "num_workers": 1}
        folders = {
            encoding: convert(ConvertConfig(name=encoding, encoding=encoding, **options)).dataset_dir
            for encoding in ("raw", "jpeg")
        }
    assert all(len(open_split(folder, "train").shards) == 8 for folder in folders.values())
    return folders


def reader_of(dataset_dir: Path, kind: str) -> Reader:
    return open_reader(dataset_dir, "train", kind)[0]


def arrays(batches: tf.data.Dataset) -> list[np.ndarray]:
    """Returns images, labels and ids, each of all batches: `[num_batches, batch_size, ...]`."""
    return [np.stack(column) for column in zip(*batches.as_numpy_iterator(), strict=True)]


def order(**changes: Any) -> Order:
    return Order(**{"num_examples": NUM_TRAIN, "global_batch_size": 6, "num_epochs": 2, "seed": 0, **changes})


@pytest.mark.parametrize("batch_size", [6, 7, 100])
@pytest.mark.parametrize(("encoding", "kinds"), [("raw", ["mapped", "stream"]), ("jpeg", ["mapped", "stream"])])
def test_evaluation_batches_are_the_same_bytes(
    sharded: dict[str, Path], encoding: str, kinds: list[str], batch_size: int
) -> None:
    """Whatever reads them, down to the rows that fill up the last one."""
    resident = arrays(eval_batches(reader_of(sharded[encoding], "resident"), batch_size))
    ids = resident[2].ravel()
    assert len(set(ids[:NUM_TRAIN].tolist())) == NUM_TRAIN
    assert set(ids[NUM_TRAIN:].tolist()) <= {-1}
    for kind in kinds:
        others = arrays(eval_batches(reader_of(sharded[encoding], kind), batch_size))
        for mine, theirs in zip(others, resident, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_mapped_gathers_from_all_shards_what_resident_does(sharded: dict[str, Path]) -> None:
    resident, mapped = (reader_of(sharded["raw"], kind) for kind in ("resident", "mapped"))
    for changes in ({}, {"start": Position(1, 4)}, {"num_replicas": 3, "first_replica": 1, "num_local_replicas": 2}):
        theirs = arrays(train_batches(resident, order(**changes)))
        for mine, other in zip(arrays(train_batches(mapped, order(**changes))), theirs, strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_stream_of_several_shards(sharded: dict[str, Path], encoding: str) -> None:
    reader = reader_of(sharded[encoding], "stream")
    images, labels, ids = arrays(train_batches(reader, order()))
    assert all(len(set(ids[epoch].ravel().tolist())) == NUM_TRAIN for epoch in (slice(0, 9), slice(9, 18)))
    assert ids[:9].tolist() != ids[9:].tolist()
    assert ids[:9].ravel().tolist() != arrays(eval_batches(reader, NUM_TRAIN))[2].ravel().tolist()
    for step in (1, NUM_STEPS - 1, NUM_STEPS + 3):
        resumed = arrays(train_batches(reader, order(start=Position(*divmod(step, NUM_STEPS)))))
        for mine, whole in zip(resumed, (images, labels, ids), strict=True):
            np.testing.assert_array_equal(mine, whole[step:])
    parts = [
        arrays(train_batches(reader, order(num_replicas=3, first_replica=first, num_local_replicas=count)))[2]
        for first, count in ((0, 1), (1, 2))
    ]
    joined = np.concatenate([part.reshape(18, -1) for part in parts], axis=1)
    np.testing.assert_array_equal(joined, ids)


def test_a_stream_asks_nobody_but_its_own_seed(sharded: dict[str, Path]) -> None:
    """Not the program's seed, which training sets to 0 where nothing else was asked for."""
    reader = reader_of(sharded["raw"], "stream")
    ids = []
    for seed in (0, 1, 2):
        tf.random.set_seed(seed)
        ids.append(arrays(train_batches(reader, order()))[2].tolist())
    assert ids[0] == ids[1] == ids[2]
    assert ids[0] != arrays(train_batches(reader, order(seed=1)))[2].tolist()


# Damage


@pytest.fixture
def copy(sharded: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The datasets once more, to be damaged."""
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in sharded.items()}


def third_shard(folder: Path) -> Path:
    return sorted(folder.glob("*-train.tfrecord-*-of-00008"))[2]


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("raw", "resident"), ("raw", "mapped"), ("raw", "stream"), ("jpeg", "resident"), ("jpeg", "stream")],
)
def test_a_shard_that_is_cut_off_or_missing_is_named_at_once(copy: dict[str, Path], encoding: str, kind: str) -> None:
    shard = third_shard(copy[encoding])
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{shard.name} is \d+ bytes long instead of \d+.*simimg verify"):
        reader_of(copy[encoding], kind)
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name} is missing"):
        reader_of(copy[encoding], kind)


def damage(folder: Path, number: int) -> tuple[Path, int, int]:
    """Flips a bit in the picture of a record of the third shard; returns shard, offset of the record and its id."""
    shard = third_shard(folder)
    data = bytearray(shard.read_bytes())
    offset = 0
    for _ in range(number):
        offset += 16 + int.from_bytes(data[offset : offset + 8], "little")
    length = int.from_bytes(data[offset : offset + 8], "little")
    id = decode_example(bytes(data[offset + 12 : offset + 12 + length]))["id"]
    assert isinstance(id, int)
    data[offset + 200] ^= 1
    shard.write_bytes(data)
    return shard, offset, id


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("raw", "resident"), ("raw", "stream"), ("jpeg", "resident"), ("jpeg", "mapped"), ("jpeg", "stream")],
)
def test_a_record_that_fails_its_checksum_is_named(copy: dict[str, Path], encoding: str, kind: str) -> None:
    shard, offset, _ = damage(copy[encoding], 2)
    with pytest.raises(CorruptRecordError) as caught:
        reader = reader_of(copy[encoding], kind)
        list(reading(reader.split, train_batches(reader, order())))
    assert str(caught.value).startswith(f"{shard}: record 2 at byte {offset}: ")
    assert "checksum" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("encoding", "kind"), [("raw", "resident"), ("jpeg", "resident"), ("jpeg", "mapped")])
def test_a_corrupt_record_that_is_skipped_is_padding(
    copy: dict[str, Path], sharded: dict[str, Path], encoding: str, kind: str
) -> None:
    shard, offset, id = damage(copy[encoding], 2)
    reader, _ = open_reader(copy[encoding], "train", kind, on_corrupt="skip")
    images, labels, ids = (part[0] for part in arrays(eval_batches(reader, NUM_TRAIN)))
    whole = [part[0] for part in arrays(eval_batches(reader_of(sharded[encoding], kind), NUM_TRAIN))]
    (row,) = np.flatnonzero(ids == -1)
    assert whole[2][row] == id
    assert not images[row].any()
    assert labels[row] == 0
    others = np.arange(NUM_TRAIN) != row
    for mine, theirs in zip((images, labels, ids), whole, strict=True):
        np.testing.assert_array_equal(mine[others], theirs[others])
    assert list(reader.corrupt) == [row]
    assert reader.corrupt[row].startswith(f"{shard}: record 2 at byte {offset}: ")
    seen = arrays(train_batches(reader, order()))[2].reshape(2, -1)
    assert [(epoch == -1).sum() for epoch in seen] == [1, 1]
    assert len(reader.corrupt) == 1  # a record, however often it was met


def test_unchecked_records_are_read_whatever_their_checksum(copy: dict[str, Path], sharded: dict[str, Path]) -> None:
    shard = third_shard(copy["jpeg"])
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # of the last record's checksum
    shard.write_bytes(data)
    found = []
    for folder, on_corrupt in ((copy["jpeg"], "unchecked"), (sharded["jpeg"], "fail")):
        reader, _ = open_reader(folder, "train", "mapped", on_corrupt=on_corrupt)
        found.append(arrays(eval_batches(reader, NUM_TRAIN)))
    for unchecked, whole in zip(*found, strict=True):
        np.testing.assert_array_equal(unchecked, whole)
    reader = reader_of(copy["jpeg"], "mapped")
    with pytest.raises(CorruptRecordError, match="the checksum of the payload fails"):
        list(reading(reader.split, eval_batches(reader, NUM_TRAIN)))


def test_a_sidecar_that_lies_is_noticed(copy: dict[str, Path]) -> None:
    sidecar = find_index(third_shard(copy["jpeg"]))
    assert sidecar.parent.name == "idx"
    assert sidecar.is_file()
    lines = sidecar.read_text().splitlines()
    offset, length = map(int, lines[1].split())
    wraps = [f"{n * 2**62 % 2**64 - 2**64 * (n in (2, 3))} {2**62}" for n in range(4)]  # four add up to 0 in 64 bits
    for lie in (f"{offset + 1} {length}", f"{offset} {length + 1}", f"{offset + 10**6} {length}", f"{offset} 3"):
        for text in ([lines[0], lie, *lines[2:]], lines[1:], [*lines, lie], [*wraps, *lines]):
            sidecar.write_text("\n".join(text) + "\n")
            with pytest.raises(DataError, match=rf"{sidecar.name} does not list the \d records.*simimg verify"):
                reader_of(copy["jpeg"], "mapped")
    # The same bytes otherwise divided: nothing that is not in the file, but no records either.
    after = int(lines[2].split()[1])
    moved = [f"{offset} {length - 1}", f"{offset + length - 1} {after + 1}"]
    sidecar.write_text("\n".join([lines[0], *moved, *lines[3:]]) + "\n")
    reader = reader_of(copy["jpeg"], "mapped")
    with pytest.raises(CorruptRecordError, match=rf"{sidecar.stem}: record [12] at byte \d+: its length is not"):
        list(reading(reader.split, eval_batches(reader, 9)))


def test_bytes_that_are_no_jpeg_are_named(copy: dict[str, Path]) -> None:
    """With sound checksums, as somebody's own writer may have written them."""
    shard = third_shard(copy["jpeg"])
    payloads = list(ShardReader(shard))
    example = decode_example(payloads[1])
    image = bytes(len(example["image"]))
    payloads[1] = encode_record(image, example["label"], example["id"])
    shard.write_bytes(b"".join(header(len(each)) + each + footer(each) for each in payloads))
    reader = reader_of(copy["jpeg"], "mapped")
    with pytest.raises(CorruptRecordError, match=rf"{shard.name}: record 1 at byte \d+: "):
        list(reading(reader.split, eval_batches(reader, 9)))


@pytest.mark.parametrize("lie", [-1, 1])
@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_a_shard_with_other_records_than_the_metadata_says(copy: dict[str, Path], kind: str, lie: int) -> None:
    """Only somebody else's folder can come to this: ours also says how many bytes there are."""
    folder = copy["jpeg"]
    (folder / "layout.json").unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    lengths = next(split for split in info["splits"] if split["name"] == "train")["shardLengths"]
    lengths[2] = str(int(lengths[2]) + lie)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"split 'train' cannot be read: .*expected.*elements"):
        reader = reader_of(folder, kind)
        list(reading(reader.split, eval_batches(reader, 5)))


# Somebody else's


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_what_tensorflow_datasets_wrote(tmp_path: Path, encoding: str) -> None:
    """By its SequentialWriter, which names shards after a template of its own and knows of no `id`."""
    import tensorflow_datasets as tfds

    folder = tmp_path / "crabs" / "2.3.4"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="crabs", version=tfds.core.Version("2.3.4"), data_dir=str(folder), module_name="here"
    )
    features = {
        "image": tfds.features.Image(shape=(8, 8, 3), encoding_format=encoding),
        "label": tfds.features.ClassLabel(names=["hermit", "king"]),
    }
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [{"image": image, "label": n % 2} for n, image in enumerate(pictures)]})
    writer.close_splits(["train"])

    data = tfds.builder_from_directory(folder).as_dataset("train", shuffle_files=False)
    reference = list(data.as_numpy_iterator())
    if encoding == "jpeg":  # TFDS decodes in TensorFlow's way, which is not the accurate one
        skip = {"image": tfds.decode.SkipDecoding()}
        files = tfds.builder_from_directory(folder).as_dataset("train", shuffle_files=False, decoders=skip)
        for example, file in zip(reference, files.as_numpy_iterator(), strict=True):
            example["image"] = np.asarray(Image.open(io.BytesIO(file["image"])))
    for kind in ("resident", "stream"):
        reader = reader_of(folder, kind)
        images, labels, ids = (part[0] for part in arrays(eval_batches(reader, 5)))
        assert len(reader.split.shards) == 3
        assert reader.split.class_names == ("hermit", "king")
        assert ids.tolist() == [0, 1, 2, 3, 4]  # the place in the split
        np.testing.assert_array_equal(images, [example["image"] for example in reference])
        assert labels.tolist() == [example["label"] for example in reference] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["splits"][0].pop("name"),
        lambda info: info["splits"][0].update(filepathTemplate="{NOBODY_KNOWS}"),
        lambda info: info["splits"][0].update(shardLengths=["many"]),
        lambda info: info.update(splits={"train": 3}),
    ],
)
def test_metadata_of_no_known_form(copy: dict[str, Path], change: Any) -> None:
    folder = copy["jpeg"]
    (folder / "layout.json").unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    change(info)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"this dataset has another form.*use `simimg convert`"):
        open_split(folder, "train")
