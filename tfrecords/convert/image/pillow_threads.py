"""Makes three settings of Pillow, which hold for a whole process, hold for one thread.

`ImageFile.LOAD_TRUNCATED_IMAGES` decides whether an image whose file ends early is an error. If a thread sets it around
each image, truncated images pass as whole in the threads beside it. And `warnings.catch_warnings` is not made for
threads: two that overlap can silence all warnings of the process for good. `Image.MAX_IMAGE_PIXELS` is the limit for
every image, also for those of other threads.

When this module is imported, it puts an object that asks the thread into the place of the switch, one that asks the
thread before it warns into the place of the module `warnings` in Pillow's modules, and a function that asks the thread
into the place of the one that compares a size with the limit. After that nothing of the process changes any more. The
rest of a program may read, set and use the switch and the limit as before.
"""

from __future__ import annotations

import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# The formats that are read, imported here and not when the first image needs one: a process with too many open files
# cannot import, and Pillow would take the format for one that it was built without.
_FORMATS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Jpeg2KImagePlugin,
    MpoImagePlugin,  # and JPEG
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
_SWITCH = "LOAD_TRUNCATED_IMAGES"


class _Thread(threading.local):
    """What holds for this thread; None outside of `pillow_for_this_thread`, where the process decides."""

    keep_truncated: bool | None = None
    max_pixels: int | None = None


_thread = _Thread()


@contextmanager
def pillow_for_this_thread(*, keep_truncated: bool, max_pixels: int | None = None) -> Iterator[None]:
    """Keep truncated images or not, refuse sizes above `max_pixels`, and suppress Pillow's warnings, in this thread."""
    before = _thread.keep_truncated, _thread.max_pixels
    _thread.keep_truncated, _thread.max_pixels = keep_truncated, max_pixels
    try:
        yield
    finally:
        _thread.keep_truncated, _thread.max_pixels = before


def refuse_truncated() -> None:
    """Keep no truncated image until the end of this thread's block."""
    if _thread.keep_truncated:
        _thread.keep_truncated = False


class _Switch:
    """The value of the switch in Pillow's own module: that of the thread, else that of the process."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return bool(self.value if _thread.keep_truncated is None else _thread.keep_truncated)


class _ImageFileModule(types.ModuleType):
    """`PIL.ImageFile`: the switch is read and set through a property, so that nobody replaces the object behind it."""

    @property
    def LOAD_TRUNCATED_IMAGES(self) -> Any:  # noqa: N802
        return _switch.value if _thread.keep_truncated is None else _thread.keep_truncated

    @LOAD_TRUNCATED_IMAGES.setter
    def LOAD_TRUNCATED_IMAGES(self, value: Any) -> None:  # noqa: N802
        _switch.value = value


class _Warnings(types.ModuleType):
    """The module `warnings` as Pillow sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        if _thread.keep_truncated is None:
            warnings.warn(message, category, stacklevel + 1, **options)


_pillows_check = Image._decompression_bomb_check


def _check_size(size: tuple[int, int], **options: Any) -> None:
    if _thread.max_pixels is None:
        _pillows_check(size, **options)
    elif max(1, size[0]) * max(1, size[1]) > _thread.max_pixels:
        raise Image.DecompressionBombError(f"{size[0]} x {size[1]} is more than {_thread.max_pixels} pixels")


def _install() -> _Switch:
    switch = _Switch(vars(ImageFile)[_SWITCH])
    vars(ImageFile)[_SWITCH] = switch
    ImageFile.__class__ = _ImageFileModule
    Image._decompression_bomb_check = _check_size
    quiet = _Warnings(warnings.__name__)
    for name, module in sys.modules.items():
        if name.startswith(f"{Image.__package__}.") and vars(module).get("warnings") is warnings:
            vars(module)["warnings"] = quiet
    return switch


_switch = _install()
