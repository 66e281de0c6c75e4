"""Augmentation: parameters are drawn from (seed, epoch, id), and then applied to the images on the device."""

from simimg.augment.augmentation import augment
from simimg.augment.parameters import BORDERS, AugmentConfig

__all__ = ["BORDERS", "AugmentConfig", "augment"]
