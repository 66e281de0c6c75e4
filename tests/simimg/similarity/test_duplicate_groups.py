"""Groups of copies, who is kept, and a plan that is carried out, stopped, and undone."""

import dataclasses
import functools
import io
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from simimg.cli import main
from simimg.errors import DataError, UsageError
from simimg.similarity import file_quarantine, pair_tasks
from simimg.similarity.candidate_pairs import spanning_pairs
from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.differences import Differences
from simimg.similarity.duplicate_groups import _clusters, _group, find_duplicates
from simimg.similarity.embeddings import Embedder
from simimg.similarity.file_quarantine import apply_plan, undo_plan
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.image_worth import is_lossless
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import SAME_PIXELS, Verification
from simimg.similarity.plan_file import load_plan
from simimg.similarity.search_index import SearchIndex, write_generation
from tfrecords.convert.workers.pool import Pool

Scene = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """Six photos; of two there are copies: the same bytes, the same pixels, edits, and one that is better."""
    folder = tmp_path_factory.mktemp("collection")
    (folder / "old").mkdir()
    for seed in range(6):
        scene(seed).save(folder / f"{seed}.jpg", quality=95)
    shutil.copy(folder / "0.jpg", folder / "old" / "0-bytes.jpg")
    Image.open(folder / "0.jpg").save(folder / "old" / "0-pixels.png")
    ImageOps.mirror(scene(0)).save(folder / "old" / "0-mirrored.jpg", quality=60)
    scene(1).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "old" / "1-large.jpg")
    scene(1).crop((40, 0, 320, 200)).save(folder / "old" / "1-crop.jpg")
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    index_dir = tmp_path_factory.mktemp("index") / "i"
    assert main(["index", f"--image_dir={folder}", f"--index_dir={index_dir}"]) == 0
    return SearchIndex.open(index_dir)


def described(index: SearchIndex, **options) -> dict[str, dict[str, str]]:  # type: ignore[no-untyped-def]
    found = find_duplicates(index, threshold=0.6, **options)
    return {
        group.keeper.image.path: {member.image.path: member.reason for member in group.members}
        for group in found.groups
    }


def test_groups_keepers_and_reasons(index: SearchIndex) -> None:
    assert described(index) == {
        "0.jpg": {
            "0.jpg": "the other one is this JPEG of about quality 95, saved again",
            "old/0-bytes.jpg": "the same bytes",
            "old/0-pixels.png": "the same pixels",
            "old/0-mirrored.jpg": "mirrored, JPEG about quality 60",
        },
        "1.jpg": {
            "1.jpg": "as much detail: the other one looks enlarged from about 320 x 240",
            "old/1-large.jpg": "resized to 200%, JPEG about quality 75",
            "old/1-crop.jpg": "cropped to 73% of its area, JPEG about quality 75",
        },
    }


def test_tasks_find_the_same_groups(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """By verifications that are taken from them; a second such search of the index is refused meanwhile."""
    expected = find_duplicates(index, threshold=0.6)
    monkeypatch.setattr(pair_tasks, "MIN_PAIRS", 1)
    monkeypatch.setattr(pair_tasks, "PAIRS_PER_TASK", 5)
    examined: list[int] = []
    examine = IndexImages.examine
    monkeypatch.setattr(
        IndexImages, "examine", lambda *args, **options: examined.append(1) or examine(*args, **options)
    )
    computed: list[int] = []
    both = IndexImages._both
    monkeypatch.setattr(IndexImages, "_both", lambda *args: computed.append(1) or both(*args))
    told: list[tuple[int, int]] = []
    runner_of = functools.partial(Pool, 1)
    with pair_tasks.pair_tasks(index, runner_of, lambda *numbers: told.append(numbers)) as tasks:
        with pytest.raises(UsageError, match="another process"), pair_tasks.pair_tasks(index, runner_of):
            pass
        found = find_duplicates(index, threshold=0.6, tasks=tasks)
    assert found == expected
    assert len(examined) >= expected.num_pairs_examined - 2  # others were seen to be needed later
    assert len(computed) - len(examined) < len(examined) / 2  # what groups need, such as the other direction
    assert told[-1] == (len(examined), len(examined))
    assert not (index.index_dir / "unfinished" / "pairs").exists()


def test_rules_decide_before_the_default_order(index: SearchIndex) -> None:
    def kept(*rules: str) -> list[tuple[str, str]]:
        found = described(index, keep=rules)
        return [(path, members[path]) for path, members in found.items()]

    assert kept("largest")[1] == ("old/1-large.jpg", "the most pixels, 640 x 480")
    assert kept("shortest") == [("0.jpg", "the shortest path"), ("1.jpg", "the shortest path")]
    assert {reason for _, reason in kept("folder:new", "folder:old", "shortest")} == {"the shortest path"}
    assert [path for path, _ in kept("folder:old", "largest")] == ["old/0-bytes.jpg", "old/1-large.jpg"]


def test_a_reference_folder_is_kept(index: SearchIndex) -> None:
    found = described(index, reference=lambda picture: picture.path == "old/0-mirrored.jpg")
    assert found["old/0-mirrored.jpg"]["old/0-mirrored.jpg"] == "in a reference folder"


def test_a_mirror_image_is_not_kept_if_other_copies_are_not_mirrored(tmp_path: Path, scene: Scene) -> None:
    """Though it has more bytes and a higher quality, and differs from each by no more edits."""
    for name, image, quality in (
        ("original", scene(9), 85),
        ("crop", scene(9).crop((20, 10, 300, 230)), 85),
        ("mirrored", ImageOps.mirror(scene(9)), 95),
    ):
        image.save(tmp_path / f"{name}.jpg", quality=quality)
    assert main(["index", f"--image_dir={tmp_path}", f"--index_dir={tmp_path / 'i'}"]) == 0
    found = described(SearchIndex.open(tmp_path / "i"))
    assert set(found) == {"original.jpg"}


def test_a_chain_is_no_group(tmp_path: Path, scene: Scene) -> None:
    """Left and right half overlap the whole, and not each other: with the whole gone, they are no copies."""
    whole = scene(8, (900, 240))
    for number, left in enumerate(range(0, 601, 150)):
        whole.crop((left, 0, left + 300, 240)).save(tmp_path / f"{number}.png")
    assert main(["index", f"--image_dir={tmp_path}", f"--index_dir={tmp_path / 'i'}"]) == 0
    found = find_duplicates(SearchIndex.open(tmp_path / "i"), threshold=0.5)
    for group in found.groups:
        numbers = [int(member.image.path[0]) for member in group.members]
        assert max(numbers) - min(numbers) <= 2
        assert len(numbers) <= 3


def test_a_center_is_never_explained_by_itself(tmp_path: Path) -> None:
    """Nor by one direction only: the row with the larger checksum is the query, and what is asked is turned round."""
    verification = Verification(0.7, ("cropped",), 0, reversed_reasons=("cropped",))
    for name in ("0", "1", "2"):
        (tmp_path / f"{name}.png").touch()
    rows = [IndexedImage(path=f"{row}.png", sha256=str(row), num_bytes=9, width=9, height=9) for row in range(3)]
    embedder = Embedder("lite0", "abc", 224, "stretch", 8, None)
    index = write_generation(tmp_path / "i", embedder, np.eye(3, 8), rows, image_dir=tmp_path)

    def verify(one: int, other: int) -> Verification | None:
        return Verification(1.0, (SAME_PIXELS,), 0) if one == other else verification if one == 2 else None

    with closing(PairExaminer(index, 0.5)) as examiner:
        examiner.images.verify = verify  # type: ignore[method-assign]
        examiner.images.file = lambda row: None  # type: ignore[method-assign]
        examiner.examine_pairs([(0, 2), (1, 2)])
        identical = {row: [row] for row in range(3)}
        group = _group(examiner, [2, 0, 1], identical, lambda image: image.path == "0.png")
    assert group.keeper.row == 0
    found = {member.row: (member.similarity, member.reason) for member in group.others}
    assert found[2] == (0.7, verification.text)
    assert found[1] == (0.7, f"of 2.png: {verification.text}")


@pytest.mark.parametrize("centers", [(0,), (0, 3)])
def test_pairs_that_copies_connect_are_verified_only_if_they_are_no_group(
    tmp_path: Path, centers: tuple[int, ...]
) -> None:
    """Six images: all are copies of the first one, or the last three of the fourth one, which joins both groups."""
    rows = [IndexedImage(path=f"{row}.png", sha256=str(row), num_bytes=9, width=9, height=9) for row in range(6)]
    for row in rows:
        (tmp_path / row.path).touch()
    vectors = np.eye(8)[[0, 0, 0, 1, 1, 1]] + np.random.default_rng(0).uniform(0, 0.3, (6, 8))
    index = write_generation(tmp_path / "i", Embedder("lite0", "abc", 224, "stretch", 8, None), vectors, rows,
                             image_dir=tmp_path)  # fmt: skip
    verified = list[tuple[int, int]]()

    def verify(one: int, other: int) -> Verification | None:
        pair = min(one, other), max(one, other)
        verified.append(pair)
        group = {row: row // 3 if len(centers) == 2 else 0 for row in range(6)}
        is_copy = group[one] == group[other] or pair == (0, 3)
        return Verification(0.7, ("cropped",), 0) if is_copy else None

    with closing(PairExaminer(index, 0.5)) as examiner:
        examiner.images.verify = verify  # type: ignore[method-assign]
        examiner.images.file = lambda row: None  # type: ignore[method-assign]
        examiner._examine_neighbors(np.arange(6), np.ones(6, bool), lambda count: None)
        in_turn = len(verified)
        found = sorted(map(sorted, _clusters(examiner, list(examiner.neighbors))))
    assert len(verified) == len(set(verified))
    if len(centers) == 1:
        assert in_turn < 15
        assert found == [[0, 1, 2, 3, 4, 5]]
    else:
        assert found == ([[0, 1, 2, 3], [4, 5]] if (0, 3) in verified else [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("position", [(-1, 0, 1, 0, 1, 0), (1, 0, 0, 0, 1, 0)])
def test_a_mirrored_image_that_represents_others_is_found_by_the_embedding_of_its_original(
    tmp_path: Path, position: tuple[float, ...]
) -> None:
    """Row 0 represents row 1; a crop, row 2, is near the latter alone. An upright copy is like it."""
    count = 70
    rows = [
        IndexedImage(
            path=f"{row}.png", sha256=f"{row:03}", num_bytes=9, width=9, height=9, position_phash=7 * (row < 2)
        )
        for row in range(count)
    ]
    vectors = np.eye(count)
    vectors[0] += vectors[3:35].sum(axis=0)
    vectors[2] = 2 * vectors[1] + vectors[35:].sum(axis=0)
    index = write_generation(tmp_path / "i", Embedder("lite0", "abc", 224, "stretch", count, None), vectors, rows,
                             image_dir=tmp_path)  # fmt: skip
    found = Verification(0.99, ("mirrored",), 0, reversed_reasons=("mirrored",), place=position)
    with closing(PairExaminer(index, 0.5)) as examiner:
        examiner.images.verify = lambda one, other: found if max(one, other) < 3 else None  # type: ignore
        examiner.images.compared = lambda one, *_: dataclasses.replace(one, differs=Differences())  # type: ignore
        examiner.examine_all(lambda num_images: None)
    assert set(examiner.copies) == ({(0, 1), (0, 2)} if position[0] < 0 else {(0, 1)})


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_further_neighbors_are_examined_as_long_as_that_finds_copies(tmp_path: Path, share: float) -> None:
    """Each image has a copy, of which its second next neighbors on either side are nearer than it."""
    count = 400
    rows = [IndexedImage(path=f"{row}.png", sha256=f"{row:03}", num_bytes=9, width=9, height=9) for row in range(count)]
    angles = np.linspace(0, 3, count)
    index = write_generation(tmp_path / "i", Embedder("lite0", "abc", 224, "stretch", 2, None),
                             np.stack([np.cos(angles), np.sin(angles)], axis=1), rows, image_dir=tmp_path)  # fmt: skip
    found = Verification(0.9, ("turned by 25°",), 0, reversed_reasons=("turned by 25°",), edits=frozenset(("turn",)))
    last = share * count

    def verify(one: int, other: int) -> Verification | None:
        return found if abs(one - other) == 4 and min(one, other) // 4 % 2 == 0 and min(one, other) < last else None

    with closing(PairExaminer(index, 0.5)) as examiner:
        examiner.images.verify = verify  # type: ignore[method-assign]
        examiner.images.file = lambda row: None  # type: ignore[method-assign]
        examiner._examine_neighbors(np.arange(count), np.ones(count, bool), lambda num_images: None)
        assert len(examiner.copies) == last / 2
        if not share:
            assert examiner.num_examined < 4 * count + 4 * 12


@pytest.mark.parametrize("reach", [3, 480])
def test_the_number_of_examined_pairs_grows_with_that_of_the_images(tmp_path: Path, reach: int) -> None:
    """In a long row, each image is a copy of its nearest ones; and in one large group, each is one of all."""
    count = 480  # of more, only those that are unusually near would be examined
    rows = [IndexedImage(path=f"{row}.png", sha256=f"{row:03}", num_bytes=9, width=9, height=9) for row in range(count)]
    angles = np.linspace(0, 3, count)
    index = write_generation(tmp_path / "i", Embedder("lite0", "abc", 224, "stretch", 2, None),
                             np.stack([np.cos(angles), np.sin(angles)], axis=1), rows, image_dir=tmp_path)  # fmt: skip
    copies = Verification(0.7, ("cropped",), 0, reversed_reasons=("cropped",))
    with closing(PairExaminer(index, 0.5)) as examiner:
        examiner.images.verify = lambda one, other: copies if abs(one - other) <= reach else None  # type: ignore
        examiner.images.file = lambda row: None  # type: ignore[method-assign]
        examiner._examine_neighbors(np.arange(count), np.ones(count, bool), lambda num_images: None)
        clusters = list(_clusters(examiner, list(examiner.neighbors)))
        assert examiner.num_examined < 30 * count  # of 240 * count
    assert len({row for cluster in clusters for row in cluster}) > count - reach
    assert all(abs(row - cluster[0]) <= reach for cluster in clusters for row in cluster)
    assert (len(clusters) == 1) is (reach == count)


def test_pairs_that_connect_all_rows() -> None:
    assert spanning_pairs([(2, 1), (0, 1), (0, 2), (5, 4), (1, 3)]) == [(2, 1), (0, 1), (5, 4), (1, 3)]
    assert spanning_pairs([]) == []


def test_no_pictures_alike(tmp_path: Path, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        scene(seed).save(tmp_path / f"{seed}.png")
    capsys.readouterr()
    assert main(["duplicates", f"--image_dir={tmp_path}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["groups"], result["num_images"], result["num_copies"]) == ([], 3, 0)


@pytest.fixture
def planned(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, and a plan for it."""
    shutil.copytree(folder, tmp_path / "photos")
    arguments = [f"--image_dir={tmp_path / 'photos'}", f"--index_dir={tmp_path / 'i'}", f"--plan={tmp_path / 'p.json'}"]
    arguments += ["--threshold=0.6", "--plan_edits=all", f"--report={tmp_path / 'copies.html'}"]
    assert main(["duplicates", *arguments]) == 0
    return tmp_path / "p.json"


def test_the_report_shows_the_groups(planned: Path) -> None:
    page, plan = (planned.parent / "copies.html").read_text(), json.loads(planned.read_text())
    assert page.count('<div class="query">') == len(plan["groups"]) >= 2
    for group in plan["groups"]:
        assert f'title="{group["keep"]["path"]}"' in page
    assert f"--plan={planned}" in page


def test_a_plan_removes_what_differs_in_size_and_compression_alone_and_the_rest_are_questions(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, report = tmp_path / "p.json", tmp_path / "copies.html"
    arguments = [f"--image_dir={folder}", f"--index_dir={tmp_path / 'i'}", f"--plan={plan}", f"--report={report}"]
    capsys.readouterr()
    assert main(["duplicates", *arguments, "--threshold=0.6"]) == 0
    said, groups = capsys.readouterr().out, json.loads(plan.read_text())["groups"]
    removed = {file["path"] for group in groups for file in group["remove"]}
    questions = {file["path"] for group in groups for file in group.get("questions", ())}
    assert questions == {"old/0-mirrored.jpg", "old/1-crop.jpg"}
    assert {line.split()[1] for line in said.splitlines() if line.endswith("  [question]")} == questions
    assert "2 of them are questions: they differ by more than size and compression;" in said
    assert f"removes {len(removed)};" in said
    assert report.read_text().count('<span class="tag">question</span>') == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REMOVED = {f"old/{name}" for name in ("0-bytes.jpg", "0-mirrored.jpg", "0-pixels.png", "1-crop.jpg", "1-large.jpg")}


def test_apply_and_undo(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = planned.parent / "photos"
    before = contents(photos)
    assert main(["apply", f"--plan={planned}", "--dry_run"]) == 0
    assert contents(photos) == before
    assert main(["apply", f"--plan={planned}"]) == 0
    assert set(before) - set(contents(photos)) == REMOVED
    assert contents(planned.parent / "p-quarantine" / "files") == {path: before[path] for path in REMOVED}
    assert main(["apply", f"--plan={planned}"]) == 0  # nothing left to do
    capsys.readouterr()
    assert main(["undo", f"--plan={planned}", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["moved"]) == REMOVED
    assert contents(photos) == before
    assert not (planned.parent / "p-quarantine").exists()
    assert main(["undo", f"--plan={planned}"]) == 2


def test_sidecars_of_a_question_go_along_if_it_is_moved_to_the_removals(planned: Path) -> None:
    photos = planned.parent / "photos"
    for name in ("1-crop.jpg.xmp", "1-crop.json"):
        (photos / "old" / name).write_text("{}")
    arguments = [f"--image_dir={photos}", f"--index_dir={planned.parent / 'i'}", f"--plan={planned}"]
    main(["duplicates", *arguments, "--threshold=0.6"])  # sidecars are no images
    values = json.loads(planned.read_text())
    group = next(group for group in values["groups"] if group["keep"]["path"] == "1.jpg")
    (question,) = group.pop("questions")
    group["remove"].append(question)
    planned.write_text(json.dumps(values))
    moved = apply_plan(load_plan(planned), dry_run=True).moved
    assert {"old/1-crop.jpg", "old/1-crop.jpg.xmp", "old/1-crop.json"} < set(moved)


def test_reference_folders_are_never_touched(folder: Path, tmp_path: Path) -> None:
    arguments = [f"--image_dir={folder}", f"--index_dir={tmp_path / 'i'}", f"--plan={tmp_path / 'p.json'}"]
    assert main(["duplicates", *arguments, "--threshold=0.6", "--reference_dirs=old"]) == 0
    plan = load_plan(tmp_path / "p.json")
    assert {file.path for file in plan.removals} == {"0.jpg", "1.jpg"}
    assert plan.reference_dirs == ("old",)
    assert main(["duplicates", *arguments, "--reference_dirs=nowhere"]) == 2


def test_a_lossy_file_is_not_kept_as_one_without_loss(tmp_path: Path, scene: Scene) -> None:
    """Whatever its name: a JPEG that is called .png, and WebP of quality 30."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name, options in (
        (0, "again.webp", {"quality": 30}),
        (1, "again.webp", {"lossless": True}),
        (2, "again.tif", {"compression": "jpeg", "quality": 30}),
        (3, "again.tif", {"compression": "tiff_lzw"}),
    ):
        scene(seed).save(photos / f"{seed}.jpg", quality=95)
        scene(seed).save(photos / f"{seed}-{name}", **options)
    assert main(["index", f"--image_dir={photos}", f"--index_dir={tmp_path / 'i'}"]) == 0
    kept = {path: found[path] for path, found in described(SearchIndex.open(tmp_path / "i")).items()}
    assert set(kept) == {"0.jpg", "1-again.webp", "2.jpg", "3-again.tif"}
    assert kept["1-again.webp"] == kept["3-again.tif"] == "as much detail, without loss"


@pytest.mark.parametrize(
    ("format", "options", "lossless"),
    [
        ("PNG", {}, True),
        ("BMP", {}, True),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}, True),
        ("WEBP", {"quality": 100}, False),
        ("WEBP", {"quality": 100, "icc_profile": b"\0" * 200}, False),
        ("TIFF", {}, True),
        ("TIFF", {"compression": "tiff_deflate"}, True),
        ("TIFF", {"compression": "jpeg"}, False),
        ("JPEG", {"quality": 100}, False),
        ("JPEG2000", {}, False),
        ("GIF", {}, False),
    ],
)
def test_the_bytes_tell_whether_a_format_loses_pixels(
    scene: Scene, format: str, options: dict[str, object], lossless: bool
) -> None:
    buffer = io.BytesIO()
    scene(0).save(buffer, format, **options)
    assert is_lossless(buffer.getvalue()) == lossless
    assert not is_lossless(buffer.getvalue()[:10])
    assert not is_lossless(b"")


def test_what_was_changed_since_is_left(planned: Path) -> None:
    photos = planned.parent / "photos"
    (photos / "old" / "0-pixels.png").write_bytes(b"edited since")
    (photos / "1.jpg").unlink()  # a keeper
    applied = apply_plan(load_plan(planned), dry_run=False)
    assert set(applied.moved) == {"old/0-bytes.jpg", "old/0-mirrored.jpg"}
    assert {path for path, _ in applied.skipped} == {"old/0-pixels.png", "old/1-large.jpg", "old/1-crop.jpg"}
    assert (photos / "old" / "0-pixels.png").read_bytes() == b"edited since"


def test_undo_overwrites_nothing(planned: Path) -> None:
    photos = planned.parent / "photos"
    apply_plan(load_plan(planned), dry_run=False)
    (photos / "old" / "0-pixels.png").write_bytes(b"another")
    undone = undo_plan(load_plan(planned))
    assert [path for path, _ in undone.skipped] == ["old/0-pixels.png"]
    assert set(undone.moved) == REMOVED - {"old/0-pixels.png"}
    assert (photos / "old" / "0-pixels.png").read_bytes() == b"another"
    assert (planned.parent / "p-quarantine" / "files" / "old" / "0-pixels.png").exists()


@pytest.mark.parametrize("stop_after", range(5))
def test_a_stopped_apply_goes_on_and_can_be_undone(
    planned: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = planned.parent / "photos"
    before = contents(photos)
    moves = []
    move = file_quarantine._move

    def failing(source: Path, target: Path) -> None:
        if len(moves) == stop_after:
            raise KeyboardInterrupt
        moves.append(source)
        move(source, target)

    monkeypatch.setattr(file_quarantine, "_move", failing)
    with pytest.raises(KeyboardInterrupt):
        apply_plan(load_plan(planned), dry_run=False)
    monkeypatch.undo()
    if stop_after % 2:
        undo_plan(load_plan(planned))
        assert contents(photos) == before
    else:
        assert len(apply_plan(load_plan(planned), dry_run=False).moved) == 5 - stop_after
        undo_plan(load_plan(planned))
        assert contents(photos) == before


def test_across_file_systems_a_file_is_copied_whole(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = file_quarantine.os.rename

    def crossing(source: Path, target: Path) -> None:
        if ".tmp-" not in str(source):
            raise OSError(file_quarantine.errno.EXDEV, "cross-device link")
        rename(source, target)

    before = contents(planned.parent / "photos")
    monkeypatch.setattr(file_quarantine.os, "rename", crossing)
    apply_plan(load_plan(planned), dry_run=False)
    undo_plan(load_plan(planned))
    assert contents(planned.parent / "photos") == before


def test_a_plan_that_leads_out_of_its_folder_is_refused(planned: Path) -> None:
    values = json.loads(planned.read_text())
    for path in ("../../etc/passwd", "/etc/passwd"):
        values["groups"][0]["remove"][0]["path"] = path
        planned.write_text(json.dumps(values))
        with pytest.raises(DataError, match="leads out of the folder"):
            load_plan(planned)
    planned.write_text("{}")
    with pytest.raises(DataError, match="not a plan"):
        load_plan(planned)


def test_a_plan_that_was_not_applied_cannot_be_undone(planned: Path) -> None:
    with pytest.raises(UsageError, match="was not applied"):
        undo_plan(load_plan(planned))


def test_hashes_alone_are_no_reason(tmp_path: Path) -> None:
    """Two plain pictures of different colours look alike to a hash and an embedding."""
    for number, color in enumerate([(250, 0, 0), (0, 0, 250)]):
        Image.fromarray(np.full((60, 60, 3), color, np.uint8)).save(tmp_path / f"{number}.png")
    assert main(["index", f"--image_dir={tmp_path}", f"--index_dir={tmp_path / 'i'}"]) == 0
    assert find_duplicates(SearchIndex.open(tmp_path / "i"), threshold=0.5).groups == ()
