"""Results of one file that share its decoding are those of separate calls."""

from __future__ import annotations

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.image import decoder, image_reader
from tfrecords.convert.image.decoded_once import decoded_once
from tfrecords.convert.image.decoder import ImageOptions, decode_composites, load_image
from tfrecords.format.quarantine import Refusal


def file(kind: str, mode: str = "RGB", size: tuple[int, int] = (700, 500), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "png": file("PNG"), "transparent png": file("PNG", "RGBA"), "palette": file("PNG", "P"), "gray": file("PNG", "L"),
    "webp": file("WEBP"), "gif": file("GIF", "P"), "tiff": file("TIFF"), "jpeg": file("JPEG"),
    "progressive": file("JPEG", progressive=True), "cmyk": file("JPEG", "CMYK"),
}  # fmt: skip
SMALL, PADDED = ImageOptions(image_size=32), ImageOptions(image_size=28, resize="pad", truncated="keep")
REDUCED = ImageOptions(image_size=16, decoded_px=36, vector_code=True)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the decodings, of whole files and of reduced ones."""
    found: Counter[str] = Counter()
    load, reduced = image_reader._read_plain, decoder.decode_reduced
    jpeg = image_reader._read_jpeg
    monkeypatch.setattr(image_reader, "_read_plain", lambda *args: (found.update(["plain"]), load(*args))[1])
    monkeypatch.setattr(image_reader, "_read_jpeg", lambda *args: (found.update(["jpeg"]), jpeg(*args))[1])
    monkeypatch.setattr(decoder, "decode_reduced", lambda *a, **k: (found.update(["reduced"]), reduced(*a, **k))[1])
    return found


def results(data: bytes) -> list[np.ndarray]:
    squares = [load_image(data, options, contrast=True) for options in (SMALL, PADDED, REDUCED)]
    whole = decode_composites(data, truncated="keep")
    arrays = [part for one in squares for part in (one.pixels, one.contrast)] + [*whole]
    return [np.asarray(one) for one in arrays if one is not None]


@pytest.mark.parametrize("name", FILES)
def test_results_are_the_same(name: str, decoded: Counter[str]) -> None:
    data = FILES[name]
    apart = results(data)
    assert decoded.total() == 4
    decoded.clear()
    with decoded_once(data):
        together = results(data)
    assert decoded.total() == (2 if data.startswith(b"\xff\xd8") else 1)
    assert len(apart) == len(together)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one, other)
    decoded.clear()
    with decoded_once(data):
        results(bytes(bytearray(data)))  # other bytes, although equal
    assert decoded.total() == 4


def test_a_truncated_file_is_refused_after_it_was_kept(decoded: Counter[str]) -> None:
    data = FILES["png"][:-5000]
    with decoded_once(data):
        load_image(data, PADDED)
        with pytest.raises(Refusal):
            load_image(data, SMALL)
    with decoded_once(data), pytest.raises(Refusal):
        load_image(data, SMALL)


def test_threads_do_not_share(decoded: Counter[str]) -> None:
    data = FILES["png"]
    with decoded_once(data), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: load_image(data, SMALL), range(3)))
    assert decoded["plain"] == 3


def test_the_colors_of_a_transparent_image_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES["transparent png"]
    apart = load_image(data, SMALL, contrast=True), decode_composites(data)
    backgrounds, to_rgb = list[object](), decoder.to_rgb
    monkeypatch.setattr(decoder, "to_rgb", lambda image, color: (backgrounds.append(color), to_rgb(image, color))[1])
    with decoded_once(data):
        together = load_image(data, SMALL, contrast=True), decode_composites(data)
    assert sorted(backgrounds) == [(0, 0, 0), (255, 255, 255)]  # type: ignore[type-var]
    np.testing.assert_array_equal(together[0].pixels, apart[0].pixels)
    np.testing.assert_array_equal(together[0].contrast, apart[0].contrast)
    assert together[1] == apart[1]


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    pixels[..., 3] = 255
    image = Image.fromarray(pixels, "RGBA")
    np.testing.assert_array_equal(np.asarray(decoder.to_rgb(image, (9, 9, 9))), pixels[..., :3])
    pixels[0, 0] = 0, 0, 0, 250
    np.testing.assert_array_equal(np.asarray(decoder.to_rgb(Image.fromarray(pixels, "RGBA")))[0, 0], (5, 5, 5))


@pytest.mark.parametrize(("size", "kind", "least", "expected"), [
    ((800, 640), "JPEG", 100, (100, 80)), ((800, 640), "JPEG", 101, (200, 160)), ((800, 640), "JPEG", 0, (800, 640)),
    ((801, 640), "JPEG", 100, (801, 640)), ((800, 640), "PNG", 100, (800, 640)),
])  # fmt: skip
def test_a_jpeg_may_come_reduced(size: tuple[int, int], kind: str, least: int, expected: tuple[int, int]) -> None:
    image, _ = decode_composites(file(kind, size=size), least_px=least)
    assert image.size == expected
