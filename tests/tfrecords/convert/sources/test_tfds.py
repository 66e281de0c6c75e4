"""Dataset folders as TensorFlow Datasets writes them, written here by hand; tests/simimg has one that it wrote."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, open_source
from tfrecords.convert.sources.tfds import open_tfds, walk_examples
from tfrecords.format.example import bytes_feature, encode_example
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import footer, header, masked_crc32c


def frame(payload: bytes) -> bytes:
    """Returns a payload as a record, with its framing."""
    return header(len(payload)) + payload + footer(payload)


FEATURES = "tensorflow_datasets.core.features"
IMAGE = {"pythonClassName": f"{FEATURES}.image_feature.Image", "image": {"encodingFormat": "jpeg"}}
TENSOR = {"pythonClassName": f"{FEATURES}.tensor_feature.Tensor", "tensor": {"encoding": "bytes"}}
LABEL = {"pythonClassName": f"{FEATURES}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "3"}}
PAIR = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}

Example = dict[str, int | bytes]


def dictionary(features: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": f"{FEATURES}.features_dict.FeaturesDict", "featuresDict": {"features": features}}


def sequence(feature: dict[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{FEATURES}.sequence_feature.Sequence",
        "sequence": {"feature": feature, "length": "-1"},
    }


def example(number: int, label: int, num_bytes: int = 1000) -> Example:
    return {"image": b"%d" % number * num_bytes, "label": label, "a_name": b"before the picture", "z": -1}


def write(
    folder: Path,
    splits: dict[str, Sequence[Sequence[Example]]],
    features: dict[str, Any] | None = None,
    names: str = "cat\ndog\n벌\n",
    **info: Any,
) -> str:
    folder.mkdir(exist_ok=True)
    entries = []
    for split, shards in splits.items():
        for number, shard in enumerate(shards):
            data = b"".join(frame(encode_example(each)) for each in shard)
            (folder / f"zoo-{split}.tfrecord-{number:05d}-of-{len(shards):05d}").write_bytes(data)
        entries.append({"name": split, "shardLengths": [str(len(shard)) for shard in shards]})
    whole = {"name": "zoo", "version": "1.0.0", "fileFormat": "tfrecord", "splits": entries, **info}
    (folder / "dataset_info.json").write_text(json.dumps(whole))
    (folder / "features.json").write_text(json.dumps(dictionary(features or {"image": IMAGE, "label": LABEL})))
    if names:
        (folder / "label.labels.txt").write_text(names)
    return str(folder)


def read_all(source: Source) -> list[bytes]:
    files = pickle.loads(pickle.dumps(source.files))
    assert source.places is not None
    places = [tuple(place) for place in source.places.tolist()]
    return [files.read(source.paths[id], places[id]) for id in source.usable().tolist()]


SPLITS = {"train": [[example(0, 0), example(1, 2)], [example(2, 1)]], "test": [[example(3, 0)]]}


def test_a_data_set(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, SPLITS))
    assert source.class_names == ("cat", "dog", "벌")
    assert source.paths == [
        "train/00000-of-00002/0",
        "train/00000-of-00002/1",
        "train/00001-of-00002/0",
        "test/00000-of-00001/0",
    ]
    assert source.labels.tolist() == [0, 2, 1, 0]
    assert source.splits == ["train", "train", "train", "test"]
    assert source.sizes.tolist() == [1000] * 4
    assert read_all(source) == [b"%d" % number * 1000 for number in range(4)]
    assert source.stamps[0] == (tmp_path / "zoo-train.tfrecord-00000-of-00002").stat().st_mtime_ns
    assert (source.refused, source.notes) == ({}, ())


def test_categories_choose_and_order(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, SPLITS), categories=("벌", "cat"))
    assert (source.class_names, source.labels.tolist()) == (("벌", "cat"), [1, 0, 1])
    assert read_all(source) == [b"%d" % number * 1000 for number in (0, 1, 3)]


def test_payloads_are_not_read_to_list_a_data_set() -> None:
    data = b"".join(frame(encode_example(example(number, 1, 100_000))) for number in range(5))
    read = []

    def read_at(offset: int, length: int) -> bytes:
        read.append(length)
        return data[offset : offset + length]

    found = list(walk_examples(read_at, len(data), "shard", "image", "label"))
    assert [values for _, values in found] == [(1, 100_000)] * 5
    assert sum(read) < 5 * 2000


def test_class_names_that_were_not_given(tmp_path: Path) -> None:
    assert open_source(write(tmp_path, SPLITS, names="")).class_names == ("0", "1", "2")


def test_labels_that_are_no_class_are_refused(tmp_path: Path) -> None:
    """TFDS has -1 for what is not known, as in the test split of a competition."""
    source = open_source(write(tmp_path, {"test": [[example(0, -1), example(1, 3), example(2, 2), {"image": b"x"}]]}))
    assert source.labels.tolist() == [-1, -1, 2, -1]
    assert {refusal.reason for refusal in source.refused.values()} == {Reason.NO_CLASS_FOLDER}
    assert source.refused[1].detail == "its label is 3, and the dataset has 3 classes"
    assert source.usable().tolist() == [2]


def test_other_names_and_nested_features(tmp_path: Path) -> None:
    features = {"x": dictionary({"photo": IMAGE}), "y": dictionary({"kind": LABEL}), "boxes": sequence(TENSOR)}
    folder = write(tmp_path, {"train": [[{"x/photo": b"picture", "y/kind": 1}]]}, features, names="")
    (tmp_path / "y-kind.labels.txt").write_text("a\nb\nc\n")
    source = open_source(folder)
    assert (source.class_names, source.labels.tolist(), read_all(source)) == (("a", "b", "c"), [1], [b"picture"])


def test_templates_of_file_names(tmp_path: Path) -> None:
    folder = write(tmp_path, {"train": [[example(0, 0)]]})
    (tmp_path / "zoo-train.tfrecord-00000-of-00001").rename(tmp_path / "train_00000_of_00001.zoo")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    info["splits"][0]["filepathTemplate"] = "{SPLIT}_{SHARD_INDEX}_of_{NUM_SHARDS}.{DATASET}"
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert len(read_all(open_source(folder))) == 1


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"image": IMAGE, "label": sequence(LABEL)},
            r"have lists of labels \(label\)\. .*multi-label is not supported",
        ),
        (
            {"image": IMAGE, "objects": sequence(dictionary({"label": LABEL}))},
            r"have lists of labels \(objects/label\)",
        ),
        (
            {"image": IMAGE, "fine": LABEL, "coarse": LABEL},
            r"have several labels \(fine, coarse\)\. .*multi-label is not",
        ),
        ({"image": IMAGE}, r"should have one feature of class ClassLabel\. They have: image \(Image\)"),
        (
            {"image": TENSOR, "label": LABEL},
            r"should have one feature of class Image\. They have: image \(Tensor\).*raw pixels need no",
        ),
        (
            {"a": IMAGE, "b": IMAGE, "label": LABEL},
            r"should have one feature of class Image\. They have: a \(Image\), b",
        ),
    ],
)
def test_features_that_do_not_fit(tmp_path: Path, features: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"--image_dir={tmp_path}: its examples {message}"):
        open_source(write(tmp_path, SPLITS, features))


@pytest.mark.parametrize("supervised", [PAIR, {"input": "image", "output": "label"}])
def test_supervised_keys_choose_among_features(tmp_path: Path, supervised: dict[str, Any]) -> None:
    """Without them nobody could convert cifar100, which has fine and coarse labels."""
    features = {"image": IMAGE, "mask": IMAGE, "label": LABEL, "coarse": LABEL}
    source = open_source(write(tmp_path, SPLITS, features, supervisedKeys=supervised))
    assert source.labels.tolist() == [0, 2, 1, 0]
    assert source.notes == (
        "image was chosen from image, mask by the dataset's supervised keys",
        "label was chosen from label, coarse by the dataset's supervised keys",
    )


def test_other_formats_of_files(tmp_path: Path) -> None:
    for name in ("array_record", "riegeli", "parquet"):
        with pytest.raises(UsageError, match=rf"is stored as {name}\. Prepare it as TFRecord"):
            open_source(write(tmp_path, SPLITS, fileFormat=name))


def damage(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "zoo-train.tfrecord-00000-of-00002"
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (damage(lambda data: data.pop()), r"00000-of-00002: record at byte \d+: the file is truncated"),
        (
            damage(lambda data: data.__delitem__(slice(len(data) // 2 + 5, None))),
            "record at byte .* the file is truncated",
        ),
        (damage(lambda data: data.__delitem__(slice(len(data) // 2, None))), "has 1 examples; .* says 2"),
        (damage(lambda data: data.__setitem__(0, data[0] ^ 1)), "record at byte 0: the checksum of its length fails"),
        (damage(lambda data: data.__setitem__(12, 0x0B)), "record at byte 0 is not a tf.train.Example: wire type"),
        (lambda folder: (folder / "zoo-test.tfrecord-00000-of-00001").unlink(), "cannot be opened: No such file"),
        (lambda folder: (folder / "dataset_info.json").write_text("{"), "dataset_info.json is not valid JSON"),
        (
            lambda folder: (folder / "dataset_info.json").write_text("{}"),
            "has no shards according to dataset_info.json",
        ),
    ],
)
def test_damaged_data_sets(tmp_path: Path, break_it: Callable[[Path], None], message: str) -> None:
    folder = write(tmp_path, SPLITS)
    break_it(tmp_path)
    with pytest.raises(UsageError, match=message):
        open_source(folder)


def test_a_flipped_byte_in_a_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, SPLITS)
    damage(lambda data: data.__setitem__(600, data[600] ^ 1))(tmp_path)
    source = open_source(folder)
    assert source.places is not None
    with pytest.raises(Refusal) as caught:
        source.files.read("", tuple(source.places[0].tolist()))
    assert (caught.value.reason, caught.value.detail) == (Reason.CORRUPT, "the checksum of its record fails")


def test_an_example_without_a_picture(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"train": [[{"label": 1}, {"label": 1, "image": 7}, example(0, 0)]]}))
    assert source.places is not None
    for id in (0, 1):
        with pytest.raises(Refusal, match=r"corrupt: its record has no image: feature 'image' should be a byte string"):
            source.files.read("", tuple(source.places[id].tolist()))


def test_a_remote_data_set(tmp_path: Path) -> None:
    driver = fsspec.filesystem("memory")
    for path in Path(write(tmp_path, SPLITS)).iterdir():
        driver.pipe(f"/tfds/zoo/{path.name}", path.read_bytes())
    source = open_source("memory://tfds/zoo")
    assert source.class_names == ("cat", "dog", "벌")
    assert read_all(source) == [b"%d" % number * 1000 for number in range(4)]
    driver.rm("/tfds", recursive=True)


NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.binary(max_size=600) | st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.binary(max_size=2000), st.integers(-5, 5))
def test_any_example_is_walked(others: dict[str, int | bytes], picture: bytes, label: int) -> None:
    features = {**others, "image": picture, "label": label}
    data = frame(encode_example(features)) * 2
    found = list(walk_examples(lambda offset, length: data[offset : offset + length], len(data), "s", "image", "label"))
    half = len(data) // 2
    assert found == [((0, half), (label, len(picture))), ((half, half), (label, len(picture)))]
    assert bytes_feature(encode_example(features), "image") == picture


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=300)
def test_garbage_is_a_usage_error(garbage: bytes, at: int, value: int) -> None:
    flipped = bytearray(encode_example(example(0, 1, 50)))
    flipped[at % len(flipped)] = value
    for payload in (garbage, bytes(flipped)):
        length = struct.pack("<Q", len(payload))
        data = length + struct.pack("<I", masked_crc32c(length)) + payload + bytes(4)
        try:
            list(walk_examples(lambda a, b, data=data: data[a : a + b], len(data), "shard", "image", "label"))
        except UsageError as error:
            assert "shard: record at byte 0 is not a tf.train.Example" in str(error)


def test_metadata_that_is_missing(tmp_path: Path) -> None:
    folder = write(tmp_path, SPLITS)
    (tmp_path / "features.json").unlink()
    with pytest.raises(UsageError, match=r"features\.json is missing\. Prepare the dataset again"):
        open_tfds(folder)


def test_names_of_classes_that_a_bucket_forbids_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 403 for an object that is missing, unless one may list the bucket."""
    driver = fsspec.filesystem("memory")
    for path in Path(write(tmp_path, SPLITS)).iterdir():
        driver.pipe(f"/tfds/zoo/{path.name}", path.read_bytes())
    info = type(driver).info

    def fail(self: Any, path: str, **options: Any) -> Any:
        if path.endswith("labels.txt"):
            raise PermissionError("Access Denied")
        return info(self, path, **options)

    monkeypatch.setattr(type(driver), "info", fail)
    assert open_source("memory://tfds/zoo").class_names == ("0", "1", "2")
    monkeypatch.undo()
    assert open_source("memory://tfds/zoo").class_names != ("0", "1", "2")
    driver.rm("/tfds/zoo/label.labels.txt")
    assert open_source("memory://tfds/zoo").class_names == ("0", "1", "2")
    driver.rm("/tfds", recursive=True)
