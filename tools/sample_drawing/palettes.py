"""The colors: twelve palettes that all classes share, so that color alone does not give a class away."""

from __future__ import annotations

import dataclasses

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colors that go together.

    Attributes:
        sky: from the zenith to the horizon, three colors.
        accents: what catches the eye: balloons, fishes, petals, walls, roofs; five colors.
        leaf: what grows, in the light and in the shade.
        deep: the darkest color; shadows lean towards it, never towards black.
        light: the lightest color; lights lean towards it, never towards white.
        night: whether lamps are lit and stars are out.
    """

    sky: tuple[Color, Color, Color]
    accents: tuple[Color, Color, Color, Color, Color]
    leaf: tuple[Color, Color]
    deep: Color
    light: Color
    night: bool = False


def mix(a: Color, b: Color, t: float) -> Color:
    """Returns `a` for t = 0, `b` for t = 1 and what lies between them otherwise."""
    return (
        round(a[0] + (b[0] - a[0]) * t),
        round(a[1] + (b[1] - a[1]) * t),
        round(a[2] + (b[2] - a[2]) * t),
    )


def luminance(color: Color) -> float:
    """Returns how light a color looks, 0..1 (Rec. 601 weights)."""
    return (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]) / 255


def _hex(text: str) -> tuple[Color, ...]:
    return tuple((int(t[0:2], 16), int(t[2:4], 16), int(t[4:6], 16)) for t in text.split())


def _palette(sky: str, accents: str, leaf: str, deep: str, light: str, night: bool = False) -> Palette:
    top, middle, low = _hex(sky)
    first, second, third, fourth, fifth = _hex(accents)
    lit, shaded = _hex(leaf)
    return Palette(
        (top, middle, low),
        (first, second, third, fourth, fifth),
        (lit, shaded),
        _hex(deep)[0],
        _hex(light)[0],
        night,
    )


PALETTES: tuple[Palette, ...] = (
    # dawn
    _palette("6C8EBF F2B8A0 FCE3C4", "E4572E F3A712 34407A 8FB58B 5F9BC4", "7FA870 2F5D50", "2B2D5B", "FFF4E0"),
    # noon
    _palette("3A86C8 8CC7E6 E2F3F0", "E63946 F4A261 FFD166 2A9D8F 24508C", "7DB24D 2D6A4F", "15304F", "FFFDF3"),
    # dusk
    _palette("33205E A23E75 F79D65", "F94144 F9C74F 5B7FA6 F8E0C0 B0386B", "5B7A5E 243B44", "1B1238", "FFE8C2"),
    # night
    _palette(
        "0C1638 20336E 5567A6",
        "FFCB69 E07A5F 81B29A F2E2B8 6A8ED8",
        "35706A 15343E",
        "070B1F",
        "F5EFD6",
        True,
    ),
    # mint
    _palette("8FD0C4 CDECE0 FBF6E4", "FF6F59 2C5F5A 3FA58A F5C35B E8436A", "5DB58F 28584F", "1C3A3A", "FFFBEF"),
    # rose
    _palette("DE96AE F6CDCB FFEFE0", "B5446E 56608A 86C2B8 F0A868 8A3A7C", "8DAA85 4B6458", "3F1D3B", "FFF6EE"),
    # desert
    _palette("E2A66B F2D09A FBEFD5", "A63D40 5B93AE 8FA654 D9691E 45585C", "A0A860 5C6B3C", "3B1F2B", "FFF7E3"),
    # nordic
    _palette("7C9EB2 C3D4D9 F1EDE4", "C8553D F28F3B 588B8B 35406A FFD5C2", "7C9A82 37554F", "1F2A3A", "FBF9F3"),
    # tropic
    _palette("0E9FA8 6FD6C4 FDF3C8", "F08700 EF3E5B 5B3A8C FFD23F 2EBFA0", "58B86A 14676B", "10314A", "FFFCE8"),
    # lilac
    _palette("7672B4 C2AFD9 F8DEE2", "F26A8D F5B971 4C4C9D 78C6A0 FFE09A", "7FA98F 3F5570", "2A2352", "FFF5F3"),
    # storm
    _palette("3E4C59 74889A C9D3D9", "F7B733 D64550 4CB5AE EEE0D0 34497E", "6E8C74 31504F", "18222E", "F7F7F2"),
    # autumn
    _palette("8FB8BF E8D3A2 F8E9CC", "BC3908 F6AA1C 7A2A1A 7D8F4E E2711D", "A9A14A 56602F", "2E1A1A", "FFF6E0"),
)
