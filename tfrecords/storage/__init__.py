"""Datasets in object stores: read through a local cache that is bounded, and written as whole objects."""
