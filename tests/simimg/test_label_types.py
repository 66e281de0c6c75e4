"""Datasets with several labels per image, numbers, no labels, and further features, from a table to a trained model."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import simimg
from simimg.commands import evaluate, show, train
from simimg.errors import UsageError
from simimg.evaluation import multi_label_figures, regression_figures
from simimg.evaluation.label_figures import average_precision
from simimg.input import eval_batches, open_reader, target_spread
from simimg.models.backbones import NETWORKS
from simimg.models.model_folder import OBJECTIVES
from simimg.report.conversion import summary_table, write_conversion_report
from simimg.training import TrainConfig
from simimg.training.builders import build_state
from simimg.training.checkpoints import Progress
from simimg.training.run_setup import open_run_setup
from simimg.training.train_step import StepRunner, training_step
from tests.simimg.training.test_step_matrix import build
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_images import count_labels
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

pytestmark = pytest.mark.own_process
SIZE = 16
COLORS = {"red": 0, "green": 1, "blue": 2}
KINDS: dict[str, dict[str, Any]] = {
    "multi": {"label_type": "multi"},
    "multi_jpeg": {"label_type": "multi", "encoding": "jpeg", "features": ("age",)},
    "multi_text": {"label_type": "multi", "features": ("caption", "points", "age")},
    "float": {"label_type": "float", "label_column": "level,age", "features": ("box",)},
    "float_png": {"label_type": "float", "label_column": "level", "encoding": "png", "features": ("caption",)},
    "none": {"label_type": "none", "features": ("age",)},
    "single": {"label_column": "first", "features": ("age", "caption")},
}


def rows() -> list[dict[str, Any]]:
    """Images whose colors are their labels; `level` is how bright they are."""
    found = []
    for number in range(32):
        there = [name for bit, name in enumerate(COLORS) if number >> bit & 1]
        found.append(
            {
                "path": f"{number}.png",
                "colors": "|".join(there),
                "first": there[0] if there else "black",
                "level": 80.0 + 5 * number,
                "age": number - 3,
                "caption": f"no. {number} ü",
                "points": ";".join(map(str, range(number % 3))),
                "box": json.dumps([number, number + 0.5]),
            }
        )
    return found


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    lines = [",".join(rows()[0])]
    for row in rows():
        pixels = rng.integers(0, 40, (SIZE, SIZE, 3))
        for name in filter(None, row["colors"].split("|")):
            pixels[..., COLORS[name]] += int(row["level"] * 0.8)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / row["path"])
        lines.append(",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()))
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return {name: converted(folder, name, **options) for name, options in KINDS.items()}


def converted(folder: Path, name: str, **options: Any) -> Path:
    label = {} if "label_column" in options or options["label_type"] == "none" else {"label_column": "colors"}
    given = {"table": str(folder / "t.csv"), "data_dir": folder / "data", "copies": "ignore", "image_size": SIZE}
    config = ConvertConfig(name=name, num_workers=1, **{**given, **label, **options})
    summary = convert(config)
    assert convert(config).num_converted == 0  # it is recognized as what it is
    assert simimg.verify(summary.dataset_dir).problems == ()
    (summary.dataset_dir.parent / "notes").write_text("\n".join(summary.warnings))
    return summary.dataset_dir


def expected_label(name: str, row: dict[str, Any], class_names: tuple[str, ...]) -> Any:
    if name.startswith("multi"):
        return [int(one in row["colors"].split("|")) for one in class_names]
    if name == "single":
        return class_names.index(row["first"])
    return {"float": [row["level"], row["age"]], "float_png": [row["level"]], "none": -1}[name]


def test_raw_records_keep_one_length_unless_there_is_text(datasets: dict[str, Path]) -> None:
    strides = {
        name: json.loads((folder / "layout.json").read_text())["offsets"]["record_bytes"]
        for name, folder in datasets.items()
    }
    assert {name for name, stride in strides.items() if stride} == {"multi", "float", "none"}
    for name, what in (("multi_text", "caption (text), points (int64[])"), ("single", "caption (text)")):
        assert f"differ in length because of {what}" in (datasets[name].parent / "notes").read_text()
    assert "differ in length" not in (datasets["multi_jpeg"].parent / "notes").read_text()


@pytest.mark.parametrize("name", KINDS)
def test_every_reader_and_tfds_give_the_labels(datasets: dict[str, Path], name: str) -> None:
    wanted = dict(enumerate(rows()))
    seen = []
    for kind in ("resident", "mapped", "stream"):
        reader, _ = open_reader(datasets[name], "train", kind)
        names = reader.split.class_names
        found = {}
        for batch in eval_batches(reader, 7):
            assert batch.label.dtype == reader.split.label_dtype
            assert batch.label.shape == (7, *reader.split.label_shape)
            for id, label, image in zip(*(part.numpy() for part in (batch.id, batch.label, batch.image)), strict=True):
                if id >= 0:
                    assert label.tolist() == expected_label(name, wanted[int(id)], names)
                    found[int(id)] = image.tobytes()
        seen.append(found)
    assert seen[0] == seen[1] == seen[2]
    builder = tfds.builder_from_directory(datasets[name])
    for example in builder.as_dataset(split="train"):
        row = wanted[int(example["id"])]
        features = {"age": row["age"], "caption": row["caption"].encode(), "box": json.loads(row["box"])}
        features["points"] = [int(one) for one in row["points"].split(";") if one]
        for key in KINDS[name].get("features", ()):
            assert np.array_equal(example[key].numpy(), features[key]), key
        if name == "none":
            assert "label" not in example
        elif name.startswith("multi"):
            there = [builder.info.features["label"].feature.int2str(label) for label in example["label"].numpy()]
            assert sorted(there) == sorted(filter(None, row["colors"].split("|")))
        else:
            expected = expected_label(name, row, names)
            assert np.ravel(example["label"].numpy()).tolist() == np.ravel(expected).tolist()


@pytest.mark.parametrize("name", ["multi", "multi_jpeg", "multi_text"])
def test_each_label_of_an_image_is_counted(datasets: dict[str, Path], name: str) -> None:
    layout, manifest = Layout.load(datasets[name]), read_manifest(datasets[name])
    counts = count_labels(datasets[name], layout, manifest)
    assert counts is not None
    assert counts.sum(axis=1).tolist() == [16, 16, 16, 4]
    lines = summary_table(manifest, layout.counted_names, counts).splitlines()
    assert lines[-1].split() == ["total", "24", "8", "32", "0"]
    assert count_labels(datasets["float"], Layout.load(datasets["float"]), manifest) is None
    report = write_conversion_report(datasets[name], "").read_text()
    assert "(no label)" in report
    for other in ("float", "none"):
        write_conversion_report(datasets[other], "")


@pytest.mark.parametrize("name", KINDS)
def test_show_lists_labels_and_features(datasets: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder, row = datasets[name], rows()[6]  # green and blue
    given: dict[str, Any] = {"dataset_dir": folder, "page": tmp_path / "page.html"}
    values = show.run(show.Options(**given)).values
    counts = {
        "multi": {"blue": 16, "green": 16, "red": 16, "(no label)": 4},
        "float": {"(numbers)": 32},
        "none": {"unlabeled": 32},
    }
    if name != "single":
        assert values["classes"] == counts[name.partition("_")[0]]
    assert values["label_conflicts"] == []
    result = show.run(show.Options(**given, id=6))
    example, text = result.values["example"], result.text
    json.dumps(example)
    page = (tmp_path / "page.html").read_text()
    expected = {"age": row["age"], "caption": row["caption"], "points": [], "box": [6.0, 6.5]}
    assert example["features"] == {key: expected[key] for key in sorted(KINDS[name].get("features", ()))}
    assert "caption" not in example["features"] or f"caption: {row['caption']}" in text
    if name.startswith("multi"):
        assert example["classes"] == ["blue", "green"]
        assert re.search(r"^classes +blue, green$", text, re.M)
        for color, count in (("green", 16), ("(no label)", 4)):  # the first label is blue where there are two
            values = show.run(show.Options(**given, class_name=color)).values
            assert (values["num_examples"], values["classes"]) == (count, {color: count})
    elif name.startswith("float"):
        assert list(example["numbers"].values()) == expected_label(name, row, ())
        assert "level: 110.0" in text
        assert "level: 110.0" in page


def test_load_gives_features(datasets: dict[str, Path]) -> None:
    wanted = rows()
    for batch in simimg.load(datasets["multi_text"], "train", batch_size=5, shuffle=True, ids=True):
        for place, id in enumerate(batch.id.numpy().tolist()):
            assert batch.features["age"][place] == wanted[id]["age"]
            assert batch.features["caption"][place] == wanted[id]["caption"]
            assert ";".join(map(str, batch.features["points"][place])) == wanted[id]["points"]
    batch = next(iter(simimg.load(datasets["float"], "test", batch_size=3, ids=True)))
    assert batch.features["box"].tolist() == [json.loads(wanted[id]["box"]) for id in batch.id.numpy()]
    assert not hasattr(next(iter(simimg.load(datasets["multi"], "test"))), "features")
    seen = {}
    for batch in simimg.load(datasets["multi_text"], "test+train", batch_size=5, ids=True):
        seen |= dict(zip(batch.id.numpy().tolist(), batch.features["caption"], strict=True))
    assert seen == {id: row["caption"] for id, row in enumerate(wanted)}


@pytest.mark.parametrize("name", ["multi", "multi_text", "float_png", "none", "single"])
def test_keras_fits_labels_of_any_form(datasets: dict[str, Path], name: str) -> None:
    """Features as further inputs, on one device; targets as they are stored."""
    features = {"single": ["age", "caption"], "multi_text": ["age"], "none": ["age"]}.get(name, [])
    train = simimg.load(datasets[name], batch_size=5, shuffle=True, features=features)
    ids = simimg.load(datasets[name], batch_size=5, shuffle=True, ids=True)
    wanted, seen = rows(), []
    for element, batch in zip(train, ids, strict=True):
        inputs, label = (element, None) if name == "none" else element
        assert label is None or np.array_equal(label, batch.label)
        assert np.array_equal(inputs["image"] if features else inputs, batch.image)
        for feature in features:
            values = inputs[feature].numpy().tolist()
            values = [value.decode() if feature == "caption" else value for value in values]
            assert values == [wanted[id][feature] for id in batch.id.numpy().tolist()]
        seen += batch.id.numpy().tolist()
    image = keras.layers.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    inputs = {"image": image, "age": keras.layers.Input((), name="age")}
    if features:
        x = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(inputs["age"])])
    kind = name.partition("_")[0]
    loss, activation = {
        "multi": ("binary_crossentropy", "sigmoid"),
        "single": ("sparse_categorical_crossentropy", "softmax"),
        "float": ("mse", None),
        "none": ("mse", None),
    }[kind]
    output = keras.layers.Dense(max(train.num_classes, 1), activation=activation)(x)
    model = keras.Model(inputs if features else image, output)
    model.compile("sgd", loss)
    if kind == "none":
        assert model.predict(train, verbose=0).shape == (len(seen), 1)
        with pytest.raises(UsageError, match="label_type=none: there are no classes to count"):
            _ = train.class_counts
    else:
        if "caption" in features:  # the model has no input for it
            train = train.map(lambda inputs, label: ({"image": inputs["image"], "age": inputs["age"]}, label))
        assert np.isfinite(model.fit(train, verbose=0).history["loss"][0])
    if kind == "multi":
        labels = np.concatenate([batch.label for batch in simimg.load(datasets[name], ids=True)])
        assert train.class_counts.tolist() == labels.sum(axis=0).tolist()
        assert simimg.load(datasets[name], one_hot=True).element_spec[1].dtype == tf.float32
        with pytest.raises(UsageError, match="label_type=multi: only images with one class each"):
            _ = train.class_weights
    if name == "multi_text":
        with pytest.raises(UsageError, match="features='points': its lists differ in length"):
            simimg.load(datasets[name], features=["points"])
        with pytest.raises(UsageError, match="Leave out features="):
            simimg.load(datasets[name], features=["age"], ids=True)
    if kind in ("float", "none"):
        with pytest.raises(UsageError, match=f"one_hot=True: .*label_type={kind}"):
            simimg.load(datasets[name], one_hot=True)


def test_workers_do_not_change_the_bytes_and_append_keeps_the_form(datasets: dict[str, Path], tmp_path: Path) -> None:
    folder = datasets["multi_text"].parents[2]
    options = {"label_column": "colors", "table": str(folder / "t.csv"), "copies": "ignore", "image_size": SIZE}
    config = ConvertConfig(
        name="multi_text", image_dir=str(folder), data_dir=tmp_path, num_workers=2, **{**KINDS["multi_text"], **options}
    )
    again = convert(config).dataset_dir
    for path in again.glob("*.tfrecord*"):
        assert path.read_bytes() == (datasets["multi_text"] / path.name).read_bytes()
    lines = (folder / "t.csv").read_text().splitlines()
    table = tmp_path / "more.csv"
    table.write_text("\n".join(lines[:20]))
    base = dataclasses.replace(config, table=str(table), name="grown")
    convert(base)
    table.write_text("\n".join(lines))
    grown = convert(dataclasses.replace(base, append=True)).dataset_dir
    assert simimg.verify(grown).ok
    assert sum(len(simimg.load(grown, split, batch_size=1)) for split in ("train", "test")) == 32
    table.write_text("\n".join([*lines[:20], lines[20].replace('"no. 19 ü"', '"19"').replace("|", "|x|y|z|")]))
    other = dataclasses.replace(base, name="other")
    convert(dataclasses.replace(other, table=str(folder / "t.csv"), only=""))
    Image.new("RGB", (8, 8)).save(folder / "new.png")
    table.write_text("\n".join([*lines, lines[5].replace("4.png", "new.png").replace('"blue"', '"a|b|c|d"')]))
    with pytest.raises(UsageError, match=r"up to 4 labels per image, and the dataset up to 3.*another --name"):
        convert(dataclasses.replace(other, append=True))
    (folder / "new.png").unlink()


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tutorial", lambda size, count: build(size, count, normalized=False))


TRAINED = {"preset": "tutorial", "optimizer": "adamw", "learning_rate": 0.02, "schedule": "constant"}


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("name", ["multi", "float", "float_png"])
def test_a_run_learns_and_is_measured(datasets: dict[str, Path], tmp_path: Path, name: str) -> None:
    options = {**TRAINED, "dataset_dir": datasets[name], "model_dir": tmp_path / "run", "global_batch_size": 8}
    augmented_less = {"rotation_degrees": 0.0, "colour_jitter": 0.0, "crop_min_area": 1.0, "label_smoothing": 0.0}
    config = TrainConfig.with_preset({**options, **augmented_less, "epochs": 12})
    result = train.run(config)
    measured = evaluate.run(evaluate.Options(dataset_dir=datasets[name], model_dir=tmp_path / "run"))
    report = (tmp_path / "run" / "evaluation-test.html").read_text()
    if name == "multi":
        assert measured.values["mean_average_precision"] == result.values["test_mean_average_precision"] > 0.9
        assert set(measured.values["per_class"]) == set(COLORS)
        assert "mean average precision" in measured.text
        assert "Average precision per label" in report
        prediction = simimg.predict(tmp_path / "run", datasets[name].parents[2] / "7.png")[0]
        assert all(
            share > 0.3 for share in prediction.probabilities.values()
        )  # it has all three, and they need not add up
    else:
        error = measured.values["mean_absolute_error"]
        assert error == pytest.approx(result.values["test_mean_absolute_error"], rel=1e-5)
        assert error < measured.values["guess_error"]
        assert "mean absolute error" in measured.text
        assert "Error per target" in report
        with pytest.raises(UsageError, match=r"trained to give numbers \(level"):
            simimg.predict(tmp_path / "run", datasets[name].parents[2] / "7.png")
    from_run = TrainConfig.with_preset({**options, "epochs": 1, "weights": str(tmp_path / "run"), "seed": 1})
    train.run(dataclasses.replace(from_run, dataset_dir=datasets["single"], model_dir=tmp_path / "classes"))
    with pytest.raises(UsageError, match=r"--label_type=\w+, but .* has --label_type=single"):
        simimg.evaluate(tmp_path / "run", datasets["single"])
    with pytest.raises(UsageError, match="has no confusion matrix"):
        evaluate.run(evaluate.Options(dataset_dir=datasets[name], model_dir=tmp_path / "run", picture=Path("x.png")))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none", {}, r"has no labels\. .*--objective=similarity"),
        ("multi", {"objective": "regression"}, r"has labels for --objective=multilabel"),
        ("single", {"objective": "multilabel"}, r"has labels for --objective=classes"),
        ("float", {"class_weights": "balanced"}, r"numbers as labels have no one class"),
    ],
)
def test_labels_that_do_not_fit(datasets: dict[str, Path], name: str, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_run_setup(TrainConfig.with_preset({**TRAINED, "dataset_dir": datasets[name], "model_dir": "x", **options}))


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("multi", {"accumulate": 2, "cache": "device"}),
        ("multi_jpeg", {"precision": "float16", "clip_norm": 0.1}),
        ("float", {"accumulate": 2, "precision": "bfloat16", "ema": 0.9}),
        ("float_png", {"cache": "device"}),
    ],
)
def test_two_replicas_are_one(datasets: dict[str, Path], tmp_path: Path, name: str, options: Any) -> None:
    values = []
    for count in (1, 2):
        given = {**TRAINED, "optimizer": "sgd", "epochs": 1, "global_batch_size": 16, "num_devices": count, **options}
        setup = open_run_setup(
            TrainConfig.with_preset({"dataset_dir": datasets[name], "model_dir": tmp_path / str(count), **given})
        )
        config, split, order = setup.config, setup.reader.split, setup.order
        spread = target_spread(setup.reader) if config.objective == "regression" else None
        with setup.strategy.scope():
            state = build_state(config, split.image_size, len(split.class_names), setup.num_steps, spread)
        progress = Progress()
        step = training_step(config, setup.strategy, state, order, setup.reader)
        StepRunner(setup.strategy, step, order, setup.reader).call(progress)
        found = {key: variable.numpy() for key, variable in state.variables().items()}
        values.append({**found, "loss": np.float32(progress.metrics.loss), "score": np.float32(progress.metrics.score)})
    half = "precision" in options
    for key, value in values[0].items():
        np.testing.assert_allclose(value, values[1][key], rtol=2e-2 if half else 1e-4, atol=1e-2 if half else 1e-4)


def test_spread(datasets: dict[str, Path]) -> None:
    for name in ("float", "float_png"):
        reader, _ = open_reader(datasets[name], "train", "mapped")
        labels = np.concatenate([label for _, label in simimg.load(datasets[name], "train", batch_size=4)])
        means, deviations = target_spread(reader)
        np.testing.assert_allclose(means, labels.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(deviations, labels.std(axis=0), rtol=1e-6)


def test_average_precision() -> None:
    """Values of scikit-learn's average_precision_score."""
    assert average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) > 0) == pytest.approx(0.8333333)
    assert average_precision(np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, 0, 0, 1]) > 0) == pytest.approx(0.4166667)
    assert average_precision(np.array([0.5]), np.array([False])) is None
    labels = np.array([[1, 0, 0], [1, 1, 0]], np.uint8)
    figures = multi_label_figures(np.array([[0.9, 0.2, 0.1], [0.8, 0.7, 0.6]], np.float32), labels, ("a", "b", "c"))
    assert figures.per_class == {"a": 1.0, "b": 1.0, "c": None}
    assert figures.mean_average_precision == 1.0
    assert figures.num_images == {"a": 2, "b": 1, "c": 0}
    assert figures.binary_accuracy == pytest.approx(5 / 6)
    errors = regression_figures(np.array([[1.0], [3.0]], np.float32), np.array([[2.0], [6.0]], np.float32), ("x",))
    assert (errors.mean_absolute_error, errors.guess_error) == (2.0, 2.0)
    assert errors.root_mean_squared_error == pytest.approx(5**0.5)
    assert errors.per_target == {"x": 2.0}


def test_outputs_of_a_network_for_numbers_have_the_spread_of_the_targets() -> None:
    config = TrainConfig.with_preset({"dataset_dir": "x", "preset": "tutorial", "objective": "regression"})
    state = build_state(config, 32, 2, 1, ([100.0, -5.0], [10.0, 0.1]))
    outputs = state.model(tf.random.stateless_uniform([64, 32, 32, 3], [0, 0], 0, 255)).numpy()
    assert np.all(np.abs(outputs.mean(axis=0) - [100, -5]) < [20, 0.2])
    assert isinstance(state.model.layers[-1], keras.layers.Rescaling)


@pytest.mark.usefixtures("tiny_network")
def test_a_split_without_labels_has_no_average_precision(tmp_path: Path, datasets: dict[str, Path]) -> None:
    folder = datasets["multi"].parents[2]
    lines = [
        "path,labels,split",
        *(f"{n}.png,{'' if n > 27 else 'red'},{'test' if n > 27 else 'train'}" for n in range(32)),
    ]
    (folder / "s.csv").write_text("\n".join(lines))
    given: dict[str, Any] = {
        "table": str(folder / "s.csv"),
        "label_type": "multi",
        "splits": "source",
        "copies": "ignore",
    }
    made = convert(ConvertConfig(data_dir=tmp_path, image_size=SIZE, num_workers=1, name="s", **given)).dataset_dir
    options = {**TRAINED, "dataset_dir": made, "epochs": 1, "global_batch_size": 8, "model_dir": tmp_path / "run"}
    train.run(TrainConfig.with_preset(options))
    with pytest.raises(
        UsageError, match=r"no image in split test of .* has a label, .* Name another split with --split"
    ):
        simimg.evaluate(tmp_path / "run", made)
    assert simimg.evaluate(tmp_path / "run", made, split="train").mean_average_precision == 1.0
    with pytest.raises(UsageError, match=r"on 1 classes at 16 px \(red\), but .* Name a dataset of the same classes"):
        simimg.evaluate(tmp_path / "run", datasets["multi"])


def test_errors_of_any_size_are_shown() -> None:
    assert OBJECTIVES["regression"].text(1.23456e-7) == "1.235e-07"
    assert OBJECTIVES["regression"].text(3.01360197e30) == "3.014e+30"
    assert OBJECTIVES["classes"].text(0.5) == "0.5000"
