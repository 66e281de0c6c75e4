"""The commands as Python functions that return what they found.

Each function takes the options of the command of its name, under the same names, and raises `simimg.SimimgError` with
the same messages. Its dependencies are imported when it is called, so `import simimg` is fast, and `convert` and
`verify` never import TensorFlow.

    >>> import simimg
    >>> made = simimg.convert("photos", name="photos", image_size=64)
    >>> made.num_examples, made.splits
    (40, {'train': 30, 'test': 10})
"""

from simimg.api.audit_api import audit
from simimg.api.copies_api import duplicates, leaks
from simimg.api.dataset_api import Loader, convert, edit, load, verify
from simimg.api.search_api import Searcher, index, search
from simimg.api.training_api import Prediction, evaluate, open_trained, predict, train

__all__ = [
    "Loader",
    "Prediction",
    "Searcher",
    "audit",
    "convert",
    "duplicates",
    "edit",
    "evaluate",
    "index",
    "leaks",
    "load",
    "open_trained",
    "predict",
    "search",
    "train",
    "verify",
]
