"""Progressive JPEGs at 1/8: the same pixels without the scans that do not matter there."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tfrecords.convert.image import jpeg
from tfrecords.convert.image.jpeg import decode_reduced, plain_jpeg
from tfrecords.convert.image.progressive_jpeg import without_fine_scans

SAMPLINGS = {
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


def photo(width: int, height: int, seed: int, channels: int = 3) -> np.ndarray:
    """Colors that change at every scale, uint8 `[height, width, channels]`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 40 + 2, width // 40 + 2, channels)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, quality: int = 85, sampling: str = "4:2:0", restarts: int = 0) -> bytes:
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]),
    ]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def eighth(data: bytes, colors: str = "RGB") -> np.ndarray:
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return simplejpeg.decode_jpeg(data, colors, False, False, -(-height // 8), -(-width // 8), 1.0, None, True)


@settings(max_examples=60)
@given(
    width=st.integers(1, 260),
    height=st.integers(1, 260),
    seed=st.integers(0, 99),
    quality=st.integers(5, 100),
    sampling=st.sampled_from(sorted(SAMPLINGS)),
    restarts=st.sampled_from([0, 1, 7]),
    channels=st.sampled_from([1, 3]),
)
def test_the_pixels_are_the_same(
    width: int, height: int, seed: int, quality: int, sampling: str, restarts: int, channels: int
) -> None:
    data = encoded(photo(width, height, seed, channels), quality, sampling, restarts)
    fewer = without_fine_scans(data)
    assert fewer is not None
    colors = "GRAY" if channels == 1 else "RGB"
    np.testing.assert_array_equal(eighth(fewer, colors), eighth(data, colors))


@pytest.mark.parametrize(("sampling", "share"), [("4:2:0", 0.45), ("4:4:4", 0.25)])
def test_most_of_a_large_file_is_left_out(sampling: str, share: float) -> None:
    """It has more blocks than one run of zeros."""
    data = encoded(photo(2000, 1400, 0), 90, sampling)
    fewer = without_fine_scans(data)
    assert fewer is not None
    assert len(fewer) < share * len(data)
    np.testing.assert_array_equal(eighth(fewer), eighth(data))


def test_red_green_and_blue_as_they_are() -> None:
    file = io.BytesIO()
    Image.fromarray(photo(200, 100, 0)).save(file, "JPEG", quality=90, progressive=True, keep_rgb=True)
    fewer = without_fine_scans(file.getvalue())
    assert fewer is not None
    np.testing.assert_array_equal(eighth(fewer), eighth(file.getvalue()))


def test_the_reduction_by_eight_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(200, 100, 1))
    header = plain_jpeg(data)
    assert header is not None
    given = list[bytes]()
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        jpeg.simplejpeg, "decode_jpeg", lambda data, *options: given.append(data) or decode(data, *options)
    )
    for by in (8, 4, 2, 1):
        assert decode_reduced(data, header, by) is not None
    assert given == [without_fine_scans(data), data, data, data]


def test_files_that_are_not_whole_are_read_as_they_are() -> None:
    data = encoded(photo(120, 90, 2))
    assert data.endswith(b"\xff\xd9")
    assert not any(without_fine_scans(data[:end]) for end in range(len(data)))
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 6
    for first, second in zip(scans, [*scans[1:], len(data) - 2], strict=True):  # a decoder would guess what is missing
        assert without_fine_scans(data[:first] + data[second:]) is None
    assert without_fine_scans(data[: scans[1]] + data[scans[0] :]) is None  # a scan comes twice
    baseline = io.BytesIO()
    Image.fromarray(photo(120, 90, 2)).save(baseline, "JPEG")
    assert without_fine_scans(baseline.getvalue()) is None


@settings(max_examples=100)
@given(at=st.integers(2, 4000), value=st.integers(0, 255))
def test_damage_is_no_error(at: int, value: int) -> None:
    data = bytearray(encoded(photo(64, 48, 3)))
    data[at % len(data)] = value
    found = without_fine_scans(bytes(data))
    assert found is None or found.endswith(b"\xff\xd9")
