"""Draws the sample picture folder that `simimg demo` runs on when there are no pictures at hand.

Five classes of illustrations, a folder each, drawn with Pillow and NumPy from nothing but a seed: balloons,
fishes, flowers, houses, mountains. They share palettes, skies and weather, so a model has to look at shapes.
Like the folders people have, the sample is not uniform; on purpose it holds

* pictures of as many sizes as there are pictures, of several JPEG qualities, some of them progressive;
* one picture stored on its side, upright only by its EXIF orientation, and one in CMYK: both good;
* one picture cut off in the middle of the file, and one web page named `.jpg`: a converter refuses these two.

`SampleSummary.special` says which files these four are.
"""

from simimg.sample.sample_folder import CLASS_NAMES, SampleSummary, draw_sample

__all__ = ["CLASS_NAMES", "SampleSummary", "draw_sample"]
