"""Several datasets in one training: classes by name, batches by position, figures of all or of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg import cli
from simimg.errors import UsageError
from simimg.input import Order, Position, batches_of, label_counts, mixture_of, open_reader, train_batches
from simimg.training import StepInfo, TrainConfig, Watcher, load_run, train, train_step
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

SIDE = 8


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`A` has 16 images of a and b as raw pixels, `B` 24 of c, b and d as PNG; images of a class have one color."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(3)
    made = {}
    for name, classes, encoding, number in (("A", "ab", "raw", 8), ("B", "cbd", "png", 8)):
        for label in classes:
            (folder / name / label).mkdir(parents=True)
            for image in range(number):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                pixels[:] = 60 * "abcd".index(label) + image
                pixels[0, 0, 0] = rng.integers(0, 256)  # so that no two are equal
                Image.fromarray(pixels).save(folder / name / label / f"{name}{image}.png")
        splits = "train=0.5,validation=0.25,test=0.25" if name == "A" else "train=0.5,test=0.5"
        options = {"data_dir": folder, "encoding": encoding, "image_size": SIDE, "num_workers": 1, "copies": "ignore"}
        made[name] = convert(ConvertConfig(image_dir=folder / name, name=name, splits=splits, **options)).dataset_dir
    return made


def shades(batch: Any) -> list[int]:
    """The classes that the colors of a batch say."""
    return (batch.image.numpy()[:, 4, 4, 0] // 60).tolist()


@pytest.mark.parametrize("kind", ["resident", "mapped"])
def test_examples_are_those_of_each_dataset(pair: dict[str, Path], kind: str) -> None:
    both = [pair["A"], pair["B"]]
    (batch,) = list(simimg.load(both, batch_size=40, reader=kind))
    parts = [next(iter(simimg.load(folder, batch_size=40))) for folder in both]
    np.testing.assert_array_equal(batch.image, np.concatenate([part.image for part in parts]))
    own = [*parts[0].id.numpy(), *(parts[1].id.numpy() + 2**35)]
    assert batch.id.numpy().tolist() == own
    names = simimg.load(both).class_names
    assert names == ("a", "b", "c", "d")
    assert [names[label] for label in batch.label.numpy()] == ["abcd"[shade] for shade in shades(batch)]
    reader, _ = open_reader(both, "train", kind)
    assert label_counts(reader).tolist() == np.bincount(batch.label).tolist()

    mixed = simimg.load(both, weights=[3, 1], shuffle=True, batch_size=5, reader=kind, epochs=3)
    assert (len(mixed), mixed.num_examples) == (12, 20)
    found = list(mixed)
    ids = np.concatenate([batch.id.numpy() for batch in found])
    assert abs((ids < 2**35).mean() - 0.75) < 0.04
    assert set(ids.tolist()) <= set(own)
    assert all([names[label] for label in batch.label.numpy()] == ["abcd"[s] for s in shades(batch)] for batch in found)


def test_readers_replicas_and_positions_see_the_same(pair: dict[str, Path]) -> None:
    both = [pair["A"], pair["B"]]
    kept = {}
    for kind in ("resident", "mapped"):
        reader, _ = open_reader(both, "train", kind)
        common = {"num_examples": 20, "global_batch_size": 8, "num_epochs": 3, "seed": 1}
        mixture = mixture_of(reader.split, "1,1")
        for replicas in (1, 2, 8):
            start = Position(1, 1) if replicas == 2 else Position()
            order = Order(**common, mixture=mixture, num_replicas=replicas, start=start)
            batches = list(batches_of(train_batches(reader, order)))
            ids, images = (np.concatenate([getattr(b, name).numpy() for b in batches]) for name in ("id", "image"))
            whole = kept.setdefault("all", (ids, images))
            np.testing.assert_array_equal(ids, whole[0][-len(ids) :])
            np.testing.assert_array_equal(images, whole[1][-len(ids) :])
    ids = kept["all"][0]
    assert len(ids) == 48
    # Each of the 24 positions of A is another pass over one of its 8 images, and so another augmentation.
    assert len(set(ids.tolist())) == len(ids)
    assert len({id & 2**43 - 1 for id in ids.tolist()}) == 20


def options(pair: dict[str, Path], model_dir: Path, **changes: Any) -> TrainConfig:
    given = {"dataset_dir": (pair["A"], pair["B"]), "model_dir": model_dir, "preset": "tutorial", "epochs": 2}
    fast = {"global_batch_size": 4, "learning_rate": 0.01, "reader": "mapped", "weights": "1,1"}
    return TrainConfig.with_preset({**given, **fast, **changes})


def test_a_run_its_resumption_and_its_evaluation(
    pair: dict[str, Path],
    tiny_model: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train_step, "_CALL_S", 0.0)  # one step per call
    notes: list[str] = []
    config = options(pair, tmp_path / "whole")
    assert (config.dataset_weights, config.start) == ("1,1", "none")
    train(config, Watcher(note=notes.append))
    text = "\n".join(notes)
    assert f"mixing 2 datasets, by --dataset_weights: {pair['A']} 50.0% (8 examples, 1.25 times per epoch)" in text
    assert f"all 4 of them, joined by name: {pair['A']} lacks c, d; {pair['B']} lacks a" in text
    assert f"the split validation is that of {pair['A']} alone; the others have none" in text

    class Stop(Exception):
        pass

    def stop(info: StepInfo) -> None:
        if info.step == 7:  # in the middle of the second epoch
            raise Stop

    stopped = options(pair, tmp_path / "stopped", checkpoint_every_s=0.0)
    with pytest.raises(Stop):
        train(stopped, Watcher(step=stop))
    train(stopped, Watcher(note=notes.append))
    assert any("resuming from epoch 2, step" in note for note in notes)
    whole, again = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "stopped"))
    for key in ("history", "test_accuracy", "validation_accuracy"):
        np.testing.assert_allclose(_numbers(again[key]), _numbers(whole[key]), rtol=1e-4)

    info = load_run(tmp_path / "whole")
    assert info.config["dataset_dir"] == [str(pair["A"]), str(pair["B"])]
    assert (info.config["dataset_weights"], info.class_names) == ("1,1", ("a", "b", "c", "d"))
    with pytest.raises(UsageError, match="another run: .*--dataset_weights=1,1 there, 2,1 now"):
        train(options(pair, tmp_path / "whole", weights="2,1"))
    alone = {name: simimg.evaluate(tmp_path / "whole", folder) for name, folder in pair.items()}
    assert {name: figures.num_examples for name, figures in alone.items()} == {"A": 4, "B": 12}
    both = ["evaluate", f"--model_dir={tmp_path / 'whole'}", *(f"--dataset_dir={pair[name]}" for name in "AB")]
    capsys.readouterr()
    assert cli.main([*both, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_examples"] == 16
    right = sum(figures.accuracy * figures.num_examples for figures in alone.values())
    assert figures["accuracy"] == pytest.approx(right / 16)
    assert figures["accuracy"] == pytest.approx(whole["test_accuracy"])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for line in value for number in line.values()]
    return [value]


def test_datasets_that_do_not_fit(pair: dict[str, Path], tmp_path: Path) -> None:
    A, B = pair["A"], pair["B"]
    other = convert(ConvertConfig(from_dataset=str(B), data_dir=tmp_path, image_size=4, num_workers=1)).dataset_dir
    with pytest.raises(UsageError, match=f"{A} has images of 8 px, and {other} of 4 px. Convert one of them: simimg"):
        simimg.load([A, other])
    unlabeled = convert(
        ConvertConfig(image_dir=A.parents[1] / "A", data_dir=tmp_path, label_type="none", image_size=8, num_workers=1)
    ).dataset_dir
    with pytest.raises(UsageError, match="--label_type=single, and .* of --label_type=none. Only datasets with one"):
        simimg.load([A, unlabeled])
    with pytest.raises(UsageError, match="is given twice. Leave one out; --dataset_weights"):
        simimg.load([A, A.parent / ".." / "A" / "1.0.0"])
    with pytest.raises(UsageError, match="no split 'validation'. It has: train, test"):
        simimg.load([A, B], "validation")
    with pytest.raises(UsageError, match="streamed shards cannot be mixed"):
        simimg.load([A, B], reader="stream")
    with pytest.raises(UsageError, match="has 3 numbers for 2 datasets"):
        simimg.load([A, B], weights=[1, 2, 3])
    with pytest.raises(UsageError, match="has 2 numbers for 1 dataset. Give one number per --dataset_dir"):
        simimg.train(A, weights="3,1")
    with pytest.raises(UsageError, match="both weigh the datasets"):
        simimg.train([A, B], weights="3,1", dataset_weights="1,1")
