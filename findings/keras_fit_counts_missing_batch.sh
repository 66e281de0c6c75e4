#!/usr/bin/env bash
# Keras 3.15.0 on TensorFlow 2.21.0: `fit` counts a step of the optimizer for the batch that ends a dataset.
#
# Expected: a dataset of 3 batches, whose length is unknown beforehand, is 3 steps of the optimizer per epoch.
# Seen: `fit` calls the training function a fourth time to learn that there is no more batch. The call raises
#   OutOfRangeError, but its operations that do not need the batch have run: the optimizer's iterations are 4, and so are
#   the draws of a dropout layer. The weights stay. So a schedule of the learning rate and the bias correction of Adam
#   depend on whether the length was known.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 keras==3.15.0
cat > "$folder/steps.py" <<'PY'
import keras
import numpy as np
import tensorflow as tf


def steps(dataset):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(dataset, epochs=1, verbose=0)
    return int(model.optimizer.iterations.numpy())


known = tf.data.Dataset.from_tensor_slices((np.ones((12, 4), np.float32), np.ones((12, 1), np.float32))).batch(4)
unknown = known.filter(lambda x, y: True)
print("steps of 3 batches: length known", steps(known), "unknown", steps(unknown))
raise SystemExit(not (steps(known) == 3 and steps(unknown) == 4))
PY
echo "TensorFlow 2.21.0, Keras 3.15.0"
TF_CPP_MIN_LOG_LEVEL=2 "$folder/venv/bin/python" "$folder/steps.py" 2> /dev/null
