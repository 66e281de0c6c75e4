"""The report shows how far shares are off where groups are not divided, and images that have several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from simimg.commands.convert import Options, run
from simimg.report.conversion.conversion_report import command_line
from tfrecords.format.layout import Layout


def test_shares_and_conflicts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "zoo" / ("cat" if number % 3 else "dog") / f"p{number // 4}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    Image.fromarray(pixels).save(tmp_path / "zoo" / "dog" / "p5_same.png")  # of p5_23, a cat

    options = Options(
        image_dir=str(tmp_path / "zoo"), data_dir=tmp_path, image_size=8, num_workers=1, group_pattern="/(p[0-9]+)_"
    )
    result = run(options)
    assert result.exit_code == 0
    (conflict,) = result.values["label_conflicts"]
    assert [file["path"] for file in conflict["files"]] == ["cat/p5_23.png", "dog/p5_same.png"]
    folder = Path(result.values["dataset_dir"])
    page = (folder / "report.html").read_text()
    assert "Shares of the splits" in page
    for text in ("6 groups, none divided; the largest has 5 images", "<td>train</td>", "asked", "points off"):
        assert text in page
    assert 'id="label_conflicts"' in page
    assert "2 classes: cat, dog" in page
    assert "--group_pattern='/(p[0-9]+)_'" in command_line(Layout.load(folder))

    dropped = run(Options(**{**vars(options), "name": "dropped", "conflicts": "drop", "group_pattern": "", "folds": 3}))
    assert dropped.num_skipped
    page = (Path(dropped.values["dataset_dir"]) / "report.html").read_text()
    assert "Copies in several classes" in page
    assert "has the class" in page
    assert page.count("<img") >= 2
    assert "By <code>--folds=3</code>" in page
    assert "--folds=3" in command_line(Layout.load(Path(dropped.values["dataset_dir"])))
    assert "--splits" not in command_line(Layout.load(Path(dropped.values["dataset_dir"])))
