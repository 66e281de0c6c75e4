"""What a training run can be told, each option declared once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simimg.augment import BORDERS, AugmentConfig
from simimg.errors import UsageError
from simimg.input import CACHES, ON_CORRUPT, READERS, SHUFFLES
from simimg.presets import PRESETS, preset_options
from tfrecords.options import check_choices, option

__all__ = ["TrainConfig"]

MODELS = ("small", "lite0", "tutorial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run's options. The defaults of the run itself come from the preset, see `with_preset`.

    Raises:
        UsageError: an option cannot be used.
    """

    dataset_dir: Path = option("Data set folder, DATA_DIR/NAME/VERSION.")
    model_dir: Path | None = option("Where the run goes; by default runs/<data set>-<preset>-seed<seed>.", None)
    preset: str = option("A named set of the options below; flags override it.", "small", choices=PRESETS)
    model: str = option("The network; see simimg.models.", "small", choices=MODELS)
    weights: str = option("Start of lite0: ImageNet's weights, or none.", "imagenet", choices=("imagenet", "none"))
    resolution: int = option("lite0 enlarges pictures to this side, in px; 0 leaves them.", 0)
    epochs: int = option("Times that every training photo is seen.", 100)
    global_batch_size: int = option("Examples a step, over all GPUs together.", 32)
    optimizer: str = option("How weights move.", "adamw", choices=("adamw", "sgd", "rmsprop"))
    learning_rate: float = option("Peak learning rate, for the global batch.", 2e-3)
    schedule: str = option(
        "Constant, or cosine to 0 after a warm-up of 5 % of the steps.", "cosine", choices=("constant", "cosine")
    )
    weight_decay: float = option("Decoupled weight decay; biases and normalisations have none.", 0.05)
    loss: str = option(
        "Cross-entropy: categorical, or binary over the outputs as the tutorial has it.",
        "categorical",
        choices=("categorical", "binary"),
    )
    label_smoothing: float = option("Share of the target that is spread over all classes.", 0.1)
    rotation_degrees: float = option("Photos are turned by up to this angle either way; 0 is off.", 20.0)
    horizontal_flip: bool = option("Half of the photos are mirrored.", True)
    crop_min_area: float = option("Photos are cropped to a share of their area drawn from this to 1; 1 is off.", 0.35)
    colour_jitter: float = option("Brightness, contrast and saturation vary by up to this share; 0 is off.", 0.4)
    vertical_flip: bool = option("Half of the photos are mirrored top to bottom.", False)
    grayscale: float = option("Share of the photos that lose their colours.", 0.0)
    blur: float = option("Photos are blurred by a Gaussian of up to this standard deviation, in px; 0 is off.", 0.0)
    min_jpeg_quality: float = option("Photos are spoilt as by JPEG of this quality to 100; 100 is off.", 100.0)
    cutout: float = option("A part of up to this share of the sides is covered; 0 is off.", 0.0)
    border: str = option("What comes in over the border of a photo that is turned.", "reflect", choices=BORDERS)
    seed: int = option("Start of the weights, order, augmentation and dropout.", 0)
    reader: str = option("How shards are read; auto picks and says why.", "auto", choices=READERS)
    shuffle: str = option(
        "How far examples are mixed: uniform, all with all; windowed, for sets larger than memory, within 1 GB.",
        "auto",
        choices=SHUFFLES,
    )
    cache: str = option(
        "Where --reader=resident keeps the examples: host, or device, which leaves the CPU nothing to do.",
        "host",
        choices=CACHES,
    )
    data_service: str = option("grpc://HOST:PORT that reads and decodes instead; see `simimg data_service`.", "")
    on_corrupt: str = option(
        "A record that cannot be read: fail, or skip it, which is counted.", "fail", choices=ON_CORRUPT
    )
    num_devices: int = option("GPUs to train on, or CPU devices where there is no GPU; 0 is every GPU, or one CPU.", 0)

    def __post_init__(self) -> None:
        """Checks what can be checked without the data."""
        check_choices(self)
        for name in ("epochs", "global_batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}={getattr(self, name)}: should be 1 or more.")
        for name in ("resolution", "num_devices"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name}={getattr(self, name)}: should be 0 or more.")
        if not self.learning_rate > 0:
            raise UsageError(f"--learning_rate={self.learning_rate}: should be above 0.")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"--label_smoothing={self.label_smoothing}: should be 0 or more, and below 1.")
        if self.weight_decay < 0:
            raise UsageError(f"--weight_decay={self.weight_decay}: should be 0 or more.")
        if not 0 <= self.seed < 2**32:  # what NumPy takes
            raise UsageError(f"--seed={self.seed}: should be 0..{2**32 - 1}.")
        self.augment_config()
        if self.weights != "imagenet" and self.model != "lite0":
            raise UsageError(f"--weights={self.weights}: only --model=lite0 has other weights; this is {self.model}.")
        if self.resolution and self.model != "lite0":
            raise UsageError(
                f"--resolution={self.resolution}: only --model=lite0 enlarges pictures; this is {self.model}."
            )

    @classmethod
    def with_preset(cls, given: dict[str, Any]) -> TrainConfig:
        """Returns the configuration of the preset in `given` (by default `small`), overridden by the rest of it."""
        name = given.get("preset", "small")
        if name not in PRESETS:
            raise UsageError(f"--preset={name}: should be one of {', '.join(PRESETS)}.")
        options = preset_options(name)
        if given.get("model", options["model"]) != "lite0":
            options.pop("resolution", None)
        return cls(**{**options, **given})

    def augment_config(self) -> AugmentConfig:
        """Returns the part that says how pictures are augmented."""
        return AugmentConfig(
            rotation_degrees=self.rotation_degrees,
            horizontal_flip=self.horizontal_flip,
            crop_min_area=self.crop_min_area,
            colour_jitter=self.colour_jitter,
            vertical_flip=self.vertical_flip,
            grayscale=self.grayscale,
            blur=self.blur,
            min_jpeg_quality=self.min_jpeg_quality,
            cutout=self.cutout,
            border=self.border,
        )

    def determining(self) -> dict[str, Any]:
        """Returns the options that decide what is learned, for comparison with an earlier call's.

        The reader and the shuffle do so as well, but what counts is what was picked; see `simimg.training.runs`.
        """
        aside = {"model_dir", "preset", "num_devices", "dataset_dir"}
        aside |= {"reader", "shuffle", "cache", "data_service", "on_corrupt"}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in aside}
