"""Folders of generated pictures, and the datasets that are made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.engine import convert
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan import shard_plan as plan_module
from tfrecords.convert.plan.convert_config import ConvertConfig

MakeFolder = Callable[..., Path]
Digests = Callable[[Path], dict[str, str]]


def write_picture(path: Path, seed: int, *, size: tuple[int, int] = (24, 20), **save: Any) -> None:
    """Writes a picture of smooth coloured noise, whose bytes and pixels differ from those of every other seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **save)


def make_folder(folder: Path, classes: Mapping[str, int], *, size: tuple[int, int] = (24, 20)) -> Path:
    """Fills `folder` with a class folder each, of so many pictures, PNG and JPEG in turn."""
    seed = 0
    for name, count in classes.items():
        for number in range(count):
            seed += 1
            write_picture(folder / name / f"image_{number}{'.png' if number % 2 else '.jpg'}", seed, size=size)
    return folder


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below `folder`, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(name="make_folder", scope="session")
def _make_folder() -> MakeFolder:
    return make_folder


@pytest.fixture(name="write_picture", scope="session")
def _write_picture() -> Callable[..., None]:
    return write_picture


@pytest.fixture(name="digests_of", scope="session")
def _digests_of() -> Digests:
    return digests_of


@pytest.fixture
def tiny_model(tmp_path: Path) -> str:
    """The --model of an ONNX network, which needs no TensorFlow."""
    path = Path(__file__).parents[1] / "simimg" / "inference" / "onnx_file.py"
    spec = importlib.util.spec_from_file_location("onnx_file", path)
    assert spec is not None
    assert spec.loader is not None
    onnx_file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(onnx_file)
    return f"{onnx_file.write_network(tmp_path / 'tiny.onnx')},range=0..1"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a split of 8 examples or more in several shards."""
    monkeypatch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 4)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 22 and 18 pictures. Only to be read."""
    return make_folder(tmp_path_factory.mktemp("photos") / "zoo", {"ant": 22, "bee": 18})


LABELED: dict[str, dict[str, Any]] = {
    "multi": {"label_type": "multi", "label_column": "colors", "features": ("age",)},
    "multi_png": {"label_type": "multi", "label_column": "colors", "features": ("caption",), "encoding": "png"},
    "float": {"label_type": "float", "label_column": "level,age", "features": ("box",)},
    "none": {"label_type": "none", "features": ("age", "words")},
    "single": {"label_column": "first", "features": ("age", "box")},
}
"""Options of datasets with other labels than one class, or with further features."""


@pytest.fixture(scope="session")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConvertSummary]:
    """Converts a table of 16 pictures with one of the options of `LABELED`; row n is `labeled_row(n)`."""
    folder = tmp_path_factory.mktemp("labeled")
    lines = [",".join(labeled_row(0))]
    for number in range(16):
        write_picture(folder / f"{number}.png", number)
        lines.append(",".join(f'"{value}"' for value in labeled_row(number).values()))
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")

    def convert_table(kind: str, data_dir: Path, **options: Any) -> ConvertSummary:
        given = {"table": str(folder / "t.csv"), "copies": "ignore", "image_size": 8, "num_workers": 1, "name": kind}
        return convert(ConvertConfig(data_dir=data_dir, **{**given, **LABELED[kind], **options}))

    return convert_table


@pytest.fixture(name="labeled_row", scope="session")
def _labeled_row() -> Callable[[int], dict[str, Any]]:
    return labeled_row


def labeled_row(number: int) -> dict[str, Any]:
    """The cells of an image of `labeled`: two colors at most, of three."""
    colors = [("red", "green", "blue")[bit] for bit in range(3) if number >> bit & 1][:2]
    return {
        "path": f"{number}.png",
        "colors": "|".join(colors),
        "first": colors[0] if colors else "black",
        "level": number / 2,
        "age": number - 3,
        "box": f"{number};{number}.5",
        "caption": f"no. {number} ü",
        "words": ";".join(map(str, range(number % 3))),
    }


@dataclasses.dataclass(frozen=True)
class Converted:
    """A dataset and how it was made."""

    config: ConvertConfig
    summary: ConvertSummary

    @property
    def folder(self) -> Path:
        """Where the dataset lies."""
        return self.summary.dataset_dir


@pytest.fixture(scope="session", params=["raw", "png", "jpeg"])
def converted(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The photos in each encoding, 16 px, in 7 shards of train and 2 of test. Only to be read."""
    return _converted(photos, tmp_path_factory, request.param)


@pytest.fixture(scope="session")
def converted_raw(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The photos as raw records. Only to be read."""
    return _converted(photos, tmp_path_factory, "raw")


def _converted(photos: Path, tmp_path_factory: pytest.TempPathFactory, encoding: str) -> Converted:
    config = ConvertConfig(
        image_dir=str(photos),
        data_dir=tmp_path_factory.mktemp(encoding),
        image_size=16,
        encoding=encoding,
        num_workers=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 4)
        return Converted(config, convert(config))


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, imported only where its reading or writing is the reference."""
    import tensorflow

    return tensorflow
