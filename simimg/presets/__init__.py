"""Presets: one short module each, with the options of a training run, and its accuracy and cost in the docstring.

Flags override the preset's options.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["PRESETS", "preset_options"]

PRESETS = ("small", "lite0", "lite1", "pair", "tutorial", "copy", "imagenet")


def preset_options(name: str) -> dict[str, Any]:
    """Returns the options of the preset `name`, by field of `simimg.training.TrainConfig`."""
    return dict(importlib.import_module(f"simimg.presets.{name}").OPTIONS)
