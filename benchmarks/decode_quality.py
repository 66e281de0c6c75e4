"""Quality of the fast decode: PSNR and SSIM against the exact one, and of both against area averages.

    python -m benchmarks.decode_quality FOLDER [IMAGE_SIZE]

The area reference is the float64 mean of all pixels of the full decode, weighted by the share of each that the output
pixel covers. SSIM is that of Wang, Bovik, Sheikh and Simoncelli (2004): luma, Gaussian window of 11 px, sigma 1.5,
K1 0.01, K2 0.03, and is the mean over the windows inside the image.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tfrecords.convert.image.decoder import ImageOptions, decode, load_image
from tfrecords.format.quarantine import Refusal

__all__ = ["Comparison", "Quality", "area_average", "measure_quality", "psnr", "ssim", "table"]

# The PSNR of equal images is infinite; this value keeps the mean finite.
MAX_PSNR_DB = 99.0

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, that of JPEG


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of two decodes of each image: PSNR in dB and SSIM, float64 `[num_pictures]`."""

    name: str
    psnr_db: np.ndarray
    ssim: np.ndarray


@dataclasses.dataclass(frozen=True)
class Quality:
    """All comparisons over a folder at one size; `worst` is the image with the lowest PSNR of fast to exact."""

    image_size: int
    num_pictures: int
    num_refused: int
    comparisons: tuple[Comparison, ...]
    worst: str


def measure_quality(paths: Iterable[Path], image_size: int) -> Quality:
    """Returns the quality of the fast and the exact decode over image files, stretched to `image_size` px."""
    fast, exact = (ImageOptions(image_size=image_size, decode=how) for how in ("fast", "exact"))
    values: dict[str, list[tuple[float, float]]] = {"fast to exact": [], "fast to area": [], "exact to area": []}
    names = []
    num_refused = 0
    for path in paths:
        try:
            data = path.read_bytes()
            a, b = load_image(data, fast).pixels, load_image(data, exact).pixels
            area = area_average(np.asarray(decode(data)), image_size)
        except Refusal:
            num_refused += 1
            continue
        names.append(path)
        for name, (x, y) in zip(values, ((a, b), (a, area), (b, area)), strict=True):
            values[name].append((psnr(x, y), ssim(x, y)))
    if not names:
        raise ValueError("there are no images to measure")
    comparisons = tuple(Comparison(name, *np.array(pairs).T) for name, pairs in values.items())
    worst = names[int(comparisons[0].psnr_db.argmin())]
    return Quality(image_size, len(names), num_refused, comparisons, "/".join(worst.parts[-2:]))


def area_average(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Returns `pixels`, uint8 `[h, w, 3]`, averaged to float64 `[image_size, image_size, 3]`, 0..255."""
    rows, columns = (_coverage(side, image_size) for side in pixels.shape[:2])
    return np.einsum(
        "yh,hwc,xw->yxc", rows, pixels.astype(np.float64), columns, optimize=["einsum_path", (0, 1), (0, 1)]
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two images of levels 0..255, in dB, at most `MAX_PSNR_DB`."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(min(MAX_PSNR_DB, 10 * np.log10(255**2 / error))) if error else MAX_PSNR_DB


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the structural similarity of the luma of two images `[h, w, 3]`, both at least 11; equal ones have 1."""
    x, y = a @ _LUMA, b @ _LUMA
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) + _blurred(y * y) - mean_x**2 - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((similarity / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))).mean())


def table(quality: Quality) -> str:
    """Returns the figures as a table in Markdown."""
    lines = [
        f"{quality.num_pictures:,} images to {quality.image_size} x {quality.image_size} px,"
        f" {quality.num_refused} rejected; the difference of fast to exact is largest for {quality.worst}",
        "",
        "| | PSNR mean | 5 % quantile | least | SSIM mean | 5 % quantile | least |",
        "|---|---|---|---|---|---|---|",
    ]
    for comparison in quality.comparisons:
        cells = [comparison.name]
        for values, form in ((comparison.psnr_db, "{:.1f} dB"), (comparison.ssim, "{:.4f}")):
            cells += [form.format(value) for value in (values.mean(), np.quantile(values, 0.05), values.min())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _coverage(side: int, image_size: int) -> np.ndarray:
    """Returns the weight of each pixel in each output pixel, `[image_size, side]`."""
    edges = np.linspace(0, side, image_size + 1)
    low = np.maximum(edges[:-1, None], np.arange(side))
    high = np.minimum(edges[1:, None], np.arange(1, side + 1))
    return np.clip(high - low, 0, None) * (image_size / side)


@functools.cache
def _window(side: int) -> np.ndarray:
    """Returns the Gaussian window at each position inside the image, `[side - 10, side]`."""
    distances = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(distances**2) / (2 * _SIGMA**2))
    matrix = np.zeros((side - _WINDOW + 1, side))
    for place, row in enumerate(matrix):
        row[place : place + _WINDOW] = weights / weights.sum()
    return matrix


def _blurred(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    return _window(height) @ plane @ _window(width).T


if __name__ == "__main__":
    _, _folder, *_rest = sys.argv
    _paths = sorted(path for path in Path(_folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    sys.stdout.write(table(measure_quality(_paths, int(_rest[0]) if _rest else 64)) + "\n")
