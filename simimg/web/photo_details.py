"""What a person wants to know of a photo: when, with which camera and lens, where its file is; and its folder opened.

A folder is opened by the desktop's own program, only on the machine in front of which the browser is: the server has to
listen on the loopback address, and to run in a desktop session that is no remote one. Only folders of indexed files can
be opened, by row, and no shell is involved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tfrecords.convert.image.image_formats import image_header
from tfrecords.format.quarantine import Refusal

Opener = Callable[[Path], None]
"""Shows a file in its folder; raises OSError if it cannot."""

_DETAILS = 0x8769
_MAKE, _MODEL, _CHANGED = 271, 272, 306
_TAKEN, _LENS, _EXPOSURE, _APERTURE, _ISO, _FOCAL = 36867, 42036, 33434, 33437, 34855, 37386
_TEXT_SHOWN = 80


def photo_details(data: bytes) -> dict[str, str]:
    """Return what the camera wrote into an image file: `taken`, `camera`, `lens` and `exposure`, those that are known.

    Metadata that is damaged is left out. Places (GPS) are not read.
    """
    try:
        with image_header(data) as image:
            exif = Image.Image.getexif(image)  # not that of PNG, which decodes the pixels
            tags: Mapping[int, Any] = exif.get_ifd(_DETAILS)
            make, model = _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
            taken = _text(tags.get(_TAKEN)) or _text(exif.get(_CHANGED))
            values = {
                "taken": _date(taken),
                "camera": model if model.lower().startswith(make.lower().split(" ")[0]) else f"{make} {model}".strip(),
                "lens": _text(tags.get(_LENS)),
                "exposure": _exposure(tags),
            }
    except (Refusal, OSError):
        return {}
    return {name: value for name, value in values.items() if value}


def folder_opener(is_local: bool) -> Opener | None:
    """Return what shows a file in its folder on this desktop; None if there is none, or the server is not `is_local`.

    Somebody who is connected by ssh sits in front of another machine.
    """
    if not is_local or "SSH_CONNECTION" in os.environ:
        return None
    if sys.platform == "darwin":
        return lambda file: _start("open", "-R", str(file))
    has_desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    program = shutil.which("xdg-open") if has_desktop else None
    return None if program is None else lambda file: _start(program, str(file.parent))


def _start(*command: str) -> None:
    """Start a program that outlives this one, without its output."""
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _text(value: Any) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:_TEXT_SHOWN]


def _date(text: str) -> str:
    """Return a time of EXIF, `2021:05:04 10:11:12`, as people write it; "" if it is none."""
    found = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d))?", text)
    if not found or found[1] == "0000":
        return ""
    return "-".join(found.group(1, 2, 3)) + (f" {found[4]}" if found[4] else "")


def _exposure(tags: Mapping[int, Any]) -> str:
    """Return focal length, aperture, time and sensitivity as on a camera: `35 mm, f/2.8, 1/250 s, ISO 100`."""
    focal, aperture, seconds = (_number(tags.get(tag)) for tag in (_FOCAL, _APERTURE, _EXPOSURE))
    iso = tags.get(_ISO)
    iso = iso[0] if isinstance(iso, tuple) and iso else iso
    parts = [
        f"{focal:g} mm" if focal else "",
        f"f/{aperture:g}" if aperture else "",
        (f"1/{round(1 / seconds)} s" if seconds < 0.3 else f"{seconds:g} s") if seconds else "",
        f"ISO {iso}" if isinstance(iso, int) and iso > 0 else "",
    ]
    return ", ".join(filter(None, parts))


def _number(value: Any) -> float:
    """Return a positive number of EXIF, rounded to what is read; 0 for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return round(number, 5) if 1e-5 < number < 1e5 else 0.0  # nan, too, is none
