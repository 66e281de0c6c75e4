"""Measures search: edited copies, recall and precision, and imagededup's protocol."""
