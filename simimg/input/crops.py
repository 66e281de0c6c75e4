"""Crops of images that are cut while they are decoded: where they lie, and their pixels.

1. A random crop has 8 to 100 % of the image's area and an aspect ratio of 3/4 to 4/3, drawn log-uniformly (Szegedy et
   al., "Going deeper with convolutions", CVPR 2015, section 6), times that of the result. It is drawn as torchvision's
   RandomResizedCrop draws it: up to ten attempts, and then the largest central part with an allowed ratio.
2. A central crop is that of the image after a resize: to the smallest size that covers 8/7 of the crop (a short side of
   256 px for 224 x 224), the other side in proportion, rounded down; then the center.
3. The pixels are those of the whole image, decoded, cut and resized once with an antialiased bilinear filter, as by
   Pillow, up to one level; of millions of values, one differs by two, because both round after each direction. For
   images that are much larger than the crop, the decoder reduces the image first; then at least twice the crop's size
   is left for the filter, of the color samples as well. In 40 photos with short sides of 1,000 px, cut to 224 px,
   values then differed by 0.13 levels on average and by 14 at most.
4. A random crop depends only on (seed, epoch, id) and the image's size. The generator is that of the augmentation,
   `simimg.augment.parameters`, with a view of its own.
"""

from __future__ import annotations

import dataclasses
import math
import threading

import cv2
import cykooz_resizer as cr
import numpy as np
from PIL import Image

from simimg.errors import UsageError
from simimg.input.jpeg_regions import color_reduction, decode_region, reduction, scaled_down
from tfrecords.format.image_size import MAX_IMAGE_SIZE, ImageSize, parse_image_size, width_height

__all__ = ["CROPS", "DEFAULT_CROP_SIZE", "CropBox", "Crops", "crop_pixels", "growing_sizes"]

CROPS = ("random", "center")
DEFAULT_CROP_SIZE = 224  # px; what networks for ImageNet are trained at

MIN_AREA = 0.08  # share of the image
MAX_ASPECT = 4 / 3
ZOOM = 8 / 7  # what the resized image covers, as a multiple of its central crop
SIZE_STEP = 32  # px, by which crops grow; most networks halve their maps five times
_ATTEMPTS = 10
_DRAWS = 4  # per attempt: area, ratio, left, top

# What the decoder leaves at least, as a multiple of the crop's size. Less is hardly faster, since the decoder has to
# read every byte in any case: 1.25 takes 17 % less time for photos of 1,000 px, and none less for photos of 500 px.
_MARGIN = 2.0

VIEW = 1 << 20  # more than the views of a training step
_DRAWS_PER_VIEW = 64
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1

_BILINEAR = cr.ResizeAlg.convolution(cr.FilterType.bilinear)
_own = threading.local()  # each thread's resizer, which has buffers of its own


@dataclasses.dataclass(frozen=True, slots=True)
class CropBox:
    """A part of an image, px of the whole image; `is_cut` says whether pixels outside it have no influence."""

    left: float
    top: float
    right: float
    bottom: float
    is_cut: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """How images of any shape become images of `image_size` px: `random` or `center` crops."""

    image_size: ImageSize = DEFAULT_CROP_SIZE
    how: str = "random"  # in training; in evaluation, crops are central

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", parse_image_size(self.image_size))
        if self.how not in CROPS:
            raise UsageError(f"--crop={self.how}: should be one of {', '.join(CROPS)}.")

    def boxes(self, sizes: np.ndarray, ids: np.ndarray, run: tuple[int, int] | None) -> list[CropBox]:
        """Returns the crop of each image.

        Args:
            sizes: int `[n, 2]`, width and height, px.
            ids: int64 `[n]`.
            run: seed and epoch of random crops; None for central crops.
        """
        shapes, (across, down) = sizes.tolist(), width_height(self.image_size)
        if run is None:
            return [_central(width, height, across, down) for width, height in shapes]
        numbers, aspect = uniform(*run, ids, _ATTEMPTS * _DRAWS).tolist(), across / down
        return [_random(width, height, aspect, drawn) for (width, height), drawn in zip(shapes, numbers, strict=True)]


def growing_sizes(text: str, num_epochs: int) -> tuple[int, ...]:
    """Returns the side of the training crops in each epoch, px; () if `text` is `off`.

    "160" is one side. "160:192" grows linearly from the first epoch to the last one, rounded to multiples of 32, as
    between the two ramps of FFCV's training of ImageNet (libffcv/ffcv-imagenet, train_imagenet.py, get_resolution).

    Raises:
        UsageError: `text` has another form, or the sides are no multiples of 32.
    """
    if text in ("", "off"):
        return ()
    first, _, last = text.partition(":")
    sides = [int(side) if side.isdecimal() else 0 for side in (first, last or first)]
    if not 0 < sides[0] <= sides[1] <= MAX_IMAGE_SIZE or any(side % SIZE_STEP for side in sides):
        raise UsageError(f"--train_size={text}: should be off, or multiples of 32 px such as 160 or 160:192.")
    shares = [epoch / (num_epochs - 1) for epoch in range(num_epochs)] if num_epochs > 1 else [1.0] * num_epochs
    return tuple(round((sides[0] + (sides[1] - sides[0]) * share) / SIZE_STEP) * SIZE_STEP for share in shares)


def crop_pixels(data: memoryview, pixels: np.ndarray, size: tuple[int, int], box: CropBox) -> None:
    """Decodes a crop of a JPEG into `pixels`, uint8 `[height, width, 3]`, or `[height, width, 1]` of a gray one.

    `size` is the image's width and height, px. Raises ValueError if it cannot be decoded, or has another size.
    """
    down, across, _ = pixels.shape
    width, height = box.right - box.left, box.bottom - box.top
    by = min(reduction(width, across * _MARGIN), reduction(height, down * _MARGIN))
    if by > 1:
        x_colors, y_colors = color_reduction(data)
        by = min(by, reduction(width, across * _MARGIN * x_colors), reduction(height, down * _MARGIN * y_colors))
    left, top, right, bottom = (edge / by for edge in (box.left, box.top, box.right, box.bottom))
    # Half the width of the filter, in px of the reduced image.
    x_more, y_more = (0, 0) if box.is_cut else (_support(right - left, across), _support(bottom - top, down))
    width, height = scaled_down(size, by)
    x, y = max(0, math.floor(left) - x_more), max(0, math.floor(top) - y_more)
    region = (x, y, min(width, math.ceil(right) + x_more), min(height, math.ceil(bottom) + y_more))
    decoded = decode_region(data, size, region, by)
    _resize(decoded, region[2] - x, (left - x, top - y, right - x, bottom - y), pixels)


def uniform(seed: int, epoch: int, ids: np.ndarray, num_draws: int) -> np.ndarray:
    """Returns independent numbers per example: float64 `[n, num_draws]`, uniform in 0 <= x < 1, multiples of 2**-53.

    `simimg.augment.parameters.uniform` gives the upper 24 bits of the same numbers for the view `VIEW`.
    """
    run = _mix(np.array([(seed + _GOLDEN) & _MASK], np.uint64))
    run = _mix(run + np.uint64((epoch * _GOLDEN) & _MASK))
    example = _mix(run + ids.astype(np.uint64) * np.uint64(_GOLDEN))
    start = VIEW * _DRAWS_PER_VIEW
    steps = np.array([(start + number) * _GOLDEN & _MASK for number in range(1, num_draws + 1)], np.uint64)
    bits = _mix(example[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def _random(width: int, height: int, aspect: float, numbers: list[float]) -> CropBox:
    log_ratio = math.log(MAX_ASPECT)
    for start in range(0, _ATTEMPTS * _DRAWS, _DRAWS):
        area, ratio, across, down = numbers[start : start + _DRAWS]
        area = (MIN_AREA + (1 - MIN_AREA) * area) * width * height
        ratio = aspect * math.exp((2 * ratio - 1) * log_ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return CropBox(left, top, left + w, top + h, True)
    w = min(width, max(1, round(height * aspect * MAX_ASPECT)))
    h = min(height, max(1, round(width / aspect * MAX_ASPECT)))
    left, top = (width - w) // 2, (height - h) // 2
    return CropBox(left, top, left + w, top + h, True)


def _central(width: int, height: int, across: int, down: int) -> CropBox:
    covered = round(across * ZOOM), round(down * ZOOM)
    if width * down < height * across:
        resized = covered[0], covered[0] * height // width
    else:
        resized = covered[1] * width // height, covered[1]
    left, top = round((resized[0] - across) / 2), round((resized[1] - down) / 2)
    x_scale, y_scale = width / resized[0], height / resized[1]
    return CropBox(left * x_scale, top * y_scale, (left + across) * x_scale, (top + down) * y_scale, False)


def _support(length: float, side: int) -> int:
    """Returns how many px outside a part of `length` px can influence it when it is resized to `side` px."""
    return math.ceil(max(1.0, length / side)) + 1


def _resize(decoded: np.ndarray, width: int, box: tuple[float, float, float, float], pixels: np.ndarray) -> None:
    """Resizes a box of the first `width` columns of `decoded`, uint8 `[height, columns, 4]`, into `pixels`.

    The resizer copies arrays with the interpreter's lock held, 0.1 ms per image, but not Pillow's images. Pillow takes
    the memory of arrays for some of its modes. CMYK is one of them, to which both mean four channels without alpha.
    """
    height, side = len(decoded), pixels.shape[:2]
    source = Image.frombuffer("CMYK", (width, height), decoded, "raw", "CMYK", decoded.strides[0], 1)
    if not hasattr(_own, "resizer"):
        _own.resizer, _own.options = cr.Resizer(), cr.ResizeOptions(_BILINEAR)
    if not hasattr(_own, "resized") or _own.resized.shape[:2] != side:
        _own.resized = np.empty((*side, 4), np.uint8)
        _own.target = Image.frombuffer("CMYK", side[::-1], _own.resized, "raw", "CMYK", 0, 1)
    left, top, right, bottom = box
    _own.options.crop_box = cr.CropBox(left, top, min(right, width) - left, min(bottom, height) - top)
    _own.resizer.resize_pil(source, _own.target, _own.options)
    if pixels.shape[2] == 3:
        cv2.cvtColor(_own.resized, cv2.COLOR_RGBA2RGB, dst=pixels)
    else:  # a gray image has equal channels
        pixels[:] = _own.resized[:, :, :1]
