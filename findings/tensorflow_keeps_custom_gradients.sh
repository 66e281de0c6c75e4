#!/usr/bin/env bash
# TensorFlow 2.21.0: each relu6 or silu that is traced into a tf.function stays in memory until the process ends.
#
# Expected: a tf.function, its graph and what it captures are freed when the last reference to it is gone.
# Seen: an operation with a custom gradient (tf.nn.silu, and relu6 by Keras) enters a closure into TensorFlow's global
#   registry of gradients under a new name, "CustomGradient-<number>", each time it is traced, and nothing removes it.
#   The closure holds the graph, and the graph holds the arrays that it captured. So a process that builds and traces
#   models in turn grows by a model each time, also after tf.keras.backend.clear_session() and gc.collect(). The same
#   function without silu is freed.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 keras==3.15.1
cat > "$folder/trace.py" <<'PY'
import gc
import weakref

import tensorflow as tf
from tensorflow.python.framework import ops


def trace(activation):
    """Traces a function that captures a tensor of its own; returns a weak reference to its graph."""
    captured = tf.random.normal([1000])

    @tf.function
    def function(x):
        return activation(x * captured)

    return weakref.ref(function.get_concrete_function(tf.TensorSpec([1000])).graph)


def num_alive(activation):
    graphs = [trace(activation) for _ in range(5)]
    tf.keras.backend.clear_session()
    gc.collect()
    return sum(graph() is not None for graph in graphs)


before = len([name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")])
silu, tanh = num_alive(tf.nn.silu), num_alive(tf.nn.tanh)
after = len([name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")])
print(silu, tanh, after - before)
PY
read -r silu tanh registered < <(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/trace.py" 2> /dev/null)
echo "TensorFlow 2.21.0: graphs alive of 5: with silu $silu, with tanh $tanh; gradients registered: $registered"
[ "$silu" = 5 ] && [ "$tanh" = 0 ] && [ "$registered" -ge 5 ]
