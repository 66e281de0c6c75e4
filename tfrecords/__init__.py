"""Pictures to shards: the half of simimg that never imports TensorFlow.

`tfrecords.format` says what lies on disk, `tfrecords.convert` puts it there.
"""
