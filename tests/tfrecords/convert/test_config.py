"""A configuration that cannot be used is refused with the option, the value and what it should be."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert.config import ConvertConfig
from tfrecords.errors import UsageError


def config(**values: Any) -> ConvertConfig:
    return ConvertConfig(**{"image_dir": Path("photos"), **values})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("name", "my-set", "--name=my-set: a data set's name is"),
        ("image_size", 0, "--image_size=0: should be 1..4096 px."),
        ("image_size", 4097, "--image_size=4097: should be 1..4096 px."),
        ("resize", "squash", "--resize=squash: should be one of stretch, crop, pad."),
        ("encoding", "webp", "--encoding=webp: should be one of auto, raw, jpeg, png."),
        ("jpeg_quality", 0, "--jpeg_quality=0: should be 1..100."),
        ("jpeg_quality", 101, "--jpeg_quality=101: should be 1..100."),
        ("splits", "train=0.5", "--splits=train=0.5: fractions should"),
        ("num_workers", -1, "--num_workers=-1: should be 1 or more"),
        ("categories", ("a", "b", "a"), "--categories=a,b,a: names a category twice."),
    ],
)
def test_bad_values_are_usage_errors(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        config(**{option: value})


def test_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        ConvertConfig(Path("photos"))  # type: ignore[misc, call-arg]


@pytest.mark.parametrize(("image_size", "expected"), [(1, "raw"), (128, "raw"), (129, "jpeg"), (4096, "jpeg")])
def test_auto_encoding(image_size: int, expected: str) -> None:
    assert config(image_size=image_size).resolved().encoding == expected
    assert config(image_size=image_size, encoding="png").resolved().encoding == "png"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("zoo", "zoo"),
        ("my photos", "my_photos"),
        ("101_ObjectCategories", "images_101_ObjectCategories"),
        ("caltech-5 (new)", "caltech_5_new"),
        ("사진", "images"),
        ("_x_", "x"),
        (".", None),
    ],
)
def test_name_from_the_folder(folder: str, expected: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    resolved = config(image_dir=Path(folder)).resolved()
    assert resolved.name == (expected or "here")
    assert resolved.dataset_dir == Path("data") / resolved.name / "1.0.0"
    assert resolved.resolved() == resolved


def test_a_given_name_stays() -> None:
    assert config(name="other").resolved().name == "other"


def test_determining_options_leave_out_what_does_not_change_the_bytes() -> None:
    resolved = config(data_dir=Path("x"), num_workers=3).resolved()
    assert resolved.determining() == config().resolved().determining()
    assert "jpeg_quality" not in resolved.determining()
    assert config(encoding="jpeg").resolved().determining()["jpeg_quality"] == 95
    names = {field.name for field in dataclasses.fields(ConvertConfig)}
    assert names - set(resolved.determining()) == {"image_dir", "data_dir", "num_workers", "jpeg_quality"}


def test_every_option_has_a_help_sentence() -> None:
    for field in dataclasses.fields(ConvertConfig):
        assert field.metadata["help"].endswith("."), field.name
