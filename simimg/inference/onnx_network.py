"""A network of somebody else, from an ONNX file, on the processor by ONNX Runtime: one image per call, on every core.

Each image is computed alone and in one thread, so its bits depend neither on the other images nor on the number of
threads. What the network takes and returns is described in `onnx_contract`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simimg.errors import ModelError, UsageError
from simimg.inference.inference_engine import Engine, instruction_set
from simimg.inference.network import OpenNetwork
from simimg.inference.network_cache import NetworkFacts
from simimg.inference.onnx_contract import POOLED, OnnxContract, read_contract
from simimg.standard_error import captured_stderr
from tfrecords.format.atomic_files import file_sha256
from tfrecords.machine_limits import num_cores

if TYPE_CHECKING:
    import onnxruntime

_INSTALL = "pip install 'simimg-tf[onnx]'"
_FATAL = 4  # ONNX Runtime logs what it raises, too
# The name of a file with weights: the entry `location` of a tensor's external_data, in protobuf's encoding.
_EXTERNAL = re.compile(rb"\n\x08location\x12(?:([\x01-\x7f])|([\x80-\xff])([\x01-\x1f]))", re.DOTALL)


def open_onnx(file: str, given: str) -> OpenNetwork:
    """Return the network of an ONNX file, after it has computed one image.

    `given` is what the file does not say, see `onnx_contract`.

    Raises:
        UsageError: the file or ONNX Runtime is missing, or something more has to be given.
        ModelError: it is no ONNX file, or no network from an image to an embedding.
    """
    session, version, digest = open_session(file, "--model")
    metadata = session.get_modelmeta().custom_metadata_map
    contract = read_contract(file, given, session.get_inputs(), session.get_outputs(), metadata)
    network = OnnxNetwork(file, session, contract)
    facts = NetworkFacts(
        fingerprint=_fingerprint(digest, contract),
        image_size=contract.image_size,
        dim=network.dim,
        largest_difference=0.0,
    )
    return OpenNetwork(facts, Engine("ONNX Runtime", version, "float32", instruction_set()), lambda: network)


class OnnxNetwork:
    """A network that ONNX Runtime computes. Thread-safe; has as many threads as this process may use cores."""

    def __init__(
        self, file: str, session: onnxruntime.InferenceSession, contract: OnnxContract, *, num_threads: int = 0
    ) -> None:
        """Take a session of one thread; raise ModelError if it cannot compute a gray image.

        `num_threads` is the number of images at a time; 0 is the number of cores.
        """
        self._file, self._session, self._contract = file, session, contract
        self._num_threads = num_threads or num_cores()
        size = contract.image_size
        self.dim = len(self._one(np.full((size, size, 3), 128, np.uint8)))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return unit vectors, float32 `[n, dim]`, for images, 0..255, `[n, size, size, 3]`."""
        outputs = np.empty((len(images), self.dim), np.float32)
        with ThreadPoolExecutor(min(self._num_threads, len(images) or 1)) as executor:  # 0.1 ms
            for row, output in enumerate(executor.map(self._one, images)):
                outputs[row] = output
        return outputs

    def _one(self, image: np.ndarray) -> np.ndarray:
        size = self._contract.image_size
        return unit_embedding(
            self._session,
            self._contract.output,
            {self._contract.input: self._contract.tensor(image)},
            file=self._file,
            what="image",
            size=f"{size} x {size} px",
            advice="If its size is open, give the one that it was trained with.",
        )


def unit_embedding(
    session: onnxruntime.InferenceSession,
    output: str,
    values: Mapping[str, np.ndarray],
    *,
    file: str,
    what: str,
    size: str,
    advice: str,
) -> np.ndarray:
    """Return the embedding of one image or text, float64 `[dim]` of L2 norm 1.

    Args:
        session: of the network.
        output: the name of the embedding.
        values: the inputs by name, each a batch of one.
        file: of the network, for messages.
        what: `image` or `text`.
        size: of what is embedded, such as `224 x 224 px`.
        advice: what to do if the network cannot compute it.

    Raises:
        ModelError: it cannot be computed, or is no embedding.
    """
    one = f"{'an' if what == 'image' else 'a'} {what}"
    try:
        (found,) = session.run([output], values)
    except Exception as error:  # of a class of its own per fault
        raise ModelError(f"{file} cannot compute {one} of {size}: {_reason_of(error)}. {advice}") from None
    if found.ndim != 2 or len(found) != 1 or found.shape[1] < 2:
        raise ModelError(
            f"{file}: its output {output} for one {what} has the shape {list(found.shape)}; an embedding has [1, dim]. "
            f"{POOLED}"
        )
    vector: np.ndarray = found[0].astype(np.float64)
    length = math.sqrt(math.fsum(vector * vector))  # exact, so it does not depend on the processor
    if not math.isfinite(length):
        raise ModelError(f"{file}: its embedding of {one} has infinite numbers or NaN.")
    return vector / max(length, 1e-12)


def open_session(file: str, flag: str) -> tuple[onnxruntime.InferenceSession, str, str]:
    """Return a session of one thread, ONNX Runtime's version, and the SHA-256 of the file.

    If the weights are in files beside it, the digest is of all of them. `flag` names the file in messages.

    Raises:
        UsageError: the file or ONNX Runtime is missing.
        ModelError: it is no ONNX file.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(f"{flag}={file} needs ONNX Runtime, which is not installed. Run: {_INSTALL}")
    try:
        content = Path(file).read_bytes()
    except FileNotFoundError:
        moved = "; if that of an index was moved, run `simimg index` with its new place" if flag == "--model" else ""
        raise UsageError(f"{flag}={file} does not exist. Name an ONNX file{moved}.") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from None
    weights = _weights_files(Path(file), content)
    session, version = _session(file, file if weights else content)
    return session, version, _digest(content, weights)


def _session(file: str, source: str | bytes) -> tuple[onnxruntime.InferenceSession, str]:
    """Return a session of one thread, and ONNX Runtime's version; raise ModelError if it cannot load the network."""
    reason = ""
    with captured_stderr():  # it looks for GPUs
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        # Without it, products of 8-bit numbers overflow on processors without VNNI, and embeddings are wrong there.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            return (
                onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]),
                onnxruntime.__version__,
            )
        except Exception as error:  # of a class of its own per fault
            reason = _reason_of(error)
    raise ModelError(f"{file} cannot be loaded as an ONNX network: {reason}. Export or download it again.")


def _weights_files(file: Path, content: bytes) -> list[Path]:
    """Return the files beside a network that hold its weights; there are some if they are large."""
    names = set()
    for found in _EXTERNAL.finditer(content):
        length = found[1][0] if found[1] else (found[2][0] & 0x7F) + (found[3][0] << 7)
        names.add(content[found.end() : found.end() + length])
    paths = [file.parent / name.decode(errors="replace") for name in sorted(names)]
    return [path for path in paths if "\0" not in path.name and path.is_file()]


def onnx_digest(file: Path) -> str:
    """Return the SHA-256 of an ONNX file; if its weights are in other files, of it and theirs. Raises OSError."""
    content = file.read_bytes()
    return _digest(content, _weights_files(file, content))


def _digest(content: bytes, weights: list[Path]) -> str:
    digest = hashlib.sha256(content)
    for path in weights:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _fingerprint(digest: str, contract: OnnxContract) -> str:
    """Return the digest of a network's files, and an id of the contract."""
    contract_id = hashlib.sha256(repr(dataclasses.astuple(contract)).encode()).hexdigest()[:8]
    return f"{digest}-{contract_id}"


def _reason_of(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message, without its prefix and full stop."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", str(error).strip()).partition("\n")[0]
    return text.rstrip(".")[:300] or type(error).__name__
