"""A Ray cluster: connecting to it or starting one, its nodes, and what they have to agree to before any work."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.convert.workers import ray_worker
from tfrecords.convert.workers.ray_worker import Agreement
from tfrecords.convert.workers.shard_worker import Task
from tfrecords.format.atomic_files import TEMPORARY
from tfrecords.format.quarantine import Refusal

_CONNECT_S = 10.0
_CHECK_S = 60.0  # for the nodes to say whether they can work
_STORE_BYTES = 100 << 20  # no pixels go through Ray's store


def imported_ray() -> Any:
    """Return the module; raise UsageError if Ray is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError("--engine=ray needs Ray. Install it with: pip install 'simimg-tf[ray]'") from None
    return ray


def connect(address: str, num_cores: int) -> None:
    """Connect to the cluster at an address, or start one with so many cores if it is "".

    Raises:
        UsageError: no cluster of the same version answers there.
    """
    ray = imported_ray()
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray_address={address}: Ray's client does not run tasks as the cluster does. Give the command on a "
            "machine of the cluster, with --ray_address=auto."
        )
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:  # workers import what this process does
        code = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        options |= {"num_cpus": num_cores, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        options |= {"runtime_env": {"env_vars": code}}
    wanted = f"--ray_address={address}" if address else "Ray cannot start on this machine"
    try:
        if address not in ("", "auto"):  # where nothing answers, Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal():
                raise UsageError(f"{wanted}: should be HOST:PORT, as in 10.0.0.1:6379, or auto.")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        ray.init(address or "local", **options)
    except UsageError:
        raise
    except Exception as error:  # of no class of its own, if a process of Ray did not start in time
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        advice = (
            " Start a cluster with: ray start --head; then join its other machines with: ray start --address=HOST:6379"
        )
        raise UsageError(f"{wanted}: {reason}.{advice if address else ''}") from None


@contextmanager
def agreement_on(task: Task) -> Iterator[Agreement]:
    """Yield what each node has to agree to, with a file in the folder of the shards that they have to see."""
    folder = task.handover or str(task.shard.parent)
    name = f".{secrets.token_hex(8)}{TEMPORARY}probe"
    agreement = Agreement(ray_worker.versions(), folder, name, _sample(task))
    if task.handover:  # each node puts it, and all of it is removed at the end
        yield agreement
        return
    probe = Path(folder, name)
    probe.touch()
    try:
        yield agreement
    finally:
        probe.unlink(missing_ok=True)


def _sample(task: Task) -> tuple[Any, str, tuple[int, int, int] | None, bytes] | None:
    for files, path, place in task.files_read():
        with suppress(Refusal):
            return files, path, place, hashlib.sha256(read_file(files, path, place)).digest()
    return None


def check_nodes(agreement: Agreement) -> None:
    """Raise ConversionError if a node cannot work for this process."""
    ray = imported_ray()
    check = ray.remote(num_cpus=0, max_retries=0)(ray_worker.check_node)
    nodes = living_nodes()
    asked = {check.options(**on_node(name)).remote(agreement): node for name, node in nodes.items()}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_S) if asked else ([], [])
    for handle in answered:
        try:
            name, reason = ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            reason = str(error.cause or error).strip().splitlines()[-1].rstrip(".")
            raise ConversionError(
                f"the Ray node {asked[handle]['NodeManagerAddress']} cannot run simimg: {reason}. Install the same "
                "version there as here."
            ) from None
        except ray.exceptions.RayError:  # it died meanwhile
            continue
        if reason:
            raise ConversionError(f"the Ray node {name} {reason}.")


def living_nodes() -> dict[str, dict[str, Any]]:
    """Return what Ray knows of the nodes that are alive and have cores, by their ids."""
    return {node["NodeID"]: node for node in imported_ray().nodes() if node["Alive"] and node["Resources"].get("CPU")}


def on_node(node_id: str) -> dict[str, Any]:
    """Return the options of a task that is for one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
