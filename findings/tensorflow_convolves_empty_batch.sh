#!/usr/bin/env bash
# TensorFlow 2.21.0: with oneDNN (the default), the convolution of an empty batch has the shape of its input.
#
# Expected: tf.nn.conv2d of images [0, 32, 32, 3] with 8 filters of 3 x 3 and padding VALID gives [0, 30, 30, 8], as it
#   does with TF_ENABLE_ONEDNN_OPTS=0, and as a batch of one image does.
# Seen: [0, 32, 32, 3], eagerly and in a tf.function, whose static shape says [None, 30, 30, 8]. A network with a dense
#   layer behind it fails for an empty batch: "Matrix size-incompatible".
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0
cat > "$folder/convolve.py" <<'PY'
import tensorflow as tf

filters = tf.ones([3, 3, 3, 8])
convolved = tf.function(lambda images: tf.nn.conv2d(images, filters, 1, "VALID"))
shapes = [convolve(tf.zeros([0, 32, 32, 3])).shape for convolve in (convolved.python_function, convolved)]
print("result", "then".join("x".join(map(str, shape)) for shape in shapes))
PY
shape() {
  TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=$1 "$folder/venv/bin/python" "$folder/convolve.py" 2> /dev/null |
    sed -n 's/^result //p'
}
with=$(shape 1) without=$(shape 0)
echo "TensorFlow 2.21.0: convolution of 0x32x32x3: with oneDNN $with, without $without; expected 0x30x30x8"
[ "$with" = 0x32x32x3then0x32x32x3 ] && [ "$without" = 0x30x30x8then0x30x30x8 ]
