"""Cases that people complained about, as they see them: groups of copies, plans, and questions.

The folders in `data/` are small drawn inputs. Others are drawn here: the same kinds of pictures in another form.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import simimg
from simimg.errors import UsageError
from simimg.similarity.duplicate_groups import Duplicates
from simimg.similarity.edits import CONTENT, COUNTED, EDITS, EXCHANGE, LABEL, PLANNED
from simimg.similarity.embeddings import Embedder
from simimg.similarity.index_update import index_folder
from tfrecords.format.atomic_files import parse_json

DATA = Path(__file__).parent / "data"
Color = tuple[int, int, int]
Scene = Callable[..., Image.Image]


def _means(images: np.ndarray) -> np.ndarray:
    means = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1) - 127.5
    return (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1)).astype(np.float32)


MEANS = Embedder("means", "e" * 64, 32, "stretch", 192, _means)


@dataclasses.dataclass(frozen=True)
class Found:
    """What `simimg duplicates` finds, and the plan it writes."""

    duplicates: Duplicates
    groups: list[dict[str, Any]]

    @property
    def copies(self) -> set[frozenset[str]]:
        """The groups, as sets of paths."""
        return {frozenset(one.image.path for one in group.members) for group in self.duplicates.groups}

    @property
    def removed(self) -> set[str]:
        return {file["path"] for group in self.groups for file in group["remove"]}

    @property
    def questions(self) -> set[str]:
        return {file["path"] for group in self.groups for file in group.get("questions", ())}

    @property
    def edits(self) -> dict[str, frozenset[str]]:
        return {one.image.path: one.edits for group in self.duplicates.groups for one in group.others}


def look(folder: Path, tmp_path: Path, **options: Any) -> Found:
    index_folder(tmp_path / "index", folder, MEANS)
    found = simimg.duplicates(index_dir=tmp_path / "index", plan=tmp_path / "plan.json", **options)
    return Found(found, parse_json((tmp_path / "plan.json").read_bytes())["groups"])


def saved(folder: Path, images: dict[str, Image.Image], **options: Any) -> Path:
    """A folder with these images; JPEG by default options."""
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **(options if name.endswith("jpg") else {}))
    return folder


def noisy(image: Image.Image, seed: int = 0, sigma: float = 2.0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, sigma, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


# No evidence: nothing is found, whatever edits count


@pytest.mark.parametrize("name", ["gradients", "blank-pages"])
def test_images_without_structure(name: str, tmp_path: Path) -> None:
    assert not look(DATA / name, tmp_path, edits=["all"]).duplicates.groups


def gradient(one: Color, other: Color, angle: float) -> Image.Image:
    y, x = np.mgrid[:180, :240]
    share = np.clip((x / 240 * np.cos(angle) + y / 180 * np.sin(angle))[..., None], 0, 1)
    return Image.fromarray(np.rint(np.array(one) * (1 - share) + np.array(other) * share).astype(np.uint8))


def test_other_gradients_and_pages(tmp_path: Path) -> None:
    """Also from corner to corner, and with a spot of light; each is a copy of its own JPEG alone."""
    images = {
        "rose": gradient((240, 180, 190), (120, 40, 80), 0.4),
        "mint": gradient((200, 240, 220), (20, 90, 80), 0.6),
        "night": gradient((10, 10, 40), (60, 40, 120), 1.57),
        "sand": gradient((250, 230, 180), (190, 140, 80), 1.2),
    }
    for seed in range(3):
        y, x = np.mgrid[:180, :240]
        light = 235 - ((x - 60 * seed - 60) ** 2 + (y - 90) ** 2) / 400
        page = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).convert("RGB")
        ImageDraw.Draw(page).line([(40 + 50 * seed, 60), (90, 100 + 20 * seed), (150, 70)], fill=(90, 90, 90))
        images[f"page{seed}"] = page
    folder = saved(tmp_path / "photos", {f"{name}.png": image for name, image in images.items()})
    assert not look(folder, tmp_path, edits=["all"]).duplicates.groups
    saved(folder, {f"{name}.jpg": image for name, image in images.items()}, quality=85)
    found = look(folder, tmp_path)
    assert found.copies == {frozenset((f"{name}.png", f"{name}.jpg")) for name in images}
    assert found.removed == {f"{name}.jpg" for name in images}


# The plainest copies


def test_photos_that_were_saved_again(tmp_path: Path) -> None:
    found = look(DATA / "resaved", tmp_path)
    names = ("432", "474", "477", "486")
    assert found.copies == {frozenset((f"{name}-a.jpg", f"{name}-b.jpg")) for name in names}
    assert found.removed == {f"{name}-b.jpg" for name in names}
    for group in found.duplicates.groups:
        assert "cropped" not in group.others[0].reason
        assert group.others[0].similarity > 0.99


def test_other_sizes_and_formats_are_removed(tmp_path: Path, scene: Scene) -> None:
    folder = saved(tmp_path / "photos", {f"{seed}.png": scene(seed) for seed in range(3)})
    saved(folder, {"0-q.jpg": scene(0), "1-small.jpg": scene(1).resize((160, 120))}, quality=60)
    scene(2).save(folder / "2.webp", quality=70)
    shutil.copy(folder / "2.png", folder / "3.png")
    found = look(folder, tmp_path)
    assert found.removed == {"0-q.jpg", "1-small.jpg", "2.webp", "3.png"}
    assert not found.questions


@pytest.mark.parametrize(("suffix", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tif", {})])
def test_of_animations_and_pages_only_the_first_is_compared(
    tmp_path: Path, scene: Scene, suffix: str, options: dict[str, Any]
) -> None:
    """What follows differs, so nothing but the same bytes is removed."""
    first, *others = (scene(seed, (160, 120)) for seed in range(4))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, more in (("a", others[:2]), ("b", others[2:])):
        first.save(folder / f"{name}.{suffix}", save_all=True, append_images=more, **options)
    shutil.copy(folder / f"a.{suffix}", folder / f"c.{suffix}")
    first.save(folder / "still.jpg", quality=95)
    found = look(folder, tmp_path)
    (group,) = found.duplicates.groups
    assert len(group.others) == 3
    assert found.removed < {f"a.{suffix}", f"c.{suffix}"}
    assert suffix == "gif" or "; only the first of 3 frames was compared" in group.others[-1].reason


# The names of the files decide nothing


def test_groups_are_a_function_of_the_set_of_images(tmp_path: Path, scene: Scene) -> None:
    """Parts of one wide photo that overlap in a row, which could be divided in many ways, and copies of some."""
    wide = noisy(scene(8, (700, 200)))
    parts = [wide.crop((left, 0, left + 240, 200)) for left in range(0, 461, 60)]
    images = [*parts, parts[2], parts[5].resize((180, 150)), parts[6].transpose(Image.Transpose.ROTATE_90)]
    files = []
    for quality, image in enumerate(images, 80):
        image.save(buffer := io.BytesIO(), "JPEG", quality=quality)
        files.append(buffer.getvalue())
    found = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        (folder / "photos").mkdir(parents=True)
        number_of = {
            f"{place}.jpg": int(at) for place, at in enumerate(np.random.default_rng(seed).permutation(len(files)))
        }
        for name, number in number_of.items():
            (folder / "photos" / name).write_bytes(files[number])
        groups = look(folder / "photos", folder).duplicates.groups
        found.append(
            {
                (number_of[one.image.path], number_of[group.keeper.image.path], one.similarity, one.edits)
                for group in groups
                for one in group.members
            }
        )
    assert len({keeper for _, keeper, *_ in found[0]}) > 1
    assert found[0] == found[1] == found[2]


# One template, other content


def test_invoices_of_one_template(tmp_path: Path) -> None:
    assert not look(DATA / "invoices", tmp_path).duplicates.groups
    found = look(DATA / "invoices", tmp_path, edits=["all"])
    (group,) = found.duplicates.groups
    assert len(group.members) == 4
    assert not found.removed
    for member in group.others:
        assert CONTENT in member.edits
        assert "places differ" in member.reason


def receipt(number: int, total: str) -> Image.Image:
    image = Image.new("RGB", (320, 560), (250, 248, 240))
    draw = ImageDraw.Draw(image)
    draw.text((70, 24), "CORNER SHOP", fill=(30, 30, 30), font_size=26)
    for row in range(9):
        draw.text((30, 90 + 34 * row), f"Item {row + 1}", fill=(40, 40, 40), font_size=18)
        draw.text((220, 90 + 34 * row), f"{(row * 31 + 17) % 60}.90", fill=(40, 40, 40), font_size=18)
    draw.text((30, 420), f"TOTAL   {total}", fill=(10, 10, 10), font_size=26)
    draw.text((30, 480), f"No. {number}", fill=(60, 60, 60), font_size=20)
    return image


def ticket(seat: str, row: str) -> Image.Image:
    image = Image.new("RGB", (480, 200), (245, 225, 190))
    draw = ImageDraw.Draw(image)
    draw.rectangle((8, 8, 471, 191), outline=(120, 60, 30), width=3)
    draw.text((30, 24), "Town Theater", fill=(120, 60, 30), font_size=34)
    draw.text((30, 84), "Saturday, 8 pm, the doors open at 7", fill=(60, 40, 30), font_size=18)
    draw.text((30, 134), f"ROW {row}   SEAT {seat}", fill=(20, 20, 20), font_size=30)
    for x in range(360, 460, 5):
        draw.line((x, 90, x, 170), fill="black", width=1 + x * 7 % 3)
    return image


def screenshot(values: list[int]) -> Image.Image:
    """A dark page with bars and their numbers."""
    image = Image.new("RGB", (560, 340), (24, 26, 32))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 560, 36), fill=(40, 44, 56))
    draw.text((16, 8), "Dashboard - visitors per day", fill=(220, 220, 230), font_size=18)
    for place, value in enumerate(values):
        x = 40 + 100 * place
        draw.rectangle((x, 300 - value * 2, x + 60, 300), fill=(70, 140, 220))
        draw.text((x + 8, 306), str(value), fill=(200, 200, 210), font_size=20)
    return image


def test_other_forms(tmp_path: Path) -> None:
    """Receipts, tickets and screenshots; those that were only saved again are copies."""
    images = {
        "receipt1.jpg": receipt(48113, "271.40"), "receipt2.jpg": receipt(48276, "183.95"),
        "ticket1.jpg": ticket("14", "C"), "ticket2.jpg": ticket("27", "H"),
        "screen1.jpg": screenshot([80, 120, 40, 95, 110]), "screen2.jpg": screenshot([60, 35, 100, 95, 70]),
    }  # fmt: skip
    folder = saved(tmp_path / "photos", images, quality=90)
    assert not look(folder, tmp_path).duplicates.groups
    saved(folder, {f"again-{name}": Image.open(folder / name) for name in images}, quality=70)
    found = look(folder, tmp_path)
    assert found.copies == {frozenset((name, f"again-{name}")) for name in images}
    assert found.removed == {f"again-{name}" for name in images}


# Moments of one scene


def test_a_burst_is_never_planned(tmp_path: Path) -> None:
    for edits in ("auto", "all"):
        found = look(DATA / "tripod-burst", tmp_path, edits=[edits])
        assert not found.removed
        for group in found.duplicates.groups:
            for member in group.others:
                assert member.edits - PLANNED
                assert "looks the same" not in member.reason
                assert "differ" in member.reason


def test_a_burst_with_an_object_that_moves(tmp_path: Path, scene: Scene) -> None:
    images = {}
    for place in range(3):
        image = scene(11, (480, 360))
        draw, x = ImageDraw.Draw(image), 60 + 140 * place
        draw.ellipse((x, 150, x + 70, 220), fill=(240, 200, 60), outline=(60, 30, 10), width=4)
        draw.rectangle((x + 25, 220, x + 45, 300), fill=(60, 60, 140))
        images[f"IMG_{place}.jpg"] = noisy(image, place)
    found = look(saved(tmp_path / "photos", images, quality=92), tmp_path)
    assert not found.removed
    for edits in found.edits.values():
        assert edits - PLANNED


# Exchanged colors


def test_one_shirt_in_five_colors(tmp_path: Path) -> None:
    assert not look(DATA / "color-variants", tmp_path).duplicates.groups
    assert not look(DATA / "color-variants", tmp_path, edits=["all"]).removed


def mug(color: Color) -> Image.Image:
    image = Image.new("RGB", (360, 320), (228, 226, 222))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 250, 360, 320), fill=(170, 140, 110))
    draw.ellipse((220, 110, 310, 220), outline=color, width=20)
    draw.rounded_rectangle((90, 70, 250, 270), 24, fill=color)
    draw.ellipse((90, 50, 250, 92), fill=(250, 250, 250), outline=(120, 120, 120), width=3)
    draw.text((118, 150), "COFFEE", fill=(255, 255, 255), font_size=28)
    return image


MUGS = {"red": (190, 40, 40), "blue": (40, 70, 180), "green": (30, 130, 70), "purple": (130, 50, 150)}


def test_a_product_in_other_colors(tmp_path: Path) -> None:
    folder = saved(tmp_path / "photos", {f"{name}.png": mug(color) for name, color in MUGS.items()})
    assert not look(folder, tmp_path).duplicates.groups
    found = look(folder, tmp_path, edits=["all"], threshold=0.5)
    (group,) = found.duplicates.groups
    assert len(group.members) == len(MUGS)
    assert not found.removed
    for member in group.others:
        assert member.edits & {EXCHANGE, CONTENT}
        assert "of the area" in member.reason
        assert member.similarity < 0.95


# Drawings


def test_cards_signals_and_arrows(tmp_path: Path) -> None:
    """No card and no signal is a copy of another one; an arrow may be another one that was turned or recolored."""
    found = look(DATA / "clipart", tmp_path)
    assert not found.removed
    assert all(path.startswith("arrows__") for group in found.copies for path in group)
    for path, edits in found.edits.items():
        assert edits & {"turn", "mirror", "color"}, path
    everything = look(DATA / "clipart", tmp_path, edits=["all"])
    assert not everything.removed
    for path, edits in everything.edits.items():
        assert edits & {"turn", "mirror", "color", CONTENT, EXCHANGE}, path


def icon(shape: str, light: bool = False) -> Image.Image:
    image = Image.new("RGB", (96, 96), (245, 245, 245) if light else (20, 20, 24))
    draw, ink = ImageDraw.Draw(image), (20, 20, 24) if light else (245, 245, 245)
    if shape == "play":
        draw.polygon([(34, 26), (70, 48), (34, 70)], fill=ink)
    elif shape == "pause":
        draw.rectangle((32, 26, 43, 70), fill=ink)
        draw.rectangle((53, 26, 64, 70), fill=ink)
    elif shape == "stop":
        draw.rectangle((30, 30, 66, 66), fill=ink)
    elif shape == "record":
        draw.ellipse((28, 28, 68, 68), fill=ink)
    elif shape == "next":
        draw.polygon([(28, 26), (60, 48), (28, 70)], fill=ink)
        draw.rectangle((62, 26, 68, 70), fill=ink)
    else:
        draw.rectangle((44, 26, 52, 70), fill=ink)
        draw.rectangle((26, 44, 70, 52), fill=ink)
    return image


def flag(stripes: list[Color], upright: bool = False) -> Image.Image:
    image = Image.new("RGB", (180, 120))
    draw = ImageDraw.Draw(image)
    for place, color in enumerate(stripes):
        start, end = place / len(stripes), (place + 1) / len(stripes)
        box = (180 * start, 0, 180 * end, 120) if upright else (0, 120 * start, 180, 120 * end)
        draw.rectangle(box, fill=color)
    return image


def test_other_drawings_of_two_tones_and_of_stripes(tmp_path: Path) -> None:
    red, white, blue, green, yellow = (206, 17, 38), (255, 255, 255), (0, 35, 149), (0, 140, 69), (252, 209, 22)
    images = {f"{shape}.png": icon(shape) for shape in ("play", "pause", "stop", "record", "next", "add")}
    images |= {
        "rwb.png": flag([red, white, blue]), "wbr.png": flag([white, blue, red]), "bw.png": flag([blue, white]),
        "gwr.png": flag([green, white, red], upright=True), "byr.png": flag([blue, yellow, red], upright=True),
        "gyr.png": flag([green, yellow, red], upright=True),
    }  # fmt: skip
    found = look(saved(tmp_path / "photos", images), tmp_path)
    assert not found.removed
    saved(tmp_path / "photos", {f"{name}.webp": image for name, image in images.items()})
    again = look(tmp_path / "photos", tmp_path)
    assert all(path.endswith(".webp") or f"{path}.webp" not in again.removed for path in again.removed)
    assert {path.removesuffix(".webp") for path in again.removed} <= set(images)


# Label conflicts


def test_classes_that_are_mirror_images(tmp_path: Path) -> None:
    found = look(DATA / "mirrored-classes", tmp_path)
    assert not found.removed
    for group in found.duplicates.groups:
        for member in group.others:
            across = member.image.label != group.keeper.image.label
            assert (LABEL in member.edits) is across
            assert ("in another class folder" in member.reason) is across
    assert any(LABEL in edits for edits in found.edits.values())


@pytest.fixture
def classes(tmp_path: Path, scene: Scene) -> Path:
    """Two classes of four photos; one photo is in both, with the same bytes, and one in its own class twice."""
    folder = tmp_path / "photos"
    for seed in range(8):
        saved(folder, {f"{'cat' if seed < 4 else 'dog'}/{seed}.jpg": scene(seed)}, quality=90)
    shutil.copy(folder / "cat/0.jpg", folder / "dog/0-too.jpg")
    shutil.copy(folder / "cat/1.jpg", folder / "cat/1-too.jpg")
    return folder


def test_the_same_bytes_in_two_classes_are_a_conflict(classes: Path, tmp_path: Path) -> None:
    found = look(classes, tmp_path)
    assert found.copies == {frozenset(("cat/0.jpg", "dog/0-too.jpg")), frozenset(("cat/1.jpg", "cat/1-too.jpg"))}
    assert len(found.removed) == 1
    assert found.removed < {"cat/1.jpg", "cat/1-too.jpg"}
    assert len(found.questions) == 1
    assert found.questions < {"cat/0.jpg", "dog/0-too.jpg"}
    (question,) = (file for group in found.groups for file in group.get("questions", ()))
    assert question["reason"] == "the same bytes; in another class folder"
    more = look(classes, tmp_path, plan_edits=["auto", "label"])
    assert len(more.removed) == 2
    assert not more.questions


def test_a_folder_of_copies_is_no_class(classes: Path, tmp_path: Path, scene: Scene) -> None:
    saved(classes, {f"backup/{seed}.jpg": scene(seed).resize((160, 120)) for seed in range(1, 8)}, quality=85)
    found = look(classes, tmp_path)
    assert {f"backup/{seed}.jpg" for seed in range(1, 8)} <= found.removed
    assert len(found.questions) == 1  # the photo that is in both classes


def test_pictures_beside_the_folders_are_no_classes(classes: Path, tmp_path: Path) -> None:
    shutil.copy(classes / "cat/2.jpg", classes / "cover.jpg")
    found = look(classes, tmp_path)
    assert not found.questions
    assert len(found.removed) == 3


def test_who_names_reference_folders_has_no_classes(classes: Path, tmp_path: Path) -> None:
    found = look(classes, tmp_path, reference_dirs=["cat"])
    assert found.removed == {"dog/0-too.jpg"}
    assert not any(LABEL in edits for edits in found.edits.values())


# Plans


@pytest.fixture
def edited(tmp_path: Path, scene: Scene) -> Path:
    """Photos and a copy of each by one edit."""
    folder = saved(tmp_path / "photos", {f"{seed}.png": scene(seed) for seed in range(6)})
    whole = scene(4).copy()
    ImageDraw.Draw(whole).text((60, 90), "SAMPLE", fill="white", stroke_width=3, stroke_fill="black", font_size=52)
    saved(
        folder,
        {
            "0-small.jpg": scene(0).resize((240, 180)),
            "1-crop.jpg": scene(1).crop((30, 20, 300, 220)),
            "2-mirror.jpg": scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            "3-gray.jpg": scene(3).convert("L"),
            "4-text.jpg": whole,
            "5-blur.jpg": scene(5).filter(ImageFilter.GaussianBlur(5)),
        },
        quality=90,
    )
    return folder


EDITED = {"1-crop.jpg": "crop", "2-mirror.jpg": "mirror", "3-gray.jpg": "color", "4-text.jpg": "overlay"}
EDITED |= {"5-blur.jpg": "blur"}


def test_a_plan_removes_what_differs_in_size_and_compression(edited: Path, tmp_path: Path) -> None:
    found = look(edited, tmp_path)
    assert found.removed == {"0-small.jpg"}
    assert found.questions == set(EDITED)
    for path, edit in EDITED.items():
        also = {"overlay"} if edit == "blur" else set()  # so strong a blur takes small details away
        assert found.edits[path] - {"size", "compression"} - also == {edit}
    for group in found.groups:
        for file in (*group["remove"], *group.get("questions", ())):
            assert set(file) == {"path", "sha256", "num_bytes", "similarity", "reason"}


@pytest.mark.parametrize(
    ("plan_edits", "more"),
    [
        (["auto", "mirror", "overlay"], {"2-mirror.jpg", "4-text.jpg"}),
        (["all", "-color"], set(EDITED) - {"3-gray.jpg"}),
    ],
)
def test_more_edits_are_removed_if_asked_for(
    edited: Path, tmp_path: Path, plan_edits: list[str], more: set[str]
) -> None:
    found = look(edited, tmp_path, plan_edits=plan_edits)
    assert found.removed == {"0-small.jpg", *more}
    assert found.questions == set(EDITED) - more


def test_edits_that_do_not_count_make_no_copies(edited: Path, tmp_path: Path) -> None:
    found = look(edited, tmp_path, edits=["-crop", "-mirror"])
    assert set(found.edits) == {"0-small.jpg", *EDITED} - {"1-crop.jpg", "2-mirror.jpg"}


def test_edits_that_do_not_exist_are_refused(edited: Path, tmp_path: Path) -> None:
    for name, value in (("edits", "label"), ("plan_edits", "crops")):
        with pytest.raises(UsageError, match=f"--{name}={value}: there is no such edit. Choose from: size, "):
            simimg.duplicates(edited, **{name: [value]})


def test_what_is_asked_and_what_is_removed_is_never_kept(edited: Path, tmp_path: Path) -> None:
    found = look(edited, tmp_path, edits=["all"], plan_edits=["all"])
    kept = {group["keep"]["path"] for group in found.groups}
    assert not kept & (found.removed | found.questions)
    assert not found.removed & found.questions
    assert all(edits <= set(EDITS) for edits in found.edits.values())
    assert set(EDITS) > COUNTED


def test_a_damaged_file_changes_nothing(edited: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    (edited / "broken.png").write_bytes(buffer.getvalue()[:60])
    assert look(edited, tmp_path).removed == {"0-small.jpg"}
