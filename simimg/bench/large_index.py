"""Writes a large index: the images of a small one, and random unit vectors whose image files do not exist.

    python -P large_index.py SMALL_INDEX LARGE_INDEX NUM_IMAGES

Each version of simimg writes its own index: PYTHONPATH says which version is imported, and earlier ones have other
names for the same things. A match without a file cannot be verified, so every version skips it.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

_MODULES = ("simimg.similarity.search_index", "simimg.similarity.index")  # the second is the earlier name
_ROWS = 10_000


def main(small_dir: str, large_dir: str, num_images: str) -> None:
    """Write the index of `num_images` images."""
    module = _index_module()
    small = module.SearchIndex.open(Path(small_dir))
    info, num_real, num_all = small.info, small.info.num_images, int(num_images)
    images = list(small.images if hasattr(small, "images") else small.pictures)
    rng = np.random.default_rng(0)
    embeddings = np.empty((num_all, small.embeddings.shape[1]), np.float32)
    embeddings[:num_real] = small.embeddings
    for start in range(num_real, num_all, _ROWS):
        part = embeddings[start : start + _ROWS]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    hashes = rng.integers(1, 2**64, num_all, np.uint64).tolist()
    images += [
        dataclasses.replace(images[0], path=f"missing/{row}.jpg", sha256=f"{row:064x}", phash=hashes[row], label="")
        for row in range(num_real, num_all)
    ]
    embedder = SimpleNamespace(
        name=info.model, fingerprint=info.model_fingerprint, image_size=info.image_size, resize=info.resize
    )
    engines = {"engines": info.engines} if hasattr(info, "engines") else {}
    Path(large_dir).mkdir(parents=True)
    module.write_generation(
        Path(large_dir), embedder, embeddings, images, image_dir=Path(info.image_dir or ""), **engines
    )


def _index_module() -> ModuleType:
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # the module is there, but something that it imports is not
                raise
    raise ModuleNotFoundError(f"simimg has none of the modules {', '.join(_MODULES)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
