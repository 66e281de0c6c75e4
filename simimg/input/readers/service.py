"""The service reader: other processes, on this machine or on others, read and decode, and this process restores order.

The processes are workers of tf.data's own service. Its dispatcher hands out the numbers of batches, one at a time, to
whichever worker asks. A worker computes which examples belong to the batch, reads them by their offsets, decodes them
and sends them with the number. The service promises each batch at most once, in any order: a worker that is killed
loses the batches it was given. This reader puts the batches in order. If a batch is missing although many later ones
have arrived, it reads that batch itself. So the order and the pixels are byte-identical to those of the other readers,
whatever happens to a worker.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from simimg.errors import DataError, UsageError
from simimg.input.readers.mapped import MappedReader
from simimg.input.readers.stream import decode_record, decode_records
from simimg.input.sampler import Order
from simimg.input.split import Batch, Reader, Split
from tfrecords.format.shard import ShardReader

# Batches that may wait for an earlier one before that one is read here. Workers of the same speed are never further
# apart than the batches in their threads.
_MOST_WAITING = 16
_REQUESTS = 8  # batches requested at the same time
_PATIENCE_S = 120.0  # timeout for a service that delivers nothing
_CONNECT_S = 5.0
_READ_BUFFER_BYTES = 1 << 14  # covers a small record; the rest of a larger one is read at once

# A numbered batch; the error that ended the delivery; or None at the regular end.
_Arrival = tuple[int, Batch] | Exception | None


class ServiceReader(Reader):
    """Reads a split that `simimg convert` wrote, through a service; evaluation batches are read in this process.

    Workers must find the split under the same path. `num_recovered` batches were read in this process because no worker
    delivered them.

    Args:
        address: the dispatcher, `grpc://HOST:PORT`.
        num_threads: threads that decode what is read in this process.
        on_corrupt: see `MappedReader`.

    Raises:
        UsageError: the split has no layout.json, or the address is invalid or does not answer.
        DataError: a shard is missing or damaged.
    """

    kind = "service"

    def __init__(self, split: Split, address: str, *, num_threads: int, on_corrupt: str = "fail") -> None:
        if not split.indexed:
            raise UsageError(
                f"--data_service needs shards that `simimg convert` wrote; {split.dataset_dir} has no layout.json."
            )
        check_service("--data_service", address)
        super().__init__(split)
        self.num_recovered = 0
        self._address = address
        self._local = MappedReader(split, num_threads=num_threads, on_corrupt=on_corrupt)
        self.corrupt = self._local.corrupt

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of Batches of `order.per_replica_batch_size`, replica after replica, step after step."""
        batch = order.per_replica_batch_size
        shapes = (
            ([batch, *self.split.image_shape], tf.uint8),
            ([batch, *self.split.label_shape], self.split.label_dtype),
            ([batch], tf.int64),
        )
        signature = Batch(*(tf.TensorSpec(*shape) for shape in shapes))
        return tf.data.Dataset.from_generator(lambda: self._in_order(order), output_signature=signature)

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
        return self._local.eval_batches(batch_size)

    def numbered(self, order: Order) -> tf.data.Dataset:
        """Returns the dataset that the workers compute: (number, Batch) for the numbers of `order.elements`.

        A batch that cannot be read is left out. Reading it in this process then raises the reason.
        """
        record = _record_at(self.split)
        raw = self.split.encoding == "raw"

        def decoded(number: tf.Tensor) -> tuple[tf.Tensor, Batch]:
            records = tf.data.Dataset.from_tensor_slices(order.places(number))
            read = record if raw else lambda place: decode_record(self.split, record(place))
            records = records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            batch = records.batch(order.per_replica_batch_size, drop_remainder=True).get_single_element()
            return number, decode_records(self.split, batch) if raw else batch

        numbers = tf.data.Dataset.range(order.elements.start, order.elements.stop)
        return numbers.map(decoded, num_parallel_calls=2, deterministic=False).ignore_errors()

    def _in_order(self, order: Order) -> Iterator[Batch]:
        arrivals: queue.Queue[_Arrival] = queue.Queue(maxsize=2)
        done = threading.Event()
        thread = threading.Thread(target=self._receive, args=(order, arrivals, done), daemon=True)
        thread.start()
        waiting: dict[int, Batch] = {}
        num_delivered, num_recovered, at_end = 0, 0, False
        try:
            for number in order.elements:
                while number not in waiting and not at_end and len(waiting) < _MOST_WAITING:
                    arrival = self._next(arrivals)
                    if isinstance(arrival, tuple):
                        num_delivered += 1
                        if arrival[0] >= number:  # otherwise it has been read here in the meantime
                            waiting[arrival[0]] = arrival[1]
                    elif arrival is None:
                        at_end = True
                    else:
                        raise arrival
                if number not in waiting:
                    num_recovered += 1
                    self.num_recovered += 1
                    waiting[number] = self._local.gather(order.places(tf.constant(number, tf.int64)))
                    if num_recovered > max(_MOST_WAITING, num_delivered):
                        raise DataError(
                            f"--data_service={self._address}: its workers deliver few batches or none ({num_delivered} "
                            f"of the last {num_delivered + num_recovered}). Read their messages, and check that all "
                            f"of them find {self.split.dataset_dir.absolute()}."
                        )
                yield waiting.pop(number)
        finally:
            done.set()

    def _next(self, arrivals: queue.Queue[_Arrival]) -> _Arrival:
        try:
            return arrivals.get(timeout=_PATIENCE_S)
        except queue.Empty:
            return DataError(
                f"--data_service={self._address} has delivered nothing for {_PATIENCE_S:.0f} s. Check that its "
                "dispatcher and at least one worker are running, then give the same command again to resume."
            )

    def _receive(self, order: Order, arrivals: queue.Queue[_Arrival], done: threading.Event) -> None:
        def put(arrival: _Arrival) -> None:
            while not done.is_set():
                with contextlib.suppress(queue.Full):
                    arrivals.put(arrival, timeout=1)
                    return

        try:
            for number, batch in self.numbered(order).apply(
                tf.data.experimental.service.distribute(
                    processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                    service=self._address,
                    max_outstanding_requests=_REQUESTS,
                    compression=None,  # pixels hardly shrink, and decoding needs the time
                )
            ):
                put((int(number), batch))
                if done.is_set():
                    return
            put(None)
        except tf.errors.OpError as error:
            put(DataError(f"--data_service={self._address}: {error.message.splitlines()[0]}"))


def _record_at(split: Split) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from a place, an int64 scalar tensor, to the serialized record at that place."""
    shards = [shard for shard in split.shards if shard.num_examples]
    files = [str(shard.path.absolute()) for shard in shards]
    ends = np.cumsum([shard.num_examples for shard in shards])
    if split.offsets is not None:
        record_bytes = split.offsets.record_bytes
        starts = np.concatenate([np.arange(shard.num_examples) * record_bytes for shard in shards])
    else:
        starts = np.concatenate([ShardReader(shard.path).offsets()[:, 0] for shard in shards])

    def record(place: tf.Tensor) -> tf.Tensor:
        shard = tf.searchsorted(tf.constant(ends, tf.int64), place[None], side="right")
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(tf.constant(files), shard),
            compression_type="",
            buffer_size=tf.constant(_READ_BUFFER_BYTES, tf.int64),
            byte_offsets=tf.gather(tf.constant(starts, tf.int64), place[None]),
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        return records.take(1).get_single_element()

    return record


def check_service(flag: str, address: str) -> None:
    """Raises UsageError, naming the flag, unless `address` is grpc://HOST:PORT and accepts a connection."""
    url = urlsplit(address)
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme != "grpc" or not url.hostname or not port or url.path:
        raise UsageError(f"{flag}={address}: should be grpc://HOST:PORT.")
    try:
        socket.create_connection((url.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise UsageError(
            f"{flag}={address} does not answer ({error.strerror or error}). "
            "Start a dispatcher with `simimg data_service`."
        ) from None
