"""Deep samples (more than eight bits, or floating point) to eight bits: which value becomes black, and which white."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from tfrecords.base_errors import UsageError

SampleRange = str | tuple[float, float]
"""`auto`, `full`, `min-max`, or the values that become black and white."""

AUTO, FULL, MIN_MAX = "auto", "full", "min-max"
RANGES = (AUTO, FULL, MIN_MAX)

# An image that uses a smaller share of the range than this has so few levels left that it looks black or flat.
NARROW = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class EightBits:
    """Samples as uint8, in the shape they had, and whether they use less than `NARROW` of the range, but are not all
    equal.
    """

    samples: np.ndarray
    narrow: bool


def parse_range(text: str) -> SampleRange:
    """Return the value of `--range`, which is one of `RANGES` or LO,HI; raise UsageError for the rest."""
    if text in RANGES:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not np.isfinite((low, high)).all() or low >= high:
        raise UsageError(
            f"--range={text}: should be {', '.join(RANGES)}, or the values that become black and white, e.g. 0,4095."
        )
    return low, high


def stretched(choice: SampleRange, factor: float, shift: float = 0.0) -> SampleRange:
    """Return a range of a file's values for samples that its decoder has shifted, and then multiplied by a factor."""
    return choice if isinstance(choice, str) else ((choice[0] + shift) * factor, (choice[1] + shift) * factor)


def eight_bits(values: np.ndarray, choice: SampleRange, known: tuple[float, float] | None = None) -> EightBits:
    """Return samples as eight bits.

    Args:
        values: any shape; integers, or floating point, in which NaN counts as 0.
        choice: `full` is `known`, or the range of the type; 0..1 for floating point. `auto` is the same for unsigned
            samples of 16 bits and fewer. Other integers count as 0..255 if no value is larger, else as 0..65535; if
            they are unsigned and one is larger, as the range of the type. For floating point, see `_of_floats`.
        known: the range of the samples, if the file says it: 0..4095 for 12 bits.
    """
    floating = values.dtype.kind == "f"
    if floating:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values, posinf=high, neginf=low)
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    low, high = _limits(values.dtype, choice, known, least, most)
    used = min(most, high) - max(least, low)
    narrow = least < most and used < NARROW * (high - low)
    if not floating and (low, high) in _SHIFTS:  # as PNG decoders do it, and exact
        shifted = values >> _SHIFTS[low, high]
        return EightBits(np.clip(shifted, 0, 255).astype(np.uint8), narrow)
    if high <= low:  # all samples are equal, and stretching them says nothing
        return EightBits(np.zeros(values.shape, np.uint8), False)
    scaled: np.ndarray = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
    scaled = (scaled - low) * (255.0 / (high - low))
    return EightBits(np.clip(scaled + 0.5, 0, 255).astype(np.uint8), narrow)


def gray_samples(image: Image.Image, choice: SampleRange) -> EightBits:
    """Return the samples of a loaded image of mode I, I;16 or F as eight bits, uint8 `[h, w]`, see `eight_bits`.

    Samples of a TIFF are as its tags say: unsigned, of 12 bits, or with white at 0.
    """
    values = np.asarray(image)
    known = (0.0, 65535.0) if image.format == "PPM" and image.mode != "F" else None  # Pillow scales them to 16 bits
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = tags.get(258, (0,))[0]
    if bits and image.mode != "F":
        signed = tags.get(339, (1,))[0] == 2
        known = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
        if bits == 32 and not signed:
            values = values.view(np.uint32)
    found = eight_bits(values, choice, known)
    return EightBits(255 - found.samples, found.narrow) if tags.get(262) == 0 else found


# The ranges whose samples lose their lower bits.
_SHIFTS = {(0.0, 255.0): 0, (0.0, 65535.0): 8, (0.0, 4294967295.0): 24}


def _limits(
    dtype: np.dtype, choice: SampleRange, known: tuple[float, float] | None, least: float, most: float
) -> tuple[float, float]:
    if not isinstance(choice, str):
        return choice
    if choice == MIN_MAX:
        return least, most
    if dtype.kind == "f":
        return (0.0, 1.0) if choice == FULL else _of_floats(least, most)
    if known is None:
        info = np.iinfo(dtype)
        known = float(info.min), float(info.max)
    if choice == AUTO and (known[0] < 0 or known[1] > 65535):
        return 0.0, next((limit for limit in (255.0, 65535.0) if most <= limit), known[1] if known[0] >= 0 else 65535.0)
    return known


def _of_floats(least: float, most: float) -> tuple[float, float]:
    """Return 0..1, 0..255 or 0..65535, whichever the values seem to be made for; or their own range.

    Values a little beyond 0..255 are what a filter leaves of eight bits.
    """
    if least >= 0 and most <= 1:
        return 0.0, 1.0
    if most <= 2 * 255:
        return 0.0, 255.0
    return (0.0, 65535.0) if least >= 0 and most <= 65535 else (min(least, 0.0), most)
