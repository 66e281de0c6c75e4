"""Draws docs/flow.jpg: the real data of one image at each step of docs/flow.md, side by side.

    python -m benchmarks.flow_figure sample/fishes/image_0002.jpg DATASET_DIR MODEL_DIR INDEX_DIR flow.jpg

The dataset has raw pixels and the image in its split `train`. The index is of the same folder, and the model was
trained on the dataset.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from simimg.augment import AugmentConfig, augment
from simimg.errors import UsageError
from simimg.input import Order, open_reader, train_batches
from simimg.models.model_folder import load_trained
from simimg.similarity.query_search import Finder
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import make_query
from tfrecords.convert.image.decoder import decode, resize
from tfrecords.format.image_size import image_shape
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.record import FOOTER_BYTES, HEADER_BYTES
from tfrecords.format.record_layout import INT_BYTES, Offsets
from tfrecords.format.shard import ShardReader

__all__ = ["Flow", "Match", "draw_flow", "follow"]

_SHOWN = 16  # examples of a batch, 4 x 4
_MATCHES = 4
_CROP = 0.8  # share of each side that the query, an edited copy, keeps


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """A match: its image, its similarity, and the edits of the query, which are empty if it is not a copy."""

    image: Image.Image
    similarity: float
    reasons: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """The data of one image at each letter.

    Attributes:
        name: class folder and name of the file.
        file: its bytes (A).
        upright: decoded, RGB (B).
        stored: uint8 `[size, size, 3]` (C), with its `id`, `label` and `class_name`.
        record: its bytes in the shard (D), and `offsets`, where their parts lie.
        batch: uint8 `[16, size, size, 3]` (E); the image is number `at`.
        augmented: the same, 0..255 (F).
        embedding: float32 `[dim]` (G), of length 1.
        answers: predictions of the model: class names and probabilities, the most probable first.
        query: an edited copy of the image, and its `matches`, best first (H).
    """

    name: str
    file: bytes
    upright: Image.Image
    stored: np.ndarray
    id: int
    label: int
    class_name: str
    record: bytes
    offsets: Offsets
    batch: np.ndarray
    augmented: np.ndarray
    at: int
    embedding: np.ndarray
    answers: Sequence[tuple[str, float]]
    query: Image.Image
    matches: Sequence[Match]


def follow(picture: Path, dataset_dir: Path, model_dir: Path, index_dir: Path) -> Flow:
    """Returns the data of `picture`, a file in a class folder, at each letter.

    Raises:
        UsageError: it is not in the split `train` of the dataset, or not in a batch of the first epoch; or the
            dataset does not have raw pixels.
    """
    layout = Layout.load(dataset_dir)
    name = f"{picture.parent.name}/{picture.name}"
    row = next((row for row in read_manifest(dataset_dir) if row.path == name and row.split == "train"), None)
    if row is None or layout.encoding != "raw":
        raise UsageError(f"{dataset_dir} should have {name} in its split train, as raw pixels.")
    offsets, shape = layout.offsets, image_shape(layout.image_size)
    shard = ShardReader(dataset_dir / layout.splits["train"][row.shard].file)
    record = shard.read_framed(row.position * offsets.record_bytes, offsets.record_bytes)
    pixels = np.frombuffer(record, np.uint8)[offsets.image_offset :][: math.prod(shape)].reshape(shape)

    model, info = load_trained(model_dir)
    seed = int(info.config["seed"])
    reader, _ = open_reader(dataset_dir, "train", "resident")
    order = Order(num_examples=reader.split.num_examples, global_batch_size=_SHOWN, num_epochs=1, seed=seed)
    batches = map(reader.batch, train_batches(reader, order))
    batch = next((found for found in batches if row.id in found.id.numpy()), None)
    if batch is None:
        raise UsageError(
            f"{name} is among the last examples of the first epoch, which do not fill a batch. Choose another image."
        )
    config = AugmentConfig.from_options(info.config)
    augmented = augment(config, seed, tf.constant(0, tf.int64), batch.id, batch.image).numpy()
    probabilities = model.predict(pixels[None], verbose=0)[0]
    best = np.argsort(-probabilities)[:3]

    file = picture.read_bytes()
    upright = decode(file)
    index = SearchIndex.open(index_dir)
    finder = Finder(index, index.load_embedder())
    embedder = finder.embedder
    embedding = embedder.embed(resize(upright, embedder.image_size, embedder.resize)[None])[0]
    query = _copy(upright)
    found = finder.find(make_query("copy", query, embedder), _MATCHES)
    finder.close()
    matches = [
        Match(
            decode(index.path_of(match.image).read_bytes()),
            match.similarity,
            ", ".join(match.verification.reasons) if match.verification else "",
        )
        for match in found
    ]
    return Flow(
        name=name,
        file=file,
        upright=upright,
        stored=pixels,
        id=row.id,
        label=row.label,
        class_name=layout.class_names[row.label],
        record=record,
        offsets=offsets,
        batch=batch.image.numpy(),
        augmented=augmented,
        at=batch.id.numpy().tolist().index(row.id),
        embedding=embedding,
        answers=[(layout.class_names[label], float(probabilities[label])) for label in best],
        query=query,
        matches=matches,
    )


def _copy(picture: Image.Image) -> Image.Image:
    """Returns the image mirrored and without its border."""
    width, height = picture.size
    x, y = round(width * (1 - _CROP) / 2), round(height * (1 - _CROP) / 2)
    return picture.crop((x, y, width - x, height - y)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


_PAPER, _MOUNT, _INK, _GRAY, _LINE = "#ffffff", "#f3f3f5", "#1c1c1e", "#6d6d72", "#c9c9ce"
_BLUE, _ORANGE, _PALE = "#1d5fc4", "#d9822b", "#c3d4ef"
# In px.
_PANEL, _GAP, _MARGIN, _HEAD, _FOOT, _INSET = 384, 56, 56, 56, 84, 20
_TOP = 118
_HEX_COLUMNS, _HEX_ROWS = 12, 14


def draw_flow(path: Path, flow: Flow) -> None:
    """Writes the letters A to H as one image, PNG or JPEG by the suffix of `path`."""
    panels = (_file, _upright, _example, _record, _batch, _augmented, _embedding, _answer)
    columns, step = 4, _HEAD + _PANEL + _FOOT
    width = 2 * _MARGIN + columns * _PANEL + (columns - 1) * _GAP
    sheet = Image.new("RGB", (width, _TOP + 2 * step + _MARGIN - 16), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (_MARGIN, 40), "One image, from the file to the answer", 32)
    _text(draw, (_MARGIN, 82), f"{flow.name}: the same image at each step, A to H", 18, _GRAY)
    for number, panel in enumerate(panels):
        x = _MARGIN + number % columns * (_PANEL + _GAP)
        y = _TOP + number // columns * step + _HEAD
        draw.rounded_rectangle((x, y, x + _PANEL - 1, y + _PANEL - 1), 10, _MOUNT)
        title, *lines = panel(_Panel(sheet, draw, x, y), flow)
        _text(draw, (x, y - 41), "ABCDEFGH"[number], 30, _BLUE)
        _text(draw, (x + 32, y - 35), title, 21)
        for line, text in enumerate(lines):
            _text(draw, (x, y + _PANEL + 12 + 24 * line), text, 16, _GRAY)
        if number % columns:
            _arrow(draw, x - _GAP // 2, y + _PANEL // 2)
    sheet.save(path, quality=86, subsampling=0, optimize=True)


@dataclasses.dataclass(frozen=True)
class _Panel:
    """The place of a letter: a square of `_PANEL` px whose upper left corner is at (x, y)."""

    sheet: Image.Image
    draw: ImageDraw.ImageDraw
    x: int
    y: int

    def place(self, image: Image.Image, box: tuple[int, int, int, int], *, smooth: bool = True) -> tuple[int, ...]:
        """Draws an image as large as (left, top, width, height) allows, centered; returns its box."""
        left, top, width, height = box
        scale = min(width / image.width, height / image.height)
        if not smooth:
            scale = max(1, int(scale))
        filter = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        image = image.resize((round(image.width * scale), round(image.height * scale)), filter)
        x = self.x + left + (width - image.width) // 2
        y = self.y + top + (height - image.height) // 2
        self.sheet.paste(image, (x, y))
        return x, y, x + image.width - 1, y + image.height - 1

    def frame(self, box: tuple[int, ...]) -> None:
        """Draws a line around `box`."""
        x0, y0, x1, y1 = box
        self.draw.rounded_rectangle((x0 - 4, y0 - 4, x1 + 4, y1 + 4), 4, None, _BLUE, 3)


_INNER = (_INSET, _INSET, _PANEL - 2 * _INSET, _PANEL - 2 * _INSET)


def _file(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    mono = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSansMono.ttf"), 15)
    for row in range(_HEX_ROWS):
        shown = flow.file[row * _HEX_COLUMNS : (row + 1) * _HEX_COLUMNS]
        fade = max(0.0, row - _HEX_ROWS + 5) / 6  # the last rows fade out: the file continues
        color = _mixed(_INK, _MOUNT, fade)
        for column, byte in enumerate(shown):
            at = (panel.x + 22 + column * 29, panel.y + 22 + row * 25)
            panel.draw.text(at, f"{byte:02x}", color, mono)
    return "image file", f"{len(flow.file):,} bytes on disk", "a JPEG file begins with ff d8 ff"


def _upright(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    panel.place(flow.upright, _INNER)
    width, height = flow.upright.size
    return "upright RGB image", f"uint8 [{height}, {width}, 3], 0..255", "a file that cannot be decoded is rejected"


def _example(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    panel.place(Image.fromarray(flow.stored), _INNER, smooth=False)
    size = len(flow.stored)
    values = f"id {flow.id}, label {flow.label} ({flow.class_name})"
    return "example", f"image: {size} x {size} px, {size * size * 3:,} bytes", values


def _record(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    """Draws one row per row of pixels and one cell per byte, so the image is visible, three times as wide."""
    values = np.frombuffer(flow.record, np.uint8)
    colors = np.repeat(values[:, None], 3, axis=1)
    offsets, size = flow.offsets, len(flow.stored)
    image = slice(offsets.image_offset, offsets.image_offset + size * size * 3)
    colors[: image.start] = colors[image.stop :] = _rgb(_PALE)  # protobuf's keys and lengths
    colors[:HEADER_BYTES] = colors[-FOOTER_BYTES:] = _rgb(_BLUE)
    for start in (offsets.id_offset, offsets.label_offset):
        colors[start : start + INT_BYTES] = _rgb(_ORANGE)
    row = size * 3
    num_rows = -(-len(values) // row)
    canvas = np.full((num_rows * row, 3), _rgb(_MOUNT), np.uint8)
    canvas[: len(values)] = colors
    strip = Image.fromarray(canvas.reshape(num_rows, row, 3)).resize((344, num_rows * 5), Image.Resampling.NEAREST)
    panel.place(strip, (_INSET, _INSET, 344, 344 - 26))
    x = panel.x + _INSET
    for color, word in ((_BLUE, "length, CRC-32C"), (_PALE, "protobuf"), (_ORANGE, "id, label")):
        y = panel.y + _PANEL - 32
        panel.draw.rectangle((x, y + 3, x + 11, y + 14), color)
        _text(panel.draw, (x + 17, y), word, 14, _GRAY)
        x += 40 + round(panel.draw.textlength(word, _font(14)))
    return (
        "record in a shard",
        f"every record of this dataset has {len(flow.record):,} bytes",
        "gray: the bytes of the pixels, row by row",
    )


def _batch(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    _grid(panel, flow.batch, flow.at)
    n, size = len(flow.batch), len(flow.stored)
    return "batch", f"uint8 [{n}, {size}, {size}, 3], label, id", "in the order of the epoch; the image is framed"


def _augmented(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    _grid(panel, np.rint(flow.augmented).astype(np.uint8), flow.at)
    n, size = len(flow.batch), len(flow.stored)
    return "augmented batch", f"float32 [{n}, {size}, {size}, 3]", "the edits depend only on seed, epoch and id"


def _embedding(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    dim = len(flow.embedding)
    width = next(width for width in range(int(dim**0.5 * 1.6), 0, -1) if dim % width == 0)
    values = flow.embedding.reshape(-1, width) / (np.percentile(np.abs(flow.embedding), 99.5) or 1)
    colors = _diverging(np.clip(values, -1, 1))
    panel.place(Image.fromarray(colors), (_INSET, _INSET, 344, 216), smooth=False)
    for line, (name, share) in enumerate(flow.answers):
        y = panel.y + 262 + 34 * line
        _text(panel.draw, (panel.x + _INSET, y), name, 16)
        left, full = panel.x + 140, 160
        panel.draw.rectangle((left, y + 4, left + full, y + 15), "#e3e3e7")
        panel.draw.rectangle((left, y + 4, left + max(1, round(full * share)), y + 15), _GRAY if line else _BLUE)
        _text(panel.draw, (left + full + 12, y), f"{share:.3f}", 16, _GRAY if line else _INK)
    return "embedding", f"float32 [{dim}], length 1; one square per number", "bars: the predictions of a trained model"


def _answer(panel: _Panel, flow: Flow) -> tuple[str, ...]:
    panel.place(flow.query, (_INSET, _INSET, 104, 96))
    _text(panel.draw, (panel.x + 140, panel.y + 34), "the query: a copy,", 16)
    _text(panel.draw, (panel.x + 140, panel.y + 58), "mirrored and cropped", 16)
    panel.draw.line((panel.x + _INSET, panel.y + 132, panel.x + _PANEL - _INSET, panel.y + 132), _LINE, 1)
    for number, match in enumerate(flow.matches):
        left, top = _INSET + number % 2 * 180, 146 + number // 2 * 116
        box = panel.place(match.image, (left, top, 104, 92))
        if not number:
            panel.frame(box)
        color = _BLUE if match.similarity >= 0.5 else _GRAY
        _text(panel.draw, (panel.x + left + 114, panel.y + top + 36), f"{match.similarity:.3f}", 18, color)
    reasons = flow.matches[0].reasons if flow.matches else ""
    return "answer", "the best matches; 0.5 and above: verified copy", f"edits found: {reasons or 'none'}"


def _grid(panel: _Panel, images: np.ndarray, at: int) -> None:
    side, step = 80, 88
    for number, image in enumerate(images[:_SHOWN]):
        left, top = _INSET + number % 4 * step, _INSET + number // 4 * step
        box = panel.place(Image.fromarray(image), (left, top, side, side))
        if number == at:
            panel.frame(box)


def _arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.line((x - 11, y, x + 11, y), _LINE, 3)
    draw.line((x + 3, y - 8, x + 11, y), _LINE, 3)
    draw.line((x + 3, y + 8, x + 11, y), _LINE, 3)


def _diverging(values: np.ndarray) -> np.ndarray:
    """Returns uint8 colors of values -1..1: orange below 0, white at 0, blue above."""
    ends = np.where(values[..., None] < 0, _rgb(_ORANGE), _rgb(_BLUE))
    weight = np.abs(values)[..., None]
    return np.rint(255 * (1 - weight) + ends * weight).astype(np.uint8)


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)


def _mixed(one: str, other: str, share: float) -> str:
    mixed = np.rint(_rgb(one) * (1 - share) + _rgb(other) * share).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: str = _INK) -> None:
    draw.text(at, text, color, _font(size))


if __name__ == "__main__":
    *_sources, _target = map(Path, sys.argv[1:])
    draw_flow(_target, follow(*_sources))
