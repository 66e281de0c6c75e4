"""What correcting labels by `simimg audit` is worth: the test accuracy before and after.

    python -m benchmarks.audit_cleaning IMAGE_DIR FOLDER [--rate=0.2] [--how=confused] [--seed=1] [--page]

IMAGE_DIR has one folder of photos per class. A quarter of each class becomes the test split, with its labels as they
are. Of the training split, `--rate` of the labels are replaced by another class (`--how=random`) or by the class that
is most like it (`--how=confused`). Three datasets are trained on with `--preset=lite0 --epochs=0`, which fits the
softmax alone: the one with wrong labels, the version that `simimg edit` makes of it from what `simimg audit --relabel`
is sure of, and one with the original labels. Nothing else tells `audit` which labels are wrong. Each step is a command.

With --page, a person's part is played on the page of `simimg serve`, in Chromium: each label finding gets a key, K if
the label is the original one, otherwise the number of the original class, or its name if that is not suggested.
`simimg decide --relabel` then writes the list. The player knows the original labels, as a person who sees them does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chromium import address_of, open_browser, served, wait_until
from simimg.bench.checkout import ROOT

__all__ = ["main"]

_TEST_SHARE = 0.25
_WAIT_S = 900  # also for the audit that the page begins with


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the datasets, trains, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--how", choices=("random", "confused"), default="confused")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="decide on the page, by keys")
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = _dealt(options.image_dir.resolve(), options.seed)
    names = sorted({label for _, label, _ in rows})
    nearest = _nearest_classes(options.image_dir.resolve(), names, folder) if options.how == "confused" else {}
    rng = np.random.default_rng(options.seed)
    dirty = []
    for path, label, split in rows:
        if split == "train" and rng.random() < options.rate:
            others = [name for name in names if name != label]
            label = nearest[label] if nearest else others[rng.integers(len(others))]
        dirty.append((path, label, split))
    given = {"dirty": dirty, "clean": rows}
    datasets = {name: _converted(options.image_dir.resolve(), folder, name, table) for name, table in given.items()}
    relabel = folder / "labels.csv"
    audited = _simimg(
        folder, "audit", f"--dataset_dir={datasets['dirty']}", "--kinds=label", f"--relabel={relabel}",
        f"--index_dir={folder / 'index-dirty'}",
    )  # fmt: skip
    keys: dict[str, Any] = {}
    if options.page:
        keys = _played(folder / "index-dirty", {path: label for path, label, _ in rows})
        _simimg(folder, "decide", f"--index_dir={folder / 'index-dirty'}", f"--relabel={relabel}")
    edited = _simimg(folder, "edit", f"--dataset_dir={datasets['dirty']}", f"--relabel={relabel}")
    datasets["corrected"] = edited["dataset_dir"]
    wrong = {path for (path, label, _), (_, true, _) in zip(dirty, rows, strict=True) if label != true}
    true_label = {path: label for path, label, _ in rows}
    changed = [line.split(",")[:2] for line in relabel.read_text().splitlines()[1:]]
    results: dict[str, Any] = {
        "num_train": sum(split == "train" for *_, split in rows),
        "num_wrong": len(wrong),
        "num_reported": len(audited["findings"]),
        "num_relabeled": edited["num_relabeled"],
        "num_put_right": sum(path in wrong and true_label[path] == label for path, label in changed),
        "num_made_wrong": sum(path not in wrong for path, _ in changed),
        **keys,
    }
    for name, dataset in datasets.items():
        model = folder / f"run-{name}"
        training = (f"--dataset_dir={dataset}", f"--model_dir={model}", "--preset=lite0", "--epochs=0")
        _simimg(folder, "train", *training)
        measured = _simimg(folder, "evaluate", f"--dataset_dir={dataset}", f"--model_dir={model}")
        results[name] = {key: measured[key] for key in ("accuracy", "accuracy_ci95", "num_examples")}
    (folder / "cleaning.json").write_text(json.dumps(results, indent=1))
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


def _played(index_dir: Path, true_label: Mapping[str, str]) -> dict[str, Any]:
    """Decide about all label findings on the page; return the numbers of decisions by key, and the seconds."""
    from selenium.webdriver.common.keys import Keys

    with served(index_dir) as server:
        url = address_of(server)
        driver = open_browser()
        try:
            driver.get(f"{url}#/audit")
            wait_until(driver, "document.querySelector('.start .primary, .finding')", _WAIT_S)
            driver.execute_script("document.querySelector('.start .primary')?.click()")
            wait_until(driver, "document.querySelector('.kinds [data-kind=label]')", _WAIT_S)
            driver.execute_script("document.querySelector('.kinds [data-kind=label]').click()")
            total = int(driver.execute_script("return document.querySelector('[data-kind=label] .number').textContent"))
            pressed = {"right": 0, "number": 0, "name": 0}
            driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
            start = time.perf_counter()
            before = int(driver.execute_script(_DECIDED))
            for number in range(total):
                path, given, classes = driver.execute_script(_CURRENT)
                true = true_label[path]
                if true == given:
                    pressed["right"] += 1
                    driver.switch_to.active_element.send_keys("k")
                elif true in classes:
                    pressed["number"] += 1
                    driver.switch_to.active_element.send_keys(str(classes.index(true) + 1))
                else:
                    pressed["name"] += 1
                    driver.switch_to.active_element.send_keys("e")
                    driver.switch_to.active_element.send_keys(true, Keys.ENTER)
                last = number + 1 == total
                moved = f"document.querySelector('.panel .path').title !== {json.dumps(path)} || {json.dumps(last)}"
                wait_until(driver, f"{_DECIDED[7:]} > {before} && ({moved})", _WAIT_S)
                before = int(driver.execute_script(_DECIDED))
            seconds = time.perf_counter() - start
        finally:
            driver.quit()
    return {"decided_by": pressed, "seconds_of_decisions": round(seconds, 1)}


_DECIDED = "return Number.parseInt(document.querySelector('.plan .sum b').textContent)"
_CURRENT = """
const panel = document.querySelector(".panel");
return [panel.querySelector(".path").title, panel.querySelector(".facts").textContent.match(/labeled (.*?) ·/)[1],
  [...panel.querySelectorAll(".classes span")].map((one) => one.textContent)];
"""


def _dealt(image_dir: Path, seed: int) -> list[tuple[str, str, str]]:
    """Return path, label and split of the photos of all named classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in sorted(path.name for path in image_dir.iterdir() if path.is_dir()):
        if label.startswith("BACKGROUND"):
            continue
        paths = sorted(f"{label}/{path.name}" for path in (image_dir / label).glob("*.jpg"))
        test = set(rng.permutation(len(paths))[: round(_TEST_SHARE * len(paths))].tolist())
        rows += [(path, label, "test" if number in test else "train") for number, path in enumerate(paths)]
    return rows


def _nearest_classes(image_dir: Path, names: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the class whose mean embedding is nearest to that of each class."""
    from simimg import api

    index = api.index(image_dir, folder / "index-files").index
    labels = index.images.column("label").astype(str)
    means = np.stack([np.asarray(index.embeddings, np.float32)[labels == name].mean(axis=0) for name in names])
    means -= means.mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T - 2 * np.eye(len(names))
    return {name: names[int(row.argmax())] for name, row in zip(names, cosines, strict=True)}


def _converted(image_dir: Path, folder: Path, name: str, rows: Sequence[tuple[str, str, str]]) -> str:
    table = folder / f"{name}.csv"
    table.write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    made = _simimg(
        folder, "convert", f"--table={table}", f"--image_dir={image_dir}", "--splits=source", f"--name={name}",
        f"--data_dir={folder / 'data'}", "--image_size=224", "--encoding=jpeg", "--copies=ignore",
    )  # fmt: skip
    return str(made["dataset_dir"])


def _simimg(folder: Path, *arguments: str) -> Any:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "simimg", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
