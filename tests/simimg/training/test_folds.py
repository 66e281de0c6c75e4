"""A dataset in folds: a run tests on one of them and trains on the others, and the runs are one cross-validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simimg
from simimg import cli
from simimg.doctor.dataset_health import check_dataset
from simimg.errors import UsageError
from simimg.input import label_counts, open_reader, open_split, run_splits
from simimg.training import TrainConfig, load_result, train
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig


@pytest.fixture(scope="module")
def folds(tiny: dict[str, Path]) -> Path:
    """The 16 pictures of two classes in three folds."""
    photos, data_dir = tiny["two"].parents[1] / "photos", tiny["two"].parents[1]
    options = ConvertConfig(
        image_dir=str(photos), data_dir=data_dir, name="folds", folds=3, image_size=8, num_workers=1
    )
    return convert(options).dataset_dir


def test_folds_are_read_together(folds: Path) -> None:
    together = simimg.load(folds, "fold3+fold1", batch_size=20, ids=True)
    (batch,) = list(together)
    parts = [next(iter(simimg.load(folds, name, batch_size=20, ids=True))) for name in ("fold3", "fold1")]
    assert batch.id.numpy().tolist() == [id for part in parts for id in part.id.numpy().tolist()]
    assert np.array_equal(batch.image, np.concatenate([part.image for part in parts]))
    for kind in ("resident", "mapped"):
        reader, _ = open_reader(folds, "fold3+fold1", kind)
        assert label_counts(reader).tolist() == np.bincount(batch.label).tolist()
    with pytest.raises(UsageError, match="no split 'test'. It has: fold1, fold2, fold3"):
        open_split(folds, "fold1+test")
    with pytest.raises(UsageError, match="one split twice"):
        open_split(folds, "fold1+fold1")


def test_the_splits_of_a_run(folds: Path, tiny: dict[str, Path], tmp_path: Path, base: dict[str, Any]) -> None:
    assert run_splits(folds, 2) == {"train": "fold1+fold3", "test": "fold2"}
    assert run_splits(tiny["three"], 0)["validation"] == "validation"
    for fold, message in ((0, "3 folds. Name the one to test on, --fold=1 to --fold=3"), (4, "--fold=4: .* 3 folds")):
        with pytest.raises(UsageError, match=message):
            train(TrainConfig.with_preset({**base, "dataset_dir": folds, "model_dir": tmp_path / "run", "fold": fold}))
    with pytest.raises(UsageError, match="--fold=2: .* has no folds. It has: train, validation, test. Make folds with"):
        run_splits(tiny["three"], 2)
    assert not check_dataset(folds, num_cores=1, max_open_files=-1).problems


def test_every_fold_and_their_comparison(
    folds: Path, tiny_model: None, tmp_path: Path, base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / f"cv-fold{fold}-seed0" for fold in (1, 2, 3)]
    for fold, folder in enumerate(runs, 1):
        simimg.train(dataset_dir=folds, model_dir=folder, fold=fold, **base)
    scores = [load_result(folder).figures["test"]["accuracy"] for folder in runs]
    for fold, folder in enumerate(runs, 1):
        figures = simimg.evaluate(folder, folds)
        assert figures.num_examples == open_split(folds, f"fold{fold}").num_examples
        assert figures.accuracy == pytest.approx(scores[fold - 1])
    with pytest.raises(UsageError, match="--fold=1 there, 2 now"):
        simimg.train(dataset_dir=folds, model_dir=runs[0], fold=2, **base)
    capsys.readouterr()
    assert cli.main(["compare", *map(str, reversed(runs)), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert (group["name"], group["folds"], group["seeds"]) == ("cv", [1, 2, 3], [0, 0, 0])
    assert group["scores"] == pytest.approx(scores)
    assert group["mean"] == pytest.approx(np.mean(scores))
    assert group["deviation"] == pytest.approx(np.std(scores, ddof=1))
    assert cli.main(["compare", *map(str, runs)]) == 0
    assert "of 3 runs on folds 1, 2, 3" in capsys.readouterr().out
