"""`duplicates --fast`, which needs no model, and the time that is told before the full search starts."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import simimg
from simimg.cli import main
from simimg.commands import duplicates
from simimg.similarity import embeddings, hash_duplicates
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.index_images import IndexImages
from tfrecords.base_errors import ConversionError
from tfrecords.convert.workers.pool import Pool
from tfrecords.convert.workers.shard_worker import Monitor, Task

Scene = Callable[..., Image.Image]


@pytest.fixture
def folder(tmp_path: Path, scene: Scene) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        scene(seed).save(folder / f"{seed}.png")
    ImageOps.mirror(scene(0)).save(folder / "0-mirrored.jpg", quality=80)
    scene(1).rotate(90, expand=True).resize((180, 240)).save(folder / "1-turned.jpg")
    (folder / "2-bytes.png").write_bytes((folder / "2.png").read_bytes())
    scene(3).crop((50, 40, 250, 200)).save(folder / "3-crop.png")
    return folder


def test_turned_and_mirrored_copies_are_found_without_a_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embeddings, "open_network", lambda *_, **__: pytest.fail("no model is needed"))
    assert main(["duplicates", f"--image_dir={folder}", "--fast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    groups = {frozenset(Path(member["path"]).name for member in group) for group in found["groups"]}
    assert groups == {
        frozenset(("0.png", "0-mirrored.jpg")),
        frozenset(("1.png", "1-turned.jpg")),
        frozenset(("2.png", "2-bytes.png")),
    }


@pytest.mark.parametrize("plan_edits", [(), ("mirror", "turn", "stretch", "size", "compression")])
def test_only_what_a_plan_may_remove_is_compared_at_full_size(
    folder: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan_edits: tuple[str, ...]
) -> None:
    scene(3).resize((160, 120)).save(folder / "3-small.jpg")
    seen = set[frozenset[str]]()
    compared = IndexImages.compared
    monkeypatch.setattr(
        IndexImages, "compared", lambda self, found, *pair: seen.add(found.edits) or compared(self, found, *pair)
    )
    simimg.duplicates(folder, fast=True, plan=tmp_path / "plan.json", plan_edits=plan_edits)
    assert frozenset(("size", "compression")) in seen
    assert (max(map(len, seen)) > 2) is bool(plan_edits)
    assert all(edits <= {*(plan_edits or ("size", "compression")), "overlay"} for edits in seen)


@pytest.mark.parametrize("where", ["parts", "processes", "died"])
def test_parts_and_processes_find_the_same(
    folder: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (folder / "kept").mkdir()
    scene(3).resize((160, 120)).save(folder / "kept/3-small.jpg")
    reference_dirs = [folder / "kept"]
    expected = simimg.duplicates(folder, fast=True, reference_dirs=reference_dirs)
    assert any(group.keeper.reason == "in a reference folder" for group in expected.groups)
    done = []
    monkeypatch.setattr(hash_duplicates, "_MANY_ROWS", 1)
    monkeypatch.setattr(hash_duplicates, "_ROWS_PER_PART", 2)
    if where == "processes":
        monkeypatch.setattr(hash_duplicates, "_examined", lambda *_: pytest.fail("processes examine the pairs"))
    if where == "died":
        monkeypatch.setattr(Pool, "run", _one_task_alone)
    found = simimg.duplicates(
        folder,
        fast=True,
        reference_dirs=reference_dirs,
        num_workers=1 if where == "parts" else 2,
        progress=lambda stage, *counts: done.append((stage, *counts)),
    )
    assert found.groups == expected.groups
    assert found.num_pairs_examined == expected.num_pairs_examined
    assert done[-1] == ("comparing", 9, 9)


def _one_task_alone(self: Pool, tasks: Iterator[Task], on_done: Callable[[Task], None], _: object) -> None:
    """Do what a pool does whose only worker dies in the second task."""
    task = next(tasks)
    task.run(Monitor())
    on_done(task)
    raise ConversionError("a worker process died")


@pytest.mark.parametrize("seed", range(3))
def test_the_original_is_kept_among_its_edited_copies(tmp_path: Path, scene: Scene, seed: int) -> None:
    edits = "resized recompressed recoloured grey mirrored quarter_turned stretched blurred text_bars".split()
    original = scene(seed, (400, 300))
    original.save(tmp_path / "z.jpg", quality=80)
    for name in edits:
        EDITS[name](original, np.random.default_rng(seed)).save(tmp_path / f"{name}.jpg", quality=90)
    (group,) = simimg.duplicates(tmp_path, fast=True).groups
    assert len(group.others) > 6
    assert group.keeper.image.path == "z.jpg"


def test_no_index_is_kept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["duplicates", f"--image_dir={folder}", f"--index_dir={tmp_path / 'i'}", "--fast"]) == 2
    assert "Leave out --index_dir, or --fast" in capsys.readouterr().err
    assert not (tmp_path / "i").exists()


def test_nothing_is_left_of_a_temporary_index(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    compared = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "comparing":
            compared.append([path.name for path in (tmp_path / "temporary").glob("*/index/*")])

    found = simimg.duplicates(folder, fast=True, plan=tmp_path / "plan.json", progress=progress)
    assert compared[0]
    assert not any("fingerprints" in name for names in compared for name in names)
    assert [found.index.images[group.keeper.row] for group in found.groups] == [
        group.keeper.image for group in found.groups
    ]
    assert "index_dir" not in json.loads((tmp_path / "plan.json").read_bytes())
    with pytest.raises(SystemExit, match="143"):
        simimg.duplicates(folder, fast=True, progress=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not list((tmp_path / "temporary").iterdir())


def test_the_time_is_told_only_for_large_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    duplicates._note_time(folder, "lite0")
    assert not capsys.readouterr().err
    monkeypatch.setattr(duplicates, "_MANY_FILES", 8)
    monkeypatch.setattr(duplicates, "_SAMPLE", 4)
    duplicates._note_time(folder, "lite0")
    assert "8 images: this will take about 1 minute; --fast takes less" in capsys.readouterr().err


def test_sidecars_and_what_is_left_out_are_no_failures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sidecar, a film of its own, a thumbnail of a NAS, and a folder that --exclude names."""
    for name in ("0.png.xmp", "film.mp4", "@eaDir/0.png", "old/0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "0.png").read_bytes())
    assert main(["duplicates", f"--image_dir={folder}", "--fast", "--json", "--exclude=old/", "--exclude=3*"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["num_images"], found["num_refused"]) == (6, 0)
    assert printed.err.splitlines() == [
        "note: 1 hidden or system file or folder is left out: @eaDir (1)",
        "note: 3 files or folders are left out by --exclude",
        "note: left out, since they are no images: 1 .xmp beside the images that they belong to; 1 .mp4 that belong to "
        "no image, e.g. film.mp4",
    ]
    assert main(["duplicates", f"--image_dir={folder}", "--fast", "--json", "--include=[12]*"]) == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 4
    listed = folder.parent / "list.csv"
    listed.write_text("path,decision\nold/,drop\n1.jpg,right\nno.jpg,drop\n")
    for command in (["duplicates", "--fast"], ["audit", "--kinds=image"]):
        capsys.readouterr()
        assert main([*command, f"--image_dir={folder}", "--json", f"--exclude_from={listed}"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["num_images"] == 8
        assert f"of --exclude_from={listed} matches no file, e.g. no.jpg" in err
    assert main(["duplicates", f"--image_dir={folder}", "--fast", "--include="]) == 2
    assert "--include=: a pattern should name files or folders" in capsys.readouterr().err


def test_the_limit_of_a_size_is_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The turned JPEG and the crop have fewer pixels than the others, of which the PNGs are not let in."""
    most = 200 * 160 + 180 * 240 - 1
    sizes = {path.name: Image.open(path).size for path in folder.iterdir()}
    large = {name for name, size in sizes.items() if size[0] * size[1] > most and name.endswith("png")}
    assert 0 < len(large) < len(sizes)
    assert main(["duplicates", f"--image_dir={folder}", "--fast", f"--max_pixels={most}", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["num_refused"] == len(large)
    assert "lets it in" in told.err
    assert main(["duplicates", f"--image_dir={folder}", "--fast", "--max_pixels=-5"]) == 2
    assert "--max_pixels=-5: should be 1 or more, or auto." in capsys.readouterr().err
