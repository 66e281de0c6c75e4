"""Makes formats.zip: small drawn images in forms that nothing installed for the tests writes.

It needs avifenc (libavif-bin), cjpeg (libjpeg-turbo-progs), and tifffile, imagecodecs and pillow-jxl-plugin:

    python tests/tfrecords/convert/image/make_formats.py

The name of each file says what is in it; `test_formats` knows what each has to look like.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TARGET = Path(__file__).parent / "formats.zip"
# Drawn images of 256 x 192 px; those that are left out are in the other forms here, too.
FIELD = Path("../shared/field/formats")
WIDTH, HEIGHT = 64, 48


def drawing() -> np.ndarray:
    """Returns uint8 `[48, 64, 3]`: no two corners are alike, and edges are at multiples of eight."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([40 + 2 * x, 60 + 2 * y, 200 - x - y], axis=-1).astype(np.uint8)
    pixels[:16, :24] = 230, 40, 30
    pixels[:16, 48:] = 20, 160, 60
    pixels[32:, :16] = 30, 60, 210
    pixels[40:, 40:] = 245, 240, 230
    return pixels


def main() -> None:
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        files |= _avifs(Path(folder))
        files |= _jpegs(Path(folder))
    files |= _tiffs()
    files |= {f"field/{path.name}": path.read_bytes() for path in sorted(FIELD.glob("*.*")) if _is_small(path)}
    files |= _jxls()
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def _is_small(path: Path) -> bool:
    return path.suffix != ".md" and path.stat().st_size < 10_000


def _avifs(folder: Path) -> dict[str, bytes]:
    source, files = folder / "a.png", {}
    Image.fromarray(drawing()).save(source)
    (folder / "xmp").write_bytes(
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    exif = Image.Exif()
    exif[274] = 6
    (folder / "exif").write_bytes(exif.tobytes()[6:])

    def add(name: str, *flags: str, image: Path = source) -> None:
        target = folder / "a.avif"
        usual = ["avifenc", "-s", "8", "-j", "1", "--min", "0", "--max", "4", "--ignore-icc"]
        yuv = [] if "-y" in flags else ["-y", "444"]
        subprocess.run([*usual, *yuv, *flags, str(image), str(target)], check=True, capture_output=True)
        files[f"{name}.avif"] = target.read_bytes()

    for cicp in ("1/13/6 12/13/6 12/13/0 9/16/9 9/18/9 12/16/6 9/14/9 1/8/6 1/4/6 2/2/6 1/1/1 11/17/6").split():
        add("cicp-" + cicp.replace("/", "-"), "--cicp", cicp)
    for depth in ("10", "12"):
        add(f"deep-{depth}", "-d", depth)
        add(f"deep-{depth}-cicp-9-16-9", "-d", depth, "--cicp", "9/16/9")
    for sampling in ("420", "422"):
        add(f"yuv-{sampling}", "-y", sampling)
    add("limited", "-r", "limited")
    for turn in range(4):
        for mirror in ("", "0", "1"):
            flags = (["--irot", str(turn)] if turn else []) + (["--imir", mirror] if mirror else [])
            if flags:
                add(f"irot{turn}-imir{mirror or 'n'}", *flags)
    add("xmp6", "--xmp", str(folder / "xmp"))
    add("exif6", "--exif", str(folder / "exif"))
    add("exif6-irot1", "--exif", str(folder / "exif"), "--irot", "1")
    # 32 x 24 px whose center is (-8, 4) px from that of the image: from (8, 16).
    clap = ["--clap", "32,1,24,1,-8,1,4,1"]
    add("clap", *clap)
    add("clap-irot1", *clap, "--irot", "1")
    add("clap-irot3-imir1", *clap, "--irot", "3", "--imir", "1")
    transparent = np.dstack([drawing(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    transparent[:, 32:, 3] = 0
    Image.fromarray(transparent).save(folder / "alpha.png")
    add("alpha-clap", *clap, image=folder / "alpha.png")
    return files


def _jpegs(folder: Path) -> dict[str, bytes]:
    import imagecodecs

    files = {}

    def cjpeg(name: str, pixels: np.ndarray, *flags: str) -> None:
        kind = b"P5" if pixels.ndim == 2 else b"P6"
        source = kind + b"\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
        done = subprocess.run(["cjpeg", "-sample", "1x1", *flags], input=source, check=True, capture_output=True)
        files[f"{name}.jpg"] = done.stdout

    grain = np.random.default_rng(0).integers(-20, 21, (192, 256, 3))
    large = np.clip(drawing().repeat(4, axis=0).repeat(4, axis=1) + grain, 0, 255).astype(np.uint8)
    for name, flags in (("arithmetic", ["-arithmetic"]), ("arithmetic-progressive", ["-arithmetic", "-progressive"])):
        cjpeg(name, drawing(), "-quality", "95", *flags)
        cjpeg(f"{name}-large", large, "-quality", "98", *flags)
    cjpeg("arithmetic-gray", drawing()[..., 1].copy(), "-quality", "95", "-arithmetic")
    files["lossless.jpg"] = imagecodecs.jpeg8_encode(drawing(), lossless=True)
    files["lossless-gray.jpg"] = imagecodecs.jpeg8_encode(drawing()[..., 1].copy(), lossless=True)
    deep = drawing().astype(np.uint16) << 4
    files["12-bit.jpg"] = imagecodecs.jpeg_encode(deep, bitspersample=12, level=95)
    files["12-bit-gray.jpg"] = imagecodecs.jpeg_encode(deep[..., 1].copy(), bitspersample=12, level=95)
    files["lossless-16-bit-gray.jpg"] = imagecodecs.ljpeg_encode(deep[..., 1].copy())
    return files


def _tiffs() -> dict[str, bytes]:
    import tifffile

    files = {}

    def add(name: str, pixels: np.ndarray, **options: Any) -> None:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, metadata=None, **options)
        files[f"{name}.tif"] = buffer.getvalue()

    rgb, gray = drawing(), drawing()[..., 1].copy()
    for compression in ("jpeg2000", "jpegxl", "webp", "lerc"):
        add(
            f"inside-{compression}",
            rgb,
            photometric="rgb",
            compression=compression,
            compressionargs={"level": 100} if compression == "webp" else None,
        )
    deep = rgb.astype(np.uint16) * 257
    for compression in ("lzw", "zlib", "zstd", "lzma", "packbits"):
        add(
            f"rgb16-planar-{compression}",
            np.moveaxis(deep, -1, 0),
            photometric="rgb",
            planarconfig="separate",
            compression=compression,
        )
        add(f"white16-{compression}", 65535 - deep[..., 1], photometric="miniswhite", compression=compression)
    add("rgb16-planar-tiles", np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate", tile=(16, 16))
    add("rgb16-predictor", deep, photometric="rgb", compression="lzw", predictor=2)
    add(
        "gray32-predictor", gray.astype(np.uint32) * 16843009, photometric="minisblack", compression="zlib", predictor=2
    )
    add("float32-predictor", (gray / 255).astype(np.float32), photometric="minisblack", compression="zlib", predictor=3)
    for dtype in (np.float16, np.float32, np.float64):
        add(f"rgb-{np.dtype(dtype).name}", (rgb / 255).astype(dtype), photometric="rgb")
    add("rgb-uint32", rgb.astype(np.uint32) * 16843009, photometric="rgb")
    return files


def _jxls() -> dict[str, bytes]:
    import imagecodecs
    import pillow_jxl  # noqa: F401

    files = {}

    def add(name: str, image: Image.Image, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "JXL", **options)
        files[f"{name}.jxl"] = buffer.getvalue()

    add("rgb", Image.fromarray(drawing()), lossless=True)
    add("rgb-container", Image.fromarray(drawing()), lossless=True, use_container=True)
    add("gray", Image.fromarray(drawing()[..., 1].copy()), lossless=True)
    deep = drawing().astype(np.uint16) * 257
    files["gray16.jxl"] = imagecodecs.jpegxl_encode(deep[..., 1].copy(), lossless=True)
    files["rgb16.jxl"] = imagecodecs.jpegxl_encode(deep, lossless=True)
    # The plugin says of samples of 16 bits that they are light.
    add("gray16-linear", Image.fromarray(deep[..., 1].copy()), lossless=True)
    transparent = Image.fromarray(drawing()).convert("RGBA")
    transparent.putalpha(0)
    add("transparent", transparent, lossless=True)
    add("large", Image.new("L", (1280, 1024), 77), lossless=True)
    return files


if __name__ == "__main__":
    main()
