"""Images in the eight positions: their common hash, and thumbnails that agree without keypoints."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from simimg.similarity.fingerprint import fingerprint
from simimg.similarity.match_verification import verify
from simimg.similarity.position_match import match_position
from tfrecords.convert.image.near_duplicates import NO_HASH, position_hashes

Scene = Callable[..., Image.Image]
POSITIONS = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def turned(image: Image.Image, turns: int, mirrored: bool) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)))


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("seed", range(4))
def test_all_positions_have_one_hash(scene: Scene, seed: int) -> None:
    square = scene(seed).resize((224, 224))
    squares = np.stack([np.asarray(turned(square, *position)) for position in POSITIONS])
    hashes = position_hashes(squares)
    assert hashes[0] != NO_HASH
    assert np.bitwise_count(hashes ^ hashes[0]).max() == 0
    assert position_hashes(np.asarray(scene(seed + 10).resize((224, 224)))[None])[0] != hashes[0]


def test_plain_and_tiny_images_have_no_hash() -> None:
    assert position_hashes(np.full((1, 64, 64, 3), 7, np.uint8)).tolist() == [NO_HASH]
    assert position_hashes(np.zeros((1, 4, 64, 3), np.uint8)).tolist() == [NO_HASH]


@pytest.mark.parametrize(("turns", "mirrored"), POSITIONS)
def test_each_position_is_found_without_keypoints(
    scene: Scene, turns: int, mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fingerprint(scene(1))
    copy = fingerprint(saved_again(turned(scene(1), turns, mirrored), 80).resize((150, 240)))
    for one in (original, copy):
        monkeypatch.setattr(type(one.details), "coarse", property(lambda self: 1 / 0))
        monkeypatch.setattr(type(one.details), "fine", property(lambda self: 1 / 0))
    found = verify(copy, original)
    assert found is not None
    assert found.similarity > 0.97
    assert ("mirrored" in found.text or "flipped" in found.text) == mirrored


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: image.crop((12, 8, image.width - 12, image.height - 8)).resize(image.size),
        lambda image: image.rotate(3),
        lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    ],
    ids=["crop", "turn", "blur"],
)
def test_what_needs_an_alignment_or_has_lost_its_detail_is_left_to_keypoints(
    scene: Scene, edit: Callable[[Image.Image], Image.Image]
) -> None:
    assert match_position(fingerprint(edit(scene(1))), fingerprint(scene(1))) is None


def test_smooth_images_match_in_no_position() -> None:
    ramp = np.linspace(0, 255, 200)[None, :, None] + np.zeros((150, 1, 3))
    one, other = (Image.fromarray(side.astype(np.uint8)) for side in (ramp, ramp[:, ::-1]))
    assert match_position(fingerprint(one), fingerprint(other)) is None
