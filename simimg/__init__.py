"""Shards to tensors, models and search results: the half of simimg that trains and searches.

The names below are its whole Python interface; `simimg.api` describes it. Each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simimg.keras_registration import register_layers

if TYPE_CHECKING:
    from simimg.api import (
        Prediction,
        Searcher,
        audit,
        convert,
        duplicates,
        edit,
        evaluate,
        index,
        leaks,
        load,
        predict,
        search,
        train,
        verify,
    )
    from simimg.errors import SimimgError

__version__ = "0.1.0"

_REGISTERED = register_layers()  # so that Keras loads networks with our layers

__all__ = [
    "Prediction",
    "Searcher",
    "SimimgError",
    "__version__",
    "audit",
    "convert",
    "duplicates",
    "edit",
    "evaluate",
    "index",
    "leaks",
    "load",
    "predict",
    "search",
    "train",
    "verify",
]


# Parts of the package that a program may use without an import of their own.
_MODULES = ("augment", "callbacks", "flags")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"simimg.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'simimg' has no attribute {name!r}")
    from simimg import api, errors

    return getattr(errors if name == "SimimgError" else api, name)


def __dir__() -> list[str]:
    return __all__
