"""The files on disk: records, examples, shards, and the files that describe them."""

from tfrecords.format.dataset_verification import Verification, verify

__all__ = ["Verification", "verify"]
