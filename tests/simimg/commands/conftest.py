"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def simimg(simimg_json: Callable[..., Any]) -> Callable[..., Any]:
    """`simimg_json`, by a shorter name."""
    return simimg_json
