"""Converts images on a Ray cluster of this machine whose nodes are lost at random moments, and compares the bytes.

    python -m tools.lose_ray_nodes --image_dir=photos --rounds=10

Each round converts on two nodes. At a random moment one of them is killed (its raylet alone, or with all its workers)
or frozen, and another one joins. The bytes have to be those of a conversion without Ray. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.workers import ray_attempts


def main() -> None:
    """Run all rounds; the exit code is 1 if one of them has other bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image_dir", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    ray_attempts._SILENT_S = 15.0  # the rounds with a frozen node would take minutes
    rng = random.Random(options.seed)
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with tempfile.TemporaryDirectory() as folder:
        expected, seconds = converted(options.image_dir, Path(folder, "here"), engine="local")
        tell(f"without Ray: {len(expected)} files in {seconds:.1f} s")
        cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
        nodes = [cluster.add_node(**node), cluster.add_node(**node)]
        on_ray = {"engine": "ray", "ray_address": cluster.address}
        found, undisturbed = converted(options.image_dir, Path(folder, "ray"), **on_ray)
        tell(f"on two nodes: {undisturbed:.1f} s, {'same bytes' if found == expected else 'OTHER BYTES'}")
        all_same = found == expected
        for number in range(1, options.rounds + 1):
            how = rng.choice(["its raylet killed", "killed", "frozen"])
            after = rng.uniform(0.1, 0.9) * undisturbed
            lost = nodes.pop(rng.randrange(2))
            with ThreadPoolExecutor(1) as executor:
                result = executor.submit(converted, options.image_dir, Path(folder, "ray"), **on_ray)
                time.sleep(after)
                processes = processes_of(lost)
                for process in processes[: 1 if how == "its raylet killed" else None]:
                    process.send_signal(signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
                nodes.append(cluster.add_node(**node))
                found, seconds = result.result()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            cluster.remove_node(lost, allow_graceful=False)
            same = "same bytes" if found == expected else "OTHER BYTES"
            tell(f"{number}: a node {how} after {after:.1f} s: {seconds:.1f} s, {same}")
            all_same &= found == expected
        ray.shutdown()
        cluster.shutdown()
    raise SystemExit(0 if all_same else 1)


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def converted(image_dir: str, data_dir: Path, **options: Any) -> tuple[dict[str, str], float]:
    """Return the SHA-256 of the files of a new dataset, by name, and the time that it took, in seconds."""
    shutil.rmtree(data_dir, ignore_errors=True)
    summary = convert(ConvertConfig(image_dir=image_dir, data_dir=data_dir, name="c", image_size=256, **options))
    files = sorted(path for path in summary.dataset_dir.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}, summary.seconds


def processes_of(node: Any) -> list[psutil.Process]:
    """Return a node's raylet with all that it started."""
    (raylet,) = node.all_processes["raylet"]
    parent = psutil.Process(raylet.process.pid)
    return [parent, *parent.children(recursive=True)]


if __name__ == "__main__":
    main()
