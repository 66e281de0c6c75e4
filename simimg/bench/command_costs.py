"""The costs of whole commands in cold processes: search, prediction and indexing, also by an earlier version.

Each run is a process of its own, `python -c "…; sys.exit(main())" COMMAND`, so the start of Python and all imports
count. The files are in the page cache, and the network was converted before, except in the command that says so. An
earlier version runs the same commands, in turn with this one, in the same Python environment: its folder is first in
PYTHONPATH. Each version makes its own indexes and models before the measurement.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

import simimg
from simimg.bench import large_index
from simimg.bench.image_sets import ImageSet
from simimg.bench.measurements import Estimate, Run, RunFailed, estimate, take_turns
from simimg.bench.process_costs import check_linux, run_command
from simimg.errors import SimimgError, UsageError

__all__ = ["BEFORE", "NOW", "CommandCost", "CommandCosts", "check_before", "measure_commands"]

NOW, BEFORE = "this version", "before"

_NUM_PHOTOS = 1_000
_NUM_UNCHANGED = 9_000
_UNCHANGED_PX = 256  # nobody reads the unchanged files, so they may be small
_PER_CLASS = 20  # images to train with; a prediction takes as long with a bad model
_PRESETS = ("tutorial", "lite0")
_PROGRAM = "import sys; from simimg.cli import main; sys.exit(main())"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandCost:
    """What a command costs, or how many times as much it cost before.

    Attributes:
        name: what the command does.
        version: `this version` or `before`; of ratios, `before / this version`.
        seconds: wall time.
        cpu_seconds: processor time of the process and its children.
        peak_bytes: their memory, see `simimg.bench.process_costs`.
    """

    name: str
    version: str
    seconds: Estimate
    cpu_seconds: Estimate
    peak_bytes: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandCosts:
    """All commands.

    Attributes:
        what: a description of the images.
        commands: the measured ones, those of each version.
        ratios: of the commands that both versions ran; computed within each round.
        left_out: why a command of a version was not measured.
        rounds: every counted run by command and version.
    """

    what: str
    commands: tuple[CommandCost, ...]
    ratios: tuple[CommandCost, ...]
    left_out: dict[str, str]
    rounds: dict[str, list[Run]]


def check_before(before: Path | None) -> None:
    """Raises UsageError unless an earlier version can be run from the folder, or none is asked for."""
    if before is not None and not (before / "simimg" / "cli.py").is_file():
        raise UsageError(f"--before={before} is not a clone of simimg: it has no simimg/cli.py.")


def measure_commands(
    pictures: ImageSet,
    sample: ImageSet,
    *,
    repeats: int,
    num_indexed: int,
    before: Path | None = None,
    cache_dir: Path,
    note: Callable[[str], None] = lambda text: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> CommandCosts:
    """Measures with up to 1,000 of the images, evenly chosen.

    Args:
        pictures: the images to index and to search for.
        sample: images of several classes, to train the models with.
        repeats: counted rounds.
        num_indexed: images of the large index; random vectors stand for those that are not there.
        before: a clone of an earlier version to compare with.
        cache_dir: the indexes and models are made in `bench` there, and removed at the end.
        note: called with a line about what is being prepared.
        watch: takes the number of runs and returns a function to call after each.

    Raises:
        UsageError: the large index is smaller than the small one, or `before` cannot be run.
        SimimgError: this version cannot make its indexes and models.
    """
    check_linux()
    check_before(before)
    files = pictures.files[:: max(1, len(pictures.files) // _NUM_PHOTOS)][:_NUM_PHOTOS]
    if num_indexed < len(files):
        raise UsageError(
            f"--num_indexed={num_indexed}: should be {len(files)} or more, because these images are in the index."
        )
    (cache_dir / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="commands-", dir=cache_dir / "bench") as folder:
        inputs = _inputs(Path(folder), pictures.folder, files, sample)
        versions = [_Version(NOW, Path(simimg.__file__).resolve().parents[1], Path(folder) / "now")]
        if before is not None:
            versions.append(_Version(BEFORE, before.resolve(), Path(folder) / "before"))
        for version in versions:
            note(f"preparing the indexes and models of {version.root}")
            try:
                version.prepare(inputs, num_indexed)
            except RunFailed as error:
                if version.name == BEFORE:
                    raise UsageError(f"--before={before}: {error}") from None
                raise SimimgError(str(error)) from None
        commands = {version.name: dict(version.commands(inputs, num_indexed)) for version in versions}
        names = list(commands[NOW])
        tools = {f"{name}: {version}": runs[name] for name in names for version, runs in commands.items()}
        rounds, failures = take_turns(tools, repeats=repeats, progress=watch(len(tools) * (repeats + 1)))
    return CommandCosts(
        what=f"{len(files):,} JPEG files of {pictures.folder.name}",
        commands=tuple(
            _cost(name, version, rounds[key], [])
            for name in names
            for version in commands
            if (key := f"{name}: {version}") in rounds
        ),
        ratios=tuple(
            _cost(name, f"{BEFORE} / {NOW}", rounds[f"{name}: {BEFORE}"], rounds[f"{name}: {NOW}"])
            for name in names
            if f"{name}: {BEFORE}" in rounds and f"{name}: {NOW}" in rounds
        ),
        left_out=failures,
        rounds=rounds,
    )


def _cost(name: str, version: str, runs: Sequence[Run], divisors: Sequence[Run]) -> CommandCost:
    """Returns the medians of runs, or of their ratios to other runs of the same rounds."""

    def of(field: str) -> Estimate:
        values = [getattr(run, field) for run in runs]
        others = [getattr(run, field) for run in divisors] or [1] * len(values)
        return estimate([value / other for value, other in zip(values, others, strict=True)])

    return CommandCost(
        name=name,
        version=version,
        seconds=of("seconds"),
        cpu_seconds=of("cpu_seconds"),
        peak_bytes=of("peak_bytes"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The images of the commands.

    Attributes:
        image_dir: where the images are.
        files: the measured ones, relative to it.
        photos: a folder with links to them.
        unchanged: a folder with small copies of them.
        classes: a folder with images to train with.
    """

    image_dir: Path
    files: tuple[str, ...]
    photos: Path
    unchanged: Path
    classes: Path


def _inputs(folder: Path, image_dir: Path, files: Sequence[str], sample: ImageSet) -> _Inputs:
    """Writes the folders: links to the images, small copies of them, and links to some images of each class."""
    inputs = _Inputs(
        image_dir=image_dir,
        files=tuple(files),
        photos=folder / "photos",
        unchanged=folder / "unchanged",
        classes=folder / "classes",
    )
    for file in files:
        _link(inputs.photos / file, image_dir / file)
    small = []
    for file in files[:_NUM_UNCHANGED]:
        with Image.open(image_dir / file) as image:
            image.thumbnail((_UNCHANGED_PX, _UNCHANGED_PX))
            image.save(folder / "small.jpg", quality=90)
        small.append((folder / "small.jpg").read_bytes())
    inputs.unchanged.mkdir()
    for number in range(_NUM_UNCHANGED):
        (inputs.unchanged / f"{number:05}.jpg").write_bytes(small[number % len(small)])
    labels = sample.labels()
    for label in set(labels):
        members = [file for file, other in zip(sample.files, labels, strict=True) if other == label]
        for file in members[:_PER_CLASS]:
            _link(inputs.classes / file, sample.folder / file)
    return inputs


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target.resolve())


@dataclasses.dataclass(frozen=True)
class _Version:
    """A version of simimg: its name, the folder with its packages, and a folder for what it makes."""

    name: str
    root: Path
    made: Path

    def prepare(self, inputs: _Inputs, num_indexed: int) -> None:
        """Make the indexes and models; raise RunFailed if a command fails."""
        self.made.mkdir()
        self._simimg("index", f"--image_dir={inputs.photos}", f"--index_dir={self.made / 'small'}")
        self._simimg("index", f"--image_dir={inputs.unchanged}", f"--index_dir={self.made / 'unchanged'}")
        self._python(large_index.__file__, str(self.made / "small"), str(self.made / "large"), str(num_indexed))
        self._simimg("convert", f"--image_dir={inputs.classes}", "--name=few", f"--data_dir={self.made}")
        for preset in _PRESETS:
            self._simimg(
                "train",
                f"--dataset_dir={self.made / 'few' / '1.0.0'}",
                f"--preset={preset}",
                "--epochs=1",
                f"--model_dir={self.made / preset}",
            )

    def commands(self, inputs: _Inputs, num_indexed: int) -> Iterator[tuple[str, Callable[[], Run]]]:
        """Yield the measured commands by name."""
        num_photos = len(inputs.files)
        for index, num_images in (("small", num_photos), ("large", num_indexed)):
            yield f"search among {num_images:,} images", self._search(self.made / index, inputs)
        for preset in _PRESETS:
            arguments = ["predict", f"--model_dir={self.made / preset}", str(inputs.image_dir / inputs.files[0])]
            yield f"predict, preset {preset}", partial(self._simimg, *arguments, shows="%")
        index_photos = ["index", f"--image_dir={inputs.photos}", f"--index_dir={self.made / 'new'}"]
        yield f"index {num_photos:,} images", partial(self._simimg, *index_photos, shows=f"{num_photos:,}")
        yield (
            f"index {num_photos:,} images, with an empty cache",
            partial(self._simimg, *index_photos, shows=f"{num_photos:,}", empty_cache=True),
        )
        update = ["index", f"--image_dir={inputs.unchanged}", f"--index_dir={self.made / 'unchanged'}"]
        yield (
            f"index with nothing new in {_NUM_UNCHANGED:,} images",
            partial(self._simimg, *update, shows=f"{_NUM_UNCHANGED:,}"),
        )

    def _search(self, index_dir: Path, inputs: _Inputs) -> Callable[[], Run]:
        """Return a function that searches for the next image each time, in each version for the same ones."""
        step = max(1, len(inputs.files) // 10)
        numbers = itertools.count(step=step)

        def search() -> Run:
            file = inputs.files[next(numbers) % len(inputs.files)]
            found = f"{inputs.photos.resolve() / file}"
            return self._simimg("search", f"--index_dir={index_dir}", str(inputs.image_dir / file), shows=found)

        return search

    def _simimg(self, *arguments: str, shows: str = "", empty_cache: bool = False) -> Run:
        """Run a command whose standard output has the text `shows`."""
        cache = self.made / "cache"
        if empty_cache:
            cache = self.made / "empty"
            shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(self.made / "new", ignore_errors=True)
        run, output = self._python("-c", _PROGRAM, *arguments, cache=cache)
        if shows not in output:
            raise RunFailed(f"`simimg {' '.join(arguments)}` of {self.root} did not show {shows}, but: {output}")
        return run

    def _python(self, *arguments: str, cache: Path | None = None) -> tuple[Run, str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "XDG_CACHE_HOME": str(cache or self.made / "cache"),
        }
        os.sync()  # so that no command waits for what the previous one left to be written
        try:
            return run_command([sys.executable, "-P", *arguments], folder=self.made, environment=environment)
        except RunFailed as error:
            program = ("simimg", *arguments[2:]) if arguments[0] == "-c" else arguments
            raise RunFailed(f"`{' '.join(program)}` of {self.root}: {error}") from None
