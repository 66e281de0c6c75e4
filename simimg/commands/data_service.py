"""Read and decode images for training on other machines.

One dispatcher distributes the work among any number of workers:

    simimg data_service --port=5050                         the dispatcher
    simimg data_service --dispatcher=grpc://HOST:5050       a worker, on every machine that helps
    simimg train --data_service=grpc://HOST:5050 --dataset_dir=… the training

Workers need the dataset under the same path as the training, and the same version of TensorFlow. They may start and
stop at any time. The service helps if training waits for decoding; `simimg bench --stage=train` shows whether it does.
Everyone who can reach the ports can use the service and make the workers read files, so use it in a trusted network.

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

JSON_KEYS = "role host port"

_HEARTBEAT_MS = 2_000
_TIMEOUT_MS = 10_000  # without a heartbeat, after which a worker counts as lost
_POLL_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `data_service`."""

    dispatcher: str = option(
        "grpc://HOST:PORT of the dispatcher to work for; without it, this process is the dispatcher.", ""
    )
    port: int = option("Port to listen on; auto is any free one.", 0, words={"auto": 0})
    host: str = option("Name under which others reach this machine; by default its host name.", "")
    work_dir: Path | None = option(
        "Folder in which a dispatcher records its progress, to resume after a restart.", None
    )


def run(options: Options) -> Result:
    """Serve until a signal stops it."""
    with stop_requested() as stop:
        return serve(options, stop)


def serve(options: Options, stop: threading.Event) -> Result:
    """Serve until `stop` is set."""
    if not 0 <= options.port < 1 << 16:
        raise UsageError(f"--port={options.port}: should be 0..65535.")
    if options.dispatcher and options.work_dir:
        raise UsageError("--work_dir applies to the dispatcher only. Leave it out for a worker.")
    service = tf.data.experimental.service
    server: tf.data.experimental.service.DispatchServer | tf.data.experimental.service.WorkerServer
    port = options.port or _free_port()
    try:
        if options.dispatcher:
            check_service("--dispatcher", options.dispatcher)
            url = urlsplit(options.dispatcher)
            is_here = url.hostname == "localhost" or (url.hostname or "").startswith("127.")
            host = options.host or (url.hostname if is_here else socket.gethostname())
            server = service.WorkerServer(
                service.WorkerConfig(
                    dispatcher_address=url.netloc,
                    worker_address=f"{host}:{port}",
                    port=port,
                    heartbeat_interval_ms=_HEARTBEAT_MS,
                    dispatcher_timeout_ms=_TIMEOUT_MS,
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
                    worker_timeout_ms=_TIMEOUT_MS,
                )
            )
            role = "dispatcher"
            text = f"the dispatcher is at grpc://{host}:{port}; simimg data_service --dispatcher=grpc://{host}:{port}"
    except RuntimeError as error:
        raise UsageError(f"--port={port}: {error}. Another program may be listening on it.") from None
    note(text)
    while not stop.wait(_POLL_S):
        pass
    del server  # stops it
    return Result(values={"role": role, "host": host, "port": port}, text=f"the {role} was stopped")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
