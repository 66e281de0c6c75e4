#!/usr/bin/env bash
# Keras 3.15.1: an ONNX file of a model with a Normalization layer asks for the layer's mean and deviation as inputs.
#
# Expected: `model.export(path, format="onnx")` gives a file with the inputs of the model, which computes the same.
# Seen: the constants of `keras.layers.Normalization`, whether they were given or found by `adapt`, become two further
#   required inputs without values, such as "normalization/Sub/y:0". The export prints no warning; whoever runs the file
#   by the model's own input gets an error. The file is right if a Rescaling layer does the same arithmetic.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cat > "$folder/export.py" <<'PY'
import sys

import keras
import numpy as np
import onnxruntime

VALUES = np.array([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]], np.float32)
adapted = keras.layers.Normalization()
adapted.adapt(VALUES)
layers = {
    "given": keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0]),
    "adapted": adapted,
    "rescaling": keras.layers.Rescaling([1 / 2, 1 / 3, 1 / 4], [-1 / 2, -2 / 3, -3 / 4]),
}
for name, layer in layers.items():
    values = keras.Input((3,))
    model = keras.Model(values, keras.layers.Dense(3, kernel_initializer="identity")(layer(values)))
    expected = model(VALUES).numpy()
    model.export(f"{sys.argv[1]}/{name}.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/{name}.onnx")
    inputs = [one.name for one in session.get_inputs()]
    equal = len(inputs) == 1 and np.allclose(session.run(None, {inputs[0]: VALUES})[0], expected)
    print(f"\nresult {len(inputs)} {'equal' if equal else 'not_run'}")
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/export.py" "$folder" > "$folder/printed" 2> /dev/null
{ read -r _ given _; read -r _ adapted _; read -r _ rescaling equal; } < <(grep '^result ' "$folder/printed")
echo "Keras 3.15.1, inputs of the ONNX file: Normalization given $given, adapted $adapted;" \
  "Rescaling $rescaling, $equal"
[ "$given" = 3 ] && [ "$adapted" = 3 ] && [ "$rescaling" = 1 ] && [ "$equal" = equal ]
