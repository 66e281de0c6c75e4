"""Shards to tensors, models and search results: the half of simimg that trains and searches.

The names below are its whole Python interface; `simimg.api` describes it. Each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.api import (
        Loader,
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

__all__ = [
    "Loader",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'simimg' has no attribute {name!r}")
    from simimg import api, errors

    return getattr(errors if name == "SimimgError" else api, name)


def __dir__() -> list[str]:
    return __all__
