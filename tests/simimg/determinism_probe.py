"""Computes what has to be the same on every processor, and prints a digest of each as JSON.

`test_determinism.py` runs it: `determinism_probe.py make FOLDER` once, with drawn pictures in FOLDER/scenes; and then
`determinism_probe.py compute FOLDER` under each instruction set.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageFilter

GOLDEN = Path(__file__).parents[1] / "golden"
_DIM = 96


def digest(*parts: Any) -> str:
    """Returns a digest of arrays, with their types and shapes, and of whatever has a `repr`."""
    sha256 = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha256.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            sha256.update(part if isinstance(part, bytes) else repr(part).encode())
    return sha256.hexdigest()[:16]


def unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embedder() -> Any:
    """Returns an embedder of means of pixels, which are exact: what a network computes is not the same everywhere."""
    from simimg.similarity.embeddings import Embedder

    def means(images: np.ndarray) -> np.ndarray:
        sums = np.asarray(images, np.int64).reshape(-1, 8, 4, 8, 4, 3).sum(axis=(2, 4)).reshape(len(images), -1)
        centered = sums - 2000
        squares = np.sqrt((centered * centered).sum(axis=1, keepdims=True).astype(np.float64))
        return (centered / np.maximum(squares, 1)).astype(np.float32)

    return Embedder("lite0", "means", 32, "stretch", 192, means)


def make(folder: Path) -> Iterator[tuple[str, str]]:
    """Makes image files of many kinds, an index of copies, and vectors."""
    from PIL import ImageCms, ImageOps

    from simimg.similarity.index_update import index_folder

    def scene(seed: int) -> Image.Image:
        return Image.open(folder / "scenes" / f"{seed}.png").convert("RGB")

    files = folder / "files"
    files.mkdir()
    picture = scene(0)
    picture.save(files / "420.jpg", quality=90)
    picture.save(files / "444.jpg", quality=75, subsampling=0)
    picture.resize((1600, 1200)).save(files / "large.jpg", quality=85, progressive=True)
    picture.convert("L").save(files / "gray.jpg")
    picture.convert("CMYK").save(files / "cmyk.jpg")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(files / "profile.jpg", icc_profile=lab)
    picture.save(files / "rgb.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(files / "palette.png")
    picture.putalpha(picture.convert("L"))
    picture.save(files / "alpha.png")
    picture = scene(0)
    picture.save(files / "lossy.webp", quality=80)
    picture.save(files / "picture.tiff")
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(files / "deep.png")

    photos = folder / "photos"
    photos.mkdir()
    for seed in range(2):
        scene(seed).save(photos / f"{seed}.png")
        scene(seed).save(photos / f"{seed}-q.jpg", quality=40)
        ImageOps.mirror(scene(seed)).resize((240, 180)).save(photos / f"{seed}-mirrored.png")
        scene(seed).crop((30, 20, 300, 230)).save(photos / f"{seed}-crop.jpg", quality=80)
    index_folder(folder / "index", photos, embedder())
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, _DIM))
    vectors = unit(centers[rng.integers(40, size=3000)] + rng.normal(size=(3000, _DIM)) * 0.4)
    vectors[100:1500:7] = vectors[5]  # copies of one vector at many places: equally near
    vectors[1::50] = -vectors[::50]
    np.save(folder / "vectors.npy", vectors)
    yield "vectors", digest(vectors)


def converted(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of what the converter makes of files."""
    from tfrecords.convert.engine import convert
    from tfrecords.convert.image.decoder import ImageOptions, decode, load_image, resize
    from tfrecords.convert.image.near_duplicates import low_frequencies, perceptual_hashes
    from tfrecords.convert.plan.convert_config import ConvertConfig
    from tfrecords.format.layout import Layout

    for path in sorted((folder / "files").iterdir()):
        data = path.read_bytes()
        squares = [
            load_image(data, ImageOptions(image_size=size, resize=how, decode=way)).pixels
            for size in (32, 100)
            for how in ("stretch", "crop", "pad")
            for way in ("fast", "exact")
        ]
        yield f"pixels of {path.name}", digest(*squares, np.asarray(decode(data)), resize(decode(data), 64, "pad"))
        yield f"hash of {path.name}", digest(*(perceptual_hashes(square[None]) for square in squares))
    tall = np.random.default_rng(0).integers(0, 256, (3, 224, 160, 3), np.uint8)
    yield "low frequencies", digest(low_frequencies(tall), *(low_frequencies(tall[:, :side, :17]) for side in (8, 99)))
    for encoding in ("raw", "png", "jpeg"):
        data_dir = folder / f"data-{os.getpid()}"
        summary = convert(
            ConvertConfig(
                image_dir=folder / "files", data_dir=data_dir, name=encoding, encoding=encoding, image_size=48,
                num_workers=1, splits="train=0.5,test=0.5",
            )
        )  # fmt: skip
        layout = Layout.load(summary.dataset_dir)
        shards = [(shard.file, shard.sha256) for split in layout.splits.values() for shard in split]
        yield f"shards, {encoding}", digest(sorted(shards))


def read(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of what is read: a golden shard, orders, and parameters of the augmentation."""
    import tensorflow as tf

    from simimg.augment import AugmentConfig
    from simimg.augment.parameters import draw
    from simimg.input import Order
    from tfrecords.format.shard import ShardReader

    yield "golden shard", digest(*ShardReader(GOLDEN / "golden-train.tfrecord-00000-of-00001"))
    order = Order(num_examples=1001, global_batch_size=10, num_epochs=3, seed=5)
    yield "order of epochs", digest(*(batch.numpy() for batch in order.indices()))
    config = AugmentConfig(rotation_degrees=30, crop_min_area=0.3, colour_jitter=0.4, blur=2.0, cutout=0.3, paste=0.2)
    drawn = draw(config, 3, tf.constant(2, tf.int64), tf.range(501, dtype=tf.int64))
    yield "augmentation", digest(*(part.numpy() for part in drawn))


def searched(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of rows and similarities, searched in every way."""
    from simimg.similarity import nearest_neighbors as module
    from simimg.similarity.compressed_vectors import build_compressed, open_compressed
    from simimg.similarity.projection import Projection

    vectors = np.load(folder / "vectors.npy")
    mapped = np.load(folder / "vectors.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    queries = unit(vectors[rng.integers(3000, size=70)] + rng.normal(size=(70, _DIM)) * 0.1)
    queries[10] = vectors[5]
    among = rng.random(3000) < 0.4
    few = np.zeros(3000, bool)
    few[rng.integers(3000, size=90)] = True
    values, rows = module.nearest(vectors, queries[:, None], 12)
    yield "nearest", digest(values, rows)
    # Each of these has to give the very same answer in this process, too.
    for num_threads in (1, 2, 3, 8):
        with (
            mock.patch.object(module, "num_cores", lambda num_threads=num_threads: num_threads),
            mock.patch.object(module, "_BLOCK_ROWS", 300),
        ):
            found = module.nearest(mapped, queries[:, None], 12)
            assert all((one == other).all() for one, other in zip(found, (values, rows), strict=True)), num_threads
    for size in (1, 7, 33):
        for start in range(0, 70, size):
            part = slice(start, start + size)
            found = module.nearest(vectors, queries[part, None], 12)
            assert (found[0] == values[part]).all(), (size, start)
            assert (found[1] == rows[part]).all(), (size, start)
    yield (
        "nearest among some",
        digest(
            *module.nearest(vectors, queries[:, None], 9, among), *module.nearest(vectors, queries[:, None], 9, few)
        ),
    )
    views = queries[:64].reshape(4, 16, _DIM)
    yield "nearest of several views", digest(*module.nearest(vectors, views, 50))
    path = folder / f"compressed-{os.getpid()}.faiss"
    built = build_compressed(vectors, path)
    yield "compressed vectors", digest(path.read_bytes(), built.num_compared, built.recall)
    opened = open_compressed(path, mapped, {"num_compared": 10, "recall": 0.9})
    found = opened.nearest(queries[:, None], 12)
    yield "nearest by compressed vectors", digest(*found, *opened.nearest(views, 50), *opened.nearest(views, 5, among))
    for start in range(0, 70, 9):
        part = slice(start, start + 9)
        assert (opened.nearest(queries[part, None], 12)[0] == found[0][part]).all()
    with mock.patch.object(module, "_SPARE", 1):
        assert (opened.nearest(queries[:, None], 12)[1] == found[1]).all()
        assert (module.nearest(vectors, queries[:, None], 12)[1] == rows).all()
    matrix = rng.normal(size=(_DIM, 40)).astype(np.float32)
    projection = Projection(vectors.mean(axis=0), matrix)
    projected = projection(queries)
    assert (np.concatenate([projection(queries[:9]), projection(queries[9:])]) == projected).all()
    assert (projection(queries[:, None])[:, 0] == projected).all()
    yield "projected", digest(projected)


def verified(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of what copies are found, and how similar: duplicates, leaks among two halves, and a calibration."""
    from simimg.similarity.duplicate_groups import find_duplicates
    from simimg.similarity.evaluation.retrieval import edited_copy
    from simimg.similarity.fingerprint import fingerprint_file, forget_fingerprints
    from simimg.similarity.match_verification import verify
    from simimg.similarity.query_search import Finder
    from simimg.similarity.search_index import SearchIndex
    from simimg.similarity.search_queries import make_query

    paths = sorted((folder / "photos").iterdir())
    with ThreadPoolExecutor(3) as executor:
        examined = list(executor.map(fingerprint_file, paths))
    forget_fingerprints()
    kept = [
        digest(one.whole, one.thumbnail, *(getattr(one.keypoints, name) for name in one.keypoints.__slots__))
        for one in (*examined, *map(fingerprint_file, paths))
    ]
    assert kept[: len(paths)] == kept[len(paths) :], "threads make a difference"
    yield "keypoints", digest(kept)
    pairs = [verify(one, other) for number, one in enumerate(examined) for other in examined[number:]]
    assert sum(pair is not None for pair in pairs) > 12
    yield "verified", digest(pairs)
    yield "worth", digest(*worth(paths[: len(paths) // 2]))
    yield "light", digest(*light(folder))
    index = SearchIndex.open(folder / "index")
    yield "duplicates", digest(find_duplicates(index, threshold=0.8))
    finder = Finder(index, embedder(), threshold=0.5)
    with Image.open(folder / "scenes" / "1.png") as image:  # as `simimg calibrate` searches
        copy = edited_copy(image.convert("RGB"), 1, "several", seed=0)
    yield "calibration", digest(np.asarray(copy), finder.find(make_query("copy", copy, embedder()), 5))
    finder.close()


def worth(paths: list[Path]) -> Iterator[Any]:
    """What decides which copy is kept: spectra, coefficients, and the answers by them."""
    from simimg.similarity import image_worth as module
    from simimg.similarity.pixel_history import _peak, _variation, filtered, lost_tones, tones_of

    for path in paths:
        data = path.read_bytes()
        color, table = module.color_image(data), module.jpeg_table(data)
        assert color is not None
        gray = color.convert("L")
        yield lost_tones(tones_of(color.quantize(256).convert("RGB")), tones_of(color))
        yield filtered(color.filter(ImageFilter.SHARPEN), color)
        yield module._spectrum(gray)
        yield _peak(_variation(np.asarray(gray)), gray.width * 5 // 7)
        yield (coefficients := module.jpeg_coefficients(gray))
        yield module.has_more_detail(gray, gray.resize((gray.width // 2, gray.height // 2)))
        if table is not None:
            yield module.is_saved_again(coefficients, None, table)
            yield module.earlier_quality(coefficients, table)


def light(folder: Path) -> Iterator[Any]:
    """The light of a vignette, what palettes and noise leave of a pair, and other grain."""
    from simimg.determinism import plain_opencv
    from simimg.similarity.color_models import _light
    from simimg.similarity.differences import find_differences

    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    image = Image.open(folder / "scenes" / "0.png").convert("RGB").resize((320, 240))
    dark = Image.fromarray(
        (np.asarray(image) * np.clip(1.15 - 0.5 * (x * x + y * y), 0, 1)[..., None]).astype(np.uint8)
    )
    with plain_opencv():  # as in `find_differences`
        factors = _light(*(np.asarray(one.convert("L")) for one in (image, dark)), np.ones((240, 320), bool))
    assert factors is not None
    yield factors(np.arange(240 * 320))
    for other in (dark, image.quantize(64).convert("RGB"), image.filter(ImageFilter.SHARPEN)):
        found = find_differences(np.asarray(other), np.asarray(image), (1, 0, 0, 0, 1, 0))
        yield found.places, sorted(found.kinds), found.on_query
    blank = [np.random.default_rng(seed).normal(120, 6, (240, 320, 1)).astype(np.uint8).repeat(3, 2) for seed in (0, 1)]
    found = find_differences(*blank, (1, 0, 0, 0, 1, 0))
    assert found.places, "grain is no evidence"
    yield found.places


def bounded(folder: Path) -> Iterator[tuple[str, Any]]:
    """What a network computes, which is not the same everywhere: embeddings, and the losses of two epochs."""
    import simimg
    from simimg.inference.keras_network import KerasNetwork
    from simimg.similarity.embeddings import load_embedder

    scenes = [Image.open(folder / "scenes" / f"{seed}.png").convert("RGB").resize((224, 224)) for seed in range(2)]
    yield "litert", load_embedder("lite0").embed(np.stack(scenes)).tolist()
    yield "tensorflow", KerasNetwork("lite0", "embedding", 32)(np.stack(scenes)).tolist()
    run = simimg.train(
        next((folder / "dataset").glob("*/*")), model_dir=folder / f"run-{os.getpid()}", preset="tutorial", epochs=2,
        global_batch_size=18,
    )  # fmt: skip
    yield "losses", [line["loss"] for line in run.history]


if __name__ == "__main__":
    parts = {"make": [make], "compute": [converted, searched, verified], "bounded": [read, bounded]}[sys.argv[1]]
    found = {name: value for part in parts for name, value in part(Path(sys.argv[2]))}
    sys.stdout.write(json.dumps(found) + "\n")
