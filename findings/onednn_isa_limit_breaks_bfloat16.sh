#!/usr/bin/env bash
# TensorFlow 2.21.0: on a processor with AVX-512, ONEDNN_MAX_CPU_ISA=AVX2 makes every bfloat16 convolution an error.
#
# Expected: the variable has oneDNN use fewer instructions, as on an older processor, where bfloat16 convolutions work.
# Seen: TensorFlow asks the processor, not oneDNN, whether oneDNN can compute in bfloat16, and then oneDNN, which obeys
#   the limit, has no such convolution: AbortedError, "could not create a primitive descriptor for the convolution".
#   float32 works under the limit, and so does bfloat16 without oneDNN (TF_ENABLE_ONEDNN_OPTS=0). Whoever tests older
#   processors by this variable takes it for a fault of bfloat16.
# Needs AVX-512; does nothing without it. Exits with 1 if this changes.
set -euo pipefail
if ! grep -qw avx512f /proc/cpuinfo; then
  echo 'This processor has no AVX-512, so there is nothing to see.'
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0
cat > "$folder/convolve.py" <<'PY'
import sys

import tensorflow as tf

dtype = tf.dtypes.as_dtype(sys.argv[1])
images = tf.cast(tf.random.stateless_normal([3, 32, 32, 3], [0, 0]), dtype)
kernel = tf.cast(tf.random.stateless_normal([3, 3, 3, 8], [0, 1]), dtype)
try:
    tf.nn.conv2d(images, kernel, 1, "SAME")
    print("works")
except tf.errors.AbortedError:
    print("AbortedError")
PY
convolve() { env TF_CPP_MIN_LOG_LEVEL=3 "${@:2}" "$folder/venv/bin/python" "$folder/convolve.py" "$1" 2> /dev/null; }
plain=$(convolve bfloat16 ONEDNN_VERBOSE=0)
limited=$(convolve bfloat16 ONEDNN_MAX_CPU_ISA=AVX2)
float32=$(convolve float32 ONEDNN_MAX_CPU_ISA=AVX2)
without=$(convolve bfloat16 ONEDNN_MAX_CPU_ISA=AVX2 TF_ENABLE_ONEDNN_OPTS=0)
echo "TensorFlow 2.21.0: bfloat16 $plain; limited to AVX2: bfloat16 $limited, float32 $float32, bfloat16 without oneDNN $without"
[ "$plain" = works ] && [ "$limited" = AbortedError ] && [ "$float32" = works ] && [ "$without" = works ]
