"""A configuration that cannot be used is refused with the option, the value and what it should be."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.convert.plan.convert_config import ConvertConfig


def config(**values: Any) -> ConvertConfig:
    return ConvertConfig(**{"image_dir": Path("photos"), **values})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("name", "my-set", "--name=my-set: should be a letter followed by"),
        ("image_size", 0, "--image_size=0: should be 1..4096 px."),
        ("image_size", 4097, "--image_size=4097: should be 1..4096 px."),
        ("resize", "squash", "--resize=squash: should be one of stretch, crop, pad, short, longest, none."),
        ("encoding", "webp", "--encoding=webp: should be one of auto, raw, jpeg, png."),
        ("jpeg_quality", 0, "--jpeg_quality=0: should be 1..100."),
        ("jpeg_quality", 101, "--jpeg_quality=101: should be 1..100."),
        ("splits", "train=0.5", "--splits=train=0.5: fractions should"),
        ("num_workers", -1, "--num_workers=-1: should be 1 or more"),
        ("categories", ("a", "b", "a"), "--categories=a,b,a: has a category twice."),
        ("decode", "slow", "--decode=slow: should be one of fast, exact."),
        ("truncated", "mend", "--truncated=mend: should be one of refuse, keep."),
        ("background", "pinkish", "--background=pinkish: should be a color such as white or #RRGGBB."),
        ("background", "#12345", "--background=#12345: should be a color such as white or #RRGGBB."),
        ("background", "#12345678", "--background=#12345678: should be a color without transparency"),
        ("range", "5", "--range=5: should be auto, full, min-max, or the values that become black and white"),
        ("max_pixels", 0, "--max_pixels=0: should be 1 or more."),
        ("copies", "all", "--copies=all: should be one of near, exact, ignore."),
        ("engine", "spark", "--engine=spark: should be one of local, ray, beam."),
        ("beam_options", "--a=b", "--beam_options='--a=b' needs --engine=beam."),
        ("ray_address", "auto", "--ray_address='auto' needs --engine=ray."),
        ("label_type", "none", "--label_column=breed names labels, and --label_type=none stores none."),
        ("max_refused", "few", "--max_refused=few: should be a number of files, or a percentage such as 1%."),
        ("max_refused", "-1", "--max_refused=-1: "),
        ("max_refused", "1.5", "--max_refused=1.5: "),
        ("max_refused", "100.5%", "--max_refused=100.5%: "),
        ("max_refused", "1 %", "--max_refused=1 %: "),
        ("max_refused", "%", "--max_refused=%: "),
    ],
)
def test_bad_values_are_usage_errors(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        config(**{option: value}, **({"label_column": "breed"} if option == "label_type" else {}))


def test_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        ConvertConfig("photos")  # type: ignore[call-arg]


@pytest.mark.parametrize(("image_size", "expected"), [(1, "raw"), (128, "raw"), (129, "jpeg"), (4096, "jpeg")])
def test_auto_encoding(image_size: int, expected: str) -> None:
    assert config(image_size=image_size).resolved().encoding == expected
    assert config(image_size=image_size, encoding="png").resolved().encoding == "png"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("zoo", "zoo"),
        ("zoo/", "zoo"),
        ("my photos", "my_photos"),
        ("101_ObjectCategories", "images_101_ObjectCategories"),
        ("caltech-5 (new)", "caltech_5_new"),
        ("사진", "images"),
        ("_x_", "x"),
        (".", "here"),
        ("parts/zoo.zip", "zoo"),
        ("ZOO.ZIP", "ZOO"),
        ("zoo-{000..009}.tar", "zoo"),
        ("zoo_*.tar", "zoo"),
        ("https://host/sets/zoo.zip", "zoo"),
        ("s3://bucket/zoo/", "zoo"),
        ("s3://bucket/zoo/part-{0..9}.tar", "part"),
    ],
)
def test_name_from_what_is_converted(
    folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    resolved = config(image_dir=folder).resolved()
    assert resolved.name == expected
    assert resolved.resolved() == resolved


def test_name_from_a_table_where_nothing_else_is_named() -> None:
    assert config(image_dir="", table="lists/birds.parquet").resolved().name == "birds"
    assert config(image_dir="zoo", table="lists/birds.csv").resolved().name == "zoo"


def test_nothing_to_convert_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"--image_dir is missing\. Name a folder"):
        config(image_dir="").resolved()


@pytest.mark.parametrize("option", ["image_dir", "table", "only"])
def test_places_stay_urls_and_paths_become_text(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, expected in (
        ("https://host/a.zip", "https://host/a.zip"),
        (Path("some/where"), "some/where"),
        ("~/photos", "/home/somebody/photos"),
    ):
        assert getattr(config(**{option: given}), option) == expected


def test_a_given_name_stays() -> None:
    assert config(name="other").resolved().name == "other"


def test_determining_options_leave_out_what_does_not_change_the_bytes() -> None:
    elsewhere = {
        "image_dir": "other",
        "table": "some.csv",
        "data_dir": Path("x"),
        "num_workers": 3,
        "append": True,
        "only": "quarantine.jsonl",
        "max_refused": "1%",
        "engine": "beam",
        "beam_options": "--a=b",
        "zip_encoding": "cp949",
    }
    determining = config(name="zoo").resolved().determining()
    assert config(name="zoo", **elsewhere).resolved().determining() == determining
    on_ray = {"engine": "ray", "ray_address": "auto"}
    assert config(name="zoo", **on_ray).resolved().determining() == determining
    names = {field.name for field in dataclasses.fields(ConvertConfig)}
    # Newer options are there if they are not the default, so that older datasets have the same.
    newer = {
        "include": ("a/",),
        "exclude": ("*.gif",),
        "path_column": "1",
        "label_column": "2",
        "range": "min-max",
        "max_pixels": 1000,
        "label_type": "multi",
        "features": ("age", "caption:text"),
        "format": "array_record",
        "group_column": "patient",
        "group_pattern": "p[0-9]+",
        "time_column": "taken",
        "conflicts": "drop",
        "links": "once",
        "write_index": True,
        "channels": 1,
    }
    assert names - set(determining) == {
        *elsewhere,
        *on_ray,
        "jpeg_quality",
        "from_dataset",
        "exclude_from",
        *newer,
        "folds",
    }
    for option, value in newer.items():
        expected = list(value) if isinstance(value, tuple) else value
        found = config(name="zoo", **{option: value}).resolved().determining()
        assert found == {**determining, option: expected}
    assert config(encoding="jpeg").resolved().determining()["jpeg_quality"] == 95
    assert config(splits="source").resolved().determining()["splits"] == "source"
    assert config(name="zoo", conflicts="fail").resolved().determining() == determining
    folds = config(name="zoo", folds=5).resolved()
    assert {**folds.determining(), "splits": determining["splits"]} == {**determining, "folds": 5}
    assert folds.fractions == dict.fromkeys(["fold1", "fold2", "fold3", "fold4", "fold5"], 0.2)


@pytest.mark.parametrize(
    ("option", "spellings"),
    [
        ("background", ("white", "#ffffff", "#FFFFFF")),
        ("background", ("auto", " auto ")),
        ("splits", ("train=0.5,test=0.5", "train=.50, test=5e-1")),
        ("encoding", ("auto", "raw")),
    ],
)
def test_another_spelling_is_no_other_option(option: str, spellings: tuple[str, ...]) -> None:
    found = [config(**{option: spelling}).resolved().determining() for spelling in spellings]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("splits", "train=0.7500001,test=0.2499999"),
        ("splits", "test=0.25,train=0.75"),
        ("splits", "source"),
        ("background", "#fffffe"),
        ("categories", ("a",)),
        ("image_size", 65),
    ],
)
def test_another_value_is_another_option(option: str, value: Any) -> None:
    assert config(**{option: value}).resolved().determining() != config().resolved().determining()


@pytest.mark.parametrize(
    ("max_refused", "num_files", "expected"),
    [
        ("", 100, None),
        ("0", 100, 0),
        ("7", 3, 7),
        ("0%", 100, 0),
        ("1%", 250, 2),
        ("100%", 250, 250),
        ("9.2%", 750, 69),  # and not 68, as 750 * 9.2 is 6899.999999999999
        ("0.5%", 1_000_000, 5000),
    ],
)
def test_refusal_limit(max_refused: str, num_files: int, expected: int | None) -> None:
    assert config(max_refused=max_refused).refusal_limit(num_files) == expected


def test_picture_options() -> None:
    found = config(image_size=9, resize="pad", decode="exact", truncated="keep", background="#010203").resolved().image
    assert found == ImageOptions(image_size=9, resize="pad", decode="exact", truncated="keep", background=(1, 2, 3))


def test_every_option_has_a_help_sentence() -> None:
    for field in dataclasses.fields(ConvertConfig):
        assert field.metadata["help"].endswith("."), field.name
