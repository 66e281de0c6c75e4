"""The sample folder: what is in it, that it is the same for everyone, and that it is whole or not there."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from simimg.sample import CLASS_NAMES, SampleSummary, draw_sample
from simimg.sample.sample_files import MAX_PER_CLASS, SampleFile, file_bytes, list_files
from tfrecords.base_errors import UsageError

PER_CLASS = 4
TURNED, CMYK = "houses/image_0003.jpg", "flowers/image_0002.jpg"
TEXT, CUT = "fishes/image_0005.jpg", "mountains/image_0005.jpg"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return draw_sample(tmp_path_factory.mktemp("pictures") / "sample", per_class=PER_CLASS, seed=3, num_workers=1)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.jpg"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _good(sample: SampleSummary) -> list[Path]:
    refused = {sample.out_dir / TEXT, sample.out_dir / CUT}
    return [path for path in sorted(sample.out_dir.rglob("*.jpg")) if path not in refused]


def test_summary_and_names(sample: SampleSummary) -> None:
    assert sample.class_names == CLASS_NAMES == ("balloons", "fishes", "flowers", "houses", "mountains")
    assert sample.num_images == 5 * PER_CLASS == len(_good(sample))
    assert set(sample.special) == {TURNED, CMYK, TEXT, CUT}
    assert sorted(path.name for path in sample.out_dir.iterdir()) == [".sample.json", *CLASS_NAMES]
    assert sorted(path.name for path in (sample.out_dir / "balloons").iterdir()) == [
        f"image_{k:04d}.jpg" for k in range(1, PER_CLASS + 1)
    ]


def test_every_good_picture_is_a_whole_jpeg_of_its_own_size(sample: SampleSummary) -> None:
    sizes = set()
    for path in _good(sample):
        with Image.open(path) as image:
            image.load()
            assert image.format == "JPEG"
            assert image.mode == ("CMYK" if path == sample.out_dir / CMYK else "RGB")
            assert 180 <= min(image.size) <= max(image.size) <= 430
            assert np.asarray(image.convert("L")).std() > 5, f"{path} is blank"
            sizes |= {image.size}
    assert len(sizes) == sample.num_images
    assert any(w > h for w, h in sizes)
    assert any(w < h for w, h in sizes)


def test_sizes_stay_distinct_in_the_largest_sample() -> None:
    files = [file for file in list_files(MAX_PER_CLASS, 0) if file.kind != "text"]
    assert len({(file.width, file.height) for file in files}) == len(files) == 5 * MAX_PER_CLASS + 1
    turned = next(file for file in files if file.kind == "turned")
    assert (turned.height, turned.width) not in {(file.width, file.height) for file in files}


def test_turned_picture_is_upright_only_by_its_exif(sample: SampleSummary) -> None:
    file = next(file for file in list_files(PER_CLASS, 3) if file.name == TURNED)
    with Image.open(sample.out_dir / TURNED) as image:
        assert image.getexif()[0x0112] == 6
        assert image.size == (file.height, file.width)
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    as_drawn = file_bytes(dataclasses.replace(file, kind="plain"), seed=3)
    with Image.open(io.BytesIO(as_drawn)) as image:
        assert image.size == (file.width, file.height)
        assert np.abs(upright - np.asarray(image).astype(int)).mean() < 6  # the same but for JPEG


def test_cmyk_picture_looks_like_the_rgb_one(sample: SampleSummary, tmp_path: Path) -> None:
    file = next(file for file in list_files(PER_CLASS, 3) if file.name == CMYK)
    (tmp_path / "rgb.jpg").write_bytes(file_bytes(dataclasses.replace(file, kind="plain"), seed=3))
    with Image.open(sample.out_dir / CMYK) as cmyk, Image.open(tmp_path / "rgb.jpg") as rgb:
        difference = np.asarray(cmyk.convert("RGB")).astype(int) - np.asarray(rgb).astype(int)
    assert np.abs(difference).mean() < 8


def test_cut_picture_opens_and_does_not_decode(sample: SampleSummary) -> None:
    with Image.open(sample.out_dir / CUT) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_text_file_is_text(sample: SampleSummary) -> None:
    assert (sample.out_dir / TEXT).read_text("ascii").startswith("<!DOCTYPE html>")
    with pytest.raises(UnidentifiedImageError):
        Image.open(sample.out_dir / TEXT)


def test_same_bytes_for_any_number_of_workers(sample: SampleSummary, tmp_path: Path) -> None:
    counts: list[int] = []
    again = draw_sample(tmp_path / "b", per_class=PER_CLASS, seed=3, num_workers=2, progress=counts.append)
    assert _digests(again.out_dir) == _digests(sample.out_dir)
    assert counts == sorted(counts)
    assert counts[-1] == 5 * PER_CLASS + 2
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_picture_depends_on_its_seed_and_index_and_not_on_how_many_there_are(sample: SampleSummary) -> None:
    few = {file.name: file for file in list_files(2, 3) if file.kind == "plain"}
    name = "balloons/image_0002.jpg"
    assert file_bytes(few[name], 3) == (sample.out_dir / name).read_bytes()
    assert file_bytes(few[name], 4) != file_bytes(few[name], 3)


@pytest.mark.parametrize("class_number", range(5))
def test_draws_at_the_extremes_of_size(class_number: int) -> None:
    for index, (width, height) in enumerate(((180, 420), (420, 180), (195, 180))):
        file = SampleFile("", class_number, 1000 + index, width, height, "plain")
        with Image.open(io.BytesIO(file_bytes(file, 11))) as image:
            assert image.size == (width, height)


def test_second_call_returns_at_once(sample: SampleSummary) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.out_dir.rglob("*")}
    assert draw_sample(sample.out_dir, per_class=PER_CLASS, seed=3, progress=lambda _: pytest.fail("drew")) == sample
    assert {path: path.stat().st_mtime_ns for path in sample.out_dir.rglob("*")} == before


def test_refuses_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"is no sample folder: it holds holiday\.png\. Choose another folder"):
        draw_sample(tmp_path, per_class=1)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        draw_sample(tmp_path / "holiday.png", per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_refuses_another_sample_and_an_incomplete_one(tmp_path: Path) -> None:
    drawn = draw_sample(tmp_path / "s", per_class=1, num_workers=1)
    with pytest.raises(UsageError, match=r"holds another sample.*'seed': 0.*Received: .*'seed': 1"):
        draw_sample(tmp_path / "s", per_class=1, seed=1)
    (drawn.out_dir / "balloons" / "image_0001.jpg").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 files of the sample, among them balloons/image_0001\.jpg"):
        draw_sample(tmp_path / "s", per_class=1)


def test_an_empty_folder_is_drawn_into(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert draw_sample(tmp_path / "s", per_class=1, num_workers=1).num_images == 5
    assert json.loads((tmp_path / "s" / ".sample.json").read_bytes())["per_class"] == 1


@pytest.mark.parametrize(
    "wrong", [{"per_class": 0}, {"per_class": MAX_PER_CLASS + 1}, {"seed": -1}, {"num_workers": 0}], ids=str
)
def test_arguments_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(UsageError, match=rf"`{name}` should be from .* Received: {name}={value}\."):
        draw_sample(tmp_path / "s", **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing_and_litter_is_removed(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".s.sample-old", ".s.sample-young", ".t.sample-old"))
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (1, 1))

    def fail(_: int) -> None:
        raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        draw_sample(tmp_path / "s", per_class=2, num_workers=1, progress=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name]


_SCRIPT = """
import sys
from pathlib import Path
from simimg.sample import draw_sample
assert "tensorflow" not in sys.modules
draw_sample(Path(sys.argv[1]), per_class=200, num_workers=2, progress=lambda n: print(n, flush=True))
"""


def _start(out_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(out_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "4\n"
    return process


def _group_is_gone(group: int) -> bool:
    for _ in range(1200):  # a minute
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_ends_every_process_and_leaves_nothing(tmp_path: Path) -> None:
    process = _start(tmp_path / "s")
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1, errors  # that of the process called, none from the workers
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not list(tmp_path.iterdir())
    assert _group_is_gone(process.pid)


def test_kill_9_leaves_no_workers_and_no_folder_of_the_final_name(tmp_path: Path) -> None:
    process = _start(tmp_path / "s")
    process.kill()
    process.communicate(timeout=120)
    assert not (tmp_path / "s").exists()
    assert _group_is_gone(process.pid)
