"""Augmentation: parameters are drawn from (seed, epoch, id), and then applied to the images on the device."""

from simimg.augment.augmentation import augment, recolor
from simimg.augment.degradations import blur, cover, cut_out, quantize
from simimg.augment.geometry import paste, transforms, warp, warp_by_gather
from simimg.augment.parameters import BORDERS, AugmentConfig, Parameters, draw, uniform

__all__ = [
    "BORDERS",
    "AugmentConfig",
    "Parameters",
    "augment",
    "blur",
    "cover",
    "cut_out",
    "draw",
    "paste",
    "quantize",
    "recolor",
    "transforms",
    "uniform",
    "warp",
    "warp_by_gather",
]
