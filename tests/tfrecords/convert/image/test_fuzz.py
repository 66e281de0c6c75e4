"""Damaged files of every format: each becomes a picture or is refused; nothing else is raised, nothing hangs.

SIMIMG_FUZZ_MUTANTS sets how many; 20,000 take two minutes. Mutant n is the same in every run.
"""

from __future__ import annotations

import collections
import faulthandler
import io
import itertools
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageFile, features

from tfrecords.convert.image.decoder import DECODES, RESIZES, TRUNCATED, DecodedImage, ImageOptions, load_image
from tfrecords.format.quarantine import Reason, Refusal

NUM_MUTANTS = int(os.environ.get("SIMIMG_FUZZ_MUTANTS", "1500"))
HANG_S = 60.0  # then the process is ended, with the place where it was
SLOW_S = 20.0  # of the processor; no mutant may take so long
MAX_GROWTH_BYTES = 3 << 30  # MAX_PIXELS of RGBA and of RGB, and as much again

REFUSED = {
    Reason.EMPTY,
    Reason.NOT_AN_IMAGE,
    Reason.TEXT,
    Reason.UNSUPPORTED,
    Reason.TRUNCATED,
    Reason.CORRUPT,
    Reason.TOO_LARGE,
}


def drawn() -> Image.Image:
    image = Image.new("RGB", (61, 47), "skyblue")
    pen = ImageDraw.Draw(image)
    pen.ellipse((10, 8, 40, 38), fill="orange")
    pen.line((0, 46, 60, 0), fill="black", width=3)
    return image


def photograph() -> Image.Image:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB").resize((150, 176))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corpus() -> dict[str, bytes]:
    """Returns intact files by what they are."""
    files = {}
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, image in (("drawn", drawn()), ("photo", photograph())):
        alpha = image.copy()
        alpha.putalpha(Image.linear_gradient("L").resize(image.size))
        palette = image.quantize(64)
        gray = image.convert("L")
        frames = [image.rotate(angle) for angle in (10, 20)]
        wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        number = Image.fromarray(np.asarray(gray).astype(np.float32) / 255)
        every: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
            "jpeg": (image, "JPEG", {}),
            "jpeg exif icc": (image, "JPEG", {"exif": exif, "icc_profile": srgb, "quality": 90}),
            "jpeg progressive": (image, "JPEG", {"progressive": True}),
            "jpeg grey": (gray, "JPEG", {}),
            "jpeg cmyk": (image.convert("CMYK"), "JPEG", {}),
            "mpo": (image, "MPO", {"save_all": True, "append_images": frames}),
            "png": (image, "PNG", {"exif": exif, "icc_profile": srgb}),
            "png palette": (palette, "PNG", {"transparency": 3}),
            "png alpha": (alpha, "PNG", {}),
            "png wide": (wide, "PNG", {}),
            "apng": (image, "PNG", {"save_all": True, "append_images": frames}),
            "gif": (palette, "GIF", {"save_all": True, "append_images": frames, "transparency": 2}),
            "webp": (image, "WEBP", {}),
            "webp lossless": (alpha, "WEBP", {"lossless": True, "exif": exif}),
            "webp animation": (image, "WEBP", {"save_all": True, "append_images": frames}),
            "bmp": (image, "BMP", {}),
            "bmp palette": (palette, "BMP", {}),
            "tiff": (image, "TIFF", {"exif": exif}),
            "tiff lzw": (alpha, "TIFF", {"compression": "tiff_lzw"}),
            "tiff jpeg": (image, "TIFF", {"compression": "jpeg"}),
            "tiff deflate": (wide, "TIFF", {"compression": "tiff_adobe_deflate"}),
            "tiff fax": (gray.convert("1"), "TIFF", {"compression": "group4"}),
            "tiff float": (number, "TIFF", {}),
            "ppm": (image, "PPM", {}),
            "tga": (image, "TGA", {"compression": "tga_rle"}),
            "ico": (alpha, "ICO", {}),
            "ico bmp": (alpha, "ICO", {"bitmap_format": "bmp"}),
        }
        if features.check("jpg_2000"):
            every["jpeg 2000"] = (image, "JPEG2000", {})
        if features.check("avif"):
            every["avif"] = (image, "AVIF", {})
        try:
            import pillow_heif
        except ImportError:
            pass
        else:
            pillow_heif.register_heif_opener()
            every["heic"] = (image, "HEIF", {})
        for kind, (picture, suffix, options) in every.items():
            files[f"{name} {kind}"] = saved(picture, suffix, **options)
    return files


def mutant(files: list[bytes], number: int) -> bytes:
    """Returns one of the files with one to three things wrong."""
    rng = np.random.default_rng([20_26, number])
    data = bytearray(files[number % len(files)])
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        if not data:
            break
        # Half of the damage is in the first hundred bytes, where the headers are.
        at = int(rng.integers(min(len(data), 100) if rng.random() < 0.5 else len(data)))
        length = int(2 ** rng.uniform(0, 9))
        match int(rng.integers(9)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(len(data[at : at + length]))
            case 2:
                data[at : at + length] = bytes([int(rng.choice([0, 255]))]) * len(data[at : at + length])
            case 3:
                del data[at + length :]
            case 4:
                del data[at : at + length]
            case 5:  # a piece of it twice
                data[at:at] = data[at : at + length]
            case 6:  # a piece of another file
                other = files[int(rng.integers(len(files)))]
                start = int(rng.integers(len(other)))
                data[at:at] = other[start : start + length]
            case 7:  # a length, a width, an offset
                value = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 50_000, 0x7FFFFFFF, 0xFFFFFFFF, at]))
                field = value.to_bytes(4, "big" if rng.random() < 0.5 else "little")
                data[at : at + 4] = field if rng.random() < 0.5 else field[:2]
            case 8:  # the end of another file of another kind
                other = files[int(rng.integers(len(files)))]
                data[at:] = other[int(rng.integers(len(other))) :]
    return bytes(data)


def outcome(data: bytes, options: ImageOptions) -> DecodedImage | Refusal:
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
    try:
        return load_image(data, options)
    except Refusal as refusal:
        return refusal
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(corpus().values())


def test_the_intact_files_are_pictures() -> None:
    for name, data in corpus().items():
        for decode in DECODES:
            found = outcome(data, ImageOptions(image_size=16, decode=decode))
            assert isinstance(found, DecodedImage), (name, found)


def test_every_mutant_is_converted_or_refused(files: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    counts: collections.Counter[str] = collections.Counter()
    slowest = (0.0, -1, "")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(NUM_MUTANTS):
        data = mutant(files, number)
        resize = RESIZES[number % 3]
        for decode, truncated in itertools.product(DECODES, TRUNCATED):
            options = ImageOptions(image_size=32, resize=resize, decode=decode, truncated=truncated)
            start = time.process_time()
            found = outcome(data, options)
            slowest = max(slowest, (time.process_time() - start, number, f"{decode} {truncated}"))
            where = f"mutant {number}, {options}"
            if isinstance(found, Refusal):
                assert found.reason in REFUSED, where
                assert found.detail, where
                counts[f"{decode} {truncated} {found.reason}"] += 1
            else:
                assert found.pixels.shape == (32, 32, 3), where
                assert found.pixels.dtype == np.uint8, where
                assert found.width > 0, where
                assert found.height > 0, where
                counts[f"{decode} {truncated} converted"] += 1
            assert ImageFile.LOAD_TRUNCATED_IMAGES is False, where
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
    with capsys.disabled():
        if "SIMIMG_FUZZ_MUTANTS" in os.environ:
            lines = [f"\n{NUM_MUTANTS} mutants; slowest {slowest}; memory grew by {growth / 2**20:.0f} MB"]
            sys.stdout.write("\n".join(lines + [f"{name}: {counts[name]}" for name in sorted(counts)]) + "\n")
    assert slowest[0] < SLOW_S, f"mutant {slowest[1]}, {slowest[2]}, took {slowest[0]:.1f} s"
    assert growth < MAX_GROWTH_BYTES
    assert sum(count for name, count in counts.items() if name.endswith("converted")) > NUM_MUTANTS  # of 4 ways each


def test_a_mutant_has_one_outcome(files: list[bytes]) -> None:
    for number in range(0, min(NUM_MUTANTS, 400), 4):
        data = mutant(files, number)
        options = ImageOptions(image_size=16, truncated="keep")
        first, second = outcome(data, options), outcome(data, options)
        if isinstance(first, DecodedImage) and isinstance(second, DecodedImage):
            np.testing.assert_array_equal(first.pixels, second.pixels, err_msg=f"mutant {number}")
        else:
            assert str(first) == str(second), f"mutant {number}"
