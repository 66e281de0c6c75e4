"""Thumbnails and keypoints that are kept beside an index: computed once, and never wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.image_files import jpeg_bytes
from simimg.similarity import fingerprint as fingerprints
from simimg.similarity.fingerprint import (
    Fingerprint,
    fingerprint_file,
    forget_fingerprints,
    prepare_fingerprint,
    store_key,
)
from simimg.similarity.fingerprint_store import FingerprintStore, remove_fingerprints
from tfrecords.convert.image import decoder
from tfrecords.convert.image.decoded_once import decoded_once

Scene = Callable[..., Image.Image]


@pytest.fixture
def photo(tmp_path: Path, scene: Scene) -> Path:
    path = tmp_path / "photo.jpg"
    scene(1).save(path, quality=90)
    return path


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(one: Fingerprint) -> list[bytes]:
    keypoints = [
        getattr(points, name).tobytes()
        for points in (one.details.coarse, one.details.fine)
        for name in ("points", "scales", "angles", "descriptors")
    ]
    return [repr((one.size, one.jpeg_quality)).encode(), one.thumbnail.tobytes(), *keypoints]


def load(path: Path, index_dir: Path, *, unchanged: bool = True) -> Fingerprint:
    forget_fingerprints()
    store = FingerprintStore(index_dir)
    found = fingerprint_file(path, checksum(path), store=store, unchanged=unchanged)
    content(found)
    store.close()
    return found


def test_what_is_kept_has_the_same_bits(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time, nothing is read or computed."""
    first = content(load(photo, tmp_path))
    for name in ("detect_in", "reduced_file", "read_unchanged"):
        monkeypatch.setattr(fingerprints, name, lambda *_: pytest.fail("computed again"))
    assert content(load(photo, tmp_path)) == first


def test_it_stays_valid_when_the_file_is_renamed(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content(load(photo, tmp_path))
    monkeypatch.setattr(fingerprints, "detect_in", None)
    assert content(load(photo.rename(tmp_path / "other.jpg"), tmp_path)) == first


def test_damage_is_as_good_as_nothing(photo: Path, tmp_path: Path) -> None:
    first = content(load(photo, tmp_path))
    (kept,) = tmp_path.glob("fingerprints-*.sqlite")
    data = bytearray(kept.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    for damaged in (bytes(data), data[:100], b"", b"no database" * 1000):
        kept.write_bytes(damaged)
        assert content(load(photo, tmp_path)) == first
    assert content(load(photo, tmp_path)) == first


def test_a_folder_that_cannot_be_written_is_no_error(photo: Path, tmp_path: Path) -> None:
    first = content(load(photo, tmp_path))
    assert content(load(photo, tmp_path / "missing")) == first


def test_images_that_are_gone_are_removed(photo: Path, tmp_path: Path) -> None:
    load(photo, tmp_path)
    key = f"{checksum(photo)}-white"
    for known, there in (({checksum(photo)}, True), ({"0" * 64}, False)):
        remove_fingerprints(tmp_path, known)
        store = FingerprintStore(tmp_path)
        assert (store.thumbnail(key) is not None) is there
        store.close()


def test_the_oldest_are_removed_at_the_limit(tmp_path: Path, scene: Scene) -> None:
    for number in range(12):
        path = tmp_path / f"{number}.png"
        scene(number).save(path)
        store = FingerprintStore(tmp_path, max_bytes=300_000)
        fingerprint_file(path, checksum(path), store=store).details.coarse  # noqa: B018
        store.close()
    (kept,) = tmp_path.glob("fingerprints-*.sqlite")
    assert kept.stat().st_size < 500_000
    store = FingerprintStore(tmp_path)
    there = [store.thumbnail(f"{checksum(tmp_path / f'{n}.png')}-white") is not None for n in (0, 11)]
    assert there == [False, True]
    store.close()


def test_stores_of_other_versions_are_removed(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "fingerprints-0123.sqlite").write_bytes(b"")
    load(photo, tmp_path)
    assert len(list(tmp_path.glob("fingerprints-*.sqlite"))) == 1


def test_an_edited_file_has_another_fingerprint(photo: Path, tmp_path: Path, scene: Scene) -> None:
    first = load(photo, tmp_path, unchanged=False)
    scene(2).save(photo, quality=90)
    assert not np.array_equal(load(photo, tmp_path, unchanged=False).thumbnail, first.thumbnail)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_large_file_is_decoded_once(tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What was prepared of it is the same as what is computed later, and a PNG is kept for the full comparison."""
    path = tmp_path / f"large.{kind}"
    scene(2).resize((2048, 1536), Image.Resampling.BICUBIC).save(path)
    first = content(load(path, tmp_path / "missing"))
    store, sha256 = FingerprintStore(None), checksum(path)
    prepare_fingerprint(sha256, path.read_bytes(), store)
    for name in ("fitted_in", "reduced_file"):
        monkeypatch.setattr(fingerprints, name, lambda *_, **__: pytest.fail("decoded again"))
    forget_fingerprints()
    assert content(fingerprint_file(path, sha256, store=store, unchanged=True)) == first
    kept = store.reduced(store_key(sha256, (255, 255, 255))) or ()
    assert [image.shape for image in kept] == ([(768, 1024, 3)] if kind == "png" else [])


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (4000, 3000)])
def test_a_jpeg_is_decoded_once_for_the_index_and_the_fingerprint(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    data = jpeg_bytes(scene(2).resize(size), 90)
    reductions: list[int] = []
    decoded = decoder.decode_reduced
    monkeypatch.setattr(decoder, "decode_reduced", lambda *args: reductions.append(args[2]) or decoded(*args))
    with decoded_once(data):
        decoder.load_image(data, decoder.ImageOptions(image_size=224))
        prepare_fingerprint("0" * 64, data, FingerprintStore(None))
    assert len(reductions) == 1


def test_no_more_is_kept_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simimg.similarity.fingerprint_store._MAX_KEPT_BYTES", 100)
    store, images = FingerprintStore(None), (np.zeros((5, 4, 3), np.uint8),)
    assert store.add_reduced("a", images)
    assert store.add_reduced("b", images)
    assert not store.add_reduced("c", images)
    assert store.reduced("a") == images
    assert store.reduced("c") is None
