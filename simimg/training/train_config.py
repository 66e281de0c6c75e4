"""Options of a training run, each declared once."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from simimg.augment import BORDERS, FORMULATIONS, AugmentConfig
from simimg.errors import UsageError
from simimg.input import AUTO_CROP, CACHES, CROPS, ON_CORRUPT, READERS, SHUFFLES
from simimg.input.crops import growing_sizes
from simimg.input.mixture import dataset_weights_in, parse_weights
from simimg.models.backbones import LITES, NETWORKS
from simimg.models.keras_applications import APPLICATIONS
from simimg.models.model_folder import OBJECTIVES, Objective
from simimg.models.saved_model import VIEWS
from simimg.presets import PRESETS, preset_options
from simimg.training.strategy import CROSS_DEVICE_OPS
from tfrecords.format.image_size import ImageSize, parse_image_size
from tfrecords.locations import location_text
from tfrecords.options import check_choices, option

_PRETRAINED = (*LITES, *APPLICATIONS)
MODELS = (*NETWORKS, *LITES, *APPLICATIONS)
PRECISIONS = ("float32", "bfloat16", "float16")
_OFF = {"off": 0}

_network, _optimization, _augmentation, _devices, _input, _checkpoints = (
    functools.partial(option, group=group)
    for group in ("network", "optimization", "augmentation", "devices", "input", "checkpoints")
)
_SIMILARITY_ONLY = {"embedding_dim", "temperature", "entropy_weight", "queue_size"}
# Options of classifiers only, each with the value that switches it off.
_CLASSES_ONLY = {"probe": False, "test_views": "one", "class_weights": "none", "accumulate": 1, "mixup": 0, "cutmix": 0}

_COUNTS = "epochs resolution num_devices per_replica_batch_size patience fold queue_size".split()
_AMOUNTS = "learning_rate weight_decay clip_norm checkpoint_every_s entropy_weight".split()
_RANGES = (
    (("global_batch_size", "accumulate", "keep_checkpoints"), lambda x: x >= 1, "1 or more"),
    ((*_COUNTS, *_AMOUNTS), lambda x: x >= 0, "0 or more"),
    (("embedding_dim",), lambda x: x >= 2, "2 or more"),
    (("temperature", "teacher_temperature"), lambda x: x > 0, "above 0"),
    (("teacher_weight",), lambda x: 0 < x <= 1, "above 0, and at most 1"),
    (("label_smoothing", "ema", "stochastic_depth"), lambda x: 0 <= x < 1, "0 or more, and below 1"),
    (("seed",), lambda x: 0 <= x < 2**32, f"0..{2**32 - 1}"),  # the range that NumPy accepts
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of a training run. The defaults of a run come from its preset, see `with_preset`.

    Raises:
        UsageError: an option cannot be used.
    """

    dataset_dir: Path | tuple[Path, ...] = option(
        "Dataset folder or URL, DATA_DIR/NAME/VERSION; give the flag several times to train on several datasets.",
        repeated="PATH",
        url=True,
    )
    dataset_weights: str = option(
        "Of several datasets: how often each one is used relative to the others, such as 3,1; by default, each example "
        "is used once per epoch. With several datasets, --weights=3,1 means the same.",
        "",
        group="input",
    )
    model_dir: Path | None = option(
        "Folder of the run; by default runs/NAME-PRESET-seedSEED, NAME being the dataset's; with -foldFOLD before the "
        "seed.",
        None,
    )
    fold: int = option(
        "Of a dataset made with `convert --folds`: the fold to test on; the others are trained on.", 0, words=_OFF
    )
    preset: str = option(
        "Named set of options; flags override it. Defaults in brackets hold for options that the preset does not set.",
        "small",
        choices=PRESETS,
    )
    objective: str = option(
        "What to learn: classes, from labels, or similarity, to find copies of images, without labels. For images with "
        "several labels or numbers, classes becomes multilabel or regression.",
        "classes",
        choices=tuple(OBJECTIVES),
    )
    model: str = _network("Network.", "small", choices=MODELS)
    weights: str = _network(
        "Initial weights: imagenet, none, or the path of a finished run or a weights file; auto is imagenet for "
        "networks that have such weights.",
        "auto",
    )
    resolution: int = _network("Enlarge images to this side in px before a pretrained network.", 0, words=_OFF)
    train_backbone: bool = _network(
        "Train the whole network; otherwise train only the layers on top of the initial weights.", True
    )
    probe: bool = _network(
        "First fit the softmax of a pretrained network to its features by logistic regression, which takes seconds.",
        False,
    )
    epochs: int = option("Passes over the training split; 0 with --probe stops after the logistic regression.", 60)
    global_batch_size: int = option("Images per step, over all devices together.", 32)
    per_replica_batch_size: int = _optimization(
        "Images per step and device, instead of --global_batch_size.", 0, words=_OFF
    )
    accumulate: int = _optimization("Parts into which a device splits its images of a step, to need less memory.", 1)
    optimizer: str = _optimization("Optimizer.", "adamw", choices=("adamw", "sgd", "rmsprop", "lamb"))
    learning_rate: float = option(
        "Peak learning rate; auto is the preset's, scaled to the global batch size.", 0.0, words={"auto": 0}
    )
    schedule: str = _optimization(
        "Learning rate over time: constant, or cosine to 0 after a warm-up of 5% of the steps.",
        "cosine",
        choices=("constant", "cosine"),
    )
    weight_decay: float = _optimization(
        "Decoupled weight decay; not applied to biases and normalization layers.", 0.05, words=_OFF
    )
    clip_norm: float = _optimization("Scale gradients down to this norm over all weights together.", 0.0, words=_OFF)
    ema: float = _optimization(
        "Decay per step of the moving average of the weights that is measured and kept.", 0.0, words=_OFF
    )
    loss: str = _optimization(
        "Cross-entropy: categorical, or binary over the outputs, as in the tutorial.",
        "categorical",
        choices=("categorical", "binary"),
    )
    label_smoothing: float = _optimization("Share of the target that is spread over all classes.", 0.1, words=_OFF)
    stochastic_depth: float = _optimization(
        "Of residual networks: share of the images for which the last block is left out; less for earlier blocks.",
        0.0,
        words=_OFF,
    )
    teacher: Path | None = option(
        "Distillation: folder of a finished run of the same classes, whose outputs are learned.",
        None,
        group="optimization",
    )
    teacher_weight: float = _optimization(
        "Weight of the teacher's outputs in the loss; the rest, up to 1, is that of the labels.", 1.0
    )
    teacher_temperature: float = _optimization(
        "Divisor of both networks' logits; above 1, it emphasizes the less probable classes.", 1.0
    )
    embedding_dim: int = _network("Dimension of the embedding that --objective=similarity trains.", 512)
    temperature: float = _optimization(
        "Divisor of the cosines in the similarity loss; a small one emphasizes the nearest images.", 0.05
    )
    entropy_weight: float = _optimization(
        "Weight of the spreading (entropy) term of the similarity loss, which moves each image away from its nearest "
        "neighbor; ramped up over the first 10% of the steps.",
        5.0,
        words=_OFF,
    )
    queue_size: int = _optimization(
        "Embeddings of past steps that the similarity loss also compares with.", 0, words=_OFF
    )
    class_weights: str = _optimization(
        "Weight of each image in the loss: equal (none), or inverse to the size of its class (balanced).",
        "none",
        choices=("none", "balanced"),
    )
    rotation_degrees: float = _augmentation("Rotate images by up to this angle in either direction.", 20.0, words=_OFF)
    horizontal_flip: bool = _augmentation("Mirror half of the images left to right.", True)
    crop_min_area: float = _augmentation(
        "Crop images to a share of their area, drawn from this to 1.", 0.35, words={"off": 1}
    )
    colour_jitter: float = _augmentation(
        "Vary brightness, contrast and saturation by up to this share.", 0.4, words=_OFF, flag="color_jitter"
    )
    vertical_flip: bool = _augmentation("Mirror half of the images top to bottom.", False)
    grayscale: float = _augmentation("Share of the images made grayscale.", 0.0, words=_OFF)
    blur: float = _augmentation("Blur images with a Gaussian of up to this standard deviation in px.", 0.0, words=_OFF)
    min_jpeg_quality: float = _augmentation(
        "Degrade images like JPEG of a quality drawn from this to 100.", 100.0, words={"off": 100}
    )
    cutout: float = _augmentation("Cover a rectangle of up to this share of each side.", 0.0, words=_OFF)
    quarter_turns: float = _augmentation("Share of the images rotated by 90, 180 or 270 degrees.", 0.0, words=_OFF)
    paste: float = _augmentation(
        "Share of the images pasted into a larger image instead of being cropped.", 0.0, words=_OFF
    )
    bars: float = _augmentation("Share of the images covered by bars at the top and the bottom.", 0.0, words=_OFF)
    rand_augment: str = _augmentation(
        "Change images by RandAugment: N,M is the number of operations per image and their magnitude of 0..30, such as "
        "2,9; or off.",
        "off",
    )
    augmix: float = _augmentation(
        "Mix images with changed versions of them by AugMix: the severity, published as 3.", 0.0, words=_OFF
    )
    three_augment: bool = _augmentation("Make each image gray, solarized or blurred, as in 3-Augment.", False)
    noise: float = _augmentation(
        "Add Gaussian noise of up to this standard deviation to values of 0..255.", 0.0, words=_OFF
    )
    erase: float = _augmentation(
        "Share of the images with a rectangle of random pixels (random erasing), published as 0.25.", 0.0, words=_OFF
    )
    mixup: float = _augmentation(
        "Mix pairs of images and their labels: the parameter of mixup's Beta distribution, published as 0.2.",
        0.0,
        words=_OFF,
    )
    cutmix: float = _augmentation(
        "Replace a rectangle of an image by another's and mix the labels: the parameter of CutMix's Beta distribution, "
        "published as 1.",
        0.0,
        words=_OFF,
    )
    border: str = _augmentation("Pixels outside a rotated image.", "reflect", choices=BORDERS)
    test_views: str = _network(
        "Predict from the image alone, from the mean over it and its mirror image, or also over five crops of each.",
        "one",
        choices=VIEWS,
    )
    patience: int = _optimization(
        "Stop after this many epochs without improvement on the split `validation`, and keep the best.", 0, words=_OFF
    )
    precision: str = _devices(
        "Number format of the computation; weights are always float32.", "float32", choices=PRECISIONS
    )
    xla: bool = _devices("Compile the step with XLA; for GPUs, since a CPU is several times slower with it.", False)
    augment_with: str = _devices(
        "What computes the augmentation: TensorFlow's operations, or code that XLA compiles; auto is xla on a CPU, and "
        "on a GPU the faster one, which is measured once per kind of GPU.",
        "auto",
        choices=FORMULATIONS,
    )
    deterministic: bool = _devices("Make a repeated run give the same bits; slower on GPUs.", False)
    seed: int = option("Seed of the initial weights, the order, the augmentation and the dropout.", 0)
    image_size: ImageSize = option(
        "Size of the crops in px, a side or width x height; auto is 224. For images in their own shapes, or with "
        "--crop.",
        0,
        words={"auto": 0},
        group="input",
    )
    train_size: str = _input(
        "Side of the crops in training in px, such as 160; or 160:192, which grows from epoch to epoch in steps of 32. "
        "Evaluation keeps --image_size. For crops only; off is --image_size.",
        "off",
    )
    crop: str = _input(
        "How training images are cut while they are decoded: random crops of 8-100% of the area, or center crops. auto "
        "is random for images in their own shapes, and no crop for others. Evaluation uses center crops.",
        AUTO_CROP,
        choices=(AUTO_CROP, *CROPS),
    )
    reader: str = _input("How to read shards; auto chooses and reports why.", "auto", choices=READERS)
    shuffle: str = _input(
        "Range of the shuffle: uniform over the whole split, or windowed, within 1 GB, for splits larger than memory.",
        "auto",
        choices=SHUFFLES,
    )
    cache: str = _input(
        "Where --reader=resident keeps the images: in host memory, or on the device, which leaves the CPU idle.",
        "host",
        choices=CACHES,
    )
    data_service: str = _input("Read and decode on other machines: grpc://HOST:PORT of a `simimg data_service`.", "")
    on_corrupt: str = _input(
        "What to do with a corrupt record: fail, or skip and count it. unchecked is fail, but the mapped and resident "
        "readers ignore checksums of JPEGs and PNGs.",
        "fail",
        choices=ON_CORRUPT,
    )
    checkpoint_every_s: float = _checkpoints(
        "Seconds between checkpoints, besides those at the end and on interruption.", 60.0
    )
    keep_checkpoints: int = _checkpoints("Checkpoints to keep, besides the best one.", 2)
    cross_device_ops: str = _devices(
        "How to sum gradients over GPUs; try hierarchical or cpu if NCCL hangs or gives NaN.",
        "auto",
        choices=CROSS_DEVICE_OPS,
    )
    num_devices: int = _devices(
        "GPUs to train on, or CPU devices if there is no GPU; auto is all GPUs, or one CPU device.",
        0,
        words={"auto": 0},
    )

    def __post_init__(self) -> None:
        if isinstance(self.dataset_dir, tuple) and len(self.dataset_dir) == 1:
            object.__setattr__(self, "dataset_dir", self.dataset_dir[0])
        check_choices(self)
        object.__setattr__(self, "image_size", parse_image_size(self.image_size, zero="auto"))
        if self.dataset_weights:
            parse_weights(self.dataset_weights, len(self.dataset_dirs))
        for names, fits, words in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not fits(value):
                    raise UsageError(f"--{name}={value}: should be {words}.")
        _ = self.augmentation, self.train_sizes  # checks their ranges
        if self.model not in _PRETRAINED:
            if self.weights == "imagenet":
                raise UsageError(f"--weights=imagenet: --model={self.model} has no ImageNet weights.")
            if self.resolution:
                raise UsageError(f"--resolution={self.resolution}: --model={self.model} does not enlarge images.")
        if not self.train_backbone and self.start == "none":
            raise UsageError(f"--notrain_backbone: --model={self.model} starts without pretrained weights to keep.")
        if self.objective == "similarity":
            for name, off in _CLASSES_ONLY.items():
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
    def dataset_dirs(self) -> tuple[Path, ...]:
        """The folders of the datasets, one or more."""
        return self.dataset_dir if isinstance(self.dataset_dir, tuple) else (self.dataset_dir,)

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The datasets as they were given, for messages: paths and URLs."""
        return tuple(map(location_text, self.dataset_dirs))

    @property
    def start(self) -> str:
        """The value of `weights`, with `auto` resolved."""
        if self.weights == "auto":
            return "imagenet" if self.model in _PRETRAINED else "none"
        return self.weights

    @property
    def train_sizes(self) -> tuple[int, ...]:
        """The side of the training images in each epoch, px; empty if it is that of the reader."""
        return growing_sizes(self.train_size, self.epochs)

    @property
    def sums_in_network(self) -> bool:
        """Whether replicas sum while the network is computed: statistics of batch normalizations, or embeddings."""
        trains_statistics = self.model == "small" or (self.model != "tutorial" and self.start == "none")
        return trains_statistics or self.objective == "similarity"

    @property
    def objective_info(self) -> Objective:
        """The objective, with the names of its figures."""
        return OBJECTIVES[self.objective]

    @classmethod
    def with_preset(cls, given: dict[str, Any]) -> TrainConfig:
        """Returns the options of the preset that is named (by default `small` or `copy`), overridden by those given."""
        given = dataset_weights_in(given)
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
        aside |= {"deterministic", "augment_with"}
        if self.objective != "similarity":
            aside |= _SIMILARITY_ONLY
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in aside}
