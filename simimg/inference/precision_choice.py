"""The precision of a new index: bfloat16 where a measurement shows that this machine gains by it, float32 elsewhere.

The network computes some images in both precisions, in turn, which takes a second or two. That is done once per network
and machine. The result lies beside the converted network (`simimg.inference.network_cache`), in
`embedding.speed.json` or `lite0-embedding.speed.json`, with what it depends on: the processor, the number of cores, and
the versions of the libraries. Another machine that finds the file measures again.

bfloat16 is chosen if it takes at most `MOST_SHARE` of the time, and its vectors of the images are near enough to those
in float32. Nothing is measured without OpenVINO, on a processor without instructions for bfloat16, with a GPU, or for a
network that LiteRT cannot run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from simimg.errors import UsageError
from simimg.inference.inference_engine import engine, has_bfloat16, may_have_gpu, processor_name
from simimg.inference.network import Network, onnx_model
from simimg.inference.network_cache import ConvertedNetwork, converted_network, network_places
from simimg.standard_error import captured_stderr
from tfrecords.format.atomic_files import atomic_file, json_bytes, parse_json
from tfrecords.machine_limits import num_cores

MOST_SHARE = 0.75
"""Of float32's time. Where the processor has the instructions, it takes about half; a few percent would be noise."""

LEAST_COSINE = 0.98
"""Of an image's vectors in both precisions. lite0 has 0.992 and more, 0.999 in the mean, for the photos of Caltech."""

_MOST_S, _MOST_ROUNDS = 0.6, 8  # at least one round
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """What was measured.

    Attributes:
        precision: the chosen one.
        float32_ms: per image.
        bfloat16_ms: per image; 0 if OpenVINO could not compute in bfloat16.
        least_cosine: of an image's vectors in both precisions.
        machine: what the result depends on.
    """

    precision: str
    float32_ms: float
    bfloat16_ms: float
    least_cosine: float
    machine: dict[str, Any]


def faster_precision(model: str) -> str:
    """Return the precision of a new index for a model: a shipped model's name, a model folder or an ONNX file.

    Raises:
        ModelError: the folder has no finished run, or the shipped weights are not installed.
    """
    if onnx_model(model) or may_have_gpu() or not has_bfloat16() or importlib.util.find_spec("openvino") is None:
        return "float32"
    converted = converted_network(model, "embedding")
    if converted.facts.refused:
        return "float32"
    machine = _machine(converted)
    places = [place.with_suffix(".speed.json") for place in network_places(model, "embedding")]
    for place in places:
        if (known := _read(place)) is not None and known.machine == machine:
            return known.precision
    choice = _measured(converted, machine)
    for place in places:
        try:
            with atomic_file(place, sync=False) as file:
                file.write(json_bytes(dataclasses.asdict(choice)))
            break
        except OSError:  # the next command measures again
            continue
    _LOG.info(
        "%s: %.1f ms per image in float32, %.1f in bfloat16, so new indexes are in %s on this machine",
        model,
        choice.float32_ms,
        choice.bfloat16_ms,
        choice.precision,
    )
    return choice.precision


def _machine(converted: ConvertedNetwork) -> dict[str, Any]:
    return {
        "network": converted.facts.fingerprint,
        "processor": processor_name(),
        "num_cores": num_cores(),
        "float32": str(engine("LiteRT", "ai-edge-litert")),
        "bfloat16": str(engine("OpenVINO", "openvino", precision="bfloat16")),
    }


def _read(place: Path) -> PrecisionChoice | None:
    try:
        return PrecisionChoice(**parse_json(place.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _measured(converted: ConvertedNetwork, machine: dict[str, Any]) -> PrecisionChoice:
    from simimg.inference.conversion import check_images
    from simimg.inference.litert_network import LiteRtNetwork

    images = check_images(converted.facts.image_size, converted.facts.channels)
    networks: dict[str, Network] = {"float32": LiteRtNetwork(converted.content)}
    try:
        with captured_stderr():
            from simimg.inference.openvino_network import OpenVinoNetwork

            networks["bfloat16"] = OpenVinoNetwork(converted.content)
            vectors = {name: network(images).astype(np.float64) for name, network in networks.items()}  # the warm-up
    except (UsageError, RuntimeError, ImportError) as error:
        _LOG.info("OpenVINO cannot compute in bfloat16: %s", str(error).partition("\n")[0])
        return PrecisionChoice(precision="float32", float32_ms=0.0, bfloat16_ms=0.0, least_cosine=0.0, machine=machine)
    cosines = np.sum(vectors["float32"] * vectors["bfloat16"], axis=1)
    cosines /= np.linalg.norm(vectors["float32"], axis=1) * np.linalg.norm(vectors["bfloat16"], axis=1)
    seconds = dict.fromkeys(networks, float("inf"))
    end_s = time.perf_counter() + _MOST_S
    for _ in range(_MOST_ROUNDS):
        for name, network in networks.items():
            start_s = time.perf_counter()
            network(images)
            seconds[name] = min(seconds[name], time.perf_counter() - start_s)  # other work only adds to it
        if time.perf_counter() > end_s:
            break
    gains = seconds["bfloat16"] <= MOST_SHARE * seconds["float32"] and cosines.min() >= LEAST_COSINE
    return PrecisionChoice(
        precision="bfloat16" if gains else "float32",
        float32_ms=round(1000 * seconds["float32"] / len(images), 3),
        bfloat16_ms=round(1000 * seconds["bfloat16"] / len(images), 3),
        least_cosine=round(float(cosines.min()), 6),
        machine=machine,
    )
