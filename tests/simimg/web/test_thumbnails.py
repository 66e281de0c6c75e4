"""Thumbnails: their size, their cache, and what is never shown."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.cli import main
from simimg.similarity.embeddings import Embedder
from simimg.similarity.index_update import index_dataset, index_folder
from simimg.similarity.search_index import ImageTable, SearchIndex
from simimg.web.request_guard import RequestError
from simimg.web.thumbnails import CACHE, LARGE_PX, THUMBNAIL_PX, Thumbnails

Scene = Callable[..., Image.Image]


@pytest.fixture
def own(tmp_path: Path, embedder: Embedder, scene: Scene) -> SearchIndex:
    """An index that a test may spoil: a large picture, a small one, one on its side, and one that is all edge."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scene(0, (2400, 1200)).save(folder / "a-large.jpg", quality=90)
    scene(1, (60, 40)).save(folder / "b-small.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(2, (640, 320)).save(folder / "c-side.jpg", exif=exif)
    scene(3, (3000, 3)).save(folder / "d-line.png")
    return index_folder(tmp_path / "index", folder, embedder).index


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def test_sizes_and_orientation(own: SearchIndex) -> None:
    shown = Thumbnails(own)
    assert [opened(shown.thumbnail(row)).size for row in range(4)] == [(320, 160), (60, 40), (160, 320), (320, 1)]
    assert opened(shown.large(0)).size == (1600, 800)
    assert opened(shown.large(1)).size == (60, 40)
    assert max(opened(shown.large(0)).size) == LARGE_PX


def test_it_looks_like_the_picture(own: SearchIndex) -> None:
    expected = Image.open(own.path_of(own.images[0])).resize((320, 160), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(expected, float) - np.asarray(opened(Thumbnails(own).thumbnail(0)), float))
    assert difference.mean() < 5


def test_stored_pixels_are_shown_where_there_are_no_files(embedder: Embedder, scene: Scene, tmp_path: Path) -> None:
    for seed in range(6):
        (tmp_path / "photos" / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        scene(seed).save(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png")
    flags = ["--image_size=96", "--num_workers=1", f"--data_dir={tmp_path / 'data'}", "--name=p"]
    assert main(["convert", f"--image_dir={tmp_path / 'photos'}", *flags]) == 0
    index = index_dataset(tmp_path / "index", tmp_path / "data" / "p" / "1.0.0", embedder).index
    shown = Thumbnails(index)
    row = index.images.column("path").tolist().index("b/3.png")
    expected = np.asarray(scene(3).resize((96, 96), Image.Resampling.BICUBIC), float)
    assert np.abs(expected - np.asarray(opened(shown.large(row)), float)).mean() < 10
    assert opened(shown.thumbnail(row)).size == (96, 96)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(RequestError):
        Thumbnails(index).large(row)


def test_a_thumbnail_is_made_once(own: SearchIndex, embedder: Embedder) -> None:
    first = Thumbnails(own).thumbnail(0)
    sha256 = own.images[0].sha256
    cached = own.index_dir / CACHE / "thumbnails" / sha256[:2] / f"{sha256}-{THUMBNAIL_PX}.jpg"
    assert cached.read_bytes() == first
    again = index_folder(own.index_dir, Path(own.info.image_dir or ""), embedder)  # it does not mind the folder
    assert (again.num_embedded, len(again.index.images)) == (0, 4)
    own.path_of(own.images[0]).unlink()
    assert Thumbnails(own).thumbnail(0) == first
    with pytest.raises(RequestError, match="is gone"):
        Thumbnails(own).large(0)


def test_an_index_that_cannot_be_written_is_served_from_memory(own: SearchIndex) -> None:
    (own.index_dir / CACHE).write_bytes(b"")  # no folder can be made there, not even by root
    shown = Thumbnails(own)
    first = shown.thumbnail(0)
    own.path_of(own.images[0]).unlink()
    assert shown.thumbnail(0) == first


def test_only_the_bytes_that_were_indexed_are_shown(own: SearchIndex, scene: Scene) -> None:
    scene(9).save(own.path_of(own.images[1]))
    with pytest.raises(RequestError, match="was changed") as refused:
        Thumbnails(own).thumbnail(1)
    assert refused.value.status == 404


def test_a_picture_that_was_edited_since_is_not_shown_as_it_was(own: SearchIndex) -> None:
    """Not from the disk or memory either, where its thumbnail is; as the same bytes again, it is shown again."""
    shown, path = Thumbnails(own), own.path_of(own.images[1])
    small, large, old = shown.thumbnail(1), shown.large(1), path.read_bytes()
    edited = bytearray(old)
    edited[-20] ^= 1
    path.write_bytes(bytes(edited))
    for again in (shown, Thumbnails(own)):
        for show in (again.thumbnail, again.large):
            with pytest.raises(RequestError, match="was changed after indexing"):
                show(1)
    path.write_bytes(old)
    assert (shown.thumbnail(1), shown.large(1)) == (small, large)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "a/../../secret.png", "", ".."])
def test_no_path_leads_out_of_the_folder(own: SearchIndex, scene: Scene, path: str) -> None:
    scene(5).save(Path(own.info.image_dir or "").parent / "secret.png")
    pictures = [dataclasses.replace(own.images[0], path=path)]
    with pytest.raises(RequestError, match="not a file of this machine"):
        Thumbnails(dataclasses.replace(own, images=ImageTable.of(pictures))).thumbnail(0)


def test_an_index_without_files_shows_none(own: SearchIndex) -> None:
    elsewhere = dataclasses.replace(own, info=dataclasses.replace(own.info, image_dir=None))
    with pytest.raises(RequestError, match="not a file of this machine"):
        Thumbnails(elsewhere).thumbnail(0)


@pytest.mark.parametrize("row", [-1, 4, 10**9])
def test_rows_that_are_not_there(own: SearchIndex, row: int) -> None:
    with pytest.raises(RequestError, match="There is no image"):
        Thumbnails(own).thumbnail(row)
