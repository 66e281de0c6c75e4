#!/usr/bin/env bash
# Keras 3.15.0 on TensorFlow 2.21.0: RandomFlip flips both directions or none, and replicas draw the same numbers.
#
# Expected: the default mode, horizontal_and_vertical, gives images that are flipped left to right, top to bottom, both
#   or not at all ("flip the images horizontally and or vertically"); and two replicas of a MirroredStrategy, which hold
#   different images, draw different angles in RandomRotation.
# Seen: one draw decides about both directions, so that no image of 400 is flipped in one direction alone; and both
#   replicas rotate equal images by equal angles, so that a batch on two devices has half as many different ones.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 keras==3.15.0
cat > "$folder/draws.py" <<'PY'
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
image = np.random.default_rng(0).uniform(size=(8, 8, 3)).astype(np.float32)
same = np.repeat(image[None], 400, axis=0)
flipped = keras.layers.RandomFlip(seed=1)(same).numpy()
forms = (image, image[:, ::-1], image[::-1], image[::-1, ::-1])
counts = [sum(np.array_equal(one, form) for one in flipped) for form in forms]
print("not flipped, left to right, top to bottom, both:", *counts)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = keras.layers.RandomRotation(0.5, seed=1)
run = tf.function(lambda: strategy.run(lambda: layer(tf.constant(same[:16]))))
first, second = strategy.experimental_local_results(run())
equal = np.array_equal(first, second)
print("replicas draw the same angles:", equal)
raise SystemExit(not (counts[1] == counts[2] == 0 < min(counts[0], counts[3]) and equal))
PY
echo "TensorFlow 2.21.0, Keras 3.15.0"
TF_CPP_MIN_LOG_LEVEL=2 "$folder/venv/bin/python" "$folder/draws.py" 2> /dev/null
