"""`tfrecords.read`: the raw shards as a sequence, compared with what TensorFlow-free parsing of each record gives."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfrecords
from tfrecords.base_errors import CorruptRecordError, DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.example import decode_example, decode_lists
from tfrecords.format.layout import Layout
from tfrecords.format.shard import ShardReader

ROOT = Path(__file__).parents[2]


def parsed(folder: Path, split: str) -> tuple[np.ndarray, list[int], list[int]]:
    """Images, labels and ids by the parser of protobuf messages, in the order of the shards."""
    layout = Layout.load(folder)
    found = [decode_example(p) for info in layout.splits[split] for p in ShardReader(folder / info.file)]
    images = np.frombuffer(b"".join(example["image"] for example in found), np.uint8)  # type: ignore[misc]
    size = layout.image_size
    return images.reshape(-1, size, size, 3), [e["label"] for e in found], [e["id"] for e in found]  # type: ignore[misc]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_index_gives_what_numpy_would_give_of_the_parsed_records(converted_raw: Any, split: str) -> None:
    images, labels, ids = parsed(converted_raw.folder, split)
    examples = tfrecords.read(converted_raw.folder, split)
    count = len(images)
    assert len(examples) == count == converted_raw.summary.splits[split] > 8
    assert examples.layout.class_names == ("ant", "bee")
    for place in (0, 5, count - 1, -1, -count, np.int64(3)):
        image, label, id = examples[place]
        assert (image.dtype, image.shape, type(label), type(id)) == (np.uint8, (16, 16, 3), int, int)
        np.testing.assert_array_equal(image, images[place])
        assert (label, id) == (labels[place], ids[place])
        image[:] = 0  # a copy
        np.testing.assert_array_equal(examples[place].image, images[place])
    slices = [
        slice(*limits) for limits in ((None,), (2, 7), (7, 2), (None, None, 3), (None, None, -1), (-4, 99), (8, 1, -2))
    ]
    lists = [[3, 1, 1, -2], [], range(4), np.arange(count)[::-1], np.arange(count) % 2 == 0, np.zeros(count, bool)]
    for index in (*slices, *lists):
        plain = index if isinstance(index, slice) else np.asarray(index, None if len(index) else int)
        found = examples[index]
        assert (found.image.dtype, found.label.dtype, found.id.dtype) == (np.uint8, np.int64, np.int64)
        np.testing.assert_array_equal(found.image, images[plain])
        np.testing.assert_array_equal(found.label, np.array(labels)[plain])
        np.testing.assert_array_equal(found.id, np.array(ids)[plain])
    np.testing.assert_array_equal(examples.labels, labels)
    assert [example.id for example in examples] == ids


def test_a_slice_of_one_shard_is_a_view_of_the_file(converted_raw: Any) -> None:
    (first, *_), examples = (
        Layout.load(converted_raw.folder).splits["train"],
        tfrecords.read(converted_raw.folder, "train"),
    )
    whole = examples[: first.num_examples]
    for part in (examples[1:3], examples[first.num_examples - 1 :: -1], examples[0:4:2]):
        assert np.shares_memory(part.image, whole.image)
        with pytest.raises(ValueError, match="read-only"):
            part.image[:] = 0
    across = examples[: first.num_examples + 1]
    assert not np.shares_memory(across.image, whole.image)
    examples.close()
    assert whole.image.sum() > 0  # what was handed out stays


def test_several_splits_are_one(converted_raw: Any) -> None:
    train, test = (tfrecords.read(converted_raw.folder, split) for split in ("train", "test"))
    both = tfrecords.read(converted_raw.folder, "test+train")
    np.testing.assert_array_equal(both[:].id, np.concatenate((test[:].id, train[:].id)))
    np.testing.assert_array_equal(both[len(test)].image, train[0].image)
    assert both[len(test) - 2 : len(test) + 2].id.tolist() == [*test[-2:].id.tolist(), *train[:2].id.tolist()]


def test_wrong_indices_and_names(converted_raw: Any, tmp_path: Path) -> None:
    examples = tfrecords.read(converted_raw.folder, "train")
    for index in (len(examples), -len(examples) - 1, [0, len(examples)], 1.5, "a", None, [[1]], np.zeros(3, bool)):
        with pytest.raises(IndexError):
            examples[index]  # type: ignore[index]
    for split in ("val", "train+val"):
        with pytest.raises(UsageError, match=r"has no split 'val'\. It has: train, test"):
            tfrecords.read(converted_raw.folder, split)
    with pytest.raises(UsageError, match=r"nowhere has no layout\.json\. Name a dataset folder"):
        tfrecords.read(tmp_path / "nowhere", "train")


def test_other_forms_are_refused_in_one_sentence(photos: Path, tmp_path: Path) -> None:
    for number, (options, form) in enumerate(
        (({"encoding": "png"}, "png images"), ({"encoding": "raw", "format": "array_record"}, "array_record files"))
    ):
        config = ConvertConfig(
            image_dir=str(photos), data_dir=tmp_path / str(number), image_size=4, num_workers=1, **options
        )
        with pytest.raises(UsageError, match=rf"has {form}, but tfrecords\.read needs TFRecords of raw pixels\."):
            tfrecords.read(convert(config).dataset_dir, "train")


def test_it_is_opened_again_in_other_processes_and_closed_once(converted_raw: Any) -> None:
    with tfrecords.read(str(converted_raw.folder), "train") as examples:
        again = pickle.loads(pickle.dumps(examples))
        np.testing.assert_array_equal(again[[0, 9]].image, examples[[0, 9]].image)
        errors: list[Exception] = []

        def read() -> None:
            try:
                for place in range(len(examples)):
                    assert examples[place].id == again[place].id
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
    for use in (lambda: examples[0], lambda: examples[:2], lambda: pickle.dumps(examples), lambda: examples.labels):
        with pytest.raises(UsageError, match=r"train was closed\. Open it again with tfrecords\.read\."):
            use()


def test_damage_is_found_where_it_is_read(converted_raw: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted_raw.folder, tmp_path / "set"))
    layout = Layout.load(folder)
    first, second = layout.splits["train"][:2]
    stride, place = layout.offsets.record_bytes, first.num_examples + 1
    path = folder / second.file
    whole = path.read_bytes()
    for byte in (0, 9, layout.offsets.image_offset + 5, layout.offsets.label_offset, stride - 1):
        data = bytearray(whole)
        data[stride + byte] ^= 0x10
        path.write_bytes(data)
        examples = tfrecords.read(folder, "train")
        assert examples[place - 1].id >= 0
        for index in (place, slice(place - 1, place + 1), [0, place]):
            for _ in range(2):  # not only the first time
                with pytest.raises(CorruptRecordError, match=rf"{second.file}: record 1: a checksum fails\. Convert"):
                    examples[index]
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{second.file} is {len(whole) - 1} bytes long instead of {len(whole)}"):
        tfrecords.read(folder, "train")
    path.unlink()
    with pytest.raises(DataError, match=rf"{second.file} cannot be read: No such file"):
        tfrecords.read(folder, "train")
    (folder / "layout.json").write_text("{}")
    with pytest.raises(DataError, match=r"layout\.json"):
        tfrecords.read(folder, "test")


@pytest.mark.usefixtures("small_shards")
def test_empty_shards_and_splits(make_folder: Any, tmp_path: Path) -> None:
    """Shards are planned before images are decoded, so one whose images were all rejected is empty."""
    photos = make_folder(tmp_path / "photos", {"a": 16})
    for path in sorted((photos / "a").iterdir())[3:]:
        path.write_bytes(b"no image")
    config = ConvertConfig(
        image_dir=str(photos), data_dir=tmp_path / "data", splits="train=1", image_size=4, num_workers=1
    )
    folder = convert(config).dataset_dir
    infos = Layout.load(folder).splits["train"]
    assert 0 in [info.num_examples for info in infos]
    examples = tfrecords.read(folder, "train")
    assert sorted(examples[:].id.tolist()) == sorted(parsed(folder, "train")[2])
    assert len(examples) == 3
    assert examples[5:].image.shape == (0, 4, 4, 3)


def test_it_needs_numpy_and_a_checksum_alone(converted_raw: Any, tmp_path: Path) -> None:
    code = (
        "import sys, tfrecords\n"
        f"examples = tfrecords.read({str(converted_raw.folder)!r}, 'train')\n"
        "assert len(examples[:].label) == len(examples)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert not {"tensorflow", "simimg", "PIL", "pyarrow", "array_record"} & set(done.stdout.split())


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("kind", ["multi", "float", "none", "single"])
def test_labels_of_other_forms_and_features(labeled: Any, tmp_path: Path, kind: str) -> None:
    """Several labels, numbers and none, compared with what the parser of protobuf messages finds."""
    options = {"features": ("age",)} if kind == "none" else {}
    folder = labeled(kind, tmp_path, **options).dataset_dir
    layout, examples = Layout.load(folder), tfrecords.read(folder, "train")
    found = [decode_lists(p) for info in layout.splits["train"] for p in ShardReader(folder / info.file)]
    num_classes = len(layout.class_names)
    assert len(layout.splits["train"]) > 1
    wanted = {
        "multi": lambda label: [int(one in label) for one in range(num_classes)],
        "float": lambda label: label,
        "none": lambda _: -1,
        "single": lambda label: label[0],
    }[kind]
    labels = np.array([wanted(example.get("label")) for example in found])
    dtype = {"multi": np.uint8, "float": np.float32}.get(kind, np.int64)
    for index in (slice(None), slice(1, 3), slice(None, None, -2), [3, 1, 3], np.arange(len(found)) % 2 == 0, []):
        plain = index if isinstance(index, slice) else np.asarray(index, None if len(index) else int)
        several = examples[index]
        assert several.label.dtype == dtype
        np.testing.assert_array_equal(several.label, labels[plain])
        assert several.id.tolist() == np.array([example["id"][0] for example in found])[plain].tolist()
    assert examples.labels.dtype == dtype
    np.testing.assert_array_equal(examples.labels, labels)
    for place, example in enumerate(found):
        one = examples[place]
        np.testing.assert_array_equal(one.label, labels[place])
        assert isinstance(one.label, int) == (kind in ("none", "single"))
        assert one.image.tobytes() == example["image"][0]
        features = examples.features(place)
        assert features == {
            spec.name: example[spec.name] if spec.length else example[spec.name][0] for spec in layout.schema.features
        }
    if kind == "multi":
        one.label[:] = 1  # a copy
    assert list(examples.features(-1)) == ["box"] if kind == "float" else "age" in examples.features(-1)
    with pytest.raises(IndexError):
        examples.features(len(examples))


def test_features_that_differ_in_length_cannot_be_read(labeled: Any, tmp_path: Path) -> None:
    folder = labeled("none", tmp_path).dataset_dir
    with pytest.raises(UsageError, match=r"differ in length because of words \(int64\[\]\), but .* Use simimg.load"):
        tfrecords.read(folder, "train")
