"""Measure conversion, reading, training and search.

`--stage=convert` converts the JPEG files of a folder to 64 x 64 px with simimg and with each rival in turn, and then
does the same with four times as many images. `--stage=input` reads records in shuffled batches, with simimg's readers
and with other loaders. `--stage=crops` cuts random crops of JPEGs. `--stage=growth` reads datasets of a thousand to two
million records. `--stage=augment` augments batches that are on the device already. `--stage=train` measures each stage
of a training run, from reading bytes to the training step, and names the bottleneck. `--stage=loop` compares the
training loop with a bare compiled step and with Keras's `fit`, and runs it on 1, 2 and 4 devices. `--stage=gpu`
measures augmentation, training and embedding on the GPUs of this machine in at most four minutes, with sizes of its
own, and reports which targets are met. `--stage=embedding` computes embeddings by LiteRT, TensorFlow and OpenVINO, and
measures whole commands in processes of their own: time, processor time and memory, beside those of an earlier version
with --before. `--stage=search` embeds images, searches a million vectors, and measures each part of a query.
`--stage=duplicates` counts the copies that are found in imagededup's protocol, and the time, beside those of an earlier
version with --before. `--stage=protocols` trains the tutorial's network and tests it in two ways: as the tutorial did,
with copies of the training photos in the test, and without them. It uses one seed per round.

The stages `growth`, `duplicates` and `protocols` are in the source repository only. So are the rivals that need
packages which simimg does not need. These rivals get virtual environments of their own under --cache_dir, which takes
some minutes and 3 GB once. If a rival cannot be installed, it is left out and named with the reason.
The time of every run is written to a dated JSON file in --out_dir, with a report and a plot beside it.

Examples:
    simimg bench --stage=convert --image_dir=photos
    simimg bench --stage=input --image_dir=photos --encoding=jpeg --image_size=224 --num_images=6000
    simimg bench --stage=train --dataset_dir=data/photos/1.0.0 --preset=small --profile
    simimg bench --stage=gpu
    simimg bench --stage=embedding --image_dir=photos --before=../simimg-earlier
    simimg bench --stage=duplicates --image_dir=photos --num_originals=300
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.bench.bench_plots import Bar, plot_bars
from simimg.bench.checkout import checkout_module, is_checkout
from simimg.bench.command_costs import check_before, measure_commands
from simimg.bench.converter_comparison import compare_converters
from simimg.bench.converters import RIVALS, Tool
from simimg.bench.embedding_speed import check_batch, measure_engines
from simimg.bench.image_sets import ImageSet, good_jpegs
from simimg.bench.loaders import RIVALS as LOADERS
from simimg.bench.process_costs import check_linux
from simimg.commands.bench_options import Options
from simimg.commands.bench_tables import (
    augmentations_table,
    commands_table,
    converters_table,
    engines_table,
    layers_table,
    loader_name,
    loaders_table,
    loop_table,
    search_table,
    stages_table,
)
from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow
from simimg.doctor.machine import machine_facts
from simimg.errors import UsageError
from simimg.report.bench_report import write_bench_report
from simimg.sample import draw_sample
from tfrecords.format.atomic_files import write_json
from tfrecords.options import check_choices, to_json

with quiet_tensorflow():
    from simimg.bench.augmentation_costs import measure_augmentations
    from simimg.bench.exact_search import measure_exact
    from simimg.bench.keras_layers import measure_layers
    from simimg.bench.loop_overhead import measure_loop
    from simimg.bench.reader_comparison import compare_readers
    from simimg.bench.record_sets import Records, records_of
    from simimg.bench.search_speed import measure_embedding, measure_queries
    from simimg.bench.training_stages import measure_training
    from simimg.commands.bench_crops import measure_crop_stage
    from simimg.commands.bench_gpu import gpu_plot, gpu_table, measure_gpu_stage
    from simimg.similarity.embeddings import load_embedder
    from simimg.similarity.index_update import index_folder
    from simimg.training import TrainConfig

# Each stage adds keys of its own.
JSON_KEYS = "format date command machine load_per_core repeats file report"

_Watch = Callable[[int], Callable[[], object]]

_CONVERTERS = ("tutorial", "tfdata", "dali", "ffcv")
_LARGE_CONVERTERS = ("tutorial",)
_BUSY = 0.3  # running or waiting processes per core, from which on a machine counts as busy


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """The result of a stage: values for the file, lines of a table, and the data of the plot."""

    values: dict[str, Any]  # with the rivals that were left out, and why, under `left_out`
    lines: list[str]
    title: str = ""
    what: str = ""
    bars: Sequence[Bar] = ()
    limit: tuple[str, float] = ("", 0.0)
    draw: Callable[[Path, dict[str, str]], None] | None = None


def run(options: Options) -> Result:
    """Measure, write the dated file and return its content."""
    check_choices(options)
    if options.repeats < 1:
        raise UsageError(f"--repeats={options.repeats}: should be 1 or more.")
    start = datetime.datetime.now(datetime.UTC)
    file = options.out_dir / f"bench-{options.stage}-{start:%Y-%m-%dT%H-%M-%SZ}.json"
    load = _load_per_core()
    if load > _BUSY:
        note(f"the machine is busy ({load:.1f} processes per core), so the figures will be less accurate")
    with progress_bar(None, "measuring", "run") as bar:

        def watch(num_runs: int) -> Callable[[], object]:
            bar.total = num_runs
            return bar.update

        cache_dir = options.cache_dir.expanduser().absolute()
        measured = _STAGES[options.stage](dataclasses.replace(options, cache_dir=cache_dir), file, watch)
    machine = machine_facts()
    given = {name: value for name, value in to_json(options).items() if value not in (None, [])}
    given |= {"rivals": ",".join(options.rivals)} if options.rivals else {}
    command = [f"--{name}={value}" for name, value in given.items()]
    values = {
        "format": "simimg-bench/1",
        "date": start.isoformat(timespec="seconds"),
        "command": shlex.join(["simimg", "bench", *command]),
        "machine": machine,
        "load_per_core": {"before": load, "after": _load_per_core()},
        "repeats": options.repeats,
        **measured.values,
    }
    options.out_dir.mkdir(parents=True, exist_ok=True)
    write_json(file, values)
    plot, report = file.with_suffix(".png"), file.with_suffix(".html")
    if measured.bars:
        plot_bars(plot, measured.title, measured.what, measured.bars, measured.limit, machine)
    elif measured.draw:
        measured.draw(plot, machine)
    left_out = measured.values.get("left_out", {})
    write_bench_report(
        report,
        title=measured.title or f"Benchmark: {options.stage}",
        date=f"{start:%-d %B %Y, %H:%M} UTC",
        lines=measured.lines,
        left_out=left_out,
        plot=plot if plot.exists() else None,
        repeat=values["command"],
        machine=machine,
    )
    lines = [
        f"{machine['processor']}, {machine['cores']} cores; {machine['versions']}",
        *measured.lines,
        *(f"left out: {name}: {reason}" for name, reason in left_out.items()),
        "",
        f"all runs: {file}",
        f"report: {report}",
    ]
    values |= {"file": str(file), "report": str(report)}
    return Result(values=values, text="\n".join(lines), num_skipped=len(left_out), unit="rival")


def _convert(options: Options, file: Path, watch: _Watch) -> _Measured:
    rivals = _rivals(options)
    comparison = compare_converters(
        _image_dir(options),
        rivals,
        cache_dir=options.cache_dir,
        repeats=options.repeats,
        replicate=options.replicate,
        megapixels=options.megapixels,
        num_large=options.num_large,
        note=note,
        watch=watch,
    )
    lines = [line for stage in comparison.stages for line in ("", *converters_table(stage))]
    return _Measured(values=dataclasses.asdict(comparison), lines=lines)


def _input(options: Options, file: Path, watch: _Watch) -> _Measured:
    rivals = _rivals(options)
    comparison = compare_readers(
        _records(options),
        rivals,
        batch_size=options.batch_size,
        repeats=options.repeats,
        cache_dir=options.cache_dir,
        note=note,
        watch=watch,
    )
    bars = [Bar(loader_name(found), found.images_per_s, found.ci95, found.is_ours) for found in comparison.loaders]
    return _Measured(
        values=dataclasses.asdict(comparison),
        lines=["", *loaders_table(comparison)],
        title="Images per second, shuffled",
        what=f"{comparison.what}, batches of {comparison.batch_size}",
        bars=sorted(bars, key=lambda bar: -bar.images_per_s),
        limit=("page cache", comparison.limit_images_per_s),
    )


def _crops(options: Options, file: Path, watch: _Watch) -> _Measured:
    pictures = good_jpegs(_image_dir(options), options.cache_dir)
    return _Measured(**measure_crop_stage(options, pictures, _chosen, watch))


def _growth(options: Options, file: Path, watch: _Watch) -> _Measured:
    stage = checkout_module("dataset_size", "--stage=growth")
    split = _records(options).split
    what = f"{options.image_size} x {options.image_size}, {options.encoding}"
    growth = stage.measure_growth(split, what, batch_size=options.batch_size, repeats=options.repeats, watch=watch)
    return _Measured(values=dataclasses.asdict(growth), lines=["", *stage.growth_table(growth)])


def _augment(options: Options, file: Path, watch: _Watch) -> _Measured:
    costs = measure_augmentations(options.image_size, options.batch_size, repeats=options.repeats, watch=watch)
    layers = measure_layers(options.image_size, options.batch_size, repeats=options.repeats, watch=watch)
    *found, limit = costs.augmentations
    return _Measured(
        values={**dataclasses.asdict(costs), "keras_layers": dataclasses.asdict(layers)},
        lines=["", *augmentations_table(costs), "", *layers_table(layers)],
        title="Images per second, augmented",
        what=costs.what,
        bars=[Bar(cost.name, cost.images_per_s, cost.ci95, cost.is_ours) for cost in found],
        limit=(limit.name, limit.images_per_s),
    )


def _train(options: Options, file: Path, watch: _Watch) -> _Measured:
    profile_dir = file.with_suffix("") if options.profile else None
    costs = measure_training(_config(options), repeats=options.repeats, profile_dir=profile_dir, note=note, watch=watch)
    limit, *found = costs.stages
    return _Measured(
        values={**dataclasses.asdict(costs), "profile_dir": costs.profile_dir and str(costs.profile_dir)},
        lines=["", *stages_table(costs)],
        title="Images per second, stage by stage",
        what=costs.what,
        bars=[Bar(stage.name, stage.images_per_s, stage.ci95, stage.own_us is not None) for stage in found],
        limit=("page cache", limit.images_per_s),
    )


def _loop(options: Options, file: Path, watch: _Watch) -> _Measured:
    costs = measure_loop(_config(options), repeats=options.repeats, note=note, watch=watch)
    return _Measured(values=dataclasses.asdict(costs), lines=["", *loop_table(costs)])


def _gpu(options: Options, file: Path, watch: _Watch) -> _Measured:
    def pictures() -> ImageSet:
        return good_jpegs(_image_dir(options), options.cache_dir)

    found = measure_gpu_stage(pictures, options.cache_dir, quick=options.quick, watch=watch)
    return _Measured(values=dataclasses.asdict(found), lines=gpu_table(found), **gpu_plot(found))


def _protocols(options: Options, file: Path, watch: _Watch) -> _Measured:
    stage = checkout_module("split_protocols", "--stage=protocols")
    found = stage.compare_protocols(_image_dir(options), num_seeds=options.repeats, watch=watch)
    return _Measured(
        values={"protocols": [dataclasses.asdict(protocol) for protocol in found]},
        lines=["", *stage.protocols_table(found)],
        draw=lambda path, machine: stage.plot_protocols(path, found, machine),
    )


def _embedding(options: Options, file: Path, watch: _Watch) -> _Measured:
    check_linux()
    check_before(options.before)
    pictures = good_jpegs(_image_dir(options), options.cache_dir)
    check_batch(pictures)
    sample = good_jpegs(_image_dir(dataclasses.replace(options, image_dir=None)), options.cache_dir)
    engines = measure_engines(pictures, repeats=options.repeats, watch=watch)
    commands = measure_commands(
        pictures,
        sample,
        repeats=options.repeats,
        num_indexed=options.num_indexed,
        before=options.before,
        cache_dir=options.cache_dir,
        note=note,
        watch=watch,
    )
    return _Measured(
        values={
            "engines": dataclasses.asdict(engines),
            "commands": dataclasses.asdict(commands),
            "left_out": commands.left_out,
        },
        lines=["", *engines_table(engines), "", *commands_table(commands)],
    )


def _search(options: Options, file: Path, watch: _Watch) -> _Measured:
    for name, value in (("num_vectors", options.num_vectors), ("num_queries", options.num_queries)):
        if value < 10:
            raise UsageError(f"--{name}={value}: should be 10 or more.")
    pictures = good_jpegs(_image_dir(options), options.cache_dir)
    embedder = load_embedder("lite0")
    note(f"updating the index of {pictures.folder}")
    index_dir = options.cache_dir / "bench" / f"index-{pictures.folder.name}"
    index = index_folder(index_dir, pictures.folder, embedder).index
    query = measure_queries(index, embedder, num_queries=options.num_queries, watch=watch)
    embedding = measure_embedding(pictures, embedder, repeats=options.repeats, watch=watch)
    exact = measure_exact(options.num_vectors, repeats=options.repeats, watch=watch)
    found: dict[str, Any] = {"embedding": embedding, "exact": exact, "query": query}
    return _Measured(
        values={name: dataclasses.asdict(costs) for name, costs in found.items()},
        lines=["", *search_table(embedding, exact, query)],
    )


def _duplicates(options: Options, file: Path, watch: _Watch) -> _Measured:
    stage = checkout_module("dedup_comparison", "--stage=duplicates")
    check_linux()
    check_before(options.before)
    comparison = stage.compare_duplicates(
        _image_dir(options),
        _chosen(options.rivals, stage.DUPLICATE_RIVALS, stage.DUPLICATE_RIVALS),
        num_originals=options.num_originals,
        seed=0,
        before=options.before,
        cache_dir=options.cache_dir,
        note=note,
        watch=watch,
    )
    return _Measured(values=dataclasses.asdict(comparison), lines=["", *stage.duplicates_table(comparison)])


_STAGES = {
    "convert": _convert,
    "input": _input,
    "crops": _crops,
    "growth": _growth,
    "augment": _augment,
    "train": _train,
    "loop": _loop,
    "gpu": _gpu,
    "protocols": _protocols,
    "embedding": _embedding,
    "search": _search,
    "duplicates": _duplicates,
}


def _config(options: Options) -> TrainConfig:
    given = {"preset": options.preset, "reader": options.reader, "global_batch_size": options.batch_size}
    return TrainConfig.with_preset({**given, "dataset_dir": options.dataset_dir or _records(options).split.dataset_dir})


def _records(options: Options) -> Records:
    note("preparing the records")
    pictures = good_jpegs(_image_dir(options), options.cache_dir)
    return records_of(pictures, options.num_images, options.image_size, options.encoding, options.cache_dir)


def _rivals(options: Options) -> list[Tool]:
    converts = options.stage == "convert"
    there = dict(RIVALS if converts else LOADERS[options.encoding])
    if is_checkout():
        others = checkout_module("rivals", "--rivals")
        there |= others.CONVERTERS if converts else others.LOADERS[options.encoding]
    elif not options.rivals:
        note("comparing only with rivals that need no other packages; the other rivals are in the source repository")
    default = tuple(there)
    if converts:
        default = _LARGE_CONVERTERS if options.megapixels else tuple(name for name in _CONVERTERS if name in there)
    return [there[name] for name in _chosen(options.rivals, default, tuple(there))]


def _chosen(given: tuple[str, ...], default: tuple[str, ...], there: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the rivals that --rivals asks for."""
    names = given or default
    names = () if names == ("none",) else tuple(dict.fromkeys(names))
    for name in names:
        if name not in there:
            more = "" if is_checkout() else " Other rivals are in the source repository: run this command in a clone."
            raise UsageError(
                f"--rivals={','.join(names)}: {name!r} should be one of {', '.join(there)}, or none.{more}"
            )
    return names


def _image_dir(options: Options) -> Path:
    sample = options.cache_dir / "bench" / "sample"
    if options.image_dir is None:
        draw_sample(sample)
    return options.image_dir or sample


def _load_per_core() -> float:
    return round(os.getloadavg()[0] / int(machine_facts()["cores"]), 2)
