"""Images with transparent pixels: alpha counts, and a copy on black, white or any other color is found."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from simimg.image_files import thumbnail
from simimg.similarity import query_search
from simimg.similarity.candidate_pairs import hash_pairs
from simimg.similarity.duplicate_groups import find_duplicates
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint, jpeg_quality
from simimg.similarity.image_table import SCHEMA, ImageTable
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import index_folder
from simimg.similarity.match_verification import SAME_PIXELS, Verification
from simimg.similarity.query_search import Finder
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import NUM_VIEWS, Query, load_query
from simimg.similarity.transparency import background_of, verify_composites
from simimg.web.query_cache import QueryCache
from tfrecords.convert.image.color import BLACK, WHITE
from tfrecords.convert.image.decoder import decode_composites
from tfrecords.format.atomic_files import parse_json, write_json

SIZE = 256
SHAPES = ("circle", "triangle", "square", "cross", "star", "word")
Edit = Callable[[Image.Image], Image.Image]


def logo(shape: str, color: tuple[int, int, int] = WHITE) -> Image.Image:
    """One color on transparency."""
    image = Image.new("RGBA", (SIZE, SIZE))
    draw, ink = ImageDraw.Draw(image), (*color, 255)
    if shape == "circle":
        draw.ellipse((50, 50, 206, 206), outline=ink, width=3)
    elif shape == "triangle":
        draw.polygon([(128, 50), (206, 206), (50, 206)], outline=ink, width=3)
    elif shape == "square":
        draw.rectangle((50, 50, 206, 206), outline=ink, width=3)
    elif shape == "cross":
        draw.line((50, 50, 206, 206), fill=ink, width=4)
        draw.line((206, 50, 50, 206), fill=ink, width=4)
    elif shape == "star":
        corners = [(r * np.sin(turn), r * np.cos(turn)) for turn in np.pi / 5 * np.arange(0, 10, 2) for r in (90,)]
        draw.polygon([(128 + x, 128 - y) for x, y in (corners[0], corners[2], corners[4], corners[1], corners[3])], ink)
    else:
        draw.text((80, 110), "hello", fill=ink, font_size=40)
    return image


def token(seed: int) -> Image.Image:
    """Discs of many colors on transparency, with smooth edges."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGBA", (2 * SIZE, 2 * SIZE))
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        (x, y), r = rng.integers(140, 372, 2).tolist(), int(rng.integers(12, 52))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*rng.integers(20, 256, 3).tolist(), 255))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def laid_on(image: Image.Image, color: str) -> Image.Image:
    paper = Image.new("RGB", image.size, color)
    paper.paste(image, (0, 0), image)
    return paper


def with_shadow(image: Image.Image) -> Image.Image:
    """A soft half-transparent shadow behind it."""
    soft = image.getchannel("A").filter(ImageFilter.GaussianBlur(8)).point(lambda level: level // 2)
    shadow = Image.new("RGBA", image.size)
    shadow.putalpha(soft)
    return Image.alpha_composite(shadow, image)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def print_of(data: bytes | Image.Image, background: tuple[int, int, int] = WHITE) -> Fingerprint:
    data = data if isinstance(data, bytes) else saved(data)
    image, contrast = decode_composites(data, background=background)
    return fingerprint(image, contrast=contrast, background=background, quality=jpeg_quality(data))


def verified(one: bytes | Image.Image, other: bytes | Image.Image) -> Verification | None:
    return verify_composites(print_of(one), print_of(other))


@pytest.mark.parametrize("edit", [lambda image: image, with_shadow, lambda image: image.convert("LA")])
@pytest.mark.parametrize("color", [WHITE, BLACK])
def test_logos_of_one_color_are_told_apart_by_their_alpha(edit: Edit, color: tuple[int, int, int]) -> None:
    found = [print_of(edit(logo(shape, color)), color) for shape in SHAPES]
    assert len({one.pixels_sha256 for one in found}) == len(SHAPES)
    for row, one in enumerate(found):
        assert [verify_composites(one, other) is not None for other in found] == [
            other == row for other in range(len(SHAPES))
        ]


@pytest.mark.parametrize(
    ("edit", "reasons"),
    [
        (lambda image: saved(image, "WEBP", lossless=True), (SAME_PIXELS,)),
        (lambda image: saved(image, "TIFF"), (SAME_PIXELS,)),
        (lambda image: saved(image, "WEBP", quality=80), ()),
        (lambda image: saved(image, "AVIF", quality=80), ()),
        (lambda image: saved(image.resize((128, 128))), ("resized to 50%",)),
    ],
)
@pytest.mark.parametrize("image", [logo("star"), token(0), with_shadow(token(1))])
def test_a_transparent_image_that_was_saved_again_is_a_copy(
    image: Image.Image, edit: Callable[[Image.Image], bytes], reasons: tuple[str, ...]
) -> None:
    found = verified(edit(image), image)
    assert found is not None
    assert found.reasons[: len(reasons)] == reasons
    assert background_of(found) is None
    assert found.similarity > 0.9


@pytest.mark.parametrize("mode", ["GIF", "palette"])
def test_transparency_of_a_palette(mode: str) -> None:
    cut = token(0)
    cut.putalpha(cut.getchannel("A").point(lambda level: 255 * (level > 127)))
    data = saved(cut, "GIF") if mode == "GIF" else saved(cut.quantize(64, Image.Quantize.FASTOCTREE))
    assert print_of(data).on_contrast is not None
    assert verified(data, token(0)) is not None
    assert verified(data, token(1)) is None


def test_hidden_colors_do_not_count() -> None:
    pixels = np.array(token(0))
    pixels[pixels[..., 3] == 0, :3] = (9, 200, 30)
    found = verified(Image.fromarray(pixels), token(0))
    assert found is not None
    assert found.reasons == (SAME_PIXELS,)


def test_a_white_and_a_black_logo_are_not_copies() -> None:
    assert verified(logo("star"), logo("star", BLACK)) is None


@pytest.mark.parametrize("color", ["black", "white", "#808080", "red", "#303030", "#d0d0d0", "navy"])
def test_a_jpeg_that_another_program_made_of_it(color: str) -> None:
    """On whatever color; and what another image became on that color is no copy."""
    flat = saved(laid_on(token(0), color), "JPEG", quality=95)
    found, back = verified(flat, token(0)), verified(token(0), flat)
    assert found is not None
    assert back is not None
    if color in ("black", "white", "#808080", "#303030", "#d0d0d0"):  # gray is not changed by JPEG
        assert found.reasons[0] == f"laid on {color}"
        assert back.reasons[0] == f"transparent instead of {color}"
    background = np.array([background_of(found), background_of(back)])
    assert np.abs(background - np.array(ImageColor.getrgb(color))).max() <= 2
    assert found.similarity > 0.95
    assert verified(saved(laid_on(token(1), color), "JPEG", quality=95), token(0)) is None


def test_an_image_with_few_transparent_pixels_is_verified_as_usual(scene: Callable[[int], Image.Image]) -> None:
    rounded = scene(0).convert("RGBA")
    rounded.paste((0, 0, 0, 0), (0, 0, 5, 5))
    found = verified(saved(scene(0), "JPEG", quality=90), rounded)
    assert found is not None
    assert found.reasons[0].startswith("laid on ")
    assert verified(saved(scene(1), "JPEG", quality=90), rounded) is None


@pytest.mark.parametrize("other", [(0, 0, 0, 0), (255, 255, 255, 255), (0, 0, 0, 255)])
def test_what_shows_nothing_is_no_evidence(other: tuple[int, ...]) -> None:
    """A fully transparent image and white logos are copies of no blank page, and of no fully transparent image."""
    hidden = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), np.uint8))
    hidden.putalpha(0)
    for image in (hidden, logo("star"), logo("star", BLACK)):
        plain = Image.new("RGBA", (SIZE, SIZE), other)
        assert verified(image, plain) is None
        assert verified(plain, image) is None


def test_alpha_of_254_is_opaque() -> None:
    almost = laid_on(token(0), "gray").convert("RGBA")
    almost.putalpha(254)
    assert print_of(almost).on_contrast is None


# The index


def _blind(images: np.ndarray) -> np.ndarray:
    mean = images.mean(axis=(1, 2, 3))[:, None]
    waves = np.sin(mean * np.arange(1.0, 65.0) * 37.0).astype(np.float32)
    return waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-12)


BLIND = Embedder("blind", "b" * 64, 64, "stretch", 64, _blind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White logos; tokens and each as a JPEG on black; an opaque image."""
    folder = tmp_path_factory.mktemp("transparent")
    for shape in SHAPES:
        logo(shape).save(folder / f"{shape}.png")
    for seed in range(3):
        token(seed).save(folder / f"token{seed}.png")
        laid_on(token(seed), "black").save(folder / f"token{seed}.jpg", quality=95)
    laid_on(token(7), "gray").save(folder / "opaque.png")
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    return index_folder(tmp_path_factory.mktemp("indexes") / "i", folder, BLIND).index


def test_duplicates_of_transparent_images(index: SearchIndex) -> None:
    groups = find_duplicates(index, threshold=0.9).groups
    assert [[member.image.path for member in group.members] for group in groups] == [
        [f"token{seed}.png", f"token{seed}.jpg"] for seed in range(3)
    ]
    assert {group.others[0].reason for group in groups} == {"laid on black"}


def test_the_transparent_one_is_kept(tmp_path: Path) -> None:
    """Also if the one that was laid on a color is larger: the background cannot be taken away again."""
    photos = tmp_path / "photos"
    photos.mkdir()
    token(0).save(photos / "token.png")
    laid_on(token(0).resize((2 * SIZE, 2 * SIZE)), "black").save(photos / "large.png")
    (group,) = find_duplicates(index_folder(tmp_path / "i", photos, BLIND).index, threshold=0.9).groups
    assert group.keeper.image.path == "token.png"
    assert group.keeper.reason == "nothing was done to it"


def test_their_hashes_alone_make_them_candidates(index: SearchIndex) -> None:
    paths = index.images.column("path")
    pairs = {frozenset(paths[list(pair)]) for pair in hash_pairs(index, np.arange(len(paths)))}
    assert {frozenset((f"token{seed}.png", f"token{seed}.jpg")) for seed in range(3)} <= pairs
    assert all(len(pair) == 2 for pair in pairs)  # an image whose two hashes are alike is no pair


@pytest.mark.parametrize("suffixes", [("png", "jpg"), ("jpg", "png")])
def test_search_finds_them_both_ways(
    folder: Path, index: SearchIndex, suffixes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_search, "CANDIDATES", 2)  # hashes come first
    with closing(Finder(index, BLIND)) as finder:
        for seed in range(3):
            query = load_query(str(folder / f"token{seed}.{suffixes[0]}"), BLIND)
            assert isinstance(query, Query)
            found = finder.find(query, 3)
            assert [one.image.path for one in found if one.is_copy] == [f"token{seed}.{suffix}" for suffix in suffixes]


def test_white_logos_are_embedded_on_black(folder: Path, index: SearchIndex) -> None:
    images = {image.path: image for image in index.images}
    rows = {path: row for row, path in enumerate(images)}
    for shape in SHAPES:
        path = f"{shape}.png"
        black = np.asarray(laid_on(logo(shape), "black").resize((64, 64), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(index.embeddings[rows[path]], BLIND.embed(black[None])[0], atol=1e-3)
        assert images[path].phash == images[path].contrast_phash
        query = load_query(str(folder / path), BLIND)
        assert isinstance(query, Query)
        assert len(query.views) == NUM_VIEWS
        np.testing.assert_array_equal(query.views[0], black)
    assert images["word.png"].phash
    query = load_query(str(folder / "token0.png"), BLIND)
    assert isinstance(query, Query)
    assert len(query.views) == NUM_VIEWS + 1
    assert images["token0.png"].contrast_phash not in (0, images["token0.png"].phash)
    assert images["token0.jpg"].contrast_phash == images["opaque.png"].contrast_phash == 0


def test_they_are_displayed_on_the_background_on_which_they_show_something(index: SearchIndex, folder: Path) -> None:
    for name, color in (("star.png", BLACK), ("token0.png", WHITE)):
        shown = thumbnail(folder / name, 64)
        assert shown is not None
        assert shown.getpixel((0, 0)) == color
        upload = Image.open(io.BytesIO(QueryCache(BLIND).add((folder / name).read_bytes()).jpeg))
        assert upload.getpixel((0, 0)) == color
    corners = {}
    for row, path in enumerate(index.images.column("path").tolist()):
        image = IndexImages(index).image(row, 64)
        assert image is not None
        corners[path] = image.getpixel((0, 0))
        on_red = IndexImages(index).image(row, 64, (255, 0, 0))
        assert on_red is not None
        assert (on_red.getpixel((0, 0)) == (255, 0, 0)) is (path.endswith(".png") and path != "opaque.png")
    assert {corners[f"{shape}.png"] for shape in SHAPES} == {BLACK}
    assert corners["token0.png"] == WHITE


def test_an_index_without_the_second_hash_is_read_and_updated(folder: Path, tmp_path: Path) -> None:
    """What is missing is filled in; no image is embedded again."""
    photos = tmp_path / "photos"
    photos.mkdir()
    token(0).save(photos / "token0.png")
    index = index_folder(tmp_path / "i", photos, BLIND).index
    (generation,) = (tmp_path / "i").glob("generation-*")
    (image,), older = list(index.images), pa.schema(list(SCHEMA)[:-2])
    table = index.images.table.select(older.names)
    with pa.OSFile(str(tmp_path / "older"), "wb") as file, pa.ipc.new_file(file, older) as writer:
        writer.write_table(table)
    (tmp_path / "older").replace(generation / "images.arrow")
    info = parse_json((tmp_path / "i" / "index.json").read_bytes())
    crc32 = zlib.crc32((generation / "images.arrow").read_bytes())
    write_json(tmp_path / "i" / "index.json", {**info, "format": "simimg-index/3", "images_crc32": crc32})
    opened = SearchIndex.open(tmp_path / "i")
    assert opened.images[0] == dataclasses.replace(image, contrast_phash=0, position_phash=0)
    assert opened.images.table.schema.equals(SCHEMA)
    token(1).save(photos / "token1.png")
    update = index_folder(tmp_path / "i", photos, BLIND)
    assert (update.num_embedded, update.num_kept) == (1, 1)
    hashes = SearchIndex.open(tmp_path / "i").images.column("contrast_phash").tolist()
    assert hashes[0] == image.contrast_phash
    assert 0 not in hashes


def test_a_table_of_an_earlier_version_has_no_second_hash() -> None:
    older = pa.schema(list(SCHEMA)[:-2])
    table = pa.table({name: pa.array([], older.field(name).type) for name in older.names}, schema=older)
    assert ImageTable(table).table.schema.equals(SCHEMA)
