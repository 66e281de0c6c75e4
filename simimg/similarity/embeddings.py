"""Pixels to embeddings: unit vectors whose inner product is the similarity of two images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.errors import UsageError
from simimg.image_files import BATCH_SIZE
from simimg.inference.inference_engine import UNKNOWN, Engine
from simimg.inference.network import Network, onnx_model, open_network
from simimg.inference.network_cache import SHIPPED_MODELS
from simimg.models.model_folder import load_run
from tfrecords.convert.image.color import WHITE
from tfrecords.convert.image.decoder import ImageOptions, image_options, resize
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.image.sample_range import AUTO, SampleRange
from tfrecords.format.image_size import ImageSize, image_shape

_HASH_PX = 64  # a JPEG decoder reduces images of 640 px and more by 4


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A model that computes embeddings, and how images are prepared for it.

    Attributes:
        name: a shipped model's name, the model folder, or the ONNX file with what is given behind its name.
        fingerprint: changes with the weights, so that an index is never searched with another model.
        image_size: side in px of the squares that the model takes, or width and height.
        resize: how images become squares, see `tfrecords.convert.image.decoder.resize`.
        dim: length of an embedding before a projection (`simimg.similarity.projection`) shortens it.
        network: maps uint8 `[n, height, width, 3]` to float32 `[n, dim]` of L2 norm 1.
        engine: the arithmetic that computes the network.
        batch_size: the number of images that a call should have at least, for speed.
        decode: as in `ImageOptions`, like the next five: what the dataset of a trained model was converted with.
        truncated: as in `ImageOptions`.
        background: as in `ImageOptions`.
        backdrop: as in `ImageOptions`.
        sample_range: as in `ImageOptions`.
        max_pixels: as in `ImageOptions`.
        vector_code: as in `ImageOptions`.
    """

    name: str
    fingerprint: str
    image_size: ImageSize
    resize: str
    dim: int
    network: Network
    engine: Engine = UNKNOWN
    batch_size: int = BATCH_SIZE
    decode: str = "fast"
    truncated: str = "refuse"
    background: tuple[int, int, int] = WHITE
    backdrop: str = "color"
    sample_range: SampleRange = AUTO
    max_pixels: int = MAX_PIXELS
    vector_code: bool = False

    @property
    def image_options(self) -> ImageOptions:
        """How image files are loaded for the model."""
        return ImageOptions(
            image_size=self.image_size,
            resize=self.resize,
            decode=self.decode,
            truncated=self.truncated,
            background=self.background,
            backdrop=self.backdrop,
            sample_range=self.sample_range,
            max_pixels=self.max_pixels,
            vector_code=self.vector_code,
        )

    def with_limit(self, max_pixels: int) -> Embedder:
        """Return the embedder with another limit for the size of image files; the same if `max_pixels` is 0."""
        return dataclasses.replace(self, max_pixels=max_pixels) if max_pixels else self

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return embeddings, float32 `[n, dim]` of L2 norm 1, of images, uint8 `[n, height, width, 3]`.

        If they are not of `image_size`, they are resized as the converter does it.
        """
        if images.shape[1:] != image_shape(self.image_size):
            images = np.stack([resize(Image.fromarray(image), self.image_size, "stretch") for image in images])
        return self.network(images)


def load_embedder(
    model: str,
    *,
    precision: str = "float32",
    many: bool = False,
) -> Embedder:
    """Return the embedder of a shipped model, an ONNX file, or the folder of a finished run or of imported weights.

    For the other arguments, see `simimg.inference.network.open_network`.

    Raises:
        UsageError: `model` is none of them, the ONNX file does not say enough, or this machine cannot compute in that
            precision.
        ModelError: the folder has no finished run, the shipped weights are not installed, or the ONNX file is unfit.
    """
    has_folder, folder = model not in SHIPPED_MODELS and onnx_model(model) is None, Path(model)
    if has_folder and not folder.is_dir():
        raise UsageError(
            f"--model={model} is neither a folder of a trained model nor a FILE.onnx nor one of "
            f"{', '.join(SHIPPED_MODELS)}."
        )
    options = image_options(load_run(folder)) if has_folder else None
    opened = open_network(model, "embedding", precision=precision, many=many)
    options = options or ImageOptions(image_size=opened.facts.image_size)
    options = dataclasses.replace(options, vector_code=options.decode == "fast")
    left_out = ("channels", "decoded_px")
    return Embedder(
        str(folder) if has_folder else model,
        opened.facts.fingerprint,
        dim=opened.facts.dim,
        network=opened,
        engine=opened.engine,
        batch_size=opened.batch_size,
        # Gray networks make gray of RGB themselves, see `OpenNetwork`; the thumbnails of an index have colors.
        **{name: value for name, value in dataclasses.asdict(options).items() if name not in left_out},
    )


def hashes_alone() -> Embedder:
    """Return an embedder for an index of perceptual hashes: all images have the same embedding, `[1]`."""

    def network(images: np.ndarray) -> np.ndarray:
        return np.ones((len(images), 1), np.float32)

    return Embedder("hashes", "hashes", _HASH_PX, "stretch", 1, network, vector_code=True)
