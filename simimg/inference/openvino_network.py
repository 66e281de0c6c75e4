"""A converted network on the processor by OpenVINO, in bfloat16: half of LiteRT's time where the processor has it.

bfloat16 has 8 bits of precision instead of 24: embeddings of lite0 have a cosine of 0.997 and more to those in float32.
OpenVINO accepts any precision without a word and computes in float32 where the processor lacks it, so the precision is
read back.
"""

from __future__ import annotations

import importlib.util
import tempfile

import numpy as np

from simimg.errors import UsageError
from simimg.inference.inference_engine import has_bfloat16
from tfrecords.machine_limits import num_cores

_INSTALL = "pip install 'simimg-tf[fast]'"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def check_bfloat16() -> None:
    """Raise UsageError if this machine cannot compute in bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        raise UsageError(f"--precision=bfloat16 needs OpenVINO, which is not installed. Run: {_INSTALL}")
    if not has_bfloat16():
        raise UsageError(
            "--precision=bfloat16: this processor has no instructions for bfloat16 (AVX512-BF16 or AMX), so it would "
            "not be faster. Use --precision=float32; make an index that is in bfloat16 again, with another --index_dir."
        )


class OpenVinoNetwork:
    """A network that OpenVINO computes. Not thread-safe; has as many threads as there are cores."""

    def __init__(self, content: bytes, *, precision: str = "bfloat16") -> None:
        """Take the content of a `.tflite` file, as `LiteRtNetwork`.

        `precision` is one of `simimg.inference.inference_engine.PRECISIONS`; float32 is for comparisons alone.

        Raises:
            UsageError: this machine cannot compute in that precision.
        """
        if precision == "bfloat16":
            check_bfloat16()
        hint = _HINTS[precision]
        import openvino

        core, num_threads = openvino.Core(), num_cores()
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:  # it reads this format from files alone
            file.write(content)
            file.flush()
            network = core.read_model(file.name)
        self._compiled = core.compile_model(
            network,
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": num_threads, "NUM_STREAMS": num_threads},
        )
        if (used := self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()) != hint:
            raise UsageError(f"--precision={precision}: OpenVINO would compute in {used}. Use --precision=float32.")
        self._queue = openvino.AsyncInferQueue(self._compiled, 2 * num_threads)
        self._queue.set_callback(self._keep)
        self._outputs = np.empty((0, int(self._compiled.output(0).shape[-1])), np.float32)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output, float32 `[n, dim]`, for images, 0..255, `[n, size, size, 3]`, of any type."""
        self._outputs = np.empty((len(images), self._outputs.shape[1]), np.float32)
        for row, image in enumerate(images):
            self._queue.start_async({0: image[None].astype(np.float32)}, row)
        self._queue.wait_all()
        return self._outputs

    def _keep(self, request: object, row: int) -> None:
        self._outputs[row] = request.get_output_tensor(0).data[0]  # type: ignore[attr-defined]
