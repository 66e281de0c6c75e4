"""Draws the images of `simimg/sample/sample_images.zip`."""
