"""Random changes to training pictures: drawn first, from (seed, epoch, id); applied purely after, on the device."""

from simimg.augment.apply import augment, recolour
from simimg.augment.degrade import blur, cover, cut_out, quantize
from simimg.augment.draw import BORDERS, AugmentConfig, Parameters, draw, uniform
from simimg.augment.move import move, move_by_gather, paste, transforms

__all__ = [
    "BORDERS",
    "AugmentConfig",
    "Parameters",
    "augment",
    "blur",
    "cover",
    "cut_out",
    "draw",
    "move",
    "move_by_gather",
    "paste",
    "quantize",
    "recolour",
    "transforms",
    "uniform",
]
