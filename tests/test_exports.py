"""What is public is documented: names without an underscore and, where names are re-exported, those of `__all__`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest

import simimg
import tfrecords

NAMES = [
    info.name
    for package in (tfrecords, simimg)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith("__main__")
]
# Packages whose modules are imported one by one; the others say in their __init__ what they offer.
WITHOUT_EXPORTS = {
    "simimg.bench",
    "simimg.commands",
    "simimg.export",
    "simimg.health",
    "simimg.input.readers",
    "simimg.models",
    "simimg.report",
    "simimg.inference",
    "simimg.similarity",
    "simimg.similarity.evaluation",
    "tfrecords.convert",
    "tfrecords.convert.image",
    "tfrecords.convert.output",
    "tfrecords.convert.plan",
    "tfrecords.convert.state",
    "tfrecords.convert.workers",
    "tfrecords.edit",
    "tfrecords.format",
    "tfrecords.storage",
}


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def defined_in(module: ModuleType) -> list[str]:
    """The classes and functions that a module defines without an underscore."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) or inspect.isfunction(value)
    ]


def ruff_order(name: str) -> tuple[int, list[tuple[int, int | str]]]:
    """RUF022: constants, then classes, then the rest, each in natural order."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]


def test_there_are_modules() -> None:
    assert {"tfrecords.format", "tfrecords.convert", "simimg.input", "simimg.training.loop"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exports_exist_are_sorted_and_documented(name: str) -> None:
    module = load(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    exports = getattr(module, "__all__", None)
    if exports is None:
        is_package = hasattr(module, "__path__")
        assert not is_package or name in WITHOUT_EXPORTS, f"the package {name} does not say what it offers"
        exports = sorted(defined_in(module), key=ruff_order)
    assert exports == sorted(exports, key=ruff_order), f"{name}.__all__ is not in order"
    assert len(set(exports)) == len(exports)
    for export in exports:
        value = getattr(module, export)
        if inspect.isclass(value) or inspect.isfunction(value):
            own = value.__doc__ or ""
            generated = f"{value.__name__}("  # what dataclasses write when they are told nothing
            assert own.strip(), f"{name}.{export} has no docstring"
            assert not own.startswith(generated), f"{name}.{export} has only the docstring that dataclasses made"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_package_offers_is_offered_by_its_modules(name: str) -> None:
    """A name that a package re-exports is public where it is defined, too."""
    package = load(name)
    for export in getattr(package, "__all__", ()) if hasattr(package, "__path__") else ():
        value = getattr(package, export)
        # An instance says where its class was defined.
        home = load(value.__module__ if inspect.isclass(value) or inspect.isfunction(value) else name)
        assert export in getattr(home, "__all__", [export]), f"{name} re-exports {export}; {home.__name__} hides it"
