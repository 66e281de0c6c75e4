"""Converted networks on disk. A network is converted once, and made again if its weights or a library have changed.

    <model_dir>/embedding.tflite                of a trained or imported model; probabilities.tflite for its classes
    ~/.cache/simimg/networks/*.tflite           of a shipped model, or of a model folder that cannot be written

The second is in `$XDG_CACHE_HOME/simimg` if that variable is set. A file is LiteRT's flatbuffer, followed by
a zip archive with `simimg.json`, which LiteRT's own tools append in the same way for their metadata. Without a folder
that can be written, a network is converted by each process.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
import signal
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simimg.child_process import last_message, run_module
from simimg.errors import ModelError
from simimg.models.model_folder import MODEL_FILE, finished_file
from simimg.models.torch_pickle import lite_file
from simimg.standard_error import captured_stderr
from tfrecords.format.atomic_files import atomic_file, file_sha256
from tfrecords.format.image_size import ImageSize, image_size_of
from tfrecords.installed_versions import installed_version
from tfrecords.machine_limits import user_cache

SHIPPED_MODELS = ("lite0",)  # at the resolution that its weights were made for

CANNOT_LOAD = 3
"""Exit code of the child process that converts, for a network that cannot be loaded."""

_FORMAT = 1  # raised when a file of an older version must not be used
_LOG = logging.getLogger(__name__)
_METADATA = "simimg.json"
_LIBRARIES = ("ai-edge-litert", "keras", "tensorflow")


class ConversionFailed(Exception):
    """The machine could not convert a network now; the message says why. The next command tries again."""


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What is known of a converted network.

    Attributes:
        fingerprint: changes with the weights.
        image_size: side in px of the squares that it takes, or width and height.
        dim: length of its output.
        largest_difference: between its outputs by LiteRT and by TensorFlow, for some images.
        refused: why LiteRT cannot run it, in a sentence without a full stop; empty if it can.
        channels: of the images that it takes: 3, or 1 if it learned from gray ones.
    """

    fingerprint: str
    image_size: ImageSize
    dim: int
    largest_difference: float
    refused: str = ""
    channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", image_size_of(self.image_size))  # from JSON, a list


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertedNetwork:
    """A converted network: its facts, and the content of its `.tflite` file, which is empty if it was refused."""

    facts: NetworkFacts
    content: bytes


def converted_network(model: str, output: str) -> ConvertedNetwork:
    """Return a converted network from the cache, or convert it, which takes about ten seconds, and keep it.

    Args:
        model: a name in `SHIPPED_MODELS`, or the folder of a model.
        output: `embedding`, unit vectors for search, or `probabilities` of a trained classifier.

    Raises:
        ModelError: the folder has no finished run, or the shipped weights are not installed.
    """
    weights = _weights_of(model)
    for place in _places(model, output, weights):
        if (found := _read(place, output, weights)) is not None:
            return found
    _LOG.info("%s: converting the network for LiteRT, once; this takes about 10 s", model)
    try:
        content, facts = _converted(model, output)
    except ConversionFailed as error:
        with captured_stderr():
            from simimg.inference.conversion import convert_network

        content, facts = convert_network(model, output, refused=str(error))
        return ConvertedNetwork(facts, content)
    data = _with_metadata(content, facts, output, weights)
    problem: OSError | None = None
    for place in _places(model, output, weights):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place, sync=False) as file:
                file.write(data)
            break
        except OSError as error:
            problem = error
    else:
        _LOG.warning(
            "the converted network cannot be kept, so each command converts it again%s. "
            "Set XDG_CACHE_HOME to a folder that can be written.",
            f": {place}: {problem.strerror}" if problem else "",
        )
    return ConvertedNetwork(facts, content)


def _weights_of(model: str) -> _Weights:
    return _Weights(lite_file(model) if model in SHIPPED_MODELS else finished_file(Path(model), MODEL_FILE))


class _Weights:
    """The file of a network's weights; raises ModelError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reading():
            status = path.stat()
        self.stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    @functools.cached_property
    def sha256(self) -> str:
        with self._reading():
            return file_sha256(self._path)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelError(f"{self._path} cannot be read: {error.strerror or error}.") from None


def network_places(model: str, output: str) -> list[Path]:
    """Return where a network is looked for, first the preferred place; arguments and errors as `converted_network`."""
    return list(_places(model, output, _weights_of(model)))


def _places(model: str, output: str, weights: _Weights) -> Iterator[Path]:
    """Yield where a network is looked for, and where it is written if the places before cannot be."""
    if model not in SHIPPED_MODELS:
        yield Path(model) / f"{output}.tflite"
    if cache := user_cache():
        yield cache / "networks" / f"{model if model in SHIPPED_MODELS else weights.sha256[:16]}-{output}.tflite"


def _read(place: Path, output: str, weights: _Weights) -> ConvertedNetwork | None:
    """Return a network from its file; None if it is missing, damaged, or made from something else.

    Weights of the same size and times as those that it was made from are the same.
    """
    try:
        with zipfile.ZipFile(place) as archive:
            values = json.loads(archive.read(_METADATA))
        if values["made_by"] != _made_by(output):
            return None
        if values["weights_stamp"] != weights.stamp and values["weights_sha256"] != weights.sha256:
            return None
        facts, num_bytes, crc32 = NetworkFacts(**values["facts"]), int(values["num_bytes"]), values["content_crc32"]
        with open(place, "rb") as file:
            content = file.read(num_bytes)
        if zlib.crc32(content) != crc32:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, zipfile.BadZipFile):
        return None
    return ConvertedNetwork(facts, content)


def _with_metadata(content: bytes, facts: NetworkFacts, output: str, weights: _Weights) -> bytes:
    values = {
        "made_by": _made_by(output),
        "weights_stamp": weights.stamp,
        "weights_sha256": weights.sha256,
        "facts": dataclasses.asdict(facts),
        "num_bytes": len(content),
        "content_crc32": zlib.crc32(content),
    }
    archive = io.BytesIO()
    archive.write(content)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(_METADATA), json.dumps(values, indent=1))
    return archive.getvalue()


@functools.cache
def _made_by(output: str) -> dict[str, Any]:
    """Return what else determines the file; another version of a library could make another one."""
    versions = {name: installed_version(name) for name in _LIBRARIES}
    return {"format": _FORMAT, "output": output, **{name: found for name, found in versions.items() if found}}


def _converted(model: str, output: str) -> tuple[bytes, NetworkFacts]:
    """Convert a network here if TensorFlow is imported already, or else in a child process, which frees its memory."""
    if "tensorflow" in sys.modules:
        from simimg.inference.conversion import convert_network

        return convert_network(model, output)
    done = run_module("simimg.inference.conversion", model, output, environment={"CUDA_VISIBLE_DEVICES": "-1"})
    if done.returncode == CANNOT_LOAD:
        raise ModelError(done.stdout.decode())
    if done.returncode in (-signal.SIGINT, -signal.SIGTERM):  # which this process gets, too
        raise KeyboardInterrupt
    if done.returncode:
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        last = last_message(done)
        raise ConversionFailed(f"the process that converted it ended with {how}{f': {last}' if last else ''}")
    facts, content = done.stdout.split(b"\n", 1)
    return content, NetworkFacts(**json.loads(facts))
