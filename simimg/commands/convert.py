"""Convert images to TFRecord shards.

The source is a folder with one folder of images per class, an archive of such a folder, tar shards, a table of paths
and labels, a TensorFlow dataset, or a URL; a line says what it was taken for. The dataset goes to
DATA_DIR/NAME/1.0.0, and `tfds.builder_from_directory` opens it too; report.html in it shows its contents. Files that
cannot be used are rejected with a reason each and listed in quarantine.jsonl beside the shards. The exit code is still
0, or 1 with --strict. With --max_refused=0, the command fails and makes no dataset. If the conversion is interrupted,
the same command resumes it. --from=DATASET_DIR converts a dataset into another size or encoding without the files, and
notes what its stored images lose by that.

Example: simimg convert --image_dir=photos --name=photos --image_size=64
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Any

from simimg import api
from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow
from simimg.errors import ConversionError, UsageError
from simimg.report.conversion import summary_table
from simimg.standard_error import shows_progress
from tfrecords.convert.engine import ConvertProgress
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources.stored_dataset import with_stored_size
from tfrecords.format.dataset_images import count_labels
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.naming import TFRECORD
from tfrecords.locations import location_text
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions
from tfrecords.storage.remote_dataset import local_dataset

JSON_KEYS = "dataset_dir num_examples splits num_refused reasons seconds images_per_s label_conflicts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ConvertConfig, CacheOptions):
    """The converter's options, and a source that needs TensorFlow Datasets."""

    tfds_name: str = option("Dataset of TensorFlow Datasets to convert, e.g. caltech101; downloaded if necessary.", "")


def resolve(given: dict[str, Any]) -> Options:
    """Return the options; with --from, images keep their size unless another one is given."""
    return Options(**with_stored_size(given))


def run(options: Options) -> Result:
    """Convert, with a progress bar, and write the report."""
    given = vars(options) | (_tfds_source(options) if options.tfds_name else {})
    for name in ("tfds_name", "cache_dir", "cache_bytes"):
        del given[name]
    with progress_bar(None, "converting") as bar:

        def show(progress: ConvertProgress) -> None:
            if bar.total is None:  # the work of an earlier call does not count for the speed of this one
                bar.initial = bar.n = progress.num_done
            bar.total = progress.num_total
            bar.set_postfix(rejected=progress.num_refused, refresh=False)
            bar.update(progress.num_done - bar.n)

        summary = api.convert(progress=show, describe=note, **given)
    for warning in summary.warnings:
        note(f"note: {warning}")
    values = {name: getattr(summary, name) for name in JSON_KEYS.split()}
    values["dataset_dir"] = location_text(summary.dataset_dir)
    values["label_conflicts"] = [dataclasses.asdict(conflict) for conflict in summary.label_conflicts]
    return Result(values=values, text=_text(summary), num_skipped=summary.num_refused)


def _tfds_source(options: Options) -> dict[str, str]:
    """Return the options that make a TFDS dataset, downloaded and prepared, the source."""
    name = options.tfds_name
    if options.image_dir or options.table or options.from_dataset:
        also = " and --from" if options.from_dataset else ""
        raise UsageError(f"--tfds_name={name} is a source of its own: leave out --image_dir and --table{also}.")
    with quiet_tensorflow():
        import tensorflow_datasets as tfds
    try:
        builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--tfds_name={name}: {first} See https://www.tensorflow.org/datasets/catalog for the names."
        ) from None
    note(f"preparing {builder.info.full_name} in {builder.data_dir}")
    if not shows_progress():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints its progress; stdout is for the result
            builder.download_and_prepare()
    except Exception as error:  # downloads, checksums and extractors raise many types
        raise ConversionError(
            f"--tfds_name={name} could not be prepared: {error}. Run the same command again when the network works."
        ) from error
    return {"image_dir": str(builder.data_dir), "name": options.name or builder.info.name.replace("/", "_")}


def _text(summary: ConvertSummary) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
    where, folder = location_text(summary.dataset_dir), local_dataset(summary.dataset_dir, "")
    manifest, layout = read_manifest(folder), Layout.load(folder)
    if layout.schema.label_type == "multi":  # the shards have the labels
        folder = local_dataset(summary.dataset_dir)
    several = count_labels(folder, layout, manifest)
    table = summary_table(manifest, layout.counted_names, several)
    lines = [table, "", f"{summary.num_examples:,} examples ({splits}) in {where}"]
    if summary.num_converted:
        lines.append(
            f"{summary.num_converted:,} converted in {summary.seconds:.1f} s, {summary.images_per_s:,.0f} images/s"
        )
    else:
        lines.append("already converted from the same files with the same options; nothing to do")
    if summary.num_refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
        lines.append(f"{summary.num_refused:,} rejected ({reasons}); see {where}/quarantine.jsonl")
    if layout.encoding == "raw" and layout.file_format == TFRECORD:
        lines.append(
            "raw pixels: read by simimg, TFDS, NumPy and PyTorch; for readers that decode, --encoding=png or jpeg"
        )
    lines.append(f"report: {where}/report.html")
    return "\n".join(lines)
