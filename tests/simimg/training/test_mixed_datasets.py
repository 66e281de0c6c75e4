"""Several datasets in one training: classes by name, batches by position, figures of all or of each."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg import cli
from simimg.errors import UsageError
from simimg.input import (
    Order,
    Position,
    batches_of,
    eval_batches,
    label_counts,
    mixture_of,
    open_reader,
    target_spread,
    train_batches,
)
from simimg.training import StepInfo, TrainConfig, Watcher, load_run, train, train_step
from simimg.training.run_setup import open_run_setup
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.manifest import read_manifest

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
    assert f"all 4, joined by name: {pair['A']} lacks c, d; {pair['B']} lacks a" in text
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


def test_notes_on_names_copies_and_preparation(pair: dict[str, Path], tmp_path: Path) -> None:
    """A folder whose test images A is trained on, with a class that looks like one of A."""
    for path in sorted((pair["A"].parents[1] / "A" / "a").iterdir()):
        (tmp_path / "C" / "A ").mkdir(parents=True, exist_ok=True)
        (tmp_path / "C" / "A " / path.name).write_bytes(path.read_bytes())
    made = {"data_dir": tmp_path, "image_size": SIDE, "num_workers": 1, "copies": "ignore", "resize": "crop"}
    other = convert(ConvertConfig(image_dir=tmp_path / "C", name="C", splits="train=0.5,test=0.5", **made)).dataset_dir
    config = options(pair, tmp_path / "run", dataset_dir=(pair["A"], other), weights="auto")
    notes = "\n".join(open_run_setup(config).sentences())
    assert "mixing 2 datasets, each example once per epoch" in notes
    assert "'a' and 'A ' look the same and are different classes" in notes
    assert f"{other} was converted with --resize=crop, unlike {pair['A']}" in notes
    names = {
        (number, split): {
            Path(row.path).name for row in read_manifest(folder) if row.split == split and row.path[0] in "aA"
        }
        for number, folder in enumerate((pair["A"], other))
        for split in ("train", "test")
    }
    copies = sum(len(names[number, "test"] & names[1 - number, "train"]) for number in (0, 1))
    assert f"{copies} images of the split test are trained on in another dataset, e.g. " in notes


@pytest.mark.parametrize("kind", ["resident", "mapped"])
def test_a_corrupt_record_and_a_foreign_folder(pair: dict[str, Path], tmp_path: Path, kind: str) -> None:
    damaged = Path(shutil.copytree(pair["B"], tmp_path / "damaged"))
    shard = next(damaged.glob("*train*.tfrecord*00000-of*[0-9]"))
    data = bytearray(shard.read_bytes())
    data[60] ^= 1
    shard.write_bytes(data)
    reader, _ = open_reader([pair["A"], damaged], "train", kind, on_corrupt="skip")
    batches = list(batches_of(eval_batches(reader, 20)))
    assert sum(int((batch.id.numpy() == -1).sum()) for batch in batches) == 1
    ((place, fault),) = reader.corrupt.items()
    assert (place, str(shard) in fault) == (8, True)
    foreign = Path(shutil.copytree(pair["B"], tmp_path / "foreign"))
    (foreign / "layout.json").unlink()
    if kind == "mapped":
        with pytest.raises(UsageError, match="needs shards that `simimg convert` wrote; .*foreign has no layout.json"):
            open_reader([pair["A"], foreign], "train", kind)
        return
    reader, _ = open_reader([foreign, pair["A"]], "train", kind)
    (batch,) = list(batches_of(eval_batches(reader, 20)))
    assert batch.id.numpy()[:12].tolist() == list(range(12))
    names = reader.split.class_names
    assert [names[label] for label in batch.label.numpy()] == ["abcd"[shade] for shade in shades(batch)]
    assert label_counts(reader).tolist() == np.bincount(batch.label).tolist()
    weighted = label_counts(reader, mixture_of(reader.split, "1,1"))
    assert weighted.sum() == pytest.approx(20)
    assert weighted[list(reader.split.class_names).index("a")] == pytest.approx(10 * label_counts(reader)[3] / 8)


def test_several_labels_and_numbers(pair: dict[str, Path], tmp_path: Path) -> None:
    """The columns of B are in another order, or others; its features come with the examples."""
    tables = {
        "m1": ("path,label,age\na/A0.png,a;b,3\nb/A1.png,b,4\n", {"label_type": "multi"}),
        "m2": ("path,label,age\na/A2.png,c;b,5\nb/A3.png,d,6\na/A4.png,c,7\n", {"label_type": "multi"}),
        "f1": ("path,x,y,age\na/A0.png,1,2,3\nb/A1.png,3,4,5\n", {"label_type": "float", "label_column": "x,y"}),
        "f2": ("path,x,y,age\na/A2.png,5,6,7\nb/A3.png,7,8,9\n", {"label_type": "float", "label_column": "y,x"}),
    }
    made = {}
    for name, (text, given) in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
        common = {"image_dir": pair["A"].parents[1] / "A", "data_dir": tmp_path, "num_workers": 1, "features": ("age",)}
        config = ConvertConfig(
            table=tmp_path / f"{name}.csv", name=name, splits="train=1", image_size=SIDE, **common, **given
        )
        made[name] = convert(config).dataset_dir
    for kind in ("resident", "mapped"):
        (batch,) = list(simimg.load([made["m1"], made["m2"]], batch_size=9, reader=kind))
        names = simimg.load([made["m1"], made["m2"]]).class_names
        found = {
            age: {name for name, there in zip(names, row, strict=True) if there}
            for age, row in zip(batch.features["age"].tolist(), batch.label.numpy(), strict=True)
        }
        assert found == {3: {"a", "b"}, 4: {"b"}, 5: {"b", "c"}, 6: {"d"}, 7: {"c"}}
        (batch,) = list(simimg.load([made["f1"], made["f2"]], batch_size=9, reader=kind))
        assert simimg.load([made["f1"], made["f2"]]).class_names == ("x", "y")
        assert {tuple(row) for row in batch.label.numpy().tolist()} == {(1, 2), (3, 4), (5, 6), (7, 8)}
        assert target_spread(open_reader([made["f1"], made["f2"]], "train", kind)[0])[0] == [4, 5]
    with pytest.raises(UsageError, match="the numbers of .* are x, y, and those of .* x. Only datasets with the same"):
        text = tmp_path / "f3.csv"
        text.write_text("path,x\na/A2.png,5\nb/A3.png,7\n")
        config = ConvertConfig(
            table=text,
            name="f3",
            splits="train=1",
            image_size=SIDE,
            label_type="float",
            label_column="x",
            image_dir=pair["A"].parents[1] / "A",
            data_dir=tmp_path,
            num_workers=1,
        )
        simimg.load([made["f1"], convert(config).dataset_dir])
