"""Let other processes and machines read and decode for a training.

One dispatcher hands out the work, and as many workers as there are machines to spare do it:

    simimg data_service --port=5050                         the dispatcher
    simimg data_service --dispatcher=grpc://HOST:5050       a worker; on every machine that is to help
    simimg train --data_service=grpc://HOST:5050 --dataset_dir=… the training

Workers find the data set under the same path as the training does, and have the same version of TensorFlow. Workers
may come and go. It pays where decoding is what the training waits for; see `simimg bench`. Whoever reaches the ports
can use the service and has the workers read files for him, so they belong into a network that one trusts.

It runs until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from simimg.commands.console import Result, note, quiet_tensorflow
from simimg.errors import UsageError
from simimg.signals import stop_requested
from tfrecords.options import option

with quiet_tensorflow():
    import tensorflow as tf

    from simimg.input.readers.service import check_service

_HEARTBEAT_MS = 2_000
_MISSED_MS = 10_000  # after which a worker counts as gone
_LOOK_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `data_service` can be told."""

    dispatcher: str = option("grpc://HOST:PORT of the dispatcher to work for; without it, this is the dispatcher.", "")
    port: int = option("To listen at; 0 is any that is free.", 0)
    host: str = option("The name under which others reach this machine; by default what it calls itself.", "")
    work_dir: Path | None = option("A dispatcher notes here what it has handed out, and goes on from it.", None)


def run(options: Options) -> Result:
    """Serves until it is told to stop."""
    with stop_requested() as stop:
        return serve(options, stop)


def serve(options: Options, stop: threading.Event) -> Result:
    """Serves until `stop` is set."""
    if not 0 <= options.port < 1 << 16:
        raise UsageError(f"--port={options.port}: should be 0..65535.")
    if options.dispatcher and options.work_dir:
        raise UsageError("--work_dir is the dispatcher's; a worker has nothing to note. Leave it out.")
    service = tf.data.experimental.service
    server: tf.data.experimental.service.DispatchServer | tf.data.experimental.service.WorkerServer
    port = options.port or _free_port()
    try:
        if options.dispatcher:
            check_service("--dispatcher", options.dispatcher)
            url = urlsplit(options.dispatcher)
            host = options.host or (url.hostname if _is_here(url.hostname or "") else socket.gethostname())
            server = service.WorkerServer(
                service.WorkerConfig(
                    dispatcher_address=url.netloc,
                    worker_address=f"{host}:{port}",
                    port=port,
                    heartbeat_interval_ms=_HEARTBEAT_MS,
                    dispatcher_timeout_ms=_MISSED_MS,
                )
            )
            role, text = "worker", f"a worker for {options.dispatcher} is at {host}:{port}"
        else:
            host = options.host or socket.gethostname()
            if options.work_dir:
                options.work_dir.mkdir(parents=True, exist_ok=True)
            server = service.DispatchServer(
                service.DispatcherConfig(
                    port=port,
                    work_dir=str(options.work_dir.absolute()) if options.work_dir else None,
                    fault_tolerant_mode=options.work_dir is not None,
                    worker_timeout_ms=_MISSED_MS,
                )
            )
            role = "dispatcher"
            text = f"the dispatcher is at grpc://{host}:{port}; simimg data_service --dispatcher=grpc://{host}:{port}"
    except RuntimeError as error:
        raise UsageError(f"--port={port}: {error}. Is something else listening there?") from None
    note(text)
    while not stop.wait(_LOOK_S):
        pass
    del server  # which ends it
    return Result(values={"role": role, "host": host, "port": port}, text=f"the {role} has ended")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_here(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")
