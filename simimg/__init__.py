"""Shards to tensors to a model to answers: the half of simimg that knows TensorFlow."""

__version__ = "0.1.0"
