"""Converts images to TFRecord shards; the half of simimg that never imports TensorFlow.

`tfrecords.format` describes the files on disk, `tfrecords.convert` writes them.
"""
