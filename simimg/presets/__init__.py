"""Presets: each a short module with the options of a training run, and in its docstring what the run gives and costs.

A flag that is given overrides the preset's option.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["PRESETS", "preset_options"]

PRESETS = ("small", "lite0", "lite1", "pair", "tutorial", "copy")


def preset_options(name: str) -> dict[str, Any]:
    """Returns the options of the preset `name`, by field of `simimg.training.TrainConfig`."""
    module = importlib.import_module(f"simimg.presets.{name}")
    return dict(module.OPTIONS)
