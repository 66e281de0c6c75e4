"""`verify`: what a person and a program are told of a dataset that is whole, and of one that is not."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.commands import convert
from simimg.commands.verify import Options, run
from simimg.errors import UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a rejected file and a report. Only to be read."""
    folder = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / "zoo" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    (folder / "zoo" / "bee" / "broken.png").write_bytes(b"no picture")
    options = convert.Options(
        image_dir=str(folder / "zoo"), data_dir=folder / "data", image_size=8, encoding="png", num_workers=1
    )
    assert convert.run(options).num_skipped
    return folder / "data" / "zoo" / "1.0.0"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The dataset, to be spoiled."""
    return Path(shutil.copytree(made, tmp_path / "set"))


def test_ok(made: Path) -> None:
    result = run(Options(dataset_dir=made))
    assert result.exit_code == 0
    assert result.text == f"ok: 12 examples in {made}"
    assert result.values == {"ok": True, "num_examples": 12, "problems": []}


def test_problems_are_lines_and_counted(folder: Path) -> None:
    shard = next(folder.glob("*-train.tfrecord-*[0-9]"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (folder / "features.json").unlink()
    result = run(Options(dataset_dir=folder))
    lines = result.text.splitlines()
    assert result.exit_code == 3
    assert result.values["ok"] is False
    assert lines == [*result.values["problems"], f"2 problems in {folder}"]
    assert lines[0] == f"{folder / 'features.json'} is missing."
    assert lines[1].startswith(f"{shard}: record ")


def test_one_problem_is_one(folder: Path) -> None:
    (folder / "features.json").unlink()
    assert run(Options(dataset_dir=folder)).text.splitlines()[-1] == f"1 problem in {folder}"


def test_no_folder(made: Path) -> None:
    for path in (made / "nowhere", made / "layout.json"):
        with pytest.raises(UsageError, match=r"is not a folder\. Name one that `simimg convert` wrote"):
            run(Options(dataset_dir=path))


def test_a_folder_that_has_a_dataset(folder: Path) -> None:
    with pytest.raises(UsageError, match=rf"it has no layout\.json\. Did you mean {folder}\?"):
        run(Options(dataset_dir=folder.parent))


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    result = run(Options(dataset_dir=tmp_path))
    assert result.exit_code == 3
    assert "layout.json is missing" in result.text


def test_the_report_that_convert_writes_is_verified(folder: Path) -> None:
    """Any flipped byte of it, its own checksum's and its end's, too; it may be deleted."""
    path = folder / "report.html"
    good = path.read_bytes()
    pick = random.Random(1)
    places = {0, *(pick.randrange(len(good)) for _ in range(30)), *range(len(good) - 82, len(good), 9), len(good) - 1}
    for at in places:
        bad = bytearray(good)
        bad[at] ^= 1 << pick.randrange(8)
        path.write_bytes(bad)
        result = run(Options(dataset_dir=folder))
        assert result.exit_code == 3, at
        assert result.values["problems"] == [
            f"{path}: its checksum, in its last line, fails. Delete it; `simimg convert` writes it again."
        ]
    path.unlink()
    assert run(Options(dataset_dir=folder)).exit_code == 0
