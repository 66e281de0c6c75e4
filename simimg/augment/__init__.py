"""Random changes to training pictures: drawn first, from (seed, epoch, id); applied purely after, on the device."""

from simimg.augment.apply import apply, augment, transforms
from simimg.augment.draw import AugmentConfig, Parameters, draw, uniform

__all__ = ["AugmentConfig", "Parameters", "apply", "augment", "draw", "transforms", "uniform"]
