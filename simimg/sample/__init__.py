"""The sample image folder that `simimg demo` runs on when no other images are given.

Five classes of illustrations, one folder per class: balloons, fishes, flowers, houses, mountains. They ship with the
package as `sample_images.zip`, which `tools/sample_drawing` drew in the source repository. Like the folders
that people have, the sample is not uniform. On purpose it holds

* images of as many sizes as there are images, of several JPEG qualities, some of them progressive;
* one image stored on its side, upright only by its EXIF orientation, and one in CMYK: both are good;
* one image cut off in the middle of the file, and one web page named `.jpg`: a converter rejects these two.

`SampleSummary.special` says which files these four are.
"""

from simimg.sample.sample_folder import CLASS_NAMES, MAX_PER_CLASS, SampleSummary, draw_sample

__all__ = ["CLASS_NAMES", "MAX_PER_CLASS", "SampleSummary", "draw_sample"]
