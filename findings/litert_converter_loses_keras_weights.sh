#!/usr/bin/env bash
# TensorFlow 2.21.0 with Keras 3.15.1: a model that is converted through its concrete function loses its weights.
#
# Expected: `TFLiteConverter.from_concrete_functions([function], model)` turns the variables that the function reads into
#   constants, as it does for tf.Variable in a tf.Module, and as from_keras_model does for the same model.
# Seen: the variables of a Keras 3 model stay variables (VAR_HANDLE, READ_VARIABLE) and their values are not in the file.
#   It has 3 kB instead of 75, is converted, loaded and run without an error or a warning, and every output is NaN.
#   from_keras_model and Keras's own export(format="litert") keep the weights.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow==2.21.0 keras==3.15.1 ai-edge-litert==2.3.0
cat > "$folder/convert.py" <<'PY'
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

PIXELS = np.ones((1, 64), np.float32)
SIGNATURE = [tf.TensorSpec([1, 64], tf.float32)]


def result(converter, expected):
    """Converts and runs; returns the size of the file, and whether its output is the expected one or NaN."""
    content = converter.convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], PIXELS)
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return len(content), "nan" if np.isnan(output).all() else "equal" if np.allclose(output, expected) else "other"


keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(8)])
function = tf.function(lambda pixels: model(pixels, training=False), input_signature=SIGNATURE)
module = tf.Module()
module.matrix = tf.Variable(tf.random.normal([64, 8]))
product = tf.function(lambda pixels: pixels @ module.matrix, input_signature=SIGNATURE)

expected = model(PIXELS).numpy()
through = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], model)
results = [result(through, expected)]
results.append(result(tf.lite.TFLiteConverter.from_keras_model(model), expected))
own = tf.lite.TFLiteConverter.from_concrete_functions([product.get_concrete_function()], module)
results.append(result(own, product(PIXELS).numpy()))
print(*(f"\nresult {size} {output}" for size, output in results))  # the converter prints lines of its own
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/convert.py" > "$folder/printed" 2> /dev/null
{ read -r _ size keras_function; read -r _ whole keras_model; read -r _ _ variable; } < <(grep '^ *result ' "$folder/printed")
echo "TensorFlow 2.21.0, Keras 3.15.1: function of a model: $keras_function in $size bytes;" \
  "from_keras_model: $keras_model in $whole bytes; tf.Variable: $variable"
[ "$keras_function" = nan ] && [ "$keras_model" = equal ] && [ "$variable" = equal ] && [ "$size" -lt 10000 ]
