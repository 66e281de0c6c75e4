"""Prepares a run before its model is built: devices, readers, order of the examples, and the run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import psutil
import tensorflow as tf

from simimg.augment import fastest, measure_formulations
from simimg.errors import UsageError
from simimg.input import (
    SHUFFLES,
    Order,
    Reader,
    Split,
    choose_shuffle,
    folders_with,
    mixing_of,
    mixture_of,
    open_reader,
    run_splits,
    trained_copies,
    union_notes,
)
from simimg.models.keras_applications import APPLICATIONS
from simimg.models.model_folder import CONFIG_FILE, RunInfo, load_run
from simimg.training.distillation import check_teacher
from simimg.training.run_folder import describe_run
from simimg.training.strategy import Workers, local_replicas, make_strategy, workers
from simimg.training.train_config import TrainConfig
from tfrecords.format.layout import Layout
from tfrecords.locations import url_of
from tfrecords.storage.remote_dataset import local_dataset

MEASURED = ("validation", "test")  # splits that are measured after each epoch, if they exist


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSetup:
    """Everything that is decided before a model is built, with the resolved options, see `TrainConfig.resolved`.

    `place` is this process among those that train together. `reader` reads the training examples, and `reason` says why
    this kind was chosen. `measured` has the readers of the measured splits, by name. `order` starts at the beginning.
    """

    config: TrainConfig
    model_dir: Path
    strategy: tf.distribute.Strategy
    place: Workers
    reader: Reader
    reason: str
    order: Order
    measured: dict[str, Reader]
    info: RunInfo
    augmented_with: str = ""  # a sentence on the formulation of the augmentation that was chosen for a GPU

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.order.steps_per_epoch * self.order.num_epochs

    def sentences(self) -> list[str]:
        """Returns what to tell the user before the first step."""
        order, strategy = self.order, self.strategy
        kind = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
        machines = f" in {self.place.count} processes" if self.place.count > 1 else ""
        parts = f", in {self.config.accumulate} parts" if self.config.accumulate > 1 else ""
        found = [f"reading {order.num_examples:,} examples, {self.reader.kind}: {self.reason}", *self._of_datasets()]
        if self.config.model in APPLICATIONS and self.config.start == "imagenet":
            found.append(f"Keras downloads ImageNet's weights of {self.config.model}, unless it has them in ~/.keras")
        if self.config.objective in ("multilabel", "regression"):
            names = self.reader.split.class_names
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            what = f"label{'' if len(names) == 1 else 's'}, several per image: a sigmoid and binary cross-entropy each"
            if self.config.objective == "regression":
                what = "numbers per image: mean squared error" if len(names) > 1 else "number per image: squared error"
            found.append(f"learning {len(names):,} {what} ({shown})")
        crops = self.reader.split.crops
        made = Layout.load(self.reader.split.dataset_dir).config.get("resize") if crops is not None else ""
        if made in ("stretch", "pad"):
            found.append(
                f"the images were made square by --resize={made} and are cut then, but files are cut at their center "
                "for prediction and search; images converted with --resize=short are seen in the same way"
            )
        if crops is not None and crops.how == "random" and self.config.crop_min_area < 1 and self.config.epochs:
            found.append(
                f"the augmentation crops these crops again (--crop_min_area={self.config.crop_min_area:g}); "
                "--crop_min_area=off leaves that out"
            )
        if not self.config.epochs:
            return found
        if self.info.shuffle == "windowed":
            found.append("the examples are shuffled within windows of 1 GB, because they do not all fit into memory")
        found.append(
            f"training on {strategy.num_replicas_in_sync} x {kind}{machines}: batch {order.global_batch_size} in all, "
            f"{order.per_replica_batch_size} per replica{parts}; learning rate {self.config.learning_rate:.3g}"
        )
        if self.config.teacher:
            weight, rest = self.config.teacher_weight, 1 - self.config.teacher_weight
            labels = f", and the labels with weight {rest:g}" if rest else ", and no labels"
            found.append(f"learning the outputs of {self.config.teacher} with weight {weight:g}{labels}")
        if sizes := self.config.train_sizes:
            grows = [f"{size} px from epoch {sizes.index(size) + 1}" for size in sorted(set(sizes))]
            found.append(f"training on crops of {', '.join(grows)}, measuring at {self.reader.split.image_size} px")
        return [*found, self.augmented_with] if self.augmented_with else found

    def _of_datasets(self) -> list[str]:
        """Returns what to tell about several datasets."""
        mixture, split = self.order.mixture, self.reader.split
        if mixture is None:
            return []
        used = self.order.steps_per_epoch * self.order.global_batch_size
        parts = []
        for part, share, count in zip(split.parts, mixture.shares, mixture.counts, strict=True):
            passes = f", {float(share * used / count):.3g} times per epoch" if mixture.weights else ""
            parts.append(f"{part.split.dataset_dir} {float(share):.1%} ({count:,} examples{passes})")
        how = "by --dataset_weights" if mixture.weights else "each example once per epoch"
        found = [f"mixing {len(parts)} datasets, {how}: {'; '.join(parts)}", *union_notes(split)]
        for name, reader in self.measured.items():
            there = [part.split.dataset_dir for part in reader.split.parts] or [reader.split.dataset_dir]
            if len(there) < len(parts):
                found.append(f"the split {name} is that of {', '.join(map(str, there))} alone; the others have none")
            copies, example = trained_copies(split, reader.split)
            if copies:
                are = "image of the split {} is" if copies == 1 else "images of the split {} are"
                found.append(
                    f"{copies:,} {are.format(name)} trained on in another dataset, e.g. {example}, so the figures are "
                    "too good; `simimg edit --merge` joins datasets with copies in one split"
                )
        return found


def open_run_setup(config: TrainConfig) -> RunSetup:
    """Prepares a run with these options; writes nothing.

    Raises:
        UsageError: an option cannot be used, or the model folder has another run.
        DataError: the dataset is damaged.
    """
    strategy, place = make_strategy(config.num_devices, config.cross_device_ops), workers()
    places = [local_dataset(one, streamed=True) for one in config.dataset_dirs]
    if config.data_service and any(map(url_of, config.dataset_dirs)):
        raise UsageError(
            f"--data_service={config.data_service} reads folders that its machines share, and "
            f"{', '.join(config.dataset_names)} is at a URL. Leave --data_service out, or copy the dataset to a folder."
        )
    splits = run_splits(places, config.fold)
    with strategy.scope():  # with --cache=device, each replica gets a copy of the split
        reader, reason = open_reader(
            places,
            splits["train"],
            config.reader,
            on_corrupt=config.on_corrupt,
            cache=config.cache,
            data_service=config.data_service,
            crop=config.crop,
            image_size=config.image_size,
        )
    split = reader.split
    if split.channels == 4:
        raise UsageError(
            f"{split.dataset_dir} has RGBA images, and networks see no transparency. Convert them: simimg convert "
            f"--from={split.dataset_dir} --channels=3 --background=white"
        )
    config = _for_labels(config, split)
    fold = f"-fold{config.fold}" if config.fold else ""
    model_dir = config.model_dir or Path("runs") / f"{split.name}-{config.preset}{fold}-seed{config.seed}"
    config = config.resolved(strategy.num_replicas_in_sync, model_dir)
    shuffle = _shuffle(config, reader, model_dir)
    local = local_replicas(strategy)
    order = Order(
        num_examples=split.num_examples,
        global_batch_size=config.global_batch_size,
        num_epochs=config.epochs,
        seed=config.seed,
        num_replicas=strategy.num_replicas_in_sync,
        first_replica=place.index * local,
        num_local_replicas=local,
        mixing=mixing_of(split, shuffle),
        mixture=mixture_of(split, config.dataset_weights, shuffle),
    )
    if order.per_replica_batch_size % config.accumulate:
        raise UsageError(
            f"--accumulate={config.accumulate}: the {order.per_replica_batch_size} examples of a replica in a step "
            "cannot be divided into this many equal parts."
        )
    rows = order.per_replica_batch_size // config.accumulate
    if config.augmentation.mixes and rows % 2:
        name = "mixup" if config.mixup else "cutmix"
        raise UsageError(
            f"--{name}={getattr(config, name):g} mixes pairs of images, but a replica has {rows} at a time, which is "
            "odd. Choose another --global_batch_size."
        )
    check_teacher(config, split.image_size, split.channels, split.class_names)
    if config.train_sizes:
        reader.resized(config.train_sizes[0])
        if config.resolution:
            raise UsageError(
                f"--train_size={config.train_size}: --resolution={config.resolution} enlarges all images to one size. "
                "Give --resolution=off."
            )
    if config.quarter_turns and not isinstance(split.image_size, int):
        raise UsageError(
            f"--quarter_turns={config.quarter_turns}: images of {split.image_size} px have another shape when they are "
            "rotated by 90 degrees. Give --quarter_turns=off, or convert the images to squares."
        )
    if config.xla and strategy.num_replicas_in_sync > 1 and config.sums_in_network:
        raise UsageError(
            "--xla: compiled steps cannot sum over devices, as the normalization of this network or "
            "--objective=similarity does within a step. Use --num_devices=1, or leave out --xla."
        )
    if config.objective == "classes" and len(split.class_names) < 2:
        raise UsageError(
            f"{config.dataset_names[0]} has one class, {split.class_names[0]!r}; a classifier needs two. "
            "To train on it to find copies, use --objective=similarity."
        )
    measured = {
        name: found
        for name in MEASURED
        if name in splits and (found := _open_other(config, places, splits[name], split.class_names))
    }
    if config.patience and "validation" not in measured:
        raise UsageError(
            f"--patience={config.patience} needs images that are neither trained nor tested on, but "
            f"{config.dataset_names[0]} has no split `validation`. Convert with, for example, "
            "--splits=train=0.65,validation=0.1,test=0.25."
        )
    return RunSetup(
        config=config,
        model_dir=model_dir,
        strategy=strategy,
        place=place,
        reader=reader,
        reason=reason,
        order=order,
        measured=measured,
        info=describe_run(model_dir, config, split, shuffle),
        augmented_with=_augmented_with(config),
    )


_OBJECTIVE_OF = {"single": "classes", "multi": "multilabel", "float": "regression", "none": "similarity"}


def _for_labels(config: TrainConfig, split: Split) -> TrainConfig:
    """Returns the options with the objective that fits the labels of a split.

    Raises:
        UsageError: the split does not have the labels that the options ask for.
    """
    kind, given = split.schema.label_type, config.objective
    fitting = _OBJECTIVE_OF[kind]
    if given in (fitting, "similarity"):
        return config
    if kind == "none":
        raise UsageError(
            f"{config.dataset_names[0]} has no labels. To train on its images alone, to find copies, use "
            "--objective=similarity."
        )
    if given != "classes":
        raise UsageError(f"--objective={given}: {config.dataset_names[0]} has labels for --objective={fitting}.")
    what = "several labels" if kind == "multi" else "numbers as labels"
    if config.class_weights != "none":
        raise UsageError(f"--class_weights={config.class_weights}: images with {what} have no one class. Leave it out.")
    if not config.epochs:
        raise UsageError(f"--epochs=0: a softmax cannot be fitted to images with {what}. Give 1 or more.")
    return dataclasses.replace(config, objective=fitting, probe=False)


def _augmented_with(config: TrainConfig) -> str:
    """Measures both formulations of the augmentation, once for a kind of GPU, and returns which one is used."""
    found = measure_formulations() if config.augment_with == "auto" and config.epochs else None
    if found is None:
        return ""
    times, was_known = found
    shown = ", ".join(f"{name} {ms:.2f} ms per batch of 256" for name, ms in times.items())
    when = "measured earlier" if was_known else "measured now, once for this kind of GPU"
    return f"augmenting with {fastest(times)}: {shown} ({when}); --augment_with overrides it"


def _shuffle(config: TrainConfig, reader: Reader, model_dir: Path) -> str:
    """Returns the kind of shuffle: the one given, the one the run began with, or one that fits into memory."""
    if reader.kind == "stream":
        if config.shuffle != "auto":
            raise UsageError(f"--shuffle={config.shuffle}: streamed shards are shuffled in a buffer. Leave it out.")
        return "buffered"
    if config.shuffle != "auto":
        return config.shuffle
    recorded = load_run(model_dir).shuffle if (model_dir / CONFIG_FILE).exists() else ""
    if recorded in SHUFFLES or reader.kind == "resident":
        return recorded if recorded in SHUFFLES else "uniform"
    return choose_shuffle(reader.split, psutil.virtual_memory().available)


def _open_other(config: TrainConfig, places: Sequence[Path], split: str, class_names: tuple[str, ...]) -> Reader | None:
    folders = folders_with(places, split)
    if not folders:
        return None  # the split does not exist, and is not needed
    try:
        reader, _ = open_reader(
            folders,
            split,
            config.reader,
            class_names=class_names,
            on_corrupt=config.on_corrupt,
            crop=config.crop,
            image_size=config.image_size,
        )
    except UsageError:
        return None  # the reader of the training split cannot read it
    return reader
