"""Options of a training run, each declared once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from simimg.augment import BORDERS, AugmentConfig
from simimg.errors import UsageError
from simimg.input import CACHES, ON_CORRUPT, READERS, SHUFFLES
from simimg.models import APPLICATIONS, LITES, NETWORKS, OBJECTIVES, VIEWS, Objective
from simimg.presets import PRESETS, preset_options
from simimg.training.strategy import CROSS_DEVICE_OPS
from tfrecords.options import check_choices, option

__all__ = ["TrainConfig"]

_PRETRAINED = (*LITES, *APPLICATIONS)
MODELS = (*NETWORKS, *LITES, *APPLICATIONS)
PRECISIONS = ("float32", "bfloat16", "float16")
_SIMILARITY_ONLY = {"embedding_dim", "temperature", "entropy_weight", "queue_size"}
# Options of classifiers only, each with the value that switches it off.
_CLASSIFIER_ONLY = (("probe", False), ("test_views", "one"), ("class_weights", "none"), ("accumulate", 1))

_RANGES = (
    (("global_batch_size", "accumulate", "keep_checkpoints"), lambda x: x >= 1, "1 or more"),
    (("epochs", "resolution", "num_devices", "per_replica_batch_size", "patience"), lambda x: x >= 0, "0 or more"),
    (("learning_rate", "weight_decay", "clip_norm", "checkpoint_every_s"), lambda x: x >= 0, "0 or more"),
    (("queue_size", "entropy_weight"), lambda x: x >= 0, "0 or more"),
    (("embedding_dim",), lambda x: x >= 2, "2 or more"),
    (("temperature",), lambda x: x > 0, "above 0"),
    (("label_smoothing", "ema"), lambda x: 0 <= x < 1, "0 or more, and below 1"),
    (("seed",), lambda x: 0 <= x < 2**32, f"0..{2**32 - 1}"),  # the range that NumPy accepts
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of a training run. The defaults of a run come from its preset, see `with_preset`.

    Raises:
        UsageError: an option cannot be used.
    """

    dataset_dir: Path = option("Data set folder, DATA_DIR/NAME/VERSION.")
    model_dir: Path | None = option("Where the run goes; by default runs/<data set>-<preset>-seed<seed>.", None)
    preset: str = option("A named set of the options below; flags override it.", "small", choices=PRESETS)
    objective: str = option(
        "What is learned: classes, from labels; similarity, to find copies of photos, without any.",
        "classes",
        choices=tuple(OBJECTIVES),
    )
    model: str = option(
        f"The network: {', '.join((*NETWORKS, *LITES))}, or one of keras.applications, such as EfficientNetV2B0.",
        "small",
        choices=MODELS,
    )
    weights: str = option(
        "Start: imagenet, none, or PATH of a finished run or a weights file; auto is imagenet where there are any.",
        "auto",
    )
    resolution: int = option("A pretrained network enlarges pictures to this side, in px; 0 leaves them.", 0)
    train_backbone: bool = option(
        "Train the whole network; else what it starts with stays, and only what is put on top of it is trained.", True
    )
    probe: bool = option(
        "First fit the softmax of a pretrained network as a logistic regression on its features, in seconds.", False
    )
    epochs: int = option("Times that every training photo is seen; 0 with --probe: what that fits is all.", 60)
    global_batch_size: int = option("Examples a step, over all GPUs together.", 32)
    per_replica_batch_size: int = option("Examples a step and GPU, instead; 0 is off.", 0)
    accumulate: int = option("Parts in which a GPU works through its examples of a step, to need less memory.", 1)
    optimizer: str = option("How weights move.", "adamw", choices=("adamw", "sgd", "rmsprop"))
    learning_rate: float = option("Peak learning rate; 0 is the preset's, scaled to the global batch.", 0.0)
    schedule: str = option(
        "Constant, or cosine to 0 after a warm-up of 5 % of the steps.", "cosine", choices=("constant", "cosine")
    )
    weight_decay: float = option("Decoupled weight decay; biases and normalisations have none.", 0.05)
    clip_norm: float = option("Gradients longer than this, all weights together, are shortened to it; 0 is off.", 0.0)
    ema: float = option("Decay a step of the average of the weights that is measured and kept; 0 is no average.", 0.0)
    loss: str = option(
        "Cross-entropy: categorical, or binary over the outputs as the tutorial has it.",
        "categorical",
        choices=("categorical", "binary"),
    )
    label_smoothing: float = option("Share of the target that is spread over all classes.", 0.1)
    embedding_dim: int = option("Numbers of the embedding that --objective=similarity trains.", 512)
    temperature: float = option(
        "Cosines are divided by it in the loss of similarity: small looks at the nearest.", 0.05
    )
    entropy_weight: float = option(
        "How much similarity drives each photo from the nearest other one; rises from 0 over 10 % of the steps.", 5.0
    )
    queue_size: int = option("Embeddings of past steps that similarity also tells photos from; 0 is none.", 0)
    class_weights: str = option("Whether all photos count alike, or all classes.", "none", choices=("none", "balanced"))
    rotation_degrees: float = option("Photos are turned by up to this angle either way; 0 is off.", 20.0)
    horizontal_flip: bool = option("Half of the photos are mirrored.", True)
    crop_min_area: float = option("Photos are cropped to a share of their area drawn from this to 1; 1 is off.", 0.35)
    colour_jitter: float = option("Brightness, contrast and saturation vary by up to this share; 0 is off.", 0.4)
    vertical_flip: bool = option("Half of the photos are mirrored top to bottom.", False)
    grayscale: float = option("Share of the photos that lose their colours.", 0.0)
    blur: float = option("Photos are blurred by a Gaussian of up to this standard deviation, in px; 0 is off.", 0.0)
    min_jpeg_quality: float = option("Photos are spoilt as by JPEG of this quality to 100; 100 is off.", 100.0)
    cutout: float = option("A part of up to this share of the sides is covered; 0 is off.", 0.0)
    quarter_turns: float = option("Share of the photos that are turned by 90, 180 or 270 degrees.", 0.0)
    paste: float = option("Share of the photos that are put into a larger picture instead of cropped.", 0.0)
    bars: float = option("Share of the photos that are covered by bars above and below.", 0.0)
    border: str = option("What comes in over the border of a photo that is turned.", "reflect", choices=BORDERS)
    test_views: str = option(
        "Answers are to a photo alone, the mean over it and its mirror image, or over five crops of each as well.",
        "one",
        choices=VIEWS,
    )
    patience: int = option(
        "Stop after so many epochs in which the split `validation` did not get better, and keep the best; 0 is off.", 0
    )
    precision: str = option(
        "What the network computes in; its weights are float32 always.", "float32", choices=PRECISIONS
    )
    xla: bool = option(
        "Compile forwards and backwards with XLA: for one GPU; on a CPU it is several times slower.", False
    )
    deterministic: bool = option("The same run gives the same bits; slower on GPUs.", False)
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
    checkpoint_every_s: float = option("Seconds between checkpoints, beside those at the end and at a stop.", 60.0)
    keep_checkpoints: int = option("Checkpoints that are kept, beside the best one.", 2)
    cross_device_ops: str = option(
        "How gradients are added up between GPUs; try hierarchical or cpu where NCCL hangs or gives NaN.",
        "auto",
        choices=CROSS_DEVICE_OPS,
    )
    num_devices: int = option("GPUs to train on, or CPU devices where there is no GPU; 0 is every GPU, or one CPU.", 0)

    def __post_init__(self) -> None:
        """Checks what can be checked without the data."""
        check_choices(self)
        for names, fits, words in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not fits(value):
                    raise UsageError(f"--{name}={value}: should be {words}.")
        _ = self.augmentation  # checks its ranges
        if self.model not in _PRETRAINED:
            if self.weights == "imagenet":
                raise UsageError(f"--weights=imagenet: --model={self.model} has no ImageNet weights.")
            if self.resolution:
                raise UsageError(f"--resolution={self.resolution}: --model={self.model} does not enlarge images.")
        if not self.train_backbone and self.start == "none":
            raise UsageError(f"--notrain_backbone: --model={self.model} starts without pretrained weights to keep.")
        if self.objective == "similarity":
            for name, off in _CLASSIFIER_ONLY:
                if getattr(self, name) != off:
                    raise UsageError(
                        f"--{name}={getattr(self, name)} is for classifiers. Leave it out with --objective=similarity, "
                        "and start from --preset=copy."
                    )
        if not self.epochs and not self.probe:
            raise UsageError("--epochs=0 trains nothing. Give 1 or more, or add --probe, which fits the softmax.")
        if self.probe and self.start == "none":
            raise UsageError(f"--probe: --model={self.model} starts without pretrained weights to fit to.")

    @property
    def start(self) -> str:
        """The value of `weights`, with `auto` resolved."""
        if self.weights == "auto":
            return "imagenet" if self.model in _PRETRAINED else "none"
        return self.weights

    @property
    def objective_info(self) -> Objective:
        """The objective, with the names of its figures."""
        return OBJECTIVES[self.objective]

    @property
    def compares_with_past(self) -> bool:
        """Whether the loss also compares with embeddings of past steps."""
        return self.objective == "similarity" and self.queue_size > 0

    @classmethod
    def with_preset(cls, given: dict[str, Any]) -> TrainConfig:
        """Returns the options of the preset named in `given`, overridden by the other options in `given`.

        The default preset is `small`, or `copy` for similarity.
        """
        name = given.get("preset", "copy" if given.get("objective") == "similarity" else "small")
        if name not in PRESETS:
            raise UsageError(f"--preset={name}: should be one of {', '.join(PRESETS)}.")
        options = preset_options(name)
        del options["learning_rate"]  # see `resolved`
        if given.get("model", options["model"]) not in _PRETRAINED:
            aside = ("resolution", "probe", "train_backbone")
            options = {key: value for key, value in options.items() if key not in aside}
        return cls(**{"preset": name, **options, **given})

    def resolved(self, num_replicas: int, model_dir: Path | None = None) -> TrainConfig:
        """Returns the options with the folder, the global batch size and the learning rate filled in.

        A learning rate that was not given is the preset's, scaled by the ratio of the batch size to the preset's. Under
        SGD it is multiplied by the ratio (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.1). Under the
        other optimizers, which divide by the size of the gradient, it is multiplied by the square root of the ratio
        (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022).
        """
        batch = self.per_replica_batch_size * num_replicas or self.global_batch_size
        rate = self.learning_rate
        if not rate:
            preset = preset_options(self.preset)
            ratio = batch / preset["global_batch_size"]
            rate = preset["learning_rate"] * (ratio if self.optimizer == "sgd" else math.sqrt(ratio))
        return dataclasses.replace(
            self,
            model_dir=model_dir or self.model_dir,
            global_batch_size=batch,
            per_replica_batch_size=0,
            learning_rate=rate,
        )

    @property
    def augmentation(self) -> AugmentConfig:
        """The options of the augmentation."""
        return AugmentConfig.from_options(vars(self))

    def determining(self) -> dict[str, Any]:
        """Returns the options that influence the result, for comparison with those of an earlier call.

        The reader and the shuffle do too, but the ones that were chosen count; see `simimg.training.run_folder`.
        """
        aside = {"model_dir", "preset", "num_devices", "dataset_dir", "per_replica_batch_size", "cross_device_ops"}
        aside |= {"reader", "shuffle", "cache", "data_service", "on_corrupt", "checkpoint_every_s", "keep_checkpoints"}
        aside |= {"deterministic"}
        if self.objective == "classes":
            aside |= _SIMILARITY_ONLY
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in aside}
