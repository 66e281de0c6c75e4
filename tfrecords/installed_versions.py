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
    """Return the versions of what pip installed, by name.

    Of several folders, that which is imported from counts; of several versions in one, which an interrupted pip leaves,
    the newest.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        here: dict[str, str] = {}
        with suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.endswith(".dist-info"):
                    distribution, _, version = name.removesuffix(".dist-info").partition("-")
                    plain = _normalized(distribution)
                    here[plain] = max(here.get(plain, version), version, key=_age)
        found = here | found
    return found


def _age(version: str) -> tuple[list[int], int, list[int], str]:
    """Return a key by which newer versions come later: 2.9 < 2.10.dev1 < 2.10rc1 < 2.10 < 2.10.post1."""
    release, rest = re.fullmatch(r"([0-9]*(?:\.[0-9]+)*)(.*)", version, re.DOTALL).groups()  # type: ignore[union-attr]
    rank = 1 if not rest else 0 if re.match(r"[-_.]?(a|b|c|rc|pre)", rest) else -1 if "dev" in rest else 2
    return [int(part) for part in release.split(".") if part], rank, [int(n) for n in re.findall("[0-9]+", rest)], rest


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "_", distribution).lower()
