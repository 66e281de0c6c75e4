#!/usr/bin/env bash
# TensorFlow 2.21.0: the second MirroredStrategy of a process cannot sum over its devices.
#
# Expected: a program that trains twice, as notebooks and tests do, makes a strategy for each training.
# Seen: sums over devices are told apart by a number of the group of devices and a number of the sum, and every strategy
#   counts both from the same start. The first sum of the second strategy is taken for the first sum of the first one, and
#   if their shapes differ, it fails: "Shape mismatch in the collective instance". If they are equal, it works by chance.
#   It happens with CollectiveAllReduce, which is the default for GPUs and for CPU devices, and not with
#   HierarchicalCopyAllReduce.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0
cat > "$folder/strategies.py" <<'PY'
import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


def total(size, cross_device_ops=None):
    """Returns the sum of a vector of ones over the devices of a new strategy, or the error."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops)

    @tf.function
    def summed():
        def replica():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones([size]))

        return strategy.experimental_local_results(strategy.run(replica))[0]

    try:
        return float(summed()[0])
    except tf.errors.OpError as error:
        lines = [line.strip() for line in error.message.splitlines() if line.strip()]
        return next((line for line in lines if "mismatch" in line), lines[0])


copies = tf.distribute.HierarchicalCopyAllReduce
found = {
    "copies, first": total(3, copies()),
    "copies, second": total(5, copies()),
    "collective, first": total(3),
    "collective, same shape": total(3),
    "collective, other shape": total(5),
}
for name, value in found.items():
    print(name, value, sep=": ")
*others, last = found.values()
raise SystemExit(0 if others == [2.0] * 4 and "Shape mismatch" in str(last) else 1)
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/strategies.py" 2> "$folder/errors.txt"
