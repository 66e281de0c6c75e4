"""Access to `benchmarks/`, the part of the measurements that the source repository has and the installed package lacks.

It holds the rivals that need an environment of their own, and the stages that only repeat a published table. A module
of its own because it is the only one that depends on where the package lies.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import simimg
from simimg.errors import UsageError

__all__ = ["checkout_module", "is_checkout"]

ROOT = Path(simimg.__file__).absolute().parents[1]


def is_checkout() -> bool:
    """Returns whether simimg runs from its source repository, an editable installation included."""
    # Not `benchmarks` alone: in site-packages, that may be another distribution's.
    return (ROOT / "benchmarks" / "rivals").is_dir() and (ROOT / "setup.cfg").is_file()


def checkout_module(name: str, flag: str) -> ModuleType:
    """Returns the module `name` of `benchmarks/`, which `flag` asks for.

    Raises:
        UsageError: this is an installed package, which does not contain it.
    """
    if not is_checkout():
        raise UsageError(
            f"{flag} needs benchmarks/{name} of the source repository, which the installed package does not contain. "
            f"Run this command in a clone of it: python -m simimg bench {flag} …"
        )
    if "benchmarks" not in sys.modules:
        # By its path: the current folder may have a package of this name, too.
        folder = ROOT / "benchmarks"
        spec = importlib.util.spec_from_file_location(
            "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["benchmarks"] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module(f"benchmarks.{name}")
