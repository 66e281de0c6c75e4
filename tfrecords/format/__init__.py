"""What lies on disk: records, examples, shards, and the files that describe them."""

from tfrecords.format.dataset_verification import Verification, verify
from tfrecords.format.example import decode_example, encode_example
from tfrecords.format.layout import Layout, Offsets, ShardInfo, encode_record, raw_offsets
from tfrecords.format.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from tfrecords.format.naming import dataset_dir, next_version, shard_name, versions
from tfrecords.format.record import frame, masked_crc32c, read_records
from tfrecords.format.shard import ShardReader, ShardWriter
from tfrecords.format.tfds_metadata import write_metadata

__all__ = [
    "Layout",
    "Manifest",
    "ManifestRow",
    "Offsets",
    "ShardInfo",
    "ShardReader",
    "ShardWriter",
    "Verification",
    "dataset_dir",
    "decode_example",
    "encode_example",
    "encode_record",
    "frame",
    "masked_crc32c",
    "next_version",
    "raw_offsets",
    "read_manifest",
    "read_records",
    "shard_name",
    "verify",
    "versions",
    "write_manifest",
    "write_metadata",
]
