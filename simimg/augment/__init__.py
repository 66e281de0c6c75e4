"""Random changes to training pictures: drawn first, from (seed, epoch, id); applied purely after, on the device."""

from simimg.augment.apply import augment, move, recolour, transforms
from simimg.augment.draw import AugmentConfig, Parameters, draw, uniform

__all__ = ["AugmentConfig", "Parameters", "augment", "draw", "move", "recolour", "transforms", "uniform"]
