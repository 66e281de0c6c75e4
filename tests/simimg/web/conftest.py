"""A small index with copies in it, made with a model that takes no time: the colours of eight by eight fields."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from simimg.similarity.embeddings import Embedder
from simimg.similarity.index_update import index_folder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app

HOST = "127.0.0.1:8765"
TOKEN = "5ec2e7"


def _means(images: np.ndarray) -> np.ndarray:
    small = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 192) / 127.5 - 1
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """What embeds in a millisecond, well enough to find what is there."""
    return Embedder("eight", "f" * 64, 32, "stretch", 192, _means)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: Callable[..., Image.Image]) -> Path:
    """Twelve photos of two classes, and of the first two there are copies."""
    folder = tmp_path_factory.mktemp("collection") / "photos"
    for seed in range(12):
        kind = "dogs" if seed % 2 else "cats"
        (folder / kind).mkdir(parents=True, exist_ok=True)
        scene(seed).save(folder / kind / f"{seed}.jpg", quality=95)
    (folder / "old").mkdir()
    shutil.copy(folder / "cats" / "0.jpg", folder / "old" / "0-bytes.jpg")
    ImageOps.mirror(scene(0)).save(folder / "old" / "0-mirrored.jpg", quality=60)
    exif = Image.Exif()  # it is the camera's file, which is kept
    exif[271], exif[306] = "ExampleCam", "2021:05:04 10:11:12"
    scene(1).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "old" / "1-large.jpg", exif=exif)
    return folder


@pytest.fixture(scope="session")
def index(folder: Path, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    index_dir = tmp_path_factory.mktemp("indexes") / "photos"
    return index_folder(index_dir, folder, embedder).index


@pytest.fixture(scope="session")
def row_of(index: SearchIndex) -> Callable[[str], int]:
    """The row of a path."""
    return index.images.column("path").tolist().index


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


@pytest.fixture
def client(index: SearchIndex, embedder: Embedder, plan_path: Path) -> Iterator[Any]:
    """What asks the page as a browser of this machine does that has opened it."""
    app = create_app(ServedIndex(index, embedder, plan_path), token=TOKEN)
    with TestClient(app, base_url=f"http://{HOST}", cookies={"simimg-8765": TOKEN}) as client:
        yield client
