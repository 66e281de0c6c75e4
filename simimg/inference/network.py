"""Opens a model's network for this machine, and says which arithmetic computes it; loads it when it is first used.

a processor                            LiteRT, float32
GPUs, and many images                  TensorFlow, float32, in large batches, on all of them
a processor, precision="bfloat16"      OpenVINO
a network that LiteRT cannot run       TensorFlow, with a note
an ONNX file                           ONNX Runtime
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simimg.errors import UsageError
from simimg.inference.inference_engine import PRECISIONS, Engine, engine, may_have_gpu
from simimg.inference.network_cache import NetworkFacts, converted_network
from simimg.inference.onnx_contract import split_model
from simimg.standard_error import captured_stderr
from tfrecords.convert.image.color import gray_of

MANY = 500
"""So many images are worth the seconds that TensorFlow takes to start on a GPU, or a measurement of the processor."""

_GPU_BATCH = 256  # of each GPU
_LOADING = threading.Lock()
_LOG = logging.getLogger(__name__)

Network = Callable[[np.ndarray], np.ndarray]
"""Returns the output, float32 `[n, dim]`, for images, 0..255, `[n, size, size, 3]`, of any type."""


@dataclasses.dataclass(frozen=True)
class OpenNetwork:
    """A network that is loaded when it is first called.

    Attributes:
        facts: what is known of it.
        engine: the arithmetic that computes it.
        load: loads it.
        batch_size: the number of images that a call should have at least, for speed.
    """

    facts: NetworkFacts
    engine: Engine
    load: Callable[[], Network]
    batch_size: int = 32

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output, float32 `[n, dim]`, for images, 0..255, `[n, height, width, channels]`, of any type.

        RGB images, uint8, become gray for a network that takes gray ones.
        """
        if self.facts.channels == 1 and images.shape[-1] == 3:
            images = gray_of(images)
        return self._loaded(images)

    @functools.cached_property
    def _loaded(self) -> Network:
        with _LOADING:  # the property has no lock since Python 3.12
            return self.__dict__.get("_loaded") or self.load()


def onnx_model(model: str) -> tuple[str, str] | None:
    """Return the ONNX file that `model` names, and what is given behind it; None for a folder or a shipped model."""
    return None if Path(model).is_dir() else split_model(model)


def open_network(
    model: str,
    output: str,
    *,
    precision: str = "float32",
    many: bool = False,
) -> OpenNetwork:
    """Return a network for this machine.

    Args:
        model: as of `simimg.inference.network_cache.converted_network`, like `output`; or, for an embedding, an ONNX
            file and what it does not say, see `simimg.inference.onnx_contract`.
        output: `embedding` or `probabilities`.
        precision: one of `simimg.inference.inference_engine.PRECISIONS`.
        many: whether there are enough images for a GPU to be worth the seconds that TensorFlow takes to start.

    Raises:
        ModelError: the folder has no finished run, the shipped weights are not installed, or the ONNX file is unfit.
        UsageError: this machine cannot compute in that precision, or an ONNX file needs more to be given.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision={precision!r} should be one of {', '.join(PRECISIONS)}.")
    if onnx := onnx_model(model):
        if precision != "float32":
            raise UsageError(f"--precision={precision}: an ONNX file has its own precision. Leave out --precision.")
        from simimg.inference.onnx_network import open_onnx

        return open_onnx(*onnx)
    if precision == "bfloat16":
        from simimg.inference.openvino_network import check_bfloat16

        check_bfloat16()
    converted = converted_network(model, output)
    facts = converted.facts
    if facts.refused:
        if precision != "float32":
            raise UsageError(f"--precision={precision}: {model} cannot be converted: {facts.refused}.")
        _LOG.warning(
            "%s: computed by TensorFlow, slower than by LiteRT, because %s",
            model,
            facts.refused,
        )
    if facts.refused or (many and precision == "float32" and may_have_gpu()):
        with captured_stderr():
            from simimg.inference.keras_network import KerasNetwork, num_gpus

            count = num_gpus()
        if count or facts.refused:
            kind = engine("TensorFlow", "tensorflow", on="gpu" if count else "")
            each = _GPU_BATCH if count else OpenNetwork.batch_size
            return OpenNetwork(facts, kind, lambda: KerasNetwork(model, output, each), each * max(1, count))
    if precision == "bfloat16":
        from simimg.inference.openvino_network import OpenVinoNetwork

        kind = engine("OpenVINO", "openvino", precision=precision)
        return OpenNetwork(facts, kind, lambda: OpenVinoNetwork(converted.content))

    def load() -> Network:
        from simimg.inference.litert_network import LiteRtNetwork

        return LiteRtNetwork(converted.content)

    return OpenNetwork(facts, engine("LiteRT", "ai-edge-litert"), load)
