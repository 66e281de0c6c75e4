"""`index` and `search` as a user runs them: a folder with strays, a dataset, a picture of the matches, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from simimg.cli import main

pytestmark = pytest.mark.own_process


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for kind in ("clouds", "stones"):
        (folder / kind).mkdir()
        for number in range(4):
            coarse = Image.fromarray(rng.integers(0, 256, (5 + number, 6, 3), np.uint8))
            coarse.resize((120 + number, 90), Image.Resampling.BICUBIC).save(folder / kind / f"{number}.png")
    (folder / "README.md").write_text("about the pictures")
    (folder / "clouds" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def index_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index_dir = tmp_path_factory.mktemp("index") / "i"
    assert main(["index", f"--image_dir={photos}", f"--index_dir={index_dir}"]) == 0
    return index_dir


def result_of(capsys: pytest.CaptureFixture[str], arguments: list[str], exit_code: int = 0) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == exit_code
    return json.loads(capsys.readouterr().out)


def test_index_refuses_strays_and_counts(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(capsys, ["index", f"--image_dir={photos}", f"--index_dir={tmp_path / 'i'}"])
    assert (result["num_images"], result["num_refused"], result["dim"]) == (8, 2, 1280)
    assert sorted(result) == [
        "dim",
        "index_dir",
        "num_embedded",
        "num_images",
        "num_other_names",
        "num_refused",
        "num_removed",
        "seconds",
    ]


def test_search_finds_the_mirrored_original(
    photos: Path, index_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, picture = tmp_path / "mirrored.png", tmp_path / "matches.png"
    ImageOps.mirror(Image.open(photos / "stones" / "2.png")).save(query)
    found = result_of(capsys, ["search", f"--index_dir={index_dir}", "--k=3", f"--picture={picture}", str(query)])
    (result,) = found["results"]
    assert result["query"] == str(query)
    assert len(result["matches"]) == 3
    assert result["matches"][0] == {
        "path": str(photos / "stones" / "2.png"),
        "similarity": pytest.approx(1, abs=1e-2),
        "label": "stones",
        "verified": True,
        "reasons": ["mirrored"],
        "edits": ["mirror"],
        "differs": [],
        "cosine": pytest.approx(1, abs=1e-2),
    }
    assert all(match["similarity"] < 0.5 and not match["reasons"] for match in result["matches"][1:])
    assert Image.open(picture).width > 300


def test_a_folder_of_queries_and_one_that_is_no_picture(
    photos: Path, index_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result_of(capsys, ["search", f"--index_dir={index_dir}", "--k=1", str(photos / "clouds")])
    assert [result["matches"][0]["path"] for result in found["results"]] == [
        str(photos / "clouds" / f"{number}.png") for number in range(4)
    ]


def test_a_data_set_can_be_indexed(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert = ["convert", f"--image_dir={photos}", f"--data_dir={tmp_path}", "--name=p", "--image_size=32"]
    dataset_dir = result_of(capsys, convert)["dataset_dir"]
    arguments = ["index", f"--dataset_dir={dataset_dir}", f"--index_dir={tmp_path / 'i'}"]
    assert result_of(capsys, arguments)["num_images"] == 8
    for source, words in (
        ("--dataset_dir", "it has no layout.json. Did you mean"),
        ("--image_dir", "is a dataset: give it to `simimg index`"),
    ):
        assert main(["index", f"{source}={tmp_path / 'p'}", f"--index_dir={tmp_path / 'new'}"]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert f" {dataset_dir}" in error
    search = ["search", f"--index_dir={tmp_path / 'i'}", "--k=1", str(photos / "stones" / "1.png")]
    assert result_of(capsys, search)["results"][0]["matches"][0]["path"] == "stones/1.png"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["index", "--index_dir=i"], "name one source"),
        (["index", "--image_dir=a", "--dataset_dir=b", "--index_dir=i"], "name one source"),
        (["index", "--image_dir=/nowhere", "--index_dir=i"], "--image_dir=/nowhere does not exist. Name"),
        (["index", f"--image_dir={__file__}", "--index_dir=i"], "is not a folder (extract an archive first). Name"),
        (["search", "--index_dir=i"], "there is nothing to look for. Name images"),
        (["search", "--index_dir=i", "--k=0", "x.jpg"], "--k=0"),
    ],
)
def test_mistakes_are_answered(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_folder_that_is_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", f"--index_dir={tmp_path}", "x.jpg"]) == 3
    assert "Make an index with `simimg index`" in capsys.readouterr().err


def test_a_query_that_does_not_exist(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", f"--index_dir={index_dir}", "/nowhere/x.jpg"]) == 2
    assert "/nowhere/x.jpg does not exist" in capsys.readouterr().err
