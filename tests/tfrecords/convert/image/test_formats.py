"""Every form of a format that decoders read differently, against the drawing that the file was made from.

Files that no writer installed here makes are in formats.zip, see `make_formats`: by libavif, libjpeg-turbo, tifffile.
The others are written by hand. What a color becomes is computed here in float64, without a profile.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.image.decoder import DECODES, ImageOptions, decode, load_image, resize
from tfrecords.format.quarantine import Reason, Refusal

ZIP = Path(__file__).with_name("formats.zip")
WIDTH, HEIGHT = 64, 48


def drawing() -> np.ndarray:
    """That of `make_formats`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([40 + 2 * x, 60 + 2 * y, 200 - x - y], axis=-1).astype(np.uint8)
    pixels[:16, :24] = 230, 40, 30
    pixels[:16, 48:] = 20, 160, 60
    pixels[32:, :16] = 30, 60, 210
    pixels[40:, 40:] = 245, 240, 230
    return pixels


RGB = drawing()
GREEN = RGB[..., 1].copy()
GRAY = GREEN[..., None].repeat(3, axis=2)
DEEP = RGB.astype(np.uint16) * 257
OPAQUE = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)

# Linear light of these primaries to linear light of sRGB, from the chromaticities of ITU-T H.273.
TO_SRGB = {
    1: np.eye(3),
    9: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}


def srgb_curve(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def to_light(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def shown(pixels: np.ndarray, primaries: int, curve: Callable[[np.ndarray], np.ndarray] = to_light) -> np.ndarray:
    """Returns the sRGB of pixels whose numbers mean this light of these primaries."""
    light = curve(pixels.astype(np.float64) / 255) @ TO_SRGB[primaries].T
    return np.rint(255 * srgb_curve(light))


P3 = shown(RGB, 12)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


KINDS = {(1, False): 0, (3, False): 2, (2, True): 4, (4, True): 6}  # of PNG's colors


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    bits, channels = pixels.dtype.itemsize * 8, pixels.shape[2]
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    kind = KINDS[channels, channels in (2, 4)]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, kind, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in body)


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, matrix, full])


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(*values: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def jp2(pixels: np.ndarray, profile: bytes) -> bytes:
    """A JPEG 2000 with a profile instead of the number of a color space."""
    data = saved(pixels, "JPEG2000")
    at, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    end = at + int.from_bytes(data[at : at + 4])
    box = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    length = int.from_bytes(data[header : header + 4]) + len(box) - (end - at)
    return data[:header] + struct.pack(">I", length) + data[header + 4 : at] + box + data[end:]


@functools.cache
def iccp(gamma: float, swap: bool = False) -> tuple[bytes, bytes]:
    """A profile with the primaries of sRGB and this gamma; red and green change places on request."""
    xyz = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
    if swap:
        xyz[:2] = xyz[1::-1]
    fixed = [struct.pack(">3i", *(round(value * 65536) for value in one)) for one in (*xyz, (0.9642, 1.0, 0.8249))]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        name: b"XYZ \0\0\0\0" + value for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), fixed, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed[3]
    return b"iCCP", b"p\0\0" + zlib.compress(header.ljust(128, b"\0") + table + body)


SRGB = (b"sRGB", b"\0")
P3_CHRM = chrm(0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB_CHRM = chrm(0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
LINEAR = shown(RGB, 1, lambda signal: signal)
SWAPPED = RGB[..., [1, 0, 2]]


def pq(light: np.ndarray) -> np.ndarray:
    """cd/m² to the signal of SMPTE ST 2084."""
    root = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375


# A picture below the knee of the tone mapping, which is shown as it is: at most 90 cd/m², white being 203.
DIM = (RGB * 0.6).astype(np.uint8)
DIM_PQ = np.rint(65535 * pq(203 * to_light(DIM / 255.0))).astype(np.uint16)
NARROW_RANGE = np.rint(16 + RGB * (219 / 255)).astype(np.uint8)


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, OPAQUE.astype(pixels.dtype) * (257 if pixels.dtype == np.uint16 else 1)], axis=2)


def paletted(*chunks: tuple[bytes, bytes]) -> bytes:
    """An indexed PNG of 16 colors with chunks before its palette."""
    image = Image.fromarray(RGB).quantize(16)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def indexed() -> np.ndarray:
    return np.asarray(Image.fromarray(RGB).quantize(16).convert("RGB"))


def tiff(pixels: np.ndarray, **given: Any) -> bytes:
    """A TIFF of one page. Tags are t254=1, say; everything else is as for `_tiff`."""
    tags = {name: value for name, value in given.items() if name[1:].isdigit()}
    return _tiff([(pixels, tags)], **{name: value for name, value in given.items() if name not in tags})


def _tiff(
    pages: list[tuple[np.ndarray, dict[str, int]]],
    order: str = "<",
    planar: bool = False,
    photometric: int | None = None,
    rows: int = 0,
    tile: int = 0,
    deflate: bool = False,
    big: bool = False,
    signed: bool = False,
    bits: int = 0,
    inner: bool = False,
) -> bytes:
    """Pages in a row, or the others as sub-images of the first one; `rows` per strip, or square tiles."""
    word = "Q" if big else "I"
    magic = b"II" if order == "<" else b"MM"
    out = bytearray(magic + (struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)))
    links = [8 if big else 4]
    sub_place = 0
    for number, (pixels, more) in enumerate(pages):
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        height, width, channels = pixels.shape
        planes = np.moveaxis(pixels, -1, 0)[..., None] if planar else pixels[None]
        parts = []
        for plane in planes:
            if tile:
                padded = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), pixels.dtype)
                padded[:height, :width] = plane
                for y in range(0, height, tile):
                    parts += [padded[y : y + tile, x : x + tile] for x in range(0, width, tile)]
            else:
                parts += [plane[y : y + (rows or height)] for y in range(0, height, rows or height)]
        blocks = [_packed(part, order, bits) for part in parts]
        blocks = [zlib.compress(block) if deflate else block for block in blocks]
        places = []
        for block in blocks:
            places.append(len(out))
            out += block + bytes(len(block) % 2)
        depth = bits or pixels.dtype.itemsize * 8
        kind = 2 if signed else 3 if pixels.dtype.kind == "f" else 1
        values: dict[int, tuple[str, tuple[int, ...]]] = {
            256: ("I", (width,)),
            257: ("I", (height,)),
            258: ("H", (depth,) * channels),
            259: ("H", (8 if deflate else 1,)),
            262: ("H", ((2 if channels >= 3 else 1) if photometric is None else photometric,)),
            277: ("H", (channels,)),
            284: ("H", (2 if planar else 1,)),
            339: ("H", (kind,) * channels),
        }
        values |= {323: ("I", (tile,)), 322: ("I", (tile,))} if tile else {278: ("I", (rows or height,))}
        values |= {324 if tile else 273: (word, tuple(places)), 325 if tile else 279: ("I", tuple(map(len, blocks)))}
        values |= {338: ("H", (2,))} if channels in (2, 4) else {}
        values |= {int(tag[1:]): ("I", (value,)) for tag, value in more.items()}
        if inner and number == 0:
            values[330] = (word, (0,) * (len(pages) - 1))
        table = bytearray()
        for tag, (form, content) in sorted(values.items()):
            data = struct.pack(f"{order}{len(content)}{form}", *content)
            size = struct.calcsize(word)
            if len(data) > size:
                data, place = struct.pack(order + word, len(out)), data
                if tag == 330:
                    sub_place = len(out)
                out += place + bytes(len(place) % 2)
            code = {"H": 3, "I": 4, "Q": 16}[form]
            table += struct.pack(f"{order}HH{word}", tag, code, len(content)) + data.ljust(size, b"\0")
            if tag == 330 and not sub_place:
                sub_place = -len(table)
        start = len(out)
        if sub_place < 0:
            sub_place = start + (8 if big else 2) - sub_place - struct.calcsize(word)
        if number and inner:
            struct.pack_into(order + word, out, sub_place + (number - 1) * struct.calcsize(word), start)
        else:
            struct.pack_into(order + word, out, links[-1], start)
        out += struct.pack(order + ("Q" if big else "H"), len(values)) + table
        links.append(len(out))
        out += bytes(struct.calcsize(word))
        if inner and number:
            links.pop()
    return bytes(out)


def _packed(part: np.ndarray, order: str, bits: int) -> bytes:
    if bits != 12:
        return part.astype(part.dtype.newbyteorder(order)).tobytes()
    assert part.size % 2 == 0
    pairs = part.reshape(-1, 2).astype(np.uint32)
    both = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([both >> 16, both >> 8 & 255, both & 255], axis=-1).astype(np.uint8).tobytes()


def small_frame(transparent: bool = False, place: tuple[int, int] = (10, 12)) -> bytes:
    """A GIF of 64 x 48 px whose frame has 20 x 16 px."""
    image = Image.new("P", (20, 16), 2)
    image.putpalette([200, 30, 30, 30, 200, 30, 30, 30, 200, 250, 240, 10])
    image.paste(3, (4, 4, 8, 8))
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, **({"transparency": 3} if transparent else {}))
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 64, 48)
    at = 13 + (3 << (data[10] & 7) + 1)
    while data[at] == 0x21:  # extensions
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    data[at + 1 : at + 5] = struct.pack("<HH", *place)
    return bytes(data)


def framed(transparent: bool = False, place: tuple[int, int] = (10, 12)) -> np.ndarray:
    canvas = np.full((48, 64, 3), 255, np.uint8)
    frame = canvas[place[1] : place[1] + 16, place[0] : place[0] + 20]
    frame[:] = 30, 30, 200
    frame[4:8, 4:8] = (255, 255, 255) if transparent else (250, 240, 10)
    return canvas


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


Case = tuple[Callable[[], bytes], Any, float]


def of_png() -> dict[str, Case]:
    cases: dict[str, Case] = {}

    def add(name: str, expected: np.ndarray, pixels: np.ndarray, *chunks: Any, levels: float = 2) -> None:
        cases[f"png-{name}"] = (lambda: png(pixels, *chunks), expected, levels)

    for depth, pixels in (("8", RGB), ("16", DEEP)):
        add(f"plain-{depth}", RGB, pixels)
        add(f"cicp-p3-{depth}", P3, pixels, cicp(12, 13))
        add(f"cicp-p3-alpha-{depth}", P3, with_alpha(pixels), cicp(12, 13))
        add(f"chrm-p3-{depth}", P3, pixels, P3_CHRM, gama(0.45455))
        add(f"gama-1-{depth}", LINEAR, pixels, gama(1.0))
        add(f"gama-1-alpha-{depth}", LINEAR, with_alpha(pixels), gama(1.0))
        add(f"gama-1-gray-{depth}", LINEAR[..., 1:2].repeat(3, 2), pixels[..., 1], gama(1.0))
        gray_alpha = with_alpha(pixels)[..., [1, 3]]
        add(f"gama-1-gray-alpha-{depth}", LINEAR[..., 1:2].repeat(3, 2), gray_alpha, gama(1.0))
        add(f"dim-pq-{depth}", DIM, DIM_PQ if depth == "16" else (DIM_PQ >> 8).astype(np.uint8), cicp(1, 16), levels=4)
    add("cicp-srgb", RGB, RGB, cicp(1, 13))
    add("cicp-709", RGB, RGB, cicp(1, 1))
    add("cicp-2020", shown(RGB, 9), RGB, cicp(9, 14))
    add("cicp-linear", LINEAR, RGB, cicp(1, 8))
    add("cicp-gamma-22", shown(RGB, 1, lambda signal: signal**2.2), RGB, cicp(1, 4))
    add("cicp-gamma-28", shown(RGB, 1, lambda signal: signal**2.8), RGB, cicp(1, 5))
    add("cicp-narrow-range", RGB, NARROW_RANGE, cicp(1, 13, full=0))
    add("cicp-narrow-p3", P3, NARROW_RANGE, cicp(12, 13, full=0), levels=4)
    # The precedence: cICP, iCCP, sRGB, cHRM and gAMA.
    add("cicp-over-iccp", P3, RGB, cicp(12, 13), iccp(1.0))
    add("cicp-after-iccp", P3, RGB, iccp(1.0), cicp(12, 13))
    add("cicp-srgb-over-all", RGB, RGB, gama(1.0), P3_CHRM, iccp(1.0), cicp(1, 13))
    add("iccp-over-gama", SWAPPED, RGB, gama(1.0), iccp(2.2, True), levels=8)
    add("iccp-over-chrm", LINEAR, RGB, P3_CHRM, iccp(1.0))
    add("srgb-over-gama", RGB, RGB, gama(1.0), P3_CHRM, SRGB)
    add("gama-srgb", RGB, RGB, gama(0.45455), SRGB_CHRM)
    add("chrm-alone", P3, RGB, P3_CHRM)
    # A cICP chunk that says nothing gives way; so does a broken profile.
    add("cicp-unspecified", LINEAR, RGB, cicp(2, 2), gama(1.0))
    add("cicp-reserved", LINEAR, RGB, cicp(99, 13), gama(1.0))
    add("cicp-matrix", LINEAR, RGB, cicp(12, 13, matrix=6), gama(1.0))
    add("iccp-broken", LINEAR, RGB, (b"iCCP", b"p\0\0garbage"), gama(1.0))
    add("gama-0", RGB, RGB, gama(0.0))
    add("chrm-impossible", RGB, RGB, chrm(0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2))
    cases["png-palette-p3"] = (lambda: paletted(cicp(12, 13)), shown(indexed(), 12), 2)
    cases["png-palette-linear"] = (lambda: paletted(gama(1.0)), shown(indexed(), 1, lambda signal: signal), 2)
    return cases


def of_tiff() -> dict[str, Case]:
    cases: dict[str, Case] = {}

    def add(name: str, expected: Any, pixels: np.ndarray, **options: Any) -> None:
        cases[f"tiff-{name}"] = (lambda: tiff(pixels, **options), expected, 0)

    layouts: dict[str, dict[str, Any]] = {
        "": {},
        "-big-endian": {"order": ">"},
        "-strips": {"rows": 7},
        "-tiles": {"tile": 16},
        "-deflate": {"deflate": True},
        "-deflate-big-endian": {"deflate": True, "order": ">"},
        "-bigtiff": {"big": True, "rows": 20},
    }
    for name, options in layouts.items():
        add(f"planar-16{name}", RGB, DEEP, planar=True, **options)
        add(f"white-is-zero-16{name}", GRAY, 65535 - DEEP[..., 1], photometric=0, **options)
        add(f"unsigned-32{name}", GRAY, GREEN.astype(np.uint32) << 24, **options)
        add(f"signed-32{name}", GRAY, GREEN.astype(np.int32), signed=True, **options)
        add(f"signed-16{name}", GRAY, GREEN.astype(np.int16), signed=True, **options)
        add(f"float{name}", GRAY, GREEN.astype(np.float32) / 255, **options)
    add("planar-8", RGB, RGB, planar=True)
    add("planar-16-alpha", RGB, with_alpha(DEEP), planar=True)
    add("planar-16-alpha-deflate", RGB, with_alpha(DEEP), planar=True, deflate=True)
    add("chunky-16", RGB, DEEP)
    add("white-is-zero-8", GRAY, 255 - GREEN, photometric=0)
    add("gray-16", GRAY, DEEP[..., 1])
    twelve = (GREEN.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    add("gray-12", GRAY, twelve, bits=12)
    add("white-is-zero-12", GRAY, 4095 - twelve, bits=12, photometric=0)
    add("white-is-zero-32", GRAY, (255 - GREEN).astype(np.uint32) << 24, photometric=0)
    add("unsigned-32-as-16", GRAY, DEEP[..., 1].astype(np.uint32))
    add("unsigned-32-as-8", GRAY, GREEN.astype(np.uint32))
    add("white-is-zero-32-big-endian", GRAY, (255 - GREEN).astype(np.uint32) << 24, photometric=0, order=">")
    add("white-is-zero-float", GRAY, (1 - GREEN / 255).astype(np.float32), photometric=0)
    add("rgb-bigtiff-big-endian", RGB, RGB, big=True, order=">", rows=5)
    for scale in (1 / 255, 1.0, 257.0, 1e6):
        values = GREEN.astype(np.float32) * np.float32(scale)
        expected = np.clip(values / values.max() * 255 + 0.5, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
        add(f"float-{scale:g}", expected if scale == 1e6 else GRAY, values)
    small = np.zeros((12, 16, 3), np.uint8)
    for order in "<>":
        for big in (False, True):
            for kind in ({"t254": 1}, {"t255": 2}, {"t254": 4}, {"t254": 5}):
                name = f"{order}{'big-' if big else ''}{'-'.join(f'{tag}-{value}' for tag, value in kind.items())}"
                cases[f"tiff-thumbnail-{name}"] = (
                    functools.partial(_tiff, [(small, kind), (RGB, {}), (small, {})], order=order, big=big),
                    RGB,
                    0,
                )
            cases[f"tiff-full-in-sub-image-{order}{big}"] = (
                functools.partial(_tiff, [(small, {"t254": 1}), (RGB, {})], order=order, big=big, inner=True),
                RGB,
                0,
            )
    cases["tiff-larger-of-sub-images"] = (
        lambda: _tiff([(small, {"t254": 1}), (RGB[:24], {}), (RGB, {}), (small, {})], inner=True),
        RGB,
        0,
    )
    cases["tiff-pages"] = (lambda: _tiff([(RGB, {}), (small, {})]), RGB, 0)
    cases["tiff-full-before-thumbnail"] = (lambda: _tiff([(RGB, {}), (small, {"t254": 1})]), RGB, 0)
    cases["tiff-thumbnail-alone"] = (lambda: _tiff([(RGB, {"t254": 1})]), RGB, 0)
    return cases


def of_zip() -> dict[str, Case]:
    """What the names in formats.zip say; the drawing itself, if they say nothing else."""
    turned = {
        "irot": {0: RGB, 1: np.rot90(RGB, 1), 2: np.rot90(RGB, 2), 3: np.rot90(RGB, 3)},
    }["irot"]
    mirrored: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "n": lambda pixels: pixels,
        "0": lambda pixels: pixels[::-1],
        "1": lambda pixels: pixels[:, ::-1],
    }
    clap = RGB[16:40, 8:40]
    half = RGB.copy()
    half[:, 32:] = 255
    expected: dict[str, Any] = {
        "exif6": turned[3],  # avifenc makes irot of it
        "exif6-irot1": turned[1],
        "clap": clap,
        "clap-irot1": np.rot90(clap),
        "clap-irot3-imir1": np.rot90(clap, 3)[:, ::-1],
        "alpha-clap": half[16:40, 8:40],
        "cicp-12-13-6": P3,
        "cicp-12-13-0": P3,
        "cicp-9-14-9": shown(RGB, 9),
        "cicp-1-8-6": LINEAR,
        "cicp-1-4-6": shown(RGB, 1, lambda signal: signal**2.2),
        "arithmetic-gray": GRAY,
        "lossless-gray": GRAY,
        "12-bit": Reason.UNSUPPORTED,
        "12-bit-gray": Reason.UNSUPPORTED,
        "lossless-16-bit-gray": Reason.UNSUPPORTED,
        "gray": GRAY,
        "gray32-predictor": GRAY,
        "float32-predictor": GRAY,
        "gray16": shown(GRAY, 1, lambda signal: signal),  # imagecodecs says of 16 bits that they are light
        "gray16-linear": shown(GRAY, 1, lambda signal: signal),
        "rgb16": LINEAR,
        "transparent": np.full_like(RGB, 255),
        "large": np.full((1024, 1280, 3), 77, np.uint8),
        "field/clean_aperture": 0,
        **{f"irot{turn}-imir{mirror}": flip(turned[turn]) for turn in range(4) for mirror, flip in mirrored.items()},
    }
    with zipfile.ZipFile(ZIP) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with Image.open(io.BytesIO(files.pop("field/right.png"))) as image:
        right = np.asarray(image.convert("RGB"))
    green = right[..., 1:2].repeat(3, 2)
    canvas = framed()
    expected |= {
        "field/display_p3": shown(right, 12),
        "field/xmp_says_6": right,
        "field/clean_aperture": right[16:112, 16:144],
        "field/grey32": green,
        "field/whiteiszero8": green,
        "field/whiteiszero16": green,
        "field/jpeg2000_inside": right,
        "field/small_first_frame": None,
    }
    del canvas
    cases: dict[str, Case] = {}
    for name, data in files.items():
        stem, suffix = name.rsplit(".", 1)
        want = expected.get(stem, RGB)
        if "white16" in stem:
            want = GRAY
        if want is None or ("large" in stem and suffix == "jpg") or any(f"-{hdr}-" in stem for hdr in (16, 17, 18)):
            continue  # see below
        missing = {
            "jxl": not importlib.util.find_spec("pillow_jxl"),
            "tif": stem.startswith(("inside", "rgb-", "field/jpeg2000"))
            and not importlib.util.find_spec("imagecodecs"),
        }.get(suffix, False)
        rough = "yuv" in stem or "field" in stem  # half of the colors, or a middling quality
        levels = {"avif": 64 if rough else 16 if "cicp" in stem else 5, "jpg": 12}.get(suffix, 1.0)
        cases[name] = (functools.partial(bytes, data), Reason.UNSUPPORTED if missing else want, levels)
    return cases


def of_others() -> dict[str, Case]:
    cases: dict[str, Case] = {
        f"gif-small-frame-{transparent}-{place}": (
            functools.partial(small_frame, transparent, place),
            framed(transparent, place),
            0,
        )
        for transparent in (False, True)
        for place in ((10, 12), (0, 0), (44, 32))
    }
    for kind, options in (("WEBP", {"lossless": True}), ("BMP", {}), ("TGA", {}), ("PPM", {}), ("JPEG2000", {})):
        cases[f"{kind.lower()}-rgb"] = (functools.partial(saved, RGB, kind, **options), RGB, 0)
    cases["ppm-gray-16"] = (lambda: saved(DEEP[..., 1], "PPM"), GRAY, 0)
    # Dark values of 16 bits are dark, not bright ones of eight.
    cases["ppm-dark-16"] = (lambda: saved(GREEN.astype(np.uint16), "PPM"), np.zeros_like(GRAY), 0)
    cases["ppm-gray-12"] = (
        lambda: b"P5\n64 48\n4095\n" + (GREEN.astype(np.uint32) * 4095 // 255).astype(">u2").tobytes(),
        GRAY,
        1,
    )
    profile = zlib.decompress(iccp(1.0)[1][3:])
    cases["jpeg2000-linear"] = (lambda: jp2(RGB, profile), LINEAR, 2)
    cases["jpeg2000-gray-16"] = (lambda: saved(DEEP[..., 1], "JPEG2000"), GRAY, 0)
    return cases


CASES = of_png() | of_tiff() | of_zip() | of_others()


def test_there_are_many() -> None:
    assert len(CASES) >= 120


@pytest.mark.parametrize("name", CASES)
def test_a_file_shows_what_was_drawn(name: str) -> None:
    make, expected, levels = CASES[name]
    data = make()
    options = [ImageOptions(image_size=16, decode=how) for how in DECODES]
    if isinstance(expected, Reason):
        for each in options:
            with pytest.raises(Refusal) as refused:
                load_image(data, each)
            assert refused.value.reason is expected
        return
    found = np.asarray(decode(data))
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(float)).mean() <= 2.2
    np.testing.assert_allclose(found.astype(float), expected, atol=levels)
    small = resize(Image.fromarray(np.asarray(expected, np.uint8)), 16, "stretch").astype(float)
    for each in options:
        loaded = load_image(data, each)
        assert (loaded.height, loaded.width) == expected.shape[:2]
        # Colors are converted before the resize, so a tolerance there is one here.
        np.testing.assert_allclose(loaded.pixels.astype(float), small, atol=levels + 6)
        assert np.abs(loaded.pixels - small).mean() <= 2.2


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("tiff-")])
def test_a_tiff_that_ends_early_is_refused(name: str) -> None:
    """And its thumbnail is not taken for the image."""
    make, expected, _ = CASES[name]
    data = make()
    for share in (0.3, 0.6, 0.9):
        try:
            found = np.asarray(decode(data[: int(len(data) * share)]))
        except Refusal as refused:
            assert refused.reason is Reason.TRUNCATED
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["tiff-thumbnail->big-t254-1", "tiff-planar-16", "clap-irot1.avif", "jpeg2000-linear"])
@pytest.mark.parametrize("value", [b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7])
def test_damage_in_a_directory_is_a_refusal_at_most(name: str, value: bytes) -> None:
    """Wherever it is: what is read of directories and boxes here comes before any decoder."""
    data = CASES[name][0]()
    places = sorted({*range(0, 64, 3), *range(max(0, len(data) - 300), len(data), 7), *range(100, 400, 11)})
    for place in places:
        try:
            load_image(data[:place] + value + data[place + 8 :], ImageOptions(image_size=8))
        except Refusal as refused:
            assert refused.reason in Reason
