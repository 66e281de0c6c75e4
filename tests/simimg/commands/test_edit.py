"""`edit` and `convert --from` as commands: what is printed, the report of the new version, and that TFDS opens it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.cli import main
from simimg.report.conversion.dataset_page import open_part
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest


@pytest.fixture(params=["raw", "jpeg"])
def dataset(datasets: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """72 photos at 32 px, to be edited."""
    return Path(shutil.copytree(datasets[request.param], tmp_path / "data" / request.param / "1.0.0"))


def opened(folder: Path) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    """Returns id, label and pixels of each example of each split, as TFDS reads them."""
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(folder))
    return {
        split: [(int(e["id"]), int(e["label"]), e["image"]) for e in tfds.as_numpy(builder.as_dataset(split=split))]
        for split in builder.info.splits
    }


def check_with_tfds(folder: Path) -> None:
    layout, manifest = Layout.load(folder), read_manifest(folder)
    images, found = DatasetImages(folder, layout, manifest), opened(folder)
    rows = {int(manifest.ids[row]): row for row in np.flatnonzero(manifest.ok).tolist()}
    assert sum(map(len, found.values())) == len(rows)
    for split, examples in found.items():
        for id, label, pixels in examples:
            row = rows.pop(id)
            assert (manifest.split_names[manifest.splits[row]], manifest.labels[row]) == (split, label)
            if layout.encoding == "raw":
                assert np.array_equal(pixels, np.asarray(images.image(row)))
    assert rows == {}


def test_edit(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "drop.csv").write_text("path,reason\ndiscs/0.png,<i>blurred\nboxes/3.png,\n")
    (tmp_path / "labels.csv").write_text("path,label\nstripes/1.png,boxes\n")
    lists = [f"--delete={tmp_path}/drop.csv", f"--relabel={tmp_path}/labels.csv", "--reason=checked"]
    assert main(["edit", f"--dataset_dir={dataset}", *lists]) == 0
    new = dataset.parent / "2.0.0"
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("2 deleted, 1 relabeled: 70 examples (")
    assert said.out.splitlines()[0].endswith(f" in {new}")
    assert verify(new).problems == ()
    check_with_tfds(new)
    report = (new / "report.html").read_text()
    assert "It was edited since" in report
    assert "2.0.0: deleted; &lt;i&gt;blurred" in report
    assert "Some of them were added later" not in report
    part = open_part(new, reason="deleted")
    assert len(part.rows) == 2
    assert main(["show", str(new), "--reason=deleted", f"--page={tmp_path}/page.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reasons"] == {"deleted": 2}
    assert "label stripes -&gt; boxes; checked" not in (tmp_path / "page.html").read_text()
    assert main(["edit", f"--dataset_dir={new}", f"--delete={tmp_path}/drop.csv"]) == 2
    assert "it was rejected (deleted)" in capsys.readouterr().err


def test_merge_and_convert_from(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    for number in range(8):
        path = tmp_path / "more" / ("boxes", "waves")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    encoding = Layout.load(dataset).encoding
    into = [f"--data_dir={tmp_path}/data", "--num_workers=1"]
    assert main(["convert", f"--image_dir={tmp_path}/more", "--image_size=48", *into]) == 0
    other = tmp_path / "data" / "more" / "1.0.0"
    assert main(["edit", f"--dataset_dir={dataset}", f"--merge={other}"]) == 2
    command = capsys.readouterr().err.partition("Convert it first: simimg ")[2].splitlines()[0]
    assert main([*command.split(), *into]) == 0
    assert "are resized a second time" in capsys.readouterr().err
    assert main(["edit", f"--dataset_dir={dataset}", f"--merge={tmp_path}/data/more_32/1.0.0", "--json"]) == 0
    said = capsys.readouterr()
    assert "note:" in said.err
    assert "adds 1 class: waves" in said.err
    assert json.loads(said.out)["num_added"] == 8
    merged = dataset.parent / "1.1.0"
    assert verify(merged).problems == ()
    check_with_tfds(merged)
    assert main(["convert", f"--from={merged}", "--image_size=16", "--encoding=png", *into]) == 0
    made = tmp_path / "data" / f"{encoding}_16" / "1.0.0"
    assert verify(made).problems == ()
    check_with_tfds(made)
    assert "--from=" in (made / "report.html").read_text()
    assert main(["convert", f"--from={merged}", f"--image_dir={tmp_path}/more"]) == 2
    assert "--from=" in capsys.readouterr().err
