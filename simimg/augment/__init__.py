"""Augmentation: parameters are drawn from (seed, epoch, id), and then applied to the images on the device."""

from simimg.augment.augmentation import augment, augment_and_mix, measure_formulations
from simimg.augment.formulation import FORMULATIONS, fastest
from simimg.augment.layers import (
    RandomAugmentation,
    RandomBrightness,
    RandomContrast,
    RandomFlip,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
)
from simimg.augment.mixing import partners
from simimg.augment.parameters import BORDERS, AugmentConfig

__all__ = [
    "BORDERS",
    "FORMULATIONS",
    "AugmentConfig",
    "RandomAugmentation",
    "RandomBrightness",
    "RandomContrast",
    "RandomFlip",
    "RandomRotation",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "augment",
    "augment_and_mix",
    "fastest",
    "measure_formulations",
    "partners",
]
