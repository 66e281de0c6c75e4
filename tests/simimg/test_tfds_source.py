"""A dataset that TensorFlow Datasets wrote, read without TensorFlow and compared with what it reads itself."""

from __future__ import annotations

import io
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.sources import open_source

tfds = pytest.importorskip("tensorflow_datasets")

NAMES = ["cat", "dog", "벌 나비"]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """30 pictures to train on and 10 to test, with features that are of no use here around those that are."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=NAMES),
            "a_name": tfds.features.Text(),
            "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
            "group": tfds.features.FeaturesDict({"x": np.float32}),
            "zoom": np.int64,
        }
    )

    class Zoo(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
        VERSION = tfds.core.Version("1.0.0")
        url_infos = types.MappingProxyType[str, Any]({})  # else TFDS looks for a list of checksums beside this module

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(0, 30), "test": self._generate_examples(30, 40)}

        def _generate_examples(self, first: int, end: int) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(first, end):
                pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
                boxes = [tfds.features.BBox(0.0, 0.0, 1.0, 1.0)] * (number % 3)
                yield (
                    number,
                    {
                        "image": pixels, "label": number % 3, "a_name": f"n{number}", "boxes": boxes,
                        "group": {"x": 1.5}, "zoom": number,
                    },
                )  # fmt: skip

    made = Zoo(data_dir=str(tmp_path_factory.mktemp("tfds")))
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return made


def test_it_is_read_as_tfds_reads_it(builder: Any) -> None:
    source = open_source(str(builder.data_path))
    assert source.class_names == tuple(NAMES)
    assert source.notes == ()
    assert source.places is not None
    assert source.splits is not None
    read = []
    for id, path in enumerate(source.paths):
        data = source.files.read(path, tuple(source.places[id].tolist()))
        assert len(data) == source.sizes[id]
        read.append((source.splits[id], int(source.labels[id]), np.asarray(Image.open(io.BytesIO(data)))))
    expected = [
        (split, int(example["label"]), example["image"])
        for split in ("train", "test")
        for example in tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    ]
    assert [row[:2] for row in read] == [row[:2] for row in expected]
    assert all(np.array_equal(mine[2], theirs[2]) for mine, theirs in zip(read, expected, strict=True))


def test_paths_say_where_a_picture_lies(builder: Any) -> None:
    source = open_source(str(builder.data_path))
    assert source.paths[0] == "train/00000-of-00003/0"
    assert len(set(source.paths)) == 40
