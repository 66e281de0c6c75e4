"""Kill -9 at any moment: the same command goes on where it was, and ends with the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import Interrupted
from tfrecords.convert.engine import convert
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan import shard_plan as plan_module
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.atomic_files import TEMPORARY, read_json
from tfrecords.format.dataset_verification import verify

Digests = Callable[[Path], dict[str, str]]
AConfig = Callable[..., ConvertConfig]

WAIT_S = 60

# Stands still where it is told to, before or after a function of the converter.
HOLDING = textwrap.dedent(
    """
    import importlib, sys, time
    from pathlib import Path
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig
    from tfrecords.convert.plan import shard_plan

    def hold(*_, **__):
        print("here", flush=True)
        time.sleep(600)

    if __name__ == "__main__":
        shard_plan.MIN_EXAMPLES_PER_SHARD = 4
        where, when, image_dir, data_dir, options = sys.argv[1:]
        module, _, name = where.partition(":")
        owner = importlib.import_module(f"tfrecords.convert.{module}")
        *path, name = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        function = getattr(owner, name)
        setattr(owner, name, hold if when == "before" else lambda *a, **k: hold(function(*a, **k)))
        convert(ConvertConfig(image_dir=image_dir, data_dir=Path(data_dir), image_size=8, **eval(options)))
    """
)


class Scenario:
    """A conversion that is to be killed: of new pictures, with copies that change their split, or an added version."""

    def __init__(self, kind: str, folder: Path, make_folder: Callable[..., Path], write_picture: Callable[..., None]):
        self.kind = kind
        self.image_dir = make_folder(folder / "photos", {"ant": 22, "bee": 18}, size=(640, 480))
        self.options: dict[str, Any] = {"num_workers": 2}
        self.base = folder / "base"  # what is there before
        if kind == "copies":
            for number in range(6):
                shutil.copy(
                    self.image_dir / "ant" / f"image_{2 * number}.jpg", self.image_dir / "bee" / f"x_{number}.jpg"
                )
        self.base.mkdir()
        if kind == "append":
            convert(self.config(self.base))
            for number in range(12):
                write_picture(self.image_dir / "ant" / f"new_{number}.png", 500 + number, size=(640, 480))
            self.options["append"] = True
        self.straight = self.new(folder / "straight")
        self.summary = convert(self.config(self.straight))

    def config(self, data_dir: Path) -> ConvertConfig:
        return ConvertConfig(
            image_dir=str(self.image_dir), data_dir=data_dir, image_size=8, **{**self.options, "num_workers": 1}
        )

    def new(self, data_dir: Path) -> Path:
        """Returns a new data folder, with what is there before."""
        shutil.copytree(self.base, data_dir, copy_function=shutil.copy2)
        return data_dir

    @property
    def version(self) -> str:
        return self.summary.dataset_dir.name

    def goes_on(self, data_dir: Path, digests_of: Digests) -> ConvertSummary:
        """Checks what a killed conversion left, gives its command again, and checks what came of both."""
        work = data_dir / "photos" / f".{self.version}.work"
        final = data_dir / "photos" / self.version
        expected = digests_of(self.straight / "photos")
        before = {name: digest for name, digest in digests_of(data_dir).items() if "/." not in name}
        allowed = {f"photos/{name}": digest for name, digest in expected.items()}
        assert before.items() <= allowed.items()  # nothing under a final name but what belongs there
        was_complete = final.exists()
        assert not was_complete or before.items() == allowed.items()
        finished = 0
        if not was_complete:
            for receipt in (work / "receipts").glob("*0?.json"):
                if not receipt.name.endswith("assembled.json") and (work / "shards" / receipt.stem).exists():
                    finished += read_json(receipt, "")["info"]["num_examples"]
        summary = convert(self.config(data_dir))
        assert digests_of(data_dir / "photos") == expected
        assert summary.num_converted == (0 if was_complete else self.summary.num_converted - finished)
        return summary


@pytest.fixture(scope="module", params=["new", "copies", "append"])
def scenario(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_folder: Callable[..., Path],
    write_picture: Callable[..., None],
) -> Iterator[Scenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 4)
        yield Scenario(request.param, tmp_path_factory.mktemp(request.param), make_folder, write_picture)


@pytest.mark.parametrize("part", range(5))
def test_killed_at_random_moments(
    scenario: Scenario, part: int, tmp_path: Path, start_child: Callable[..., Any], digests_of: Digests
) -> None:
    """25 moments in all: ten each of a new dataset and of an added version, five where copies change their split."""
    child = start_child(scenario.image_dir, scenario.new(tmp_path / "timed"), **scenario.options)
    start = time.monotonic()
    assert child.line() == "done"
    duration = time.monotonic() - start
    random_of = random.Random(f"{scenario.kind} {part}")
    for number in range(1 if scenario.kind == "copies" else 2):
        data_dir = scenario.new(tmp_path / str(number))
        child = start_child(scenario.image_dir, data_dir, **scenario.options)
        time.sleep(random_of.uniform(0, duration))
        child.signal(signal.SIGKILL)
        assert child.ends()
        scenario.goes_on(data_dir, digests_of)


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("state.workdir:WorkDir.begin", "after"),
        ("plan.conversion_job:group_copies", "before"),
        ("engine:reshard", "before"),
        ("output.reshard:write_receipt", "before"),
        ("engine:reshard", "after"),
        ("output.publish:_make_manifest", "after"),
        ("state.workdir:WorkDir.publish", "before"),
        ("state.workdir:os.rename", "after"),
        ("state.workdir:WorkDir.remove_work", "before"),
    ],
)
def test_killed_in_each_phase(
    scenario: Scenario, where: str, when: str, tmp_path: Path, environment: dict[str, str], digests_of: Digests
) -> None:
    data_dir = scenario.new(tmp_path / "data")
    script = tmp_path / "holding.py"
    script.write_text(HOLDING)
    options = {**scenario.options, "num_workers": 1}
    process = subprocess.Popen(
        [sys.executable, str(script), where, when, str(scenario.image_dir), str(data_dir), repr(options)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=WAIT_S)
    scenario.goes_on(data_dir, digests_of)


def test_what_is_left_of_a_killed_worker_is_removed(
    scenario: Scenario, tmp_path: Path, start_child: Callable[..., Any], digests_of: Digests
) -> None:
    data_dir = scenario.new(tmp_path / "data")
    child = start_child(scenario.image_dir, data_dir, stop_at=5, **scenario.options)
    assert child.line() == "here"
    child.signal(signal.SIGKILL)
    assert child.ends()
    work = data_dir / "photos" / f".{scenario.version}.work"
    (work / "shards" / f".photos-train.tfrecord-00000-of-00001{TEMPORARY}1-2").write_bytes(b"half a shard")
    scenario.goes_on(data_dir, digests_of)
    assert [path.name for path in (data_dir / "photos").iterdir() if path.name.startswith(".")] == []
    assert verify(data_dir / "photos" / scenario.version).ok


POWER_FAILURES: dict[str, Callable[[bytes], bytes]] = {
    "the end is lost": lambda data: data[: len(data) // 2],
    "all of it is lost": lambda data: b"",
    "a page is zeros": lambda data: data[:300] + bytes(200) + data[500:],
    "all of it is zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("part", ["shards", "receipts", "sidecars"])
@pytest.mark.parametrize("failure", POWER_FAILURES)
def test_a_power_failure_costs_the_shards_that_were_not_on_the_disk(
    scenario: Scenario,
    failure: str,
    part: str,
    tmp_path: Path,
    start_child: Callable[..., Any],
    digests_of: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shards of the first plan are not waited for: what a machine that went off has of them is looked at."""
    encoding = "png" if part == "sidecars" else "raw"
    if part == "sidecars" and scenario.kind == "append":
        pytest.skip("the dataset that is added to is raw")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    config = dataclasses.replace(scenario.config(scenario.new(tmp_path / "data")), encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr("tfrecords.convert.engine.reshard", fail)
        with pytest.raises(Interrupted):
            convert(config)
    work = tmp_path / "data" / "photos" / f".{scenario.version}.work"
    pattern = {"shards": "shards/*-000??", "receipts": "receipts/*.json", "sidecars": "shards/*.idx"}[part]
    paths = sorted(work.glob(pattern))
    damaged = paths[:2]
    num_lost = 0
    for path in damaged:
        shard = path.name.removesuffix(".json").removesuffix(".idx")
        num_lost += read_json(work / "receipts" / f"{shard}.json", "")["info"]["num_examples"]
        path.write_bytes(POWER_FAILURES[failure](path.read_bytes()))
    assert len(paths) > 2
    summary = convert(config)
    assert summary.num_converted == num_lost
    straight = dataclasses.replace(config, data_dir=scenario.new(tmp_path / "straight"))
    convert(straight)
    assert digests_of(tmp_path / "data") == digests_of(tmp_path / "straight")
