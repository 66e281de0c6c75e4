"""`simimg audit` on drawn pictures: what it finds, its outputs, and the way over decisions to a corrected dataset."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from simimg.health.finding import COLUMNS, KINDS
from simimg.similarity.embeddings import Embedder
from simimg.similarity.index_update import index_folder
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.manifest import read_manifest

MOVED = {"boxes/moved0.png": "discs", "boxes/moved1.png": "discs", "stripes/moved2.png": "boxes"}


def shapes(images: np.ndarray) -> np.ndarray:
    """What tells the drawn classes apart: how dark each line, column and ring is, whatever the colors."""
    gray = images.mean(axis=3, dtype=np.float32)
    dark = (gray < (gray.min(axis=(1, 2)) + gray.max(axis=(1, 2)))[:, None, None] / 2).astype(np.float32)
    lines, columns = (np.sort(dark.mean(axis=axis), axis=1)[:, ::4] for axis in (1, 2))
    found = np.concatenate([2 * columns, 2 * lines, dark.mean(axis=(1, 2))[:, None]], axis=1) + 0.01
    return found / np.linalg.norm(found, axis=1, keepdims=True)


EMBEDDER = Embedder("shapes", "5" * 64, 32, "stretch", 17, shapes)


@pytest.fixture
def folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: 75 photos of which three lie in a wrong class, a dark one, and their index."""
    shutil.copytree(photos, tmp_path / "photos")
    for number, (name, label) in enumerate(MOVED.items()):
        shutil.move(tmp_path / f"photos/{label}/{number}.png", tmp_path / "photos" / name)
    dark = tmp_path / "photos/discs/5.png"
    ImageEnhance.Brightness(Image.open(dark)).enhance(0.2).save(dark)
    monkeypatch.chdir(tmp_path)
    index_folder(Path("i"), Path("photos"), EMBEDDER)
    return tmp_path


Simimg = Callable[..., Any]


def test_from_findings_over_decisions_to_a_corrected_dataset(folder: Path, simimg: Simimg) -> None:
    found = simimg("audit", "--index_dir=i", "--kinds=label,image", "--csv=f.csv", "--report=r.html")
    labels = {one["path"]: one["suggestion"] for one in found["findings"] if one["kind"] == "label"}
    assert MOVED.items() <= labels.items()
    assert len(labels) <= len(MOVED) + 1
    assert [one["path"] for one in found["findings"] if one["kind"] == "dark"] == ["discs/5.png"]
    assert found["counts"] == {kind: sum(one["kind"] == kind for one in found["findings"]) for kind in found["counts"]}
    assert all(one["kind"] in KINDS and 0 <= one["score"] <= 1 and one["reason"] for one in found["findings"])
    assert found["num_images"] == 72
    page = Path("r.html").read_text()
    assert all(name in page for name in (*MOVED, "--decisions=f.csv"))

    with open("f.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        if row["path"] in MOVED and row["kind"] == "label":
            row["decision"] = "relabel" if row["path"] != "stripes/moved2.png" else "right"
        if row["kind"] == "dark":
            row["decision"] = "Drop"
    with open("f.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lists = ("--delete=lists/drop.csv", "--relabel=lists/labels.csv")
    left = simimg("audit", "--index_dir=i", "--kinds=label,image", "--decisions=f.csv", *lists)
    assert (left["num_deleted"], left["num_relabeled"]) == (1, 2)
    assert not {*MOVED, "discs/5.png"} & {one["path"] for one in left["findings"] if one["kind"] in ("label", "dark")}
    assert left["num_left_out"] >= 4

    config = ConvertConfig(image_dir=Path("photos"), data_dir=Path("data"), name="p", image_size=32, num_workers=1)
    made = convert(config).dataset_dir
    done = simimg("edit", f"--dataset_dir={made}", f"--delete={lists[0][9:]}", f"--relabel={lists[1][10:]}")
    assert (done["num_deleted"], done["num_relabeled"]) == (1, 2)
    manifest = read_manifest(Path(done["dataset_dir"]))
    label = {path: int(number) for path, number in zip(manifest.paths, manifest.labels, strict=True)}
    assert label["boxes/moved0.png"] == label["discs/6.png"]
    assert "discs fits with" in manifest.edits[manifest.paths.index("boxes/moved0.png")]


def test_decisions_are_one_file_for_audit_decide_and_duplicates(folder: Path, simimg: Simimg) -> None:
    shutil.copy("photos/discs/6.png", "photos/discs/60.png")  # two files of the same bytes
    index_folder(Path("i"), Path("photos"), EMBEDDER)
    simimg("audit", "--index_dir=i", "--kinds=label,image", "--csv=f.csv")
    head, *rows = list(csv.reader(Path("f.csv").read_text().splitlines()))
    place = {name: head.index(name) for name in head}
    dark = next(row for row in rows if row[place["kind"]] == "dark")
    dark[place["decision"]] = "drop"
    moved = next(row for row in rows if row[place["path"]] == "boxes/moved0.png" and row[place["kind"]] == "label")
    moved[place["decision"]] = "relabel"
    rows.append(["discs/6.png", "dark", "0.5", "discs", "", "drop", "by hand", "drop"])
    with open("f.csv", "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    left = simimg("audit", "--index_dir=i", "--kinds=label,image", "--decisions=f.csv")
    assert left["num_left_out"] >= 2
    (folder / "photos/boxes/moved0.png").rename(folder / "photos/boxes/renamed.png")
    index_folder(Path("i"), Path("photos"), EMBEDDER)
    lists = ("--delete=drop.csv", "--relabel=labels.csv")
    again = simimg("audit", "--index_dir=i", "--kinds=label,image", "--csv=g.csv", *lists)  # without the table
    assert not {"boxes/renamed.png", "discs/5.png"} & {
        one["path"] for one in again["findings"] if one["kind"] != "odd_size"
    }
    assert (again["num_deleted"], again["num_relabeled"]) == (2, 1)
    assert Path("labels.csv").read_text().splitlines()[1].startswith("boxes/renamed.png,discs,")
    known = {
        row["path"]: row["decision"]
        for row in csv.DictReader(Path("g.csv").read_text().splitlines())
        if row["decision"]
    }
    assert known == {"boxes/renamed.png": "relabel", "discs/5.png": "drop"}

    written = simimg("decide", "--index_dir=i", "--delete=d.csv", "--relabel=l.csv")
    assert (written["num_deleted"], written["num_relabeled"], written["decisions"]) == (2, 1, [])
    assert Path("d.csv").read_text() == Path("drop.csv").read_text()
    assert simimg("decide", "--index_dir=i", "--delete=e.csv", "photos/discs/5.png")["num_deleted"] == 1
    groups = simimg("duplicates", "--index_dir=i", "--plan=plan.json")["groups"]
    (group,) = [group for group in groups if any(one["path"].endswith("discs/6.png") for one in group)]
    assert group[0]["path"].endswith("discs/60.png")  # though the other path is shorter
    listed = simimg("decide", "--index_dir=i", "--list", "photos/discs/5.png")["decisions"]
    assert [(one["decision"], one["finding"]["kind"]) for one in listed] == [("drop", "dark")]
    undone = simimg("decide", "--index_dir=i", "--undo")["undone"]
    assert [one["images"][0]["path"] for one in undone] == ["discs/6.png"]
    simimg("decide", "--index_dir=i", "--undo", "photos/discs/5.png")
    assert len(simimg("decide", "--index_dir=i", "--list")["decisions"]) == 1
    assert "give them alone" in simimg("decide", "--index_dir=i", "--list", "--delete=d.csv", code=2).lower()


def test_a_dataset_without_its_files_and_what_is_sure(folder: Path, simimg: Simimg) -> None:
    config = ConvertConfig(image_dir=Path("photos"), data_dir=Path("data"), name="p", image_size=32, num_workers=1)
    made = convert(config).dataset_dir
    found = simimg("audit", f"--dataset_dir={made}", "--kinds=dark,few_images,odd_size")
    assert [(one["kind"], one["path"]) for one in found["findings"]] == [("dark", "discs/5.png")]
    sure = simimg("audit", "--index_dir=i", "--kinds=label", "--relabel=sure.csv")
    scores = [one["score"] for one in sure["findings"]]
    assert sure["num_relabeled"] == sum(score >= 0.9 for score in scores) >= 1
    assert Path("sure.csv").read_text().startswith("path,label,reason\n")
    Path("f.csv").write_text("path,kind,decision\ndiscs/5.png,dark,drop\n")
    simimg("audit", "--index_dir=i", "--kinds=dark", "--decisions=f.csv")
    # Who has begun to decide has not agreed to the other suggestions.
    assert simimg("audit", "--index_dir=i", "--kinds=label", "--relabel=sure.csv")["num_relabeled"] == 0


def test_files_that_cannot_be_read_are_told(folder: Path, simimg: Simimg) -> None:
    Path("photos/discs/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    found = simimg("audit", "--image_dir=photos", "--kinds=image")
    assert (found["num_images"], found["num_refused"]) == (72, 1)


def test_decisions_count_without_an_index(folder: Path, simimg: Simimg) -> None:
    Path("f.csv").write_text("path,kind,suggestion,decision\ndiscs/5.png,dark,,drop\ndiscs/6.png,label,boxes,relabel\n")
    lists = ("--decisions=f.csv", "--delete=drop.csv", "--relabel=labels.csv", "--csv=g.csv")
    found = simimg("audit", "--image_dir=photos", "--kinds=image", *lists)
    assert (found["num_deleted"], found["num_relabeled"]) == (1, 1)
    assert "discs/5.png" not in {one["path"] for one in found["findings"]}
    rows = csv.DictReader(Path("g.csv").read_text().splitlines())
    assert {row["decision"] for row in rows if row["path"] == "discs/5.png"} == {"drop"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name what to audit"),
        (["--image_dir=photos", "--kinds=labels"], "--kinds=labels: should be some of all, image, label"),
        (["--image_dir=photos", "--delete=d.csv"], "--delete needs --decisions"),
        (["--image_dir=photos", "--decisions=none.csv"], "--decisions=none.csv cannot be read"),
        (["--image_dir=photos", "--decisions=a.csv"], "has no column 'kind'"),
        (["--image_dir=photos", "--decisions=b.csv"], "row 2: 'maybe' should be one of right, drop, relabel"),
        (["--image_dir=photos", "--decisions=c.csv"], "row 3: write the new class into the column `suggestion`"),
        (["--image_dir=photos", "--decisions=e.csv"], "there is no kind of finding 'ugly'"),
        (["--index_dir=i", "--decisions=g.csv"], "--decisions=g.csv is not in UTF-8. Save it as CSV in UTF-8"),
        (["--index_dir=i", "--decisions=h.csv"], "--decisions=h.csv is no table: field larger than"),
    ],
)
def test_mistakes(arguments: list[str], words: str, folder: Path, simimg: Simimg) -> None:
    head = "path,kind,suggestion,decision\n"
    Path("a.csv").write_text("path,decision\n1.jpg,drop\n")
    Path("b.csv").write_text(head + "1.jpg,dark,,maybe\n")
    Path("c.csv").write_text(head + "1.jpg,dark,,\n1.jpg,label,,relabel\n")
    Path("e.csv").write_text(head + "1.jpg,ugly,,drop\n")
    Path("g.csv").write_bytes((head + "discs/5.png,label,caf\u00e9,relabel\n").encode("cp1252"))  # a spreadsheet's
    csv.field_size_limit(1 << 17)  # Python's; a test that read a table may have raised it
    Path("h.csv").write_text(head + f"1.jpg,dark,{'x' * 200_000},right\n")
    assert words in simimg("audit", *arguments, code=2)
