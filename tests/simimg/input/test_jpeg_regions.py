"""A region of a JPEG has the pixels of the whole image, whatever decodes it."""

import io
import itertools

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from simimg.input import jpeg_regions
from simimg.input.jpeg_regions import RegionLibrary, decode_region, scaled_down


def libraries() -> list[RegionLibrary]:
    found = []
    for name, path in jpeg_regions._candidates():
        try:
            found.append(RegionLibrary(name, path))
        except (OSError, AttributeError):  # a libjpeg-turbo before version 3
            continue
    return found


LIBRARIES = libraries()


def drawn(width: int, height: int, kind: str, *, progressive: bool = False) -> bytes:
    """A JPEG with colors that change within each block."""
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    if kind in ("411", "440"):
        return simplejpeg.encode_jpeg(np.asarray(image), 90, "RGB", kind)
    buffer = io.BytesIO()
    mode = "L" if kind == "gray" else "RGB"
    options = {} if kind == "gray" else {"subsampling": kind}
    image.convert(mode).save(buffer, "JPEG", quality=90, progressive=progressive, **options)
    return buffer.getvalue()


def check(library: RegionLibrary | None, data: bytes, size: tuple[int, int], regions, by: int) -> None:
    width, height = scaled_down(size, by)
    view = memoryview(data)
    whole = jpeg_regions._by_slicing(view, size, (0, 0, width, height), by).copy()
    for left, top, right, bottom in regions(width, height):
        region = (left, top, right, bottom)
        decode = jpeg_regions._by_slicing if library is None else library.decode
        found = decode(view, size, region, by)
        assert found.flags.c_contiguous, region
        np.testing.assert_array_equal(found[:, : right - left, :3], whole[top:bottom, left:right, :3], str(region))


def edges(width: int, height: int):
    """Regions that begin at each column of a block and end at each of the next, at even widths and odd ones."""
    for left in range(min(width, 34)):
        for right in {left + 1, min(width, left + 16), min(width, left + 17), width - 1, width}:
            if right > left:
                top = left % height
                yield left, top, right, min(height, top + 1 + right % 7)
    yield 0, 0, width, height


@pytest.mark.skipif(not LIBRARIES, reason="no library that decodes regions; see the extra `crops`")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:4:4", "gray", "411", "440"])
def test_a_region_is_a_slice_of_the_whole(library: RegionLibrary, kind: str) -> None:
    for size, progressive in itertools.product(((67, 45), (64, 48), (17, 33), (3, 2)), (False, True)):
        data = drawn(*size, kind, progressive=progressive)
        # An image of less than a block has one size at several scales, and the whole decode chooses another.
        for by in (1, 2, 4, 8) if min(size) >= 16 else (1,):
            check(library, data, size, edges, by)


def test_without_a_library_the_whole_is_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    data, size = drawn(67, 45, "4:2:0"), (67, 45)
    with_library = decode_region(memoryview(data), size, (5, 3, 40, 20), 1)[:, :35, :3].copy()
    monkeypatch.setattr(jpeg_regions, "region_library", lambda: None)
    np.testing.assert_array_equal(decode_region(memoryview(data), size, (5, 3, 40, 20), 1)[:, :35, :3], with_library)
    check(None, data, size, edges, 2)


@pytest.mark.parametrize("library", [None, *LIBRARIES], ids=lambda library: library and library.name)
def test_what_cannot_be_decoded(library: RegionLibrary | None) -> None:
    decode = jpeg_regions._by_slicing if library is None else library.decode
    data = drawn(40, 30, "4:2:0")
    with pytest.raises(ValueError, match="it has 40 x 30 px instead of 40 x 31"):
        decode(memoryview(data), (40, 31), (0, 0, 8, 8), 1)
    whole = decode(memoryview(data), (40, 30), (0, 0, 40, 30), 1).copy()
    for broken in (b"no image at all", data[:100], data[: len(data) * 2 // 3], b"\xff\xd8\xff" + bytes(50)):
        with pytest.raises(ValueError, match="JPEG"):
            decode(memoryview(broken), (40, 30), (0, 0, 40, 30), 1)
        # The decoder of this thread still works.
        again = decode(memoryview(data), (40, 30), (0, 0, 40, 30), 1)
        np.testing.assert_array_equal(again[:, :40], whole[:, :40])
