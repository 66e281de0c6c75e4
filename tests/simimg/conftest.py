"""Two logical CPU devices for the whole session, and small datasets made by the converter."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from simimg.cli import main
from simimg.commands.console import quiet_tensorflow

with quiet_tensorflow():
    import tensorflow as tf

from simimg import child_process
from simimg.bench import tool_process
from tests.forked_process import ForkedProcess
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

CLASSES = ("discs", "boxes", "stripes")
PER_CLASS = 24

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, 24 pictures each, that a network can tell apart."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(PER_CLASS):
            cx, cy = rng.integers(12, 28, 2)
            mask = {
                "discs": (x - cx) ** 2 + (y - cy) ** 2 < 81,
                "boxes": (abs(x - cx) < 9) & (abs(y - cy) < 9),
                "stripes": (x + cx) % 8 < 4,
            }[name]
            pixels = np.where(mask[..., None], rng.integers(0, 100, 3), rng.integers(150, 256, 3))
            pixels = np.clip(pixels + rng.integers(-12, 13, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def datasets(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pictures at 32 px as a dataset of each encoding; 54 examples to train on, 18 to test."""
    data_dir = tmp_path_factory.mktemp("data")
    return {
        encoding: convert(
            ConvertConfig(
                image_dir=photos, data_dir=data_dir, name=encoding, encoding=encoding, image_size=32, num_workers=1
            )
        ).dataset_dir
        for encoding in ("raw", "jpeg", "png")
    }


@pytest.fixture(scope="module")
def augmented_as_on_a_gpu() -> Iterator[None]:
    """Has pictures be augmented by the operations that a GPU has kernels for.

    XLA takes a second to compile an augmentation for a shape, and what it has compiled takes 13 MB until the process
    ends. tests/simimg/augment compares the two.
    """
    from simimg.augment import augmentation

    made = augmentation._augmented
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentation, "_augmented", lambda config, seed, _, channels: made(config, seed, True, channels))
        yield


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the processes that simimg itself starts be forked, for tests of what they do."""

    def popen(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return (ForkedProcess if command[0] == sys.executable else subprocess.Popen)(command, **options)

    for module in (child_process, tool_process):
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": popen}))


@pytest.fixture(scope="session")
def scene() -> Callable[..., Image.Image]:
    """What draws a picture with much to see in it, from a seed."""
    return draw_scene


def draw_scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with much to see in it: soft colours, and a hundred shapes anywhere."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (4, 5, 3), np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(100):
        x, y, w, h = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(4, 50), rng.integers(4, 50)
        color = tuple(int(level) for level in rng.integers(0, 256, 3))
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x, y, x + w, y + h), fill=color)
        elif kind == 1:
            draw.rectangle((x, y, x + w, y + h), fill=color)
        else:
            corners = [(int(x + rng.integers(w)), int(y + rng.integers(h))) for _ in range(4)]
            draw.polygon(corners, fill=color)
    return image


@pytest.fixture
def simimg_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command and returns its result in JSON, or with another exit code, the message."""

    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        return found.get("error", found)

    return run
