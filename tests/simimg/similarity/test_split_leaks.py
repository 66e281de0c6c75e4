"""Copies across splits: found, counted, and gone from the dataset that the cleaned table makes."""

import functools
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from simimg.cli import main
from simimg.similarity import index_tasks, pair_tasks
from simimg.similarity.embeddings import load_embedder
from simimg.similarity.index_update import index_dataset
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.split_leaks import deal_groups, find_leaks
from tfrecords.convert.workers.pool import Pool
from tfrecords.format.manifest import read_manifest

Scene = Callable[..., Image.Image]


def result_of(capsys: pytest.CaptureFixture[str], *arguments: object, exit_code: int = 0) -> dict:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == exit_code
    return json.loads(capsys.readouterr().out)


def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: object, name: str = "p") -> Path:
    flags = ["--image_size=64", "--num_workers=1", f"--data_dir={tmp_path / 'data'}", f"--name={name}"]
    return Path(result_of(capsys, "convert", *flags, *arguments)["dataset_dir"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """Ten photos of two classes, and a table that puts copies of four of them into the test."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["path,label,split"]

    def add(path: str, image: Image.Image, split: str, **options: object) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        image.save(folder / path, **options)
        rows.append(f"{path},{path.partition('/')[0]},{split}")

    for seed in range(10):
        add(f"{'ab'[seed % 2]}/{seed}.png", scene(seed), "train" if seed < 7 else "test")
    shutil.copy(folder / "a" / "0.png", folder / "a" / "0-bytes.png")
    rows.append("a/0-bytes.png,a,test")
    add("b/1-mirrored.jpg", ImageOps.mirror(scene(1)), "test", quality=90)
    add("a/2-crop.png", scene(2).crop((20, 10, 320, 230)), "test")
    add("a/8-small.png", scene(8).resize((160, 120), Image.Resampling.BICUBIC), "train")
    (folder / "leaky.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def dataset_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    flags = ["--image_size=64", "--num_workers=1", f"--data_dir={data_dir}", "--name=leaky", "--splits=source"]
    assert main(["convert", f"--table={photos / 'leaky.csv'}", "--copies=ignore", *flags]) == 0
    return data_dir / "leaky" / "1.0.0"


LEAKS = {
    ("a/0-bytes.png", "a/0.png", "the same bytes"),
    ("b/1-mirrored.jpg", "b/1.png", "mirrored"),
    ("a/2-crop.png", "a/2.png", "cropped to 86% of its area"),
    ("a/8.png", "a/8-small.png", "resized to 200%"),
}


def test_from_leaks_to_a_clean_data_set(
    photos: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["leaks", f"--image_dir={photos}", f"--index_dir={tmp_path / 'i'}"]
    drawn, table, report = tmp_path / "pairs.png", tmp_path / "clean.csv", f"--report={tmp_path / 'leaks.html'}"
    found = result_of(capsys, *source, f"--dataset_dir={dataset_dir}", f"--picture={drawn}", f"--clean={table}", report)
    assert found["report"] == str(tmp_path / "leaks.html")
    page = (tmp_path / "leaks.html").read_text()
    assert page.count('<div class="query">') == len(found["pairs"])
    assert "of 6 test images are copies of others" in page
    assert {(pair["path"], pair["other_path"], pair["reason"]) for pair in found["pairs"]} == LEAKS
    assert {pair["path"]: pair["edits"] for pair in found["pairs"]} == {
        "a/0-bytes.png": [],
        "b/1-mirrored.jpg": ["compression", "mirror"],
        "a/2-crop.png": ["crop"],
        "a/8.png": ["size"],
    }
    assert all((pair["split"], pair["other_split"]) == ("test", "train") for pair in found["pairs"])
    assert (found["num_test_affected"], found["share_test_affected"]) == (4, round(4 / 6, 6))
    assert found["by_splits"] == [{"split": "test", "num_images": 6, "in": "train", "num_pairs": 4, "num_affected": 4}]
    assert (found["num_images"], found["splits"]) == (14, {"train": 8, "test": 6})
    assert (found["num_moved"], found["num_looked_at_as_stored"]) == (4, 0)
    assert Image.open(drawn).height > 4 * 224

    _, *command = shlex.split(found["convert"])
    clean = result_of(capsys, *command, f"--data_dir={tmp_path}", "--num_workers=1")
    assert clean["splits"] == {"train": 12, "test": 2}
    before, after = (
        {row.path: (row.label, row.pixels_sha256) for row in read_manifest(Path(folder))}
        for folder in (dataset_dir, clean["dataset_dir"])
    )
    assert before == after
    again = ["leaks", f"--image_dir={photos}", f"--dataset_dir={clean['dataset_dir']}"]
    found = result_of(capsys, *again)
    assert (found["pairs"], found["num_test_affected"], found["clean"]) == ([], 0, None)


def test_without_the_files_stored_pixels_are_looked_at(
    dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaks", f"--dataset_dir={dataset_dir}", f"--clean={tmp_path / 'clean.csv'}"]) == 0
    text = capsys.readouterr().out
    for path, other, _ in LEAKS:
        assert f"test: {path}  =  train: {other}" in text
    assert "4 of 6 test images, 66.7%, are copies of train images" in text
    assert "were compared by their stored pixels" in text
    assert "--image_dir=FOLDER" in text.splitlines()[-2]
    assert "test keeps only 2 of 6 images; --deal=shares" in text.splitlines()[-1]


def test_files_that_were_changed_since_are_not_looked_at(
    photos: Path, dataset_dir: Path, tmp_path: Path, scene: Scene
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    scene(50).save(tmp_path / "photos" / "b" / "1.png")
    (tmp_path / "photos" / "a" / "2.png").unlink()
    index = index_dataset(tmp_path / "i", dataset_dir, load_embedder("lite0"), image_dir=tmp_path / "photos").index
    found = find_leaks(index, threshold=0.9)
    assert {(pair.image.path, pair.other.path) for pair in found.pairs} == {leak[:2] for leak in LEAKS}
    assert found.num_missing == 0
    assert found.num_stored > 0


@pytest.mark.parametrize("of_files", [True, False])
def test_tasks_make_the_same_index_and_find_the_same_leaks(
    photos: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_files: bool
) -> None:
    """Also where the files are gone and stored pixels are compared."""
    monkeypatch.setattr(index_tasks, "IMAGES_PER_PART", 5)
    monkeypatch.setattr(pair_tasks, "MIN_PAIRS", 1)
    monkeypatch.setattr(pair_tasks, "PAIRS_PER_TASK", 7)
    embedder, runner_of = load_embedder("lite0"), functools.partial(Pool, 1)
    image_dir = photos if of_files else None
    advanced: list[int] = []
    made = [
        index_dataset(tmp_path / name, dataset_dir, embedder, image_dir=image_dir, **options)
        for name, options in (("here", {}), ("tasks", {"runner_of": runner_of, "progress": advanced.append}))
    ]
    here, there = (
        {path.name: path.read_bytes() for path in (one.index.index_dir / "generation-000001").iterdir()} for one in made
    )
    assert here == there
    assert made[0].num_embedded == made[1].num_embedded == sum(advanced) - 1  # one file is there twice
    with pair_tasks.pair_tasks(made[1].index, runner_of) as tasks:
        found = find_leaks(made[1].index, threshold=0.9, tasks=tasks)
    assert found == find_leaks(made[0].index, threshold=0.9)
    assert (found.num_stored > 0) is not of_files
    again = index_dataset(tmp_path / "tasks", dataset_dir, embedder, image_dir=image_dir, runner_of=runner_of)
    assert again.num_embedded == 0


def test_pairs_that_are_no_copies_as_decided_are_left_out(
    photos: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index_dir = tmp_path / "i"
    source = ["leaks", f"--image_dir={photos}", f"--index_dir={index_dir}", f"--dataset_dir={dataset_dir}"]
    index_dataset(index_dir, dataset_dir, load_embedder("lite0"), image_dir=photos)
    result_of(capsys, "decide", f"--index_dir={index_dir}", "--not_copies", "a/2-crop.png", photos / "a/2.png")
    result_of(capsys, "decide", f"--index_dir={index_dir}", "--keep_all", "b/1-mirrored.jpg", "b/1.png")
    found = result_of(capsys, *source)
    assert found["num_left_out"] == 1
    pairs = {(pair["path"], pair["other_path"]) for pair in found["pairs"]}
    assert pairs == {leak[:2] for leak in LEAKS} - {("a/2-crop.png", "a/2.png")}  # copies that stay are leaks


def test_a_single_split_and_a_single_class(tmp_path: Path, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p").mkdir()
    for seed in range(4):
        scene(seed % 3).save(tmp_path / "p" / f"{seed}.png")
    arguments = [f"--image_dir={tmp_path / 'p'}", "--copies=ignore"]
    one = convert(tmp_path, capsys, *arguments, "--splits=train=1")
    assert main(["leaks", f"--dataset_dir={one}"]) == 0
    assert "the dataset has one split, train" in capsys.readouterr().out
    found = result_of(capsys, "leaks", f"--dataset_dir={one}", f"--clean={tmp_path / 'c.csv'}")
    assert (found["pairs"], found["num_test_affected"], found["by_splits"], found["num_moved"]) == ([], 0, [], 0)
    two = convert(tmp_path, capsys, *arguments, "--splits=train=0.5,validation=0.25,test=0.25", "--seed=1", name="q")
    found = result_of(capsys, "leaks", f"--dataset_dir={two}")
    splits = {row.path: row.split for row in read_manifest(two)}
    torn = splits["0.png"] != splits["3.png"]
    assert len(found["pairs"]) == torn
    assert [(part["in"], part["split"]) for part in found["by_splits"]] == [
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    ]


def test_mistakes(tmp_path: Path, dataset_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--dataset_dir=/nowhere"], "--dataset_dir=/nowhere is not a folder"),
        ([f"--dataset_dir={tmp_path}"], "is not a dataset of `simimg convert`"),
        ([f"--dataset_dir={dataset_dir}", "--image_dir=/nowhere"], "--image_dir=/nowhere is not a folder"),
        ([f"--dataset_dir={dataset_dir}", "--threshold=0.2"], "--threshold=0.2: should be between"),
    ):
        assert main(["leaks", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_every_pair_of_splits_is_found_though_others_connect_them(tmp_path: Path, scene: Scene) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    rows = ["path,label,split"]
    parts = {
        "train-0": (0, 0, 272, 204), "validation-0": (0, 0, 320, 240), "test-0": (32, 24, 320, 240),
        "test-1": (0, 36, 288, 240), "train-1": (48, 0, 320, 216),
    }  # fmt: skip
    for seed in (5, 7):
        for name, box in parts.items():
            scene(seed).crop(box).save(tmp_path / "p" / "a" / f"{seed}-{name}.png")
            rows.append(f"a/{seed}-{name}.png,a,{name.partition('-')[0]}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    flags = [f"--image_dir={tmp_path / 'p'}", "--image_size=64", "--num_workers=1", f"--data_dir={tmp_path}"]
    flags += ["--name=d", "--splits=source", "--copies=ignore"]
    assert main(["convert", f"--table={tmp_path / 't.csv'}", *flags]) == 0
    index_dataset(tmp_path / "i", tmp_path / "d" / "1.0.0", load_embedder("lite0"), image_dir=tmp_path / "p")
    found = find_leaks(SearchIndex.open(tmp_path / "i"), threshold=0.7)
    assert len(found.pairs) == 2 * 8  # of each photo, all pairs of two splits
    assert {(a, b): found.affected(a, b) for a in found.splits for b in found.splits if found.affected(a, b)} == {
        ("validation", "train"): 2, ("test", "train"): 4, ("test", "validation"): 4,
    }  # fmt: skip


def test_every_photo_there_seventeen_times_keeps_its_shares() -> None:
    """A set that was augmented before it was split: with `first` hardly anything is left to test on."""
    rng = np.random.default_rng(0)
    photos = np.repeat(np.arange(80), 17)
    splits, labels = (rng.random(len(photos)) < 0.25).astype(np.int64), photos % 4
    pairs = [(17 * photo, 17 * photo + other) for photo in range(80) for other in range(1, 17)]
    for deal in ("first", "shares"):
        dealt = deal_groups(splits, labels, pairs, deal)
        assert all(len(set(dealt[photos == photo])) == 1 for photo in range(80))
        for label in range(4) if deal == "shares" else ():
            own = labels == label
            assert abs(int((dealt[own] == 1).sum()) - int((splits[own] == 1).sum())) <= 17
    assert (deal_groups(splits, labels, pairs, "first") == 1).mean() < 0.03


@given(data=st.data(), num=st.integers(1, 20), deal=st.sampled_from(["first", "shares"]))
@settings(deadline=None, max_examples=60)
def test_groups_are_dealt_whole(data: st.DataObject, num: int, deal: str) -> None:
    row = st.integers(0, num - 1)
    splits = np.array(data.draw(st.lists(st.integers(0, 2), min_size=num, max_size=num)))
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=15))
    dealt = deal_groups(splits, np.zeros(num, np.int64), pairs, deal)
    groups = {row: {row} for row in range(num)}
    for one, other in pairs:
        joined = groups[one] | groups[other]
        for each in joined:
            groups[each] = joined
    for rows in groups.values():
        before, after = {int(splits[row]) for row in rows}, {int(dealt[row]) for row in rows}
        assert len(after) == 1
        assert after <= before
        assert deal == "shares" or after == {min(before)}


def test_what_was_moved_is_looked_at_again(tmp_path: Path, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """The middle of a panorama moves to train, where it is a copy of what was beside it in the test."""
    wide = scene(8, (720, 240))
    (tmp_path / "p").mkdir()
    for number, split in enumerate(["train", "test", "test"]):
        wide.crop((200 * number, 0, 200 * number + 320, 240)).save(tmp_path / "p" / f"{number}-{split}.png")
    lines = ["path,label,split", "0-train.png,a,train", "1-test.png,a,test", "2-test.png,a,test"]
    for seed in range(3):
        scene(seed).save(tmp_path / "p" / f"other-{seed}.png")
        lines.append(f"other-{seed}.png,a,{'test' if seed else 'train'}")
    (tmp_path / "p" / "t.csv").write_text("\n".join(lines))
    table = [f"--table={tmp_path / 'p' / 't.csv'}", "--splits=source", "--copies=ignore"]
    dataset_dir = convert(tmp_path, capsys, *table)
    index = index_dataset(tmp_path / "i", dataset_dir, load_embedder("lite0"), image_dir=tmp_path / "p").index
    found = find_leaks(SearchIndex.open(tmp_path / "i"), threshold=0.6, deal="first")
    assert [(pair.image.path, pair.other.path) for pair in found.pairs] == [("1-test.png", "0-train.png")]
    assert found.cleaned is not None
    cleaned = dict(zip(index.images.column("path").tolist(), found.cleaned, strict=True))
    assert (cleaned["1-test.png"], cleaned["2-test.png"], cleaned["other-1.png"]) == ("train", "train", "test")
