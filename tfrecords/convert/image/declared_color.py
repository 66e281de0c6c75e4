"""Color that a file declares by numbers, not by a profile: code points of ITU-T H.273 (cICP, nclx), PNG's gAMA, cHRM.

Each declaration becomes an ICC profile, so that all kinds of images are converted in one way. The profile has three
primaries and one curve. For HDR (PQ and HLG of ITU-R BT.2100) the curve includes the tone mapping of ITU-R BT.2390,
from a peak of 1,000 to diffuse white at 203 cd/m² (ITU-R BT.2408), for each primary on its own.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import numpy as np

# x and y of red, green, blue and white: ITU-T H.273, table 2.
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),  # BT.709, sRGB
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020, BT.2100
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),  # XYZ
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
_SRGB_PRIMARIES = _PRIMARIES[1]
_UNSPECIFIED = 2

_WHITE_CD, _PEAK_CD = 203.0, 1000.0
_CURVE_LENGTH = 4096
# A PNG's gamma of 1/2.2 stands for the curve of sRGB, which writers that know no other chunk approximate in this way.
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.005
# The white of the profile connection space, and Bradford's matrix, by which another white is adapted to it (ICC.1).
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


def is_known(primaries: int, transfer: int) -> bool:
    """Return whether code points of ITU-T H.273 say which color is meant."""
    return primaries in _PRIMARIES and transfer in _CURVES


@functools.lru_cache(maxsize=32)
def profile_of_cicp(primaries: int, transfer: int, *, full_range: bool = True) -> bytes | None:
    """Return a profile for code points of ITU-T H.273; None if they are unknown, unspecified or mean sRGB.

    Args:
        primaries: the code point of the color primaries.
        transfer: that of the transfer characteristics. Those of television (1, 6, 14, 15) count as the curve of sRGB,
            with which browsers show them: their own formula describes a camera, not a screen.
        full_range: whether black is 0 and white 255; else they are 16 and 235.
    """
    places = _SRGB_PRIMARIES if primaries == _UNSPECIFIED else _PRIMARIES.get(primaries)
    curve = _srgb if transfer == _UNSPECIFIED else _CURVES.get(transfer)
    if places is None or curve is None or (places == _SRGB_PRIMARIES and curve is _srgb and full_range):
        return None
    signal = np.linspace(0, 1, _CURVE_LENGTH)
    if not full_range:
        signal = np.clip((signal * 255 - 16) / 219, 0, 1)
    return _profile(places, curve(signal))


@functools.lru_cache(maxsize=32)
def profile_of_gamma(gamma: float | None, chromaticities: tuple[float, ...] | None) -> bytes | None:
    """Return a profile for PNG's gAMA and cHRM, of which one can be missing and is then that of sRGB; None for sRGB.

    Args:
        gamma: the exponent that made the samples of light, e.g. 0.45455.
        chromaticities: x and y of white, red, green and blue.
    """
    curve: Callable[[np.ndarray], np.ndarray] = _srgb
    if gamma is not None and gamma > 0 and abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE:
        curve = _power(1 / gamma)
    places = _SRGB_PRIMARIES
    if chromaticities is not None and len(chromaticities) == 8:
        white, red, green, blue = zip(chromaticities[::2], chromaticities[1::2], strict=True)
        if np.abs(np.array((red, green, blue, white)) - np.array(_SRGB_PRIMARIES)).max() > 0.001:
            places = (red, green, blue, white)
    if places == _SRGB_PRIMARIES and curve is _srgb:
        return None
    return _profile(places, curve(np.linspace(0, 1, _CURVE_LENGTH)))


def _profile(places: Chromaticities, curve: np.ndarray) -> bytes | None:
    """Return an ICC profile, version 2.4, or None if the primaries span no colors; `curve` is 0..1 in light."""
    columns = [(x / y, 1.0, (1 - x - y) / y) if y else (x, y, 1 - x - y) for x, y in places]
    colors, white = np.array(columns[:3]).T, np.array(columns[3])
    try:
        weights = np.linalg.solve(colors, white)
    except np.linalg.LinAlgError:
        return None
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    matrix = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ (colors * weights)
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 100:
        return None
    levels = np.rint(np.clip(curve, 0, 1) * 65535).astype(">u2")
    table = b"curv\0\0\0\0" + struct.pack(">I", len(levels)) + levels.tobytes()
    tags = {b"wtpt": _xyz(_D50), b"rTRC": table}
    tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    begin = 128 + 4 + 12 * (len(tags) + 2)
    entries, body = b"", b""
    for name, content in tags.items():
        names = (b"rTRC", b"gTRC", b"bTRC") if name == b"rTRC" else (name,)  # the three curves share their bytes
        entries += b"".join(each + struct.pack(">II", begin + len(body), len(content)) for each in names)
        body += content
    header = struct.pack(">I4sI4s4s4s", begin + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags) + 2) + entries + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _srgb(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _power(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda signal: signal**exponent


def _smpte_240(signal: np.ndarray) -> np.ndarray:
    return np.where(signal < 0.0912, signal / 4.0, ((signal + 0.1115) / 1.1115) ** (1 / 0.45))


def _logarithmic(decades: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda signal: np.where(signal <= 0, 0.0, 10 ** ((signal - 1) * decades))


def _cinema(signal: np.ndarray) -> np.ndarray:
    return signal**2.6 * 52.37 / 48.0


# The constants of SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_to_light(signal: np.ndarray) -> np.ndarray:
    """Return cd/m²."""
    root = signal ** (1 / _M2)
    return 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _light_to_pq(light: np.ndarray | float) -> np.ndarray:
    root = (np.asarray(light) / 10_000) ** _M1
    return ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2


def _pq(signal: np.ndarray) -> np.ndarray:
    return _tone_mapped(_pq_to_light(signal))


def _hlg(signal: np.ndarray) -> np.ndarray:
    """HLG on a screen with a peak of 1,000 cd/m², whose gamma is 1.2."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return _tone_mapped(_PEAK_CD * np.clip(scene, 0, 1) ** 1.2)


def _tone_mapped(light: np.ndarray) -> np.ndarray:
    """Return light in cd/m² as a share of white, by the curve of ITU-R BT.2390, 5.4.1, with a black of 0."""
    peak = float(_light_to_pq(_PEAK_CD))
    e1 = np.minimum(_light_to_pq(light) / peak, 1)
    most = float(_light_to_pq(_WHITE_CD)) / peak
    knee = 1.5 * most - 0.5
    t = (e1 - knee) / (1 - knee)
    rolled = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return _pq_to_light(np.where(e1 < knee, e1, rolled) * peak) / _WHITE_CD


# ITU-T H.273, table 3.
_CURVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: _srgb,
    4: _power(2.2),
    5: _power(2.8),
    6: _srgb,
    7: _smpte_240,
    8: _power(1.0),
    9: _logarithmic(2.0),
    10: _logarithmic(2.5),
    11: _srgb,
    12: _srgb,
    13: _srgb,
    14: _srgb,
    15: _srgb,
    16: _pq,
    17: _cinema,
    18: _hlg,
}
