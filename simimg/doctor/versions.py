"""Versions of Python and of the packages, compared with what simimg requires; and another package named simimg."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shlex

from packaging.requirements import Requirement

from simimg import __version__
from simimg.doctor.check_result import CheckResult

_DISTRIBUTION = "simimg-tf"
# Another project on the package index, which installs a package and a command of the same name.
_OTHER_DISTRIBUTION = "simimg"
_SHOWN = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "pillow", "pyarrow", "google-crc32c", "tensorboard")
_PYTHON = Requirement("python >=3.11, <3.14")


def check_versions() -> CheckResult:
    """Compare the installed versions with the requirements in simimg's own metadata, without its extras."""
    problems = []
    python, required = platform.python_version(), []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout that is not installed
        required = importlib.metadata.requires(_DISTRIBUTION) or []
    if not _PYTHON.specifier.contains(python, prereleases=True):
        problems.append(
            f"this is Python {python}, but simimg requires {_PYTHON.specifier}. Make a virtual environment with one."
        )
    if _OTHER_DISTRIBUTION in importlib.metadata.packages_distributions().get("simimg", ()):
        problems.append(
            f"the package {_OTHER_DISTRIBUTION}, another program with the same import name and command, is installed. "
            f"Run: pip uninstall -y {_OTHER_DISTRIBUTION} && pip install --force-reinstall --no-deps {_DISTRIBUTION}"
        )
    wanted = {wish.name: wish for wish in map(Requirement, required) if not wish.marker or wish.marker.evaluate()}
    versions: dict[str, str | None] = dict.fromkeys((*_SHOWN, *wanted))
    for name in versions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
        wish = wanted.get(name, Requirement(name))
        there = versions[name]
        if there is None:
            problems.append(f"the package {name} is missing. Run: pip install {shlex.quote(str(wish))}")
        elif not wish.specifier.contains(there, prereleases=True):
            problems.append(
                f"{name} {there} is installed, but simimg requires {wish.specifier}. "
                f"Run: pip install {shlex.quote(str(wish))}"
            )
    shown = [name for name in _SHOWN if versions[name] is not None]
    return CheckResult(
        title="software",
        facts={name: versions[name] for name in _SHOWN},
        rows=(("simimg", __version__), ("Python", python), *((name, str(versions[name])) for name in shown)),
        problems=tuple(problems),
    )
