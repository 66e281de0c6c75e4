"""Converts images to a dataset folder."""
