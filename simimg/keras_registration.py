"""Registers the layers of our networks with Keras once a program has imported both simimg and Keras.

A network that is trained has these layers, and so has a `model.keras` that an earlier version wrote. With
`import simimg`, `keras.saving.load_model` finds them. Importing Keras takes seconds, so `import simimg` does not: if
Keras comes later, the layers are registered at the end of its import.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LAYERS = ("simimg.models.backbones", "simimg.models.keras_applications")


def register_layers() -> bool:
    """Registers the layers, now or at the end of the first import of Keras; returns whether they are registered now."""
    if "keras" in sys.modules:
        return _register()
    if not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())
    return False


class _AfterKeras(MetaPathFinder):
    """Finds Keras as Python does, once, and registers the layers after it was imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        # Not removed yet: TensorFlow looks for Keras, too, without importing it.
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((found for one in others if (found := one.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register() -> bool:
    ours = [module for name, module in sys.modules.items() if name.startswith("simimg.models.")]
    if any(getattr(module.__spec__, "_initializing", False) for module in ours):
        return False  # one of these modules imports Keras itself, and registers what it defines
    with contextlib.suppress(ImportError):  # no TensorFlow: then there are no such networks, and Keras works as before
        for name in _LAYERS:
            importlib.import_module(name)
        return True
    return False
