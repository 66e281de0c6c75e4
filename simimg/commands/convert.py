"""Turn a folder of pictures into TFRecord shards.

The folder has one folder of pictures a class. The data set goes to DATA_DIR/NAME/1.0.0 and opens with
`tfds.builder_from_directory` too. Files that cannot be used are refused with a reason each, listed in quarantine.jsonl
beside the shards, and make the exit code 2. If it is stopped, the same command goes on where it was.

Example: simimg convert --image_dir=photos --name=photos --image_size=64
"""

from __future__ import annotations

from simimg.commands.console import Result, note, progress_bar
from tfrecords.convert import ConvertConfig, ConvertProgress, ConvertSummary, convert

Options = ConvertConfig


def run(options: ConvertConfig) -> Result:
    """Converts with a progress bar."""
    summary = convert_with_progress(options)
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
    """Converts, showing a progress bar and the warnings."""
    with progress_bar(None, "converting") as bar:

        def show(progress: ConvertProgress) -> None:
            bar.total = progress.num_total
            bar.set_postfix(refused=progress.num_refused, refresh=False)
            bar.update(progress.num_done - bar.n)

        summary = convert(config, progress=show)
    for warning in summary.warnings:
        note(f"note: {warning}")
    return summary


def _text(summary: ConvertSummary) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
    lines = [f"{summary.num_examples:,} examples ({splits}) in {summary.dataset_dir}"]
    if summary.num_converted:
        lines.append(
            f"{summary.num_converted:,} converted in {summary.seconds:.1f} s, {summary.images_per_s:,.0f} images/s"
        )
    else:
        lines.append("was there already, made from the same files with the same options; nothing to do")
    if summary.num_refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
        lines.append(f"{summary.num_refused:,} refused ({reasons}); see {summary.dataset_dir / 'quarantine.jsonl'}")
    return "\n".join(lines)
