"""cleanlab on labels and CleanVision on images, in their own environment, see requirements-cleanlab.txt.

    python -P cleanlab_audit.py labels ARRAYS.npz RESULT.json
    python -P cleanlab_audit.py images IMAGE_DIR RESULT.json

`ARRAYS.npz` has `embeddings` and the given labels of each case. Their probabilities are those of a logistic regression
of scikit-learn with its defaults, cross-validated in five folds, as cleanlab's tutorials do it. Both run with one job,
which is faster than their default for a few thousand images.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(what: str, given: str, result: str) -> None:
    """Runs one of the two and writes what it found."""
    warnings.simplefilter("ignore")
    Path(result).write_text(json.dumps(_labels(given) if what == "labels" else _images(given)))


def _labels(arrays: str) -> dict[str, Any]:
    import numpy as np
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    with np.load(arrays) as file:
        embeddings, cases = file["embeddings"], {name: file[name] for name in file.files if name != "embeddings"}
    found = {}
    for name, labels in cases.items():
        start = time.process_time()
        model = LogisticRegression(max_iter=1000)
        probabilities = cross_val_predict(model, embeddings, labels, cv=5, method="predict_proba")
        wrong = find_label_issues(labels, probabilities, n_jobs=1)
        scores = 1 - get_label_quality_scores(labels, probabilities)
        seconds = time.process_time() - start
        found[name] = {"found": np.flatnonzero(wrong).tolist(), "scores": scores.tolist(), "seconds": seconds}
    return found


def _images(image_dir: str) -> dict[str, Any]:
    from cleanvision import Imagelab

    start = time.process_time()
    lab = Imagelab(data_path=image_dir, verbose=False)
    kinds = ("blurry", "dark", "light", "low_information", "odd_aspect_ratio", "odd_size", "grayscale")
    lab.find_issues({kind: {} for kind in kinds}, n_jobs=1, verbose=False)
    seconds = time.process_time() - start
    issues = lab.issues
    root = Path(image_dir).resolve()
    names = [Path(path).resolve().relative_to(root).as_posix() for path in issues.index]
    return {
        "seconds": seconds,
        "num_images": len(names),
        "found": {
            kind: [name for name, flag in zip(names, issues[f"is_{kind}_issue"].tolist(), strict=True) if flag]
            for kind in kinds
        },
        "scores": {
            kind: dict(zip(names, (1 - issues[f"{kind}_score"].astype(float)).tolist(), strict=True)) for kind in kinds
        },
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
