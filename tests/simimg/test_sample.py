"""The sample folder: its content, equal for everyone, and complete or absent."""

from __future__ import annotations

import hashlib
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

from simimg.sample import CLASS_NAMES, MAX_PER_CLASS, SampleSummary, draw_sample
from tfrecords.base_errors import UsageError

PER_CLASS = 4
TURNED, CMYK = "houses/image_0003.jpg", "flowers/image_0002.jpg"
TEXT, CUT = "fishes/image_0005.jpg", "mountains/image_0005.jpg"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return draw_sample(tmp_path_factory.mktemp("pictures") / "sample", per_class=PER_CLASS)


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


def test_sizes_are_distinct_in_the_whole_sample(tmp_path: Path) -> None:
    whole = draw_sample(tmp_path / "s")
    assert whole.num_images == 5 * MAX_PER_CLASS
    sizes = set()
    for path in whole.out_dir.rglob("*.jpg"):
        if whole.special.get(str(path.relative_to(whole.out_dir)), "").startswith("a web page"):
            continue
        with Image.open(path) as image:
            sizes |= {image.size}
    assert len(sizes) == 5 * MAX_PER_CLASS + 1


def test_turned_picture_is_upright_only_by_its_exif(sample: SampleSummary, tmp_path: Path) -> None:
    # In a smaller sample another image is the turned one, and this one lies upright.
    plain = draw_sample(tmp_path / "s", per_class=3).out_dir / TURNED
    with Image.open(sample.out_dir / TURNED) as image, Image.open(plain) as upright:
        assert image.getexif()[0x0112] == 6
        assert image.size == upright.size[::-1]
        turned = np.asarray(ImageOps.exif_transpose(image)).astype(int)
        assert np.abs(turned - np.asarray(upright).astype(int)).mean() < 6  # the same but for JPEG


def test_cmyk_picture_looks_like_the_rgb_one(sample: SampleSummary, tmp_path: Path) -> None:
    plain = draw_sample(tmp_path / "s", per_class=2).out_dir / CMYK
    with Image.open(sample.out_dir / CMYK) as cmyk, Image.open(plain) as rgb:
        assert rgb.mode == "RGB"
        difference = np.asarray(cmyk.convert("RGB")).astype(int) - np.asarray(rgb).astype(int)
    assert np.abs(difference).mean() < 8


def test_cut_picture_opens_and_does_not_decode(sample: SampleSummary) -> None:
    with Image.open(sample.out_dir / CUT) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_text_file_is_text(sample: SampleSummary) -> None:
    assert (sample.out_dir / TEXT).read_text("ascii").startswith("<!DOCTYPE html>")
    with pytest.raises(UnidentifiedImageError):
        Image.open(sample.out_dir / TEXT)


def test_same_bytes_for_any_number_of_workers(
    sample: SampleSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    again = draw_sample(tmp_path / "b", per_class=PER_CLASS, progress=counts.append)
    assert _digests(again.out_dir) == _digests(sample.out_dir)
    assert counts == sorted(counts)
    assert counts[-1] == 5 * PER_CLASS + 2
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_picture_does_not_depend_on_how_many_there_are(sample: SampleSummary, tmp_path: Path) -> None:
    few = draw_sample(tmp_path / "s", per_class=2).out_dir
    name = "balloons/image_0002.jpg"
    assert (few / name).read_bytes() == (sample.out_dir / name).read_bytes()
    assert (few / name).read_bytes() != (few / "balloons/image_0001.jpg").read_bytes()


def test_second_call_returns_at_once(sample: SampleSummary) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.out_dir.rglob("*")}
    assert draw_sample(sample.out_dir, per_class=PER_CLASS, progress=lambda _: pytest.fail("drew")) == sample
    assert {path: path.stat().st_mtime_ns for path in sample.out_dir.rglob("*")} == before


def test_refuses_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"is not a sample folder: it holds holiday\.png\. Choose another folder"):
        draw_sample(tmp_path, per_class=1)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        draw_sample(tmp_path / "holiday.png", per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_refuses_another_sample_and_an_incomplete_one(tmp_path: Path) -> None:
    drawn = draw_sample(tmp_path / "s", per_class=1)
    with pytest.raises(UsageError, match=r"holds another sample.*'per_class': 1.*Received: .*'per_class': 2"):
        draw_sample(tmp_path / "s", per_class=2)
    (drawn.out_dir / "balloons" / "image_0001.jpg").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 files of the sample, among them balloons/image_0001\.jpg"):
        draw_sample(tmp_path / "s", per_class=1)


def test_an_empty_folder_is_written_into(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert draw_sample(tmp_path / "s", per_class=1).num_images == 5
    assert json.loads((tmp_path / "s" / ".sample.json").read_bytes())["per_class"] == 1


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"per_class": MAX_PER_CLASS + 1}], ids=str)
def test_arguments_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(UsageError, match=rf"`{name}` should be from .* Received: {name}={value}\."):
        draw_sample(tmp_path / "s", **wrong)
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
        draw_sample(tmp_path / "s", per_class=2, progress=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name]


_SCRIPT = """
import sys
from pathlib import Path
from simimg.sample import draw_sample
assert "tensorflow" not in sys.modules
draw_sample(Path(sys.argv[1]), progress=lambda n: print(n, flush=True))
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
    assert process.stdout.readline() == "1\n"
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
