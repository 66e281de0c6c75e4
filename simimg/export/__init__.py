"""Trained models as files for other programs: written by Keras's exporters, and compared with the model.

Its modules are imported one by one.
"""
