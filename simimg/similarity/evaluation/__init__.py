"""Measures search: edited copies, recall and precision."""
