"""`convert --tfds_name`: a dataset of TensorFlow Datasets is prepared, and then a source as any other."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simimg.commands.convert import Options, run
from simimg.errors import ConversionError, UsageError
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout


@pytest.fixture(scope="module")
def tfds() -> Any:
    """TensorFlow Datasets, which knows one dataset more."""
    import tensorflow_datasets as tfds

    class SimimgTiny(tfds.core.GeneratorBasedBuilder):
        """Twelve pictures of two classes, which need no download."""

        VERSION = tfds.core.Version("2.1.0")
        fails = False

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=("ant", "bee")),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager: Any) -> Any:
            if self.fails:
                raise ConnectionError("no route to host")
            return {"train": self._generate_examples(0, 8), "test": self._generate_examples(8, 12)}

        def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(start, stop):
                noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
                yield number, {"image": noise, "label": number % 2}

    return tfds


@pytest.fixture
def prepared_in(tfds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where datasets are prepared, instead of the home folder."""
    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path / "tfds"))
    return tmp_path / "tfds"


def test_a_data_set_by_name(prepared_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(
        tfds_name="simimg_tiny",
        data_dir=tmp_path / "data",
        image_size=8,
        splits="source",
        copies="exact",
        num_workers=1,
    )
    result = run(options)
    folder = tmp_path / "data" / "simimg_tiny" / "1.0.0"
    assert (result.exit_code, result.values["splits"]) == (0, {"train": 8, "test": 4})
    assert Layout.load(folder).class_names == ("ant", "bee")
    assert verify(folder).ok
    printed = capsys.readouterr()
    assert "preparing simimg_tiny/2.1.0" in printed.err
    assert printed.out == ""
    assert (prepared_in / "simimg_tiny" / "2.1.0" / "dataset_info.json").exists()
    assert run(options).values["num_examples"] == 12
    assert "nothing to do" in run(options).text


@pytest.mark.usefixtures("prepared_in")
def test_what_cannot_be(tfds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--tfds_name=no_such_thing: .*tensorflow\.org/datasets/catalog"):
        run(Options(tfds_name="no_such_thing", data_dir=tmp_path))
    with pytest.raises(UsageError, match=r"--tfds_name=simimg_tiny is a source of its own"):
        run(Options(tfds_name="simimg_tiny", image_dir=str(tmp_path), data_dir=tmp_path))
    monkeypatch.setattr(tfds.builder_cls("simimg_tiny"), "fails", True)
    with pytest.raises(ConversionError, match=r"could not be prepared: no route to host\. .*when the network works"):
        run(Options(tfds_name="simimg_tiny", data_dir=tmp_path / "data"))
    assert not (tmp_path / "data").exists()
