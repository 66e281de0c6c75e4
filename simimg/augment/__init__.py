"""Random changes to training pictures: drawn first, from (seed, epoch, id); applied purely after, on the device."""

from simimg.augment.apply import augment, recolour
from simimg.augment.degrade import blur, cut_out, quantize
from simimg.augment.draw import BORDERS, AugmentConfig, Parameters, draw, uniform
from simimg.augment.move import move, move_by_gather, transforms

__all__ = [
    "BORDERS",
    "AugmentConfig",
    "Parameters",
    "augment",
    "blur",
    "cut_out",
    "draw",
    "move",
    "move_by_gather",
    "quantize",
    "recolour",
    "transforms",
    "uniform",
]
