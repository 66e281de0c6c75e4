"""Finds images that are copies of each other: the same bytes, the same pixels, or nearly the same perceptual hash.

The hash is pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"; the bits and their
order are those of imagehash.phash): for each of the 8 x 8 lowest frequencies of the gray image's DCT-II, one bit says
whether it is above their median. imagehash shrinks the image to 32 x 32 first, which takes 200 us and SciPy. Here the
DCT is two small matrix products over the stored image itself, which take 10 us at 64 px, and all sums are exact.

`MAX_DISTANCE` was chosen on 2,387 images of Caltech 101, stored at 64 x 64. The table has the percentage of their edits
that are found, and the pairs that are found in the set itself (of 2.8 million pairs; each was inspected):

    maximum differing bits        0     2     4     6     8
    half the size                96   100   100   100   100
    JPEG quality 30              81    99   100   100   100
    gray                         96   100   100   100   100
    contrast x 1.3               44    88    99   100   100
    brightness x 1.3, clipped    21    58    80    93    97
    cropped by 5 %                2    16    45    75    90
    pairs of images in the set   10    25    33    45    67
    of which unrelated            0     0     0     3     5

A wrong pair costs little, because it only puts both images into the same split. But the number of wrong pairs grows
with the square of the number of images, and they join unrelated groups. So it is 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np

COPIES = ("near", "exact", "ignore")
MAX_DISTANCE = 4
# Never a real hash, because 32 of the 64 frequencies are above their median.
NO_HASH = 0

# In gray levels. The frequencies of a plain image, of a gradient, or of either with noise are below 0.1, and their bits
# are random; the faintest of the 2,387 images, a watermark on white, has 0.26.
_MIN_CONTRAST = 0.25
_LOW = 8  # frequencies in each direction
_GRAY = np.array([77.0, 150.0, 29.0]) / 256  # of red, green and blue in gray, ITU-R 601
_FEW = 100_000  # hashes; up to this number, more and shorter bands are faster
# Multiplications per product that OpenBLAS computes in one thread; with two threads it took 80 times as long on a
# machine whose cores were busy.
_ALONE = 1 << 18
_MAX_PAIRS = 1 << 21  # compared at once: 60 MB


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """Return the 64-bit perceptual hashes of images as they are stored.

    Args:
        pixels: uint8 [n, h, w, 3], at most 2**17 px in each direction.

    Returns:
        uint64 [n]; `NO_HASH` for an image smaller than 8 px or with so little contrast that its hash would be random.
    """
    number, height, width, _ = pixels.shape
    if min(height, width) < _LOW:
        return np.full(number, NO_HASH, np.uint64)
    return _hashes(low_frequencies(pixels), height * width)


def position_hashes(pixels: np.ndarray) -> np.ndarray:
    """Return the hashes of images in one of their eight positions (turned by quarters, mirrored): uint64 [n].

    All positions of an image share it, but for images in which two positions are equally good. Arguments are those of
    `perceptual_hashes`, and so is `NO_HASH`.
    """
    number, height, width, _ = pixels.shape
    if min(height, width) < _LOW:
        return np.full(number, NO_HASH, np.uint64)
    low = low_frequencies(pixels).reshape(number, _LOW, _LOW)
    # A mirror image has the opposite sign at each odd frequency of that direction, so these sums change their sign with
    # it, and not with a mirror image in the other direction. The transposed image has the transposed frequencies.
    across, down = (_sums(one) for one in (low, low.transpose(0, 2, 1)))
    odd = 1.0 - 2.0 * (np.arange(_LOW) % 2)
    low = np.where((across < 0)[:, None, None], low * odd, low)
    low = np.where((down < 0)[:, None, None], low * odd[:, None], low)
    low = np.where((np.abs(across) < np.abs(down))[:, None, None], low.transpose(0, 2, 1), low)
    return _hashes(low.reshape(number, -1), height * width)


def _sums(low: np.ndarray) -> np.ndarray:
    """Return the sum of the frequencies that are odd across and even down: float64 [n, 8, 8] to [n]."""
    total = np.zeros(len(low))
    for row in range(0, _LOW, 2):
        for column in range(1, _LOW, 2):
            total += low[:, row, column]
    return total


def _hashes(low: np.ndarray, num_pixels: int) -> np.ndarray:
    """Return the hashes of images with these frequencies, float64 [n, 64], and so many pixels."""
    ordered = np.sort(low, axis=1)
    above = low > (ordered[:, 31:32] + ordered[:, 32:33]) / 2
    hashes = np.packbits(above, axis=1).view(">u8").ravel().astype(np.uint64)
    contrast = np.partition(np.abs(low[:, 1:]), 31, axis=1)[:, 31]
    # A squared cosine is 1/2 on average, so a wave of one gray level gives a quarter of the number of pixels.
    return np.where(contrast < _MIN_CONTRAST * num_pixels / 4, np.uint64(NO_HASH), hashes)


def low_frequencies(pixels: np.ndarray) -> np.ndarray:
    """Return the frequencies that hashes are made from: uint8 [n, h, w, 3] to float64 [n, 64], by rows."""
    number, height, width, channels = pixels.shape
    left, right = _transform(height, width)
    columns = pixels.reshape(number, height, -1)
    step = max(1, _ALONE // (_LOW * height))
    low = np.zeros((number, _LOW, _LOW))
    for start in range(0, width * channels, step):
        some = slice(start, start + step)
        low += left @ columns[:, :, some].astype(np.float64) @ right[some]
    return low.reshape(number, -1)


@lru_cache(maxsize=8)
def _transform(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 [8, h] and [w * 3, 8], which turn pixels into low frequencies.

    The cosines are rounded to multiples of a power of two that is so large that no sum needs more than 53 bits. All
    sums are exact, and a hash does not depend on the order of additions.
    """

    def cosines(size: int) -> np.ndarray:
        scale = 2.0 ** (18 - math.ceil(math.log2(size)))
        angles = np.outer(np.arange(_LOW), 2 * np.arange(size) + 1) * (np.pi / (2 * size))
        return np.round(scale * np.cos(angles)) / scale

    return cosines(height), np.ascontiguousarray((cosines(width)[:, :, None] * _GRAY).reshape(_LOW, -1).T)


def group_copies(sha256: np.ndarray, pixels_sha256: np.ndarray, phash: np.ndarray, copies: str) -> np.ndarray:
    """Return the group of copies that each file belongs to, as the index of the group's first file: int64 [n].

    A file without copies has its own index. Copies of copies are in one group.

    Args:
        sha256: uint8 [n, 32] of the files' bytes; zeros if they were not read.
        pixels_sha256: uint8 [n, 32] of the stored pixels; zeros if there are none.
        phash: uint64 [n], `NO_HASH` if there is none.
        copies: one of `COPIES`: "exact" groups equal bytes or pixels; "near" also groups hashes that differ in
            `MAX_DISTANCE` bits or fewer; "ignore" groups nothing.

    Raises:
        ValueError: `copies` is none of these.
    """
    if copies not in COPIES:
        raise ValueError(f"`copies` should be one of {', '.join(COPIES)}. Received: copies={copies!r}")
    groups = np.arange(len(phash), dtype=np.int64)
    if copies == "ignore":
        return groups
    for digests in (sha256, pixels_sha256):
        _unite(groups, *_equal_digests(digests))
    if copies == "near":
        rows = np.flatnonzero(phash != NO_HASH)
        hashes, first, number = np.unique(phash[rows], return_index=True, return_inverse=True)
        first = rows[first]  # one row represents all that share its hash
        _unite(groups, first[number], rows)
        for a, b in near_pairs(hashes, MAX_DISTANCE):
            _unite(groups, first[a], first[b])
    return _roots(groups, groups)


def join_groups(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the groups, as `group_copies` gives them, after joining those that have a key in common: int64 [n].

    `keys` are int64 [n]; rows with equal keys of 0 or more are joined.
    """
    joined = groups.copy()
    rows = np.flatnonzero(keys >= 0)
    _, first, number = np.unique(keys[rows], return_index=True, return_inverse=True)
    _unite(joined, rows[first][number], rows)
    return _roots(joined, joined)


def near_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of hashes that differ in `max_distance` bits or fewer, as blocks of index pairs.

    The 64 bits are divided among n bands. Two hashes that differ in d bits differ in d // n or fewer bits of at least
    one band, so only hashes that are that close in a band are compared. A pair that is close in several bands is
    yielded several times. Few hashes use d + 1 bands, of which one has to be equal. Many hashes use three bands, whose
    keys few hashes share: for a million random hashes and d = 4 that is 17 million comparisons instead of 500 billion.

    Args:
        hashes: uint64 [n], all different.
        max_distance: in bits, 0..64.
    """
    num_bands = min(max(max_distance + 1, 5), 8) if len(hashes) <= _FEW else 3
    for band in range(num_bands):
        keys, num_bits = _band(hashes, band, num_bands)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], hashes[order]
        # The first index in `keys` with a given key or a higher one.
        starts = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=1 << num_bits))))
        for radius in range(max_distance // num_bands + 1):
            for flipped in combinations(range(num_bits), radius):
                mask = sum(1 << bit for bit in flipped)
                # Each pair once: from the hash without the highest flipped bit, or the first one.
                rows = np.flatnonzero(keys & (1 << flipped[-1]) == 0) if flipped else np.arange(len(keys))
                others = keys[rows] ^ mask
                begins = starts[others] if flipped else rows + 1
                counts = starts[others + 1] - begins
                some = counts > 0
                for a, b in _expanded(rows[some], begins[some], counts[some]):
                    near = np.bitwise_count(ordered[a] ^ ordered[b]) <= max_distance
                    yield order[a[near]], order[b[near]]


def _band(hashes: np.ndarray, band: int, num_bands: int) -> tuple[np.ndarray, int]:
    """Return bits band, band + num_bands, ... of each hash as one number, and how many bits there are.

    Neighboring bits are neighboring frequencies, which are similar in many images; distant ones are not.
    """
    bits = range(band, 64, num_bands)
    keys = np.zeros(len(hashes), np.int64)
    for place, bit in enumerate(bits):
        keys |= ((hashes >> np.uint64(bit)) & np.uint64(1)).astype(np.int64) << place
    return keys, len(bits)


def _expanded(rows: np.ndarray, begins: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each row with each of begins..begins + counts - 1, in blocks of about `_MAX_PAIRS` pairs."""
    ends = np.cumsum(counts)
    at = 0
    while at < len(rows):
        before = ends[at] - counts[at]
        stop = max(at + 1, int(np.searchsorted(ends, before + _MAX_PAIRS, side="right")))
        part = slice(at, stop)
        offsets = begins[part] - (ends[part] - counts[part] - before)
        total = int(ends[stop - 1] - before)
        yield np.repeat(rows[part], counts[part]), np.arange(total) + np.repeat(offsets, counts[part])
        at = stop


def _equal_digests(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows with equal digests, enough to connect all of them; rows of zeros are in none."""
    words = np.ascontiguousarray(digests).view(np.uint64)
    order = np.argsort(words[:, 0])
    same = np.flatnonzero(np.diff(words[order, 0]) == 0)
    order = order[np.union1d(same, same + 1)]  # few rows share even a quarter of the digest
    order = order[np.lexsort((order, *words[order].T))]
    words = words[order]
    same = (words[1:] == words[:-1]).all(axis=1) & words[1:].any(axis=1)
    return order[:-1][same], order[1:][same]


def _unite(groups: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Join the groups of rows `a[i]` and `b[i]`. `groups` is a forest in which each row points to itself or an earlier
    row.
    """
    while len(a):
        a, b = _roots(groups, a), _roots(groups, b)
        apart = a != b
        a, b = a[apart], b[apart]
        np.minimum.at(groups, np.maximum(a, b), np.minimum(a, b))


def _roots(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the first row of the group of each of `rows`, and shorten the paths to it."""
    while True:
        above = groups[rows]
        if np.array_equal(above, rows):
            return above
        groups[rows] = groups[above]
        rows = above
