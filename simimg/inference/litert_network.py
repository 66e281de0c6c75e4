"""A converted network on the processor by LiteRT: one image per call of a single-threaded interpreter, on every core.

A batch of one is as fast per image as a larger one and takes the least memory. An image's output is computed alone and
in one thread, so its bits depend neither on the other images nor on the number of threads.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from simimg.standard_error import captured_stderr
from tfrecords.machine_limits import num_cores


class LiteRtNetwork:
    """A network that LiteRT computes. Thread-safe; has as many threads as this process may use cores."""

    def __init__(self, content: bytes, *, num_threads: int = 0) -> None:
        """Take the content of a `.tflite` file: one input, float32 `[1, size, size, 3]`, and one output, `[1, dim]`.

        `num_threads` is the number of images at a time; 0 is the number of cores.

        Raises:
            ValueError: the content is damaged, or LiteRT lacks an operation of the network.
            RuntimeError: as ValueError; which of the two LiteRT raises depends on the fault.
        """
        self._content = content
        self._num_threads = num_threads or num_cores()
        with captured_stderr():  # LiteRT announces its kernels when a process makes the first interpreter
            self._unused = [_Interpreter(content)]
        self._dim = self._unused[0].dim
        self._start_threads()

    def _start_threads(self) -> None:
        self._process, self._own = os.getpid(), threading.local()
        self._executor = ThreadPoolExecutor(self._num_threads, thread_name_prefix="litert")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output, float32 `[n, dim]`, for images, 0..255, `[n, size, size, 3]`, of any type."""
        if os.getpid() != self._process:  # a forked process has none of the threads
            self._start_threads()
        outputs = np.empty((len(images), self._dim), np.float32)
        for row, output in enumerate(self._executor.map(self._one, images)):
            outputs[row] = output
        return outputs

    def _one(self, image: np.ndarray) -> np.ndarray:
        if not hasattr(self._own, "interpreter"):
            try:
                self._own.interpreter = self._unused.pop()
            except IndexError:
                self._own.interpreter = _Interpreter(self._content)
        return self._own.interpreter(image)


class _Interpreter:
    """An interpreter of one thread. Not thread-safe."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        (given,), (wanted,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output, self.dim = given["index"], wanted["index"], int(wanted["shape"][-1])

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)[0]
