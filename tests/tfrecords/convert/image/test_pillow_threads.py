"""Threads that read images beside each other, and beside the rest of a program, and change nothing for it."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.image.image_formats import reading
from tfrecords.convert.image.pillow_threads import pillow_for_this_thread, refuse_truncated
from tfrecords.format.quarantine import Reason, Refusal

KEEP, REFUSE = (ImageOptions(image_size=8, truncated=how) for how in ("keep", "refuse"))


def half_a_picture() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()[:2000]


def in_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_what_a_thread_keeps_is_its_own_business(monkeypatch: pytest.MonkeyPatch, process: bool, here: bool) -> None:
    """In the midst of a thread that does the opposite, whatever the program has set."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", process)
    data = half_a_picture()

    def other() -> str:
        assert ImageFile.LOAD_TRUNCATED_IMAGES is process
        try:
            load_image(data, REFUSE if here else KEEP)
        except Refusal as refusal:
            return refusal.reason
        return "kept"

    with reading(data, keep_truncated=here):
        assert in_a_thread(other) == (Reason.TRUNCATED if here else "kept")
        assert ImageFile.LOAD_TRUNCATED_IMAGES is here
        assert bool(vars(ImageFile)["LOAD_TRUNCATED_IMAGES"]) is here  # as Pillow's own module sees it
        refuse_truncated()
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert ImageFile.LOAD_TRUNCATED_IMAGES is process
    refuse_truncated()  # holds only within a block
    assert ImageFile.LOAD_TRUNCATED_IMAGES is process


def test_a_program_may_go_on_setting_the_switch() -> None:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        for value in (True, False):
            with pillow_for_this_thread(keep_truncated=not value):
                ImageFile.LOAD_TRUNCATED_IMAGES = value
                assert ImageFile.LOAD_TRUNCATED_IMAGES is not value
            assert ImageFile.LOAD_TRUNCATED_IMAGES is value
            assert load_image(half_a_picture(), KEEP).width == 40
            with pytest.raises(Refusal):
                load_image(half_a_picture(), REFUSE)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def test_many_threads() -> None:
    """Half of them keep what is there of a picture, the others do not."""
    data = half_a_picture()
    together = threading.Barrier(8)

    def load(number: int) -> bool:
        together.wait()
        for _ in range(20):
            try:
                load_image(data, KEEP if number % 2 else REFUSE)
                kept = True
            except Refusal:
                kept = False
            if kept is not bool(number % 2):
                return False
        return True

    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(load, range(8)))
    assert warnings.filters == before


def test_warnings_of_pillow_are_silent_in_their_thread_alone() -> None:
    """Not for the rest of the program, nor for the rest of time."""

    def warn() -> None:
        for module in (PngImagePlugin, TiffImagePlugin, Image):
            module.warnings.warn("odd", UserWarning)  # type: ignore[attr-defined]

    filters = warnings.filters
    with reading(b""):
        warn()
        assert warnings.filters is filters
        with pytest.warns(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="odd"):
            in_a_thread(warn)
    with pytest.warns(UserWarning, match="odd") as caught:
        PngImagePlugin.warnings.warn("odd")
    assert caught[0].filename == __file__
    assert PngImagePlugin.warnings.catch_warnings is warnings.catch_warnings
