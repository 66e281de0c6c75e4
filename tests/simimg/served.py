"""Runs exported models without simimg: by Keras, by TensorFlow's C API, and with requests that are batched together.

    python served.py FOLDER...

Each FOLDER has `inputs.npz`, with `image`, uint8 [n, size, size, 3], `image_bytes`, string [n], and `index`, int64 [n];
`model.keras` and the SavedModel `saved_model`, as far as they exist. Writes `outputs.npz`: the output of each signature
by the C API as `SIGNATURE/OUTPUT`, and by `saved_model_cli` as `cli/SIGNATURE/OUTPUT`; `keras`; and `batched/OUTPUT`,
for one image per request. This file is run by tests
and is no test itself.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {1: np.float32, 4: np.uint8, 9: np.int64}  # TF_DataType
STRING = 7


class Output(ctypes.Structure):
    """TF_Output."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def c_api() -> Any:
    """Returns TensorFlow's C API from the library that pip installed; only its types are said here."""
    import tensorflow as tf  # for its folder, and because it loads the library with what that needs

    library = ctypes.CDLL(str(Path(tf.__file__).parent / "libtensorflow_cc.so.2"))
    pointer = ctypes.c_void_p
    for name in (
        *("NewStatus", "NewGraph", "NewSessionOptions", "GraphOperationByName", "LoadSessionFromSavedModel"),
        *("AllocateTensor", "TensorData"),
    ):
        getattr(library, f"TF_{name}").restype = pointer
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    library.TF_Dim.restype = ctypes.c_int64
    return library


class Session:
    """A SavedModel, loaded by TF_LoadSessionFromSavedModel."""

    def __init__(self, library: Any, folder: Path) -> None:
        self.library, pointer = library, ctypes.c_void_p
        self.status, self.graph = pointer(library.TF_NewStatus()), pointer(library.TF_NewGraph())
        options, tags = pointer(library.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve")
        self.session = pointer(
            library.TF_LoadSessionFromSavedModel(
                options, None, str(folder).encode(), tags, 1, self.graph, None, self.status
            )
        )
        self.check()

    def check(self) -> None:
        if self.library.TF_GetCode(self.status):
            raise RuntimeError(self.library.TF_Message(self.status).decode())

    def output(self, name: str) -> Output:
        """Returns a tensor of the graph by its name, such as `serving_default_image:0`."""
        operation, _, index = name.partition(":")
        found = self.library.TF_GraphOperationByName(self.graph, operation.encode())
        assert found, f"the graph has no {name}"
        return Output(found, int(index))

    def tensor(self, values: np.ndarray) -> Any:
        """Returns an array as a TF_Tensor; strings are TF_TString, which holds up to 22 bytes itself."""
        pointer, library = ctypes.c_void_p, self.library
        dims = (ctypes.c_int64 * values.ndim)(*values.shape)
        if values.dtype.kind in "SO":
            tensor = pointer(library.TF_AllocateTensor(STRING, dims, values.ndim, ctypes.c_size_t(24 * values.size)))
            for place, value in enumerate(values.ravel().tolist()):
                at = pointer(library.TF_TensorData(tensor) + 24 * place)
                library.TF_StringInit(at)
                library.TF_StringCopy(at, value, ctypes.c_size_t(len(value)))
            return tensor
        kind = next(number for number, type in TYPES.items() if values.dtype == type)
        tensor = pointer(library.TF_AllocateTensor(kind, dims, values.ndim, ctypes.c_size_t(values.nbytes)))
        ctypes.memmove(library.TF_TensorData(tensor), np.ascontiguousarray(values).ctypes.data, values.nbytes)
        return tensor

    def array(self, tensor: Any) -> np.ndarray:
        """Returns a TF_Tensor as an array."""
        library, pointer = self.library, ctypes.c_void_p
        shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
        kind, data = library.TF_TensorType(tensor), library.TF_TensorData(tensor)
        if kind == STRING:
            library.TF_StringGetDataPointer.restype = ctypes.c_void_p
            library.TF_StringGetSize.restype = ctypes.c_size_t
            texts = []
            for place in range(int(np.prod(shape))):
                at = pointer(data + 24 * place)
                texts.append(ctypes.string_at(library.TF_StringGetDataPointer(at), library.TF_StringGetSize(at)))
            return np.array(texts).reshape(shape)
        return np.frombuffer(ctypes.string_at(data, library.TF_TensorByteSize(tensor)), TYPES[kind]).reshape(shape)

    def run(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        """Runs the graph by TF_SessionRun; inputs and outputs by the names of tensors."""
        count = len(outputs)
        given = (Output * len(inputs))(*map(self.output, inputs))
        values = (ctypes.c_void_p * len(inputs))(*(self.tensor(value) for value in inputs.values()))
        wanted, found = (Output * count)(*map(self.output, outputs)), (ctypes.c_void_p * count)()
        self.library.TF_SessionRun(
            self.session, None, given, values, len(inputs), wanted, found, count, None, 0, None, self.status
        )
        self.check()
        return [self.array(ctypes.c_void_p(tensor)) for tensor in found]


def by_c_api(library: Any, folder: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of all signatures of a SavedModel."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    described = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    session, results = Session(library, folder), {}
    for name, signature in described.meta_graphs[0].signature_def.items():
        if name.startswith("__"):
            continue
        given = {tensor.name: inputs[key] for key, tensor in signature.inputs.items()}
        names = {key: tensor.name for key, tensor in signature.outputs.items()}
        for key, value in zip(names, session.run(given, list(names.values())), strict=True):
            results[f"{name}/{key}"] = value
        nothing = session.run({tensor: values[:0] for tensor, values in given.items()}, list(names.values()))
        assert [value.shape for value in nothing] == [(0, *results[f"{name}/{key}"].shape[1:]) for key in names]
    return results


def batched(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs for single images that TensorFlow's batching puts together, as Serving's does."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))  # whose variables live as long as it
    serve = loaded.signatures["serving_default"]
    names = sorted(serve.structured_outputs)

    @tf.nondifferentiable_batch_function(1, 8, 500_000, allowed_batch_sizes=[8])
    def together(image: Any) -> Any:
        found = serve(image=image)
        return [found[name] for name in names]

    one = tf.function(lambda image: together(image), input_signature=[tf.TensorSpec([1, *images.shape[1:]], tf.uint8)])
    one.get_concrete_function()
    rows: dict[int, list[np.ndarray]] = {}

    def ask(place: int) -> None:
        rows[place] = [value.numpy() for value in one(images[place : place + 1])]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        f"batched/{name}": np.concatenate([rows[place][column] for place in range(len(images))])
        for column, name in enumerate(names)
    }


def by_cli(folder: Path, inputs: dict[str, np.ndarray], scratch: Path) -> dict[str, np.ndarray]:
    """Returns the outputs of all signatures by the command `saved_model_cli run`, called in this process."""
    import tensorflow as tf
    from tensorflow.python.tools import saved_model_cli

    results = {}
    for name, signature in tf.saved_model.load(str(folder)).signatures.items():
        (key,) = signature.structured_input_signature[1]
        np.save(scratch / f"{key}.npy", inputs[key])
        sys.argv = ["saved_model_cli", "run", f"--dir={folder}", "--tag_set=serve", f"--signature_def={name}"]
        sys.argv += [f"--inputs={key}={scratch / key}.npy", f"--outdir={scratch}", "--overwrite"]
        try:
            saved_model_cli.main()
        except SystemExit as done:
            assert not done.code
        for output in signature.structured_outputs:
            results[f"cli/{name}/{output}"] = np.load(scratch / f"{output}.npy", allow_pickle=True)
    return results


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype("S") if values.dtype == object else values


def main(folders: list[str]) -> None:
    """Runs what is in each folder."""
    import keras

    library = c_api()
    for folder in map(Path, folders):
        with np.load(folder / "inputs.npz") as file:
            inputs = dict(file)
        outputs: dict[str, np.ndarray] = {}
        if (folder / "model.keras").exists():
            model = keras.saving.load_model(folder / "model.keras", compile=False)
            outputs["keras"] = model(inputs["image"]).numpy()
        if (folder / "saved_model").exists():
            outputs |= by_c_api(library, folder / "saved_model", inputs)
            outputs |= by_cli(folder / "saved_model", inputs, folder)
            outputs |= batched(folder / "saved_model", inputs["image"])
        np.savez(folder / "outputs.npz", **{name: _plain(value) for name, value in outputs.items()})
    assert "simimg" not in sys.modules
    assert "tfrecords" not in sys.modules


if __name__ == "__main__":
    main(sys.argv[1:])  # before `saved_model_cli` is given other arguments
