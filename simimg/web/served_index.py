"""An index that the page shows: what it is served with, and its images as columns for the browser."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.text_encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class ServedIndex:
    """An index with its model, the plan of `simimg duplicates` that its review reads and writes, and a text encoder.

    `name` is what the page calls it, by default the name of its folder.
    """

    index: SearchIndex
    embedder: Embedder
    plan_path: Path
    text: TextEncoder | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.index.index_dir.resolve().name)


def addresses(served: Sequence[ServedIndex]) -> list[str]:
    """Return the path of each index on the server: `/` for the first one, and `/i/NAME/` for the others.

    NAME is that of the index, with a number if an earlier one has it already.
    """
    names: list[str] = []
    for one in served:
        name = plain = re.sub(r"[^\w.-]+", "-", one.name)
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return ["/", *(f"/i/{name}/" for name in names[1:])]


def columns(served: ServedIndex) -> bytes:
    """Return the images as JSON for the page, in columns; labels and splits are indices into lists of their names."""
    index, images = served.index, served.index.images
    info = index.info
    values: dict[str, Any] = {
        "name": Path(info.image_dir or info.dataset_dir or served.name).name,
        "generation": info.generation,
        "thresholds": {by: round(value, 4) for by, value in info.thresholds.items()},  # as similarities are sent
        "model": info.model,
        "has_text": served.text is not None,
        "path": images.column("path").tolist(),
        "width": images.column("width").tolist(),
        "height": images.column("height").tolist(),
        "num_bytes": images.column("num_bytes").tolist(),
        "modified": (images.column("modified_ns") // 10**9).tolist(),  # s since 1970
    }
    for name in ("label", "split"):
        encoded = pc.dictionary_encode(images.table[name].combine_chunks())
        found = encoded.dictionary.to_pylist()
        order = sorted(range(len(found)), key=lambda place: found[place])
        places = np.argsort(order)[encoded.indices.to_numpy()] if found else np.zeros(0, np.int64)
        values[f"{name}s"], values[name] = [found[place] for place in order], places.tolist()
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
