"""The picture of the flow: each letter shows what is really there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.flow_figure import Flow, draw_flow, follow
from simimg.errors import UsageError
from simimg.similarity.embeddings import load_embedder
from simimg.similarity.index_update import index_folder
from simimg.training import TrainConfig, train
from tfrecords.convert.image.decoder import decode
from tfrecords.format.example import decode_example
from tfrecords.format.manifest import read_manifest
from tfrecords.format.record import HEADER_BYTES


@pytest.fixture(scope="module")
def folders(photos: Path, datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The dataset, a model trained on it, and an index made with that model."""
    folder = tmp_path_factory.mktemp("flow")
    given = {"preset": "tutorial", "epochs": 1, "rotation_degrees": 20.0, "num_devices": 1}
    train(TrainConfig.with_preset({**given, "dataset_dir": datasets["raw"], "model_dir": folder / "run"}))
    index_folder(folder / "index", photos, load_embedder(str(folder / "run")))
    return datasets["raw"], folder / "run", folder / "index"


@pytest.fixture(scope="module")
def flow(photos: Path, folders: tuple[Path, ...]) -> Flow:
    """Of the first picture of an epoch's batches."""
    for row in read_manifest(folders[0]):
        if row.split == "train":
            try:
                return follow(photos / row.path, *folders)
            except UsageError as error:  # 6 of the 54
                assert "among the last examples of the first epoch" in str(error)
    raise AssertionError


def test_each_letter_is_what_is_there(photos: Path, flow: Flow) -> None:
    assert flow.file == (photos / flow.name).read_bytes()
    assert np.array_equal(flow.upright, decode(flow.file))
    example = decode_example(flow.record[HEADER_BYTES:-4])
    assert example == {"id": flow.id, "label": flow.label, "image": flow.stored.tobytes()}
    assert flow.class_name == flow.name.partition("/")[0]
    assert flow.batch.shape == flow.augmented.shape == (16, 32, 32, 3)
    np.testing.assert_array_equal(flow.batch[flow.at], flow.stored)
    assert not np.array_equal(flow.augmented[flow.at], flow.stored)
    assert np.linalg.norm(flow.embedding) == pytest.approx(1, abs=1e-5)
    shares = [share for _, share in flow.answers]
    assert shares == sorted(shares, reverse=True)
    assert flow.query.size == (32, 32)  # of 40
    assert [match.similarity for match in flow.matches] == sorted([m.similarity for m in flow.matches], reverse=True)


def test_it_is_drawn(flow: Flow, tmp_path: Path) -> None:
    draw_flow(tmp_path / "flow.jpg", flow)
    with Image.open(tmp_path / "flow.jpg") as image:
        assert image.mode == "RGB"
        assert image.width > image.height > 1000


def test_a_picture_that_is_not_there(photos: Path, folders: tuple[Path, ...], datasets: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"should have discs/none.png in its split train, as raw pixels"):
        follow(photos / "discs" / "none.png", *folders)
    with pytest.raises(UsageError, match="as raw pixels"):
        follow(photos / "discs" / "0.png", datasets["jpeg"], *folders[1:])
