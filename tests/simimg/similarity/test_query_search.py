"""What a query finds beyond its looks: by its hash, through noise, and by the pixels that a dataset has stored."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter, ImageOps

from simimg.cli import main
from simimg.similarity import query_search
from simimg.similarity.edits import MIRROR, PLANNED
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import fingerprint
from simimg.similarity.index_update import index_dataset, index_folder
from simimg.similarity.keypoints import align, match
from simimg.similarity.match_verification import Verification
from simimg.similarity.query_search import Finder
from simimg.similarity.search_index import Match, SearchIndex
from simimg.similarity.search_queries import Query, image_query, load_query, make_query, query_views
from tfrecords.convert.image.decoder import ImageOptions, decode_composites, load_image
from tfrecords.format.quarantine import Refusal

Scene = Callable[..., Image.Image]

NUM_PHOTOS = 24


def _blind(images: np.ndarray) -> np.ndarray:
    mean = images.mean(axis=(1, 2, 3))[:, None]
    waves = np.sin(mean * np.arange(1.0, 65.0) * 37.0).astype(np.float32)
    return waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-12)


@pytest.fixture(scope="module")
def blind() -> Embedder:
    """What takes pictures for alike that have nothing in common but their mean, to the last bit."""
    return Embedder("blind", "b" * 64, 64, "stretch", 64, _blind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    folder = tmp_path_factory.mktemp("find") / "photos"
    for seed in range(NUM_PHOTOS):
        (folder / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        scene(seed).save(folder / "ab"[seed % 2] / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, blind: Embedder, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    return index_folder(tmp_path_factory.mktemp("indexes") / "photos", folder, blind).index


@pytest.fixture
def finder(index: SearchIndex, blind: Embedder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finder]:
    monkeypatch.setattr(query_search, "CANDIDATES", 4)
    with closing(Finder(index, blind)) as finder:
        yield finder


def pixelated(image: Image.Image) -> Image.Image:
    small = image.resize((image.width // 6, image.height // 6), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


@pytest.mark.parametrize(
    "edit",
    [
        pixelated,
        lambda image: image.filter(ImageFilter.GaussianBlur(5)),
        lambda image: ImageOps.mirror(image).filter(ImageFilter.GaussianBlur(3)),
        lambda image: image.rotate(180).resize((40, 30), Image.Resampling.BICUBIC),
    ],
)
def test_a_near_hash_is_examined_whatever_the_embedding_says(
    finder: Finder, blind: Embedder, scene: Scene, edit: Callable[[Image.Image], Image.Image]
) -> None:
    for seed in range(0, NUM_PHOTOS, 5):
        best = finder.find(make_query("q", edit(scene(seed)), blind), 3)[0]
        assert best.image.path.endswith(f"/{seed}.png")
        assert best.verification is not None


def test_a_near_hash_that_is_left_out_is_not_found(finder: Finder, blind: Embedder, scene: Scene) -> None:
    query = make_query("q", scene(3), blind)
    row = finder.find(query, 1)[0].row
    assert row not in {found.row for found in finder.find(query, NUM_PHOTOS, without=row)}
    only = np.ones(NUM_PHOTOS, bool)
    only[row] = False
    *_, found = finder.steps(query.views, query.image, NUM_PHOTOS, only=only)
    assert sorted(one.row for one in found) == [other for other in range(NUM_PHOTOS) if other != row]


def test_no_row_is_found_twice(finder: Finder, blind: Embedder, scene: Scene) -> None:
    found = finder.find(make_query("q", scene(3), blind), NUM_PHOTOS)
    assert sorted(one.row for one in found) == list(range(NUM_PHOTOS))


@pytest.mark.parametrize(
    ("by_thumbnail", "by_keypoints", "before", "thorough"),
    [
        ([0], [], -1.0, [1]),  # 0.8 is close to a copy of 0.9
        ([1], [0], -1.0, [0, 2]),  # so is 0.5 to one of 0.8
        ([], [1], -1.0, [0, 1, 2]),  # the best two at a time, until there is a copy
        ([], [], -1.0, [0, 1, 2, 3]),
        ([], [], 0.9, [0, 1]),  # there was a copy in an earlier group
        ([], [], 0.2, [0, 1, 2]),  # 0.2 is far from every copy
    ],
)
def test_larger_images_are_compared_until_there_is_a_copy_and_where_another_may_be(
    finder: Finder,
    index: SearchIndex,
    monkeypatch: pytest.MonkeyPatch,
    by_thumbnail: list[int],
    by_keypoints: list[int],
    before: float,
    thorough: list[int],
) -> None:
    copy = Verification(0.95, (), 30)
    compared: list[int] = []

    def verify(query: object, row: int, *, thorough: bool = True) -> Verification | None:
        if thorough:
            compared.append(row)
        return copy if row in by_thumbnail or (thorough and row in by_keypoints) else None

    monkeypatch.setattr(query_search, "num_cores", lambda: 2)
    monkeypatch.setattr(finder, "_verify", verify)
    group = [Match(row, index.images[row], cosine) for row, cosine in enumerate((0.9, 0.8, 0.5, 0.2))]
    found, nearest = finder._examined(None, group, before)  # type: ignore[arg-type]
    assert sorted(compared) == thorough
    copies = [row for row in range(4) if row in by_thumbnail or row in by_keypoints]
    assert [row for row, one in enumerate(found) if one is copy] == copies
    assert nearest == max([before, *(group[row].similarity for row in copies)])


@pytest.mark.parametrize(("edits", "examined"), [(MIRROR, 14), ("", 5)])
def test_copies_with_edits_that_do_not_count_do_not_end_a_search(
    finder: Finder, index: SearchIndex, monkeypatch: pytest.MonkeyPatch, edits: str, examined: int
) -> None:
    """Eight mirrored copies are nearer than one that counts; eight other images would end the search."""
    found = {row: Verification(0.95, (), 30, edits=frozenset((edits,))) for row in range(1, 9) if edits}
    found |= dict.fromkeys((0, 9), Verification(0.95, (), 30))
    monkeypatch.setattr(query_search, "CANDIDATES", NUM_PHOTOS)
    monkeypatch.setattr(finder, "_edits", PLANNED)
    monkeypatch.setattr(finder, "_verify", lambda query, row, *, thorough=True: found.get(row))
    matches = [Match(row, index.images[row], 0.5) for row in range(NUM_PHOTOS)]
    *_, last = finder._verified(None, matches)  # type: ignore[arg-type]
    assert len(last) == examined


def test_the_same_picture_that_is_no_copy_is_below_every_copy(
    finder: Finder, blind: Embedder, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "_edits", PLANNED)
    found = finder.find(make_query("q", ImageOps.mirror(scene(4)), blind), 1)[0]
    assert (found.image.path, found.reasons, found.is_copy) == ("a/4.png", ("mirrored",), False)
    assert (round(found.cosine, 4), found.similarity) == (1.0, 0.49)  # half of it, rounded, would be a copy's


def test_images_that_are_no_copies_are_ranked_by_their_cosine(finder: Finder, index: SearchIndex) -> None:
    """Similar hashes come first among the matches, and cosines above 0.98 have one similarity."""
    matches = [Match(row, index.images[row], cosine) for row, cosine in enumerate((0.985, 0.999, 0.99))]
    assert [found.row for found in finder._ranked(matches, [], 2, "copy")] == [1, 2]


def test_a_data_set_whose_files_are_gone_is_searched_by_its_stored_pixels(
    folder: Path, blind: Embedder, scene: Scene, tmp_path: Path
) -> None:
    flags = ["--image_size=96", "--num_workers=1", f"--data_dir={tmp_path}", "--name=p"]
    assert main(["convert", f"--image_dir={folder}", *flags]) == 0
    index = index_dataset(tmp_path / "i", tmp_path / "p" / "1.0.0", blind).index
    with closing(Finder(index, blind)) as finder:
        found = finder.find(make_query("q", ImageOps.mirror(scene(4)).resize((1280, 960)), blind), 2)
    assert found[0].image.path == "a/4.png"
    assert found[0].verification is not None
    # Squares are compared with squares: nothing was stretched or resized.
    assert found[0].verification.reasons == ("mirrored",)
    assert found[1].verification is None


@pytest.mark.parametrize("seed", [2, 3])
def test_noise_does_not_drown_what_can_be_aligned(scene: Scene, seed: int) -> None:
    pixels = np.asarray(scene(seed), np.float64)
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)
    found = align(
        match(fingerprint(Image.fromarray(noisy), as_query=True).keypoints, fingerprint(scene(seed)).keypoints)
    )
    assert found is not None
    assert found.num_inliers >= 40  # half of it where the strongest of any scale are taken, which are noise


@pytest.mark.parametrize("edit", [pixelated, lambda image: image.filter(ImageFilter.GaussianBlur(5))])
def test_near_hashes_are_found_by_codes_as_in_memory(
    folder: Path,
    finder: Finder,
    blind: Embedder,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Image.Image], Image.Image],
) -> None:
    """Beyond the limit of an exact search, whatever the codes of the images with near hashes are."""
    monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 8)
    with closing(Finder(index_folder(tmp_path / "i", folder, blind).index, blind)) as beyond:
        assert set(beyond.index.compressed) == {"copy", "kind"}
        only = np.arange(NUM_PHOTOS) % 2 == 0
        for seed in range(0, NUM_PHOTOS, 5):
            query = make_query("q", edit(scene(seed)), blind)
            found = beyond.find(query, 3)
            assert found[0].image.path.endswith(f"/{seed}.png")
            *_, ours = beyond.steps(query.views, query.image, NUM_PHOTOS, only=only)
            *_, theirs = finder.steps(query.views, query.image, NUM_PHOTOS, only=only)
            assert ours == theirs


def _photos_of_a_phone(scene: Callable[..., Image.Image]) -> dict[str, bytes]:
    """Files whose pixels alone are not what they show."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = scene(0)
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    files = {
        "side.jpg": (image, {"exif": exif, "quality": 60}),
        "side.png": (image, {"exif": exif}),
        "clear.png": (clear, {}),
        "clear.webp": (clear, {"lossless": True}),
        "palette.png": (image.quantize(16), {"transparency": 3}),
        "deep.png": (deep, {}),
        "ink.jpg": (image.convert("CMYK"), {"quality": 90}),
        "grey.tif": (image.convert("L"), {}),
        "moving.gif": (image.quantize(64), {"save_all": True, "append_images": [scene(1).quantize(64)]}),
        "screen.png": (image, {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()}),
    }
    data = {}
    for name, (one, options) in files.items():
        buffer = io.BytesIO()
        one.save(buffer, Image.registered_extensions()[Path(name).suffix], **options)
        data[name] = buffer.getvalue()
    return data


def test_an_image_is_the_query_that_its_file_is(blind: Embedder, scene: Scene, tmp_path: Path) -> None:
    for name, data in _photos_of_a_phone(scene).items():
        (tmp_path / name).write_bytes(data)
        by_path = load_query(str(tmp_path / name), blind)
        with Image.open(tmp_path / name) as image:
            by_image = image_query(image, blind)
        assert isinstance(by_path, Query), name
        assert isinstance(by_image, Query), name
        np.testing.assert_array_equal(by_image.views, by_path.views, err_msg=name)
        assert by_image.image.fingerprint.size == by_path.image.fingerprint.size, name
        assert by_image.image.fingerprint.pixels_sha256 == by_path.image.fingerprint.pixels_sha256, name
        assert by_image.image.fingerprint.jpeg_quality == by_path.image.fingerprint.jpeg_quality, name


def test_an_image_that_ends_early_is_no_query(blind: Embedder, scene: Scene) -> None:
    data = _photos_of_a_phone(scene)["side.jpg"]
    assert isinstance(image_query(Image.open(io.BytesIO(data[:-2000])), blind), Refusal)


def test_a_query_has_the_background_of_what_it_is_compared_with(tmp_path: Path, scene: Scene, blind: Embedder) -> None:
    """That of the model's dataset: white shapes, of which a white background would leave nothing."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        image = Image.new("RGBA", scene(seed).size, "white")
        image.putalpha(scene(seed).convert("L").point(lambda level: 255 * (level > 128)))
        image.save(folder / f"{seed}.png")
    scene(6).save(folder / "6.jpg")
    (folder / "6.jpg").write_bytes((folder / "6.jpg").read_bytes()[:-2000])
    embedder = dataclasses.replace(blind, background=(0, 0, 0), truncated="keep", resize="pad")
    made = index_folder(tmp_path / "index", folder, embedder)
    assert not made.refused
    with closing(Finder(made.index, embedder)) as found:
        for name in ("3.png", "6.jpg"):
            query = load_query(str(folder / name), embedder)
            assert isinstance(query, Query)
            best, other = found.find(query, 2)
            assert (best.image.path, best.reasons, other.is_copy) == (name, ("the same pixels",), False)


@pytest.mark.parametrize("backdrop", ["color", "auto", "checker"])
def test_every_view_of_a_white_logo_shows_it(backdrop: str) -> None:
    """Whatever the dataset has behind transparent pixels; and the first one is what an index has of the file."""
    logo = Image.new("RGBA", (64, 64))
    logo.paste((255, 255, 255, 255), (20, 20, 44, 44))
    buffer = io.BytesIO()
    logo.save(buffer, "PNG")
    options = ImageOptions(image_size=32, backdrop=backdrop)
    image, contrast = decode_composites(buffer.getvalue())
    views = query_views(image, options, buffer.getvalue(), contrast)
    assert (np.ptp(views, axis=(1, 2, 3)) > 100).all()
    np.testing.assert_array_equal(views[0], load_image(buffer.getvalue(), options, contrast=True).visible)
