"""Conversions whose splits do not leak: by patient, by time, in folds; and images that have several labels."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.quarantine import read_quarantine

AConfig = Callable[..., ConvertConfig]

pytestmark = pytest.mark.usefixtures("small_shards")
PATIENTS = 12
SLICES = 4  # per patient
COPY = ("sick/p03_0.png", "well/p08_2.png")  # one image, of two patients


def draw(path: Path, seed: int, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients with four images each, of two classes, and a table of them; see `COPY`."""
    folder = tmp_path_factory.mktemp("scans") / "scans"
    lines = ["path,label,patient,taken"]
    for patient in range(PATIENTS):
        for number in range(SLICES):
            name = "sick" if (patient + number) % 3 == 0 else "well"
            path = f"{name}/p{patient:02}_{number}.png"
            draw(folder / path, 100 * patient + number)
            day = f"2024-{patient + 1:02}-{number + 1:02}"
            lines.append(f"{path},{name},P{patient},{day}")
    shutil.copyfile(folder / COPY[0], folder / COPY[1])
    (folder / "scans.csv").write_text("\n".join(lines) + "\n")
    return folder


def patient_of(path: str) -> str:
    return path.split("/")[1].split("_")[0]


def sides(manifest: Manifest) -> dict[str, set[str]]:
    """Returns the splits in which the images of each patient are."""
    found: dict[str, set[str]] = {}
    for row in (row for row in manifest if row.status == "ok"):
        found.setdefault(patient_of(row.path), set()).add(row.split)
    return found


def checked(summary: ConvertSummary) -> Manifest:
    assert verify(summary.dataset_dir).ok
    return read_manifest(summary.dataset_dir)


def test_a_patient_is_in_one_split_also_by_a_copy(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    """By a column and by a pattern alike; the two patients of the copy stay together, and the shares are told."""
    told: list[str] = []
    by_column = a_config(scans, tmp_path, table=scans / "scans.csv", group_column="Patient", name="column")
    summary = convert(by_column, describe=told.append)
    manifest = checked(summary)
    found = sides(manifest)
    assert all(len(splits) == 1 for splits in found.values())
    assert found["p03"] == found["p08"]
    assert "groups from patient" in told[0]
    assert "without dividing a group (Patient)" in told[0]
    (line,) = (one for one in summary.warnings if one.startswith("--group_column=Patient"))
    assert "11 groups, the largest of 8 images; shares of the images, found of asked: train 75.0% of 75.0%" in line
    groups: dict[str, set[int]] = {patient_of(path): set() for path in manifest.paths}
    for path, group in zip(manifest.paths, manifest.split_groups.tolist(), strict=True):
        groups[patient_of(path)].add(group)
    assert len(set.union(*groups.values())) == 11
    assert groups["p03"] == groups["p08"]
    assert not manifest.folds.any()

    again = convert(by_column)
    assert again.num_converted == 0
    assert line in again.warnings
    by_pattern = convert(a_config(scans, tmp_path, group_pattern=r"/(p\d+)_", name="pattern"))
    assert sides(checked(by_pattern)) != {}
    assert all(len(splits) == 1 for splits in sides(checked(by_pattern)).values())
    other_seed = convert(dataclasses.replace(by_column, seed=1, name="seed"))
    assert sides(checked(other_seed)) != found
    halves = convert(a_config(scans, tmp_path, group_pattern="(sick|well)", copies="ignore", name="halves"))
    assert halves.splits == {"train": 32, "test": 16}  # 36 and 12 were asked for
    whole_match = convert(
        a_config(scans, tmp_path, group_pattern=r"p\d+", name="whole", copies="ignore", splits="a=0.5,b=0.5")
    )
    assert all(len(splits) == 1 for splits in sides(checked(whole_match)).values())
    table = (scans / "scans.csv").read_text().replace(",P5,", ",P6,")
    (tmp_path / "scans.csv").write_text(table)
    with pytest.raises(UsageError, match="made from other files"):
        convert(dataclasses.replace(by_column, table=str(tmp_path / "scans.csv")))


def test_folds_divide_no_patient_and_balance_classes(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    options = a_config(scans, tmp_path, group_pattern=r"/(p\d+)_", folds=4, name="folds")
    summary = convert(options)
    manifest = checked(summary)
    assert summary.splits == {"fold1": 12, "fold2": 12, "fold3": 12, "fold4": 12}
    assert all(len(splits) == 1 for splits in sides(manifest).values())
    names = [*manifest.split_names, "fold0"]  # of the table, which is no image
    assert [f"fold{fold}" for fold in manifest.folds] == [names[split] for split in manifest.splits]
    sick = manifest.labels == 0
    assert np.bincount(manifest.folds[sick], minlength=5)[1:].min() >= 3  # of 16
    two_workers = convert(dataclasses.replace(options, data_dir=tmp_path / "two", num_workers=2))
    ours, theirs = (Layout.load(one.dataset_dir) for one in (summary, two_workers))
    assert ours == theirs

    plain = checked(convert(a_config(scans, tmp_path, folds=3, name="plain")))
    assert not plain.split_groups.any()
    of_copy = [row.split for row in plain if row.path in COPY]
    assert len(set(of_copy)) == 1
    counts = np.bincount(plain.folds)[1:]
    assert counts.max() - counts.min() <= 1


def test_added_images_follow_their_patient(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    folder = tmp_path / "scans"
    shutil.copytree(scans, folder)
    options = a_config(folder, tmp_path, group_pattern=r"/(p\d+)_", folds=3)
    before = sides(checked(convert(options)))
    for number in range(9):
        draw(folder / f"well/p{number:02}_9.png", 5000 + number)
        draw(folder / f"well/p77_{number}.png", 6000 + number)
    after = sides(checked(convert(dataclasses.replace(options, append=True))))
    assert {name: after[name] for name in before} == before
    assert len(after["p77"]) == 1
    for path in folder.glob("*/p05_*.png"):  # what is known of a patient outlasts the files
        path.unlink()
    draw(folder / "well/p05_30.png", 7000)
    assert sides(checked(convert(dataclasses.replace(options, append=True))))["p05"] == before["p05"]


def test_added_rows_need_those_of_their_group(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    header, *lines = (scans / "scans.csv").read_text().splitlines()
    table = tmp_path / "t.csv"
    options = a_config(scans, tmp_path, table=table, group_column="patient", splits="a=0.5,b=0.5")
    table.write_text("\n".join([header, *lines[:40]]))
    before = sides(checked(convert(options)))
    table.write_text("\n".join([header, *lines[1:]]))
    with pytest.raises(UsageError, match="1 images of the dataset are not in the table any more.* Put their rows back"):
        convert(dataclasses.replace(options, append=True))
    table.write_text("\n".join([header, *lines]))
    after = sides(checked(convert(dataclasses.replace(options, append=True))))
    assert {name: after[name] for name in before} == before


def test_the_latest_images_are_the_test_split(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    options = a_config(scans, tmp_path, table=scans / "scans.csv", time_column="taken")
    summary = convert(options)
    manifest = checked(summary)
    number = manifest.split_names.index("test")
    last = [patient_of(path) for path, split in zip(manifest.paths, manifest.splits, strict=True) if split == number]
    assert sorted(last) == [f"p{patient:02}" for patient in (9, 10, 11) for _ in range(SLICES)]
    assert (
        "1 image has several labels, in 2 files, e.g. sick/p03_0.png (sick) and well/p08_2.png (well); all are kept, "
        "and --conflicts=drop leaves them out"
    ) in summary.warnings
    assert "--time_column=taken: train 2024-01-01 to 2024-09-04, test 2024-10-01 to 2024-12-04" in summary.warnings
    grouped = dataclasses.replace(options, name="grouped", group_column="patient")
    assert all(len(splits) == 1 for splits in sides(checked(convert(grouped))).values())


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """Twenty images of two classes; one of them in both, byte by byte, and one in one class twice."""
    folder = tmp_path / "labeled"
    for number in range(20):
        draw(folder / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    shutil.copyfile(folder / "cat/3.png", folder / "dog/same.png")
    shutil.copyfile(folder / "cat/5.png", folder / "cat/twice.png")
    return folder


@pytest.mark.parametrize("copies", ["near", "exact"])
def test_one_image_under_two_labels(labeled: Path, tmp_path: Path, a_config: AConfig, copies: str) -> None:
    options = a_config(labeled, tmp_path / "data", copies=copies)
    with pytest.raises(
        ConversionError, match=r"1 image has several labels, in 2 files, .*cat/3.png \(cat\) and dog/same.png \(dog\)"
    ):
        convert(dataclasses.replace(options, conflicts="fail"))
    assert not (tmp_path / "data" / "labeled" / "1.0.0").exists()
    kept = convert(options)  # goes on where the failure was
    assert kept.num_converted == 0
    with pytest.raises(ConversionError, match="1 image has several labels"):
        convert(dataclasses.replace(options, conflicts="fail"))
    assert kept.num_examples == 22
    (conflict,) = kept.label_conflicts
    assert conflict.equal
    assert [(file.path, file.class_name) for file in conflict.files] == [("cat/3.png", "cat"), ("dog/same.png", "dog")]
    assert "label_conflict" not in str(read_manifest(kept.dataset_dir).reason_names)

    dropping = dataclasses.replace(options, conflicts="drop", name="dropped")
    dropped = convert(dropping)
    manifest = checked(dropped)
    assert dropped.num_examples == 20
    assert dropped.reasons == {"label_conflict": 2}
    assert {file.path: file.detail for file in read_quarantine(dropped.dataset_dir)} == {
        "cat/3.png": "its copy dog/same.png has the class 'dog'",
        "dog/same.png": "its copy cat/3.png has the class 'cat'",
    }
    assert [[file.split for file in conflict.files] for conflict in dropped.label_conflicts] == [["", ""]]
    assert manifest.paths[0] == "cat/1.png"
    assert not manifest.ok[manifest.paths.index("cat/3.png")]
    assert any("they are left out" in warning for warning in dropped.warnings)
    assert convert(dropping).num_examples == 20
    draw(labeled / "dog/new.png", 99)
    assert checked(convert(dataclasses.replace(dropping, append=True))).ok.sum() == 21


def test_nothing_but_conflicts(tmp_path: Path, a_config: AConfig) -> None:
    draw(tmp_path / "a/a/1.png", 1)
    draw(tmp_path / "a/b/1.png", 1)
    with pytest.raises(ConversionError, match="every image has a copy in another class"):
        convert(a_config(tmp_path / "a", tmp_path / "data", conflicts="drop"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_pattern": r"q(\d+)"}, r"matches none of the 48 paths in .*, such as sick/p00_0.png"),
        ({"group_pattern": "(p"}, r"--group_pattern=\(p: is not a regular expression"),
        ({"group_column": "patient"}, r"is a column of a table. .*--table=PATH. Or group by paths"),
        ({"time_column": "taken"}, r"--time_column=taken is a column of a table"),
        (
            {"table": "T", "group_column": "clinic"},
            r"--group_column=clinic: --table=.* has no such column. It has: path",
        ),
        ({"table": "T", "group_column": "label"}, r"--group_column and the labels are one column, 'label'"),
        ({"table": "T", "time_column": "patient"}, r"sick/p00_0.png has 'P0', which is no time"),
        ({"group_pattern": r"/(p\d+)_", "folds": 13}, r"12 groups cannot be divided among 13 folds. Give --folds=12"),
        ({"folds": 49}, r"--folds=49: 48 images cannot be divided among 49 folds. Give --folds=48 or fewer"),
        ({"group_pattern": "(sick|well)", "folds": 5}, r"2 groups cannot be divided among 5 folds"),
        ({"group_pattern": "(sick|well)", "splits": "a=0.5,b=0.5"}, r"group 'well' has 32 of the 48 images, more than"),
        ({"folds": 1}, "--folds=1: should be 2..100"),
        ({"folds": 3, "splits": "a=0.5,b=0.5"}, "--folds=3 makes the splits. Leave out --splits="),
        ({"folds": 3, "time_column": "taken"}, "Give one of them"),
        ({"group_column": "a", "group_pattern": "b"}, "both say what stays together"),
        ({"group_pattern": "p", "splits": "source"}, "Leave one of them out"),
        ({"time_column": "taken", "append": True}, "new ones would be later"),
        ({"time_column": "taken", "splits": "train:3,test:2"}, "divides by time, and --splits=train:3,test:2 counts"),
        ({"append": True, "splits": "train:3"}, "--append adds images, and --splits=train:3 counts"),
        ({"folds": 3, "splits": "train:3"}, "--folds=3 makes the splits"),
        ({"splits": "train:30,test:50"}, "the class 'sick' has 16 images, and none is left for test"),
        ({"conflicts": "drop", "copies": "ignore"}, "--copies=ignore does not look for"),
    ],
)
def test_what_cannot_be_done_is_said(
    scans: Path, tmp_path: Path, a_config: AConfig, options: dict[str, object], message: str
) -> None:
    if "table" in options:
        options = {**options, "table": scans / "scans.csv"}
    with pytest.raises(UsageError, match=message):
        convert(a_config(scans, tmp_path / "data", **options))
    assert not list((tmp_path / "data").glob("**/*.parquet"))


def test_numbers_of_images_of_each_class(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    """30 of each class for training and up to 50 for the test, in small; an image that is rejected does not count."""
    broken = tmp_path / "scans"
    shutil.copytree(scans, broken)
    (broken / "sick" / "p00_0.png").write_text("no image")
    lines: list[str] = []
    config = a_config(broken, tmp_path, splits="train:5,test:12", copies="ignore")
    summary = convert(config, describe=lines.append)
    assert "split into train:5,test:12 of each class" in lines[0]
    manifest = checked(summary)
    number = {name: split for split, name in enumerate(manifest.split_names)}
    labels = Layout.load(summary.dataset_dir).class_names
    found = {
        name: [int(((manifest.splits == split) & (manifest.labels == label)).sum()) for label in range(len(labels))]
        for name, split in number.items()
    }
    assert found == {"train": [5, 5], "test": [10, 12], "rest": [0, 15]}
    assert Layout.load(summary.dataset_dir).config["splits"] == "train:5,test:12"
    assert convert(config).num_converted == 0
    grouped = a_config(scans, tmp_path, splits="train:5,test:12", group_pattern=r"p\d+", name="grouped")
    assert all(len(splits) == 1 for splits in sides(checked(convert(grouped))).values())


def test_copies_that_leave_too_few_groups(tmp_path: Path, a_config: AConfig) -> None:
    for number in range(6):
        draw(tmp_path / f"a/a/{number}.png", 1)
    with pytest.raises(ConversionError, match="1 groups cannot be divided among 3 folds.* --copies=ignore"):
        convert(a_config(tmp_path / "a", tmp_path / "data", folds=3))


def test_rows_without_a_group_and_rows_that_contradict(scans: Path, tmp_path: Path, a_config: AConfig) -> None:
    lines = (scans / "scans.csv").read_text().replace(",P2,", ",,").splitlines()
    (tmp_path / "t.csv").write_text("\n".join(lines))
    options = a_config(scans, tmp_path, table=tmp_path / "t.csv", group_column="patient")
    assert f"{SLICES} images have no group" in " ".join(convert(options).warnings)
    (tmp_path / "t.csv").write_text("\n".join([*lines, lines[1].replace("P0", "P1")]))
    with pytest.raises(UsageError, match=r"in group 'P0' \(row 2\) and in group 'P1' \(row 50\). Keep one"):
        convert(dataclasses.replace(options, name="other"))


def test_the_summary_is_json(labeled: Path, tmp_path: Path, a_config: AConfig) -> None:
    (conflict,) = convert(a_config(labeled, tmp_path / "data")).label_conflicts
    found = json.loads(json.dumps(dataclasses.asdict(conflict)))
    assert found["files"][1] == {"path": "dog/same.png", "class_name": "dog", "split": found["files"][0]["split"]}
