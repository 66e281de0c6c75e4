"""The comparison of converters: what is made of given times, and one small comparison from flags to JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.rivals import CONVERTERS
from simimg.bench.converter_comparison import Comparison, compare_converters, stage
from simimg.bench.converters import OURS, RIVALS, Tool
from simimg.bench.image_sets import ImageSet
from simimg.bench.measurements import Run
from simimg.commands import bench
from simimg.errors import SimimgError, UsageError

PICTURES = ImageSet(folder=Path("/photos"), files=("a/1.jpg", "a/2.jpg"), num_bytes=2**21, what="photos")


def runs(*seconds: float) -> list[Run]:
    return [Run(value, 100, 0) for value in seconds]


def made_up() -> Comparison:
    """Two rivals: of one simimg is four times as fast in every round, of the other it is not 1.8 times."""
    ours = (1.0, 2.0, 1.0, 1.5, 1.0)
    slow_rounds = {
        "simimg": runs(*ours),
        "tutorial": runs(*(4 * value for value in ours)),
        "dali": runs(*(1.79 * value for value in ours)),
        "tutorial_plain": runs(*(3 * value for value in ours)),
        "read and hash": runs(*(0.05 * value for value in ours)),
        "write": runs(*(0.15 * value for value in ours)),
    }
    found = stage("convert", PICTURES, slow_rounds, {"tutorial": 4.0, "dali": 1.8})
    return Comparison(stages=(found,), tools={}, left_out={"ffcv": "g++ not found on this machine"})


def test_figures_of_a_stage() -> None:
    (found,) = made_up().stages
    assert (found.num_images, found.num_bytes, found.images_per_s) == (2, 2**21, 100)
    assert found.ci95 == (50, 100)
    assert found.ratio_to_limit == pytest.approx(0.2)
    assert found.ratio_to_limit_ci95 == pytest.approx((0.2, 0.2))
    assert found.limits == pytest.approx({"read and hash": 2000, "write": 100 / 0.15})
    assert [rival.name for rival in found.rivals] == ["tutorial", "dali", "tutorial_plain"]
    tutorial, dali, plain = found.rivals
    assert (tutorial.images_per_s, tutorial.ratio, tutorial.bar, tutorial.met) == (25, 4, 4, True)
    assert tutorial.ratio_ci95 == (4, 4)  # although the rounds differ by a factor of two
    assert (dali.bar, dali.met) == (1.8, False)
    assert dali.ratio == pytest.approx(1.79)
    assert (plain.bar, plain.met) == (None, None)


def test_text_and_json_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "compare_converters", lambda *arguments, **options: made_up())
    result = bench.run(bench.Options(stage="convert", image_dir=tmp_path, out_dir=tmp_path / "out"))
    lines = [" ".join(line.split()) for line in result.text.splitlines()]
    assert "simimg 100 50 to 100" in lines
    assert "tutorial 25 12 to 25 4.00x 4.00 to 4.00 4x: met" in lines
    assert "dali 56 28 to 56 1.79x 1.79 to 1.79 1.8x: NOT MET" in lines
    assert "tutorial_plain 33 17 to 33 3.00x 3.00 to 3.00" in lines
    assert "20.0 % of the limit (read and hash 2,000 images/s and write 667 images/s)" in lines
    assert "left out: ffcv: g++ not found on this machine" in lines
    assert result.num_skipped
    (file,) = (tmp_path / "out").glob("*.json")
    assert file.name.startswith("bench-convert-20")
    assert {**json.loads(file.read_text()), "file": str(file), "report": str(file.with_suffix(".html"))} == json.loads(
        json.dumps(result.values)
    )
    assert result.values["stages"][0]["rounds"]["dali"][1] == dataclasses.asdict(Run(3.58, 100, 0))
    assert set(result.values["machine"]) >= {"processor", "cores", "memory", "versions"}


def test_one_small_comparison(folder: Path, tmp_path: Path) -> None:
    """Real processes: simimg, a rival of our own environment and both limits; no time is looked at."""
    result = bench.run(
        bench.Options(
            stage="convert",
            image_dir=folder,
            out_dir=tmp_path / "out",
            rivals=("tutorial_plain",),
            repeats=1,
            replicate=2,
            cache_dir=tmp_path / "cache",
        )
    )
    assert (result.exit_code, result.values["left_out"]) == (0, {})
    assert [(found["name"], found["num_images"]) for found in result.values["stages"]] == [
        ("convert", 11),
        ("convert-x2", 22),
    ]
    for found in result.values["stages"]:
        assert set(found["rounds"]) == {"simimg", "tutorial_plain", "read and hash", "write"}
        assert {run["num_images"] for of_tool in found["rounds"].values() for run in of_tool} == {found["num_images"]}
        assert found["rounds"]["simimg"][0]["num_bytes"] > found["num_images"] * 64 * 64 * 3
        assert found["rounds"]["write"][0]["num_bytes"] == found["num_images"] * 64 * 64 * 3
        assert (found["ci95"], found["ratio_to_limit"] > 0) == (None, True)
    assert result.values["tools"]["tutorial_plain"]["versions"]["pillow"]
    assert not list((tmp_path / "cache" / "bench").glob("out-*"))  # what the tools wrote
    assert Path(result.values["file"]).exists()


def test_large_pictures_against_a_rival_that_fails(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("def load(job):\n    raise OSError('no paper left')\n")
    broken = Tool(name="broken", script=script)
    counts: list[int] = []
    found = compare_converters(
        folder,
        [broken],
        cache_dir=tmp_path / "cache",
        repeats=1,
        megapixels=1,
        num_large=2,
        watch=lambda num_runs: lambda: counts.append(num_runs),
    )
    assert [(part.name, part.num_images, part.rivals) for part in found.stages] == [
        ("convert-1mp", 2, ()),
        ("convert-1mp-noisy", 2, ()),
    ]
    assert found.left_out == {"broken": "broken failed: OSError: no paper left"}
    assert len(counts) == 12  # three tools twice, in daylight and at night


def test_nothing_without_the_converter_itself(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ours.py"
    script.write_text("def load(job):\n    return {}\ndef prepare(job, out_dir):\n    return lambda: 3\n")
    broken = dataclasses.replace(OURS, script=script)
    monkeypatch.setattr("simimg.bench.converter_comparison.OURS", broken)
    monkeypatch.setattr("simimg.bench.converter_comparison._NEEDED", (broken,))
    with pytest.raises(SimimgError, match="simimg cannot be measured.*simimg processed 3 of 11 images"):
        compare_converters(folder, [], cache_dir=tmp_path / "cache", repeats=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rivals": ("dali", "dolly")}, "--rivals=dali,dolly: 'dolly' should be one of tutorial, "),
        ({"repeats": 0}, "--repeats=0: should be 1 or more"),
        ({"image_dir": Path("/nowhere")}, "--image_dir=/nowhere is not a folder"),
        ({"replicate": 9}, "--replicate=9: should be 1..8"),
        ({"megapixels": 999}, "--megapixels=999: should be 1..100"),
        ({"megapixels": 1, "num_large": 0}, "--num_large=0: should be 1 or more"),
        ({"stage": "dream"}, "--stage=dream: should be one of convert"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    folder: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    given = {"stage": "convert", "image_dir": folder, "cache_dir": tmp_path, "out_dir": tmp_path / "out", **options}
    with pytest.raises(UsageError, match=words):
        bench.run(bench.Options(**given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["tutorial", "tfdata", "dali", "ffcv"]),
        ({"megapixels": 12}, ["tutorial"]),
        ({"megapixels": 12, "rivals": ("tfdata", "dali", "tfdata")}, ["tfdata", "dali"]),
        ({"rivals": ("none",)}, []),
    ],
)
def test_who_is_compared(
    options: dict[str, object], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tool] = []

    def compare(image_dir: Path, rivals: list[Tool], **options: object) -> Comparison:
        asked.extend(rivals)
        return Comparison(stages=(), tools={}, left_out={})

    monkeypatch.setattr(bench, "compare_converters", compare)
    bench.run(bench.Options(stage="convert", image_dir=tmp_path, out_dir=tmp_path, **options))
    assert asked == [{**RIVALS, **CONVERTERS}[name] for name in names]
