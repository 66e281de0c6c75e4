"""Versions of installed packages, in a millisecond.

`importlib.metadata` takes 30 ms of a command that takes 300: it imports the package for e-mail, and parses the
description of each package as one.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from contextlib import suppress

__all__ = ["installed_version"]


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, such as `ai-edge-litert`; None if it is not installed.

    A build under another name, such as tensorflow-cpu, is another distribution. The version is read from the name of
    the folder that pip makes, `<name>-<version>.dist-info`. `importlib.metadata` knows other kinds of installations.
    """
    found = _folders().get(_normalized(distribution))
    if found is None:
        import importlib.metadata

        with suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.version(distribution)
    return found


@functools.cache
def _folders() -> dict[str, str]:
    """Return the versions of what pip installed, by name; where there are several, that which is imported."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.endswith(".dist-info"):
                    distribution, _, version = name.removesuffix(".dist-info").partition("-")
                    found.setdefault(_normalized(distribution), version)
    return found


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "_", distribution).lower()
