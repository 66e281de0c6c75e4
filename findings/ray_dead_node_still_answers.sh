#!/usr/bin/env bash
# Ray 2.60.0: a task whose node has died is not always lost, and with max_retries=0 not always an error either.
#
# Expected: once the cluster lists a node as dead, `ray.get` of a task that ran there raises NodeDiedError or
#   WorkerCrashedError if it may not be retried.
# Seen: after the raylet of a node is killed, the worker process goes on alone. Its small result arrives from the dead
#   node without an error. A result of 1 MB, which would lie in the store of that node, is lost: an error. So whether a
#   dead node's work counts depends on the size of what a task returns, and side effects happen after a node's death.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/orphan.py" <<'PY'
import logging
import os
import sys
import time

import ray
from ray.cluster_utils import Cluster


def work(folder, size):
    """Says that it has begun, waits until its node is dead, and returns so many bytes."""
    open(os.path.join(folder, f"begun-{size}"), "w").close()
    while not os.path.exists(os.path.join(folder, f"dead-{size}")):
        time.sleep(0.1)
    open(os.path.join(folder, f"ended-{size}"), "w").close()
    return bytes(size)


def outcome(cluster, size):
    """Returns how a task ends whose node dies while it runs, and whether it ran to its end."""
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    task = ray.remote(max_retries=0)(work).remote(sys.argv[1], size)
    while not os.path.exists(os.path.join(sys.argv[1], f"begun-{size}")):
        time.sleep(0.1)
    node.all_processes["raylet"][0].process.kill()
    while any(one["Alive"] and one["NodeID"] == node.node_id for one in ray.nodes()):
        time.sleep(0.1)
    open(os.path.join(sys.argv[1], f"dead-{size}"), "w").close()
    try:
        found = f"{len(ray.get(task, timeout=60))}-bytes"
    except ray.exceptions.RayError as error:
        found = type(error).__name__
    cluster.remove_node(node, allow_graceful=False)
    return found, os.path.exists(os.path.join(sys.argv[1], f"ended-{size}"))


cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
print("result", *outcome(cluster, 10), *outcome(cluster, 1 << 20))
ray.shutdown()
cluster.shutdown()
PY
"$folder/venv/bin/python" "$folder/orphan.py" "$folder" > "$folder/printed" 2> /dev/null
read -r _ small small_ended large large_ended < <(grep '^result ' "$folder/printed")
echo "Ray 2.60.0, node dead, max_retries=0: a small result: $small (ran to its end: $small_ended);" \
  "1 MiB: $large (ran to its end: $large_ended)"
[ "$small" = 10-bytes ] && [ "$small_ended" = True ] && [ "$large" != 1048576-bytes ]
