"""Turn pictures into TFRecord shards.

The source is a folder that has one folder of pictures a class, an archive of one, tar shards, a table of paths and
labels, a TensorFlow data set, or a URL. The data set goes to DATA_DIR/NAME/1.0.0 and opens with
`tfds.builder_from_directory` too; report.html in it shows what it holds. Files that cannot be used are refused with a
reason each, listed in quarantine.jsonl beside the shards, and make the exit code 2. If it is stopped, the same command
goes on where it was.

Example: simimg convert --image_dir=photos --name=photos --image_size=64
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow, shows_progress
from simimg.errors import ConversionError, UsageError
from simimg.report.conversion import summary_table, write_conversion_report
from tfrecords.convert import ConvertConfig, ConvertProgress, ConvertSummary, convert
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.options import option

_REPORT = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ConvertConfig):
    """The converter's options, and a source that needs TensorFlow Datasets to be there."""

    tfds_name: str = option("A data set of TensorFlow Datasets, e.g. caltech101; downloaded if need be.", "")


def run(options: Options) -> Result:
    """Converts with a progress bar, and writes the report."""
    names = [field.name for field in dataclasses.fields(ConvertConfig)]
    config = ConvertConfig(**{name: getattr(options, name) for name in names})
    if options.tfds_name:
        config = _with_tfds(config, options.tfds_name)
    summary = convert_with_progress(config)
    values = {
        "dataset_dir": str(summary.dataset_dir),
        "num_examples": summary.num_examples,
        "splits": summary.splits,
        "num_refused": summary.num_refused,
        "reasons": summary.reasons,
        "seconds": summary.seconds,
        "images_per_s": summary.images_per_s,
    }
    return Result(values=values, text=_text(summary), exit_code=2 if summary.num_refused else 0)


def convert_with_progress(config: ConvertConfig) -> ConvertSummary:
    """Converts, showing a progress bar and the warnings; then writes the data set's report."""
    with progress_bar(None, "converting") as bar:

        def show(progress: ConvertProgress) -> None:
            if bar.total is None:  # what an earlier call did is not this one's speed
                bar.initial = bar.n = progress.num_done
            bar.total = progress.num_total
            bar.set_postfix(refused=progress.num_refused, refresh=False)
            bar.update(progress.num_done - bar.n)

        summary = convert(config, progress=show)
    for warning in summary.warnings:
        note(f"note: {warning}")
    if not (summary.dataset_dir / _REPORT).exists():
        write_conversion_report(summary.dataset_dir, config.image_dir)
    return summary


def _with_tfds(config: ConvertConfig, name: str) -> ConvertConfig:
    """Returns the configuration with the folder of a TFDS data set, downloaded and prepared, as its source."""
    if config.image_dir or config.table:
        raise UsageError(f"--tfds_name={name} is a source of its own: leave --image_dir and --table out.")
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
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it does; stdout is for the result
            builder.download_and_prepare()
    except Exception as error:  # whatever its downloads, checksums and extractors raise
        raise ConversionError(
            f"--tfds_name={name} could not be prepared: {error}. Give the same command again when the network is there."
        ) from error
    return dataclasses.replace(
        config, image_dir=str(builder.data_dir), name=config.name or builder.info.name.replace("/", "_")
    )


def _text(summary: ConvertSummary) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
    table = summary_table(read_manifest(summary.dataset_dir), Layout.load(summary.dataset_dir).class_names)
    lines = [table, "", f"{summary.num_examples:,} examples ({splits}) in {summary.dataset_dir}"]
    if summary.num_converted:
        lines.append(
            f"{summary.num_converted:,} converted in {summary.seconds:.1f} s, {summary.images_per_s:,.0f} images/s"
        )
    else:
        lines.append("was there already, made from the same files with the same options; nothing to do")
    if summary.num_refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
        lines.append(f"{summary.num_refused:,} refused ({reasons}); see {summary.dataset_dir / 'quarantine.jsonl'}")
    lines.append(f"report: {summary.dataset_dir / _REPORT}")
    return "\n".join(lines)
