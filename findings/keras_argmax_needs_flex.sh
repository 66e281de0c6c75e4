#!/usr/bin/env bash
# Keras 3.15.1, TensorFlow 2.21.0: a model with keras.ops.argmax of floats runs in neither LiteRT nor OpenVINO.
#
# Expected: `export(format="litert")` of a model with `keras.ops.argmax` gives a file that LiteRT runs, as it does with
#   tf.argmax in a layer; LiteRT and OpenVINO have an operation ARG_MAX.
# Seen: with the TensorFlow backend, argmax treats -0.0 as less than 0.0 by bit operations on floats. LiteRT has none, so
#   the file needs the Flex delegate (FlexBitwiseAnd), and the interpreter of ai-edge-litert refuses it.
#   `export(format="openvino")` raises an error that names Bitcast.
# scipy is installed since Keras's exporter to OpenVINO imports it, although neither package requires it.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow==2.21.0 keras==3.15.1 ai-edge-litert==2.3.0 openvino==2026.4.1 scipy==1.17.1
cat > "$folder/export.py" <<'PY'
import sys

import keras
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


class ArgMax(keras.layers.Layer):
    def call(self, values):
        return tf.argmax(values, axis=-1)


def outcome(path, model, format):
    """Exports a model and loads the file; returns "runs", or the operation that an error names."""
    try:
        model.export(path, format=format, verbose=False)
        if format == "litert":
            Interpreter(path).allocate_tensors()
    except Exception as error:
        return next((name for name in ("FlexBitwiseAnd", "Bitcast") if name in str(error)), type(error).__name__)
    return "runs"


for name, argmax in {"ops": lambda values: keras.ops.argmax(values, axis=-1), "tf": ArgMax()}.items():
    values = keras.Input((5,))
    model = keras.Model(values, argmax(values))
    found = [outcome(f"{sys.argv[1]}/{name}.{end}", model, kind) for kind, end in (("litert", "tflite"), ("openvino", "xml"))]
    print("\nresult", *found)
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/export.py" "$folder" > "$folder/printed" 2> /dev/null
{ read -r _ litert openvino; read -r _ tf_litert tf_openvino; } < <(grep '^result ' "$folder/printed")
echo "Keras 3.15.1: keras.ops.argmax: LiteRT $litert, OpenVINO $openvino;" \
  "tf.argmax: LiteRT $tf_litert, OpenVINO $tf_openvino"
[ "$litert" = FlexBitwiseAnd ] && [ "$openvino" = Bitcast ] && [ "$tf_litert" = runs ] && [ "$tf_openvino" = runs ]
