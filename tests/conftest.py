"""What all tests share: what chance and memory there is, and Ctrl-C, also for the processes that tests interrupt.

Hypothesis draws the same examples every time. Its other profiles are `--hypothesis-profile=random`, which draws others
and says from which seed, and `--hypothesis-profile=thorough`, which draws a hundred times as many.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.forked_process import ForkedProcess

gc.disable()  # until all modules are imported: what they make is no garbage

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# TensorFlow's lines about the processor, of each process that imports it; its errors are still written.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Networks that were converted, for all processes of all runs with the same code; not the cache of whoever tests.
CONVERSION = Path(__file__).parents[1] / "simimg/inference/conversion.py"
os.environ["XDG_CACHE_HOME"] = str(
    Path(tempfile.gettempdir(), f"simimg-tests-{os.getuid()}", hashlib.sha256(CONVERSION.read_bytes()).hexdigest()[:12])
)

WORKER_BYTES = 4 << 30  # a worker, 3 GB at most, and the processes that it starts: two took 7.4 GB together
LARGE_BYTES = 64 << 20  # a test that leaves more than that has what it left collected at once
THOROUGH = 100  # times the examples
OWN_PROCESS = "SIMIMG_TEST_REPORTS"  # where a process of one module writes its reports
OUTPUTS = "output", "reports"
REPORTS = pytest.StashKey[dict[str, list[pytest.TestReport]]]()
CONFIG: list[pytest.Config] = []
MAIN_PROCESS = os.getpid()

# How long an example takes is the machine's matter: no deadline, and no complaint that drawing is slow.
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("ci"), derandomize=False, print_blob=True)
settings.register_profile("thorough", settings.get_profile("random"), max_examples=THOROUGH * 100)
settings.load_profile("ci")

# What takes longest is begun first, so that no process is left with one of them at the end.
LONGEST = tuple(
    f"tests/simimg/{name}.py"
    for name in (
        *("test_tour", "commands/test_demo", "training/test_killed", "training/test_linear_probe"),
        *("training/test_train_config", "training/test_workers", "training/test_resume", "models/test_backbones"),
        *("bench/test_reader_comparison", "similarity/evaluation/test_retrieval", "training/test_similarity"),
        *("bench/test_embedding_speed", "bench/test_gpu_speed"),
        *("input/readers/test_service", "training/test_replicas", "training/test_train_step", "test_determinism"),
        *("similarity/test_index_update", "similarity/test_duplicate_groups", "test_api", "bench/test_training_stages"),
        *("augment/test_augmentation", "training/test_run_folder", "bench/test_loop_overhead", "test_extending"),
    )
)


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's own, and before the workers are told the options
def pytest_configure(config: pytest.Config) -> None:
    CONFIG[:] = [config]
    config.addinivalue_line("markers", "own_process: the module's tests run in one process that ends with them")
    option = config.option
    if option.hypothesis_profile == "thorough":
        multiply_examples()
    if is_random(config) and option.hypothesis_seed is None:
        option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    option.loadscopereorder = False  # xdist would begin with the files of most tests, which are the quickest


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not is_random(config):
        return []
    option = config.option
    return [f"again: --hypothesis-profile={option.hypothesis_profile} --hypothesis-seed={option.hypothesis_seed}"]


def is_random(config: pytest.Config) -> bool:
    return config.getoption("--hypothesis-profile") in ("random", "thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("randomly"):
        return  # it has shuffled the files
    places = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def multiply_examples() -> None:
    """Has each `settings(max_examples=...)` that is made from now on ask for a hundred times as many.

    So do tests that ask for a number of their own, also those that have their property inside.
    """
    init = settings.__init__

    @functools.wraps(init)
    def multiplied(self: settings, parent: settings | None = None, **values: object) -> None:
        if isinstance(number := values.get("max_examples"), int):
            values["max_examples"] = THOROUGH * number
        init(self, parent, **values)

    settings.__init__ = multiplied


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many processes again as there are cores, unless memory is short: TensorFlow is in each of them."""
    if asked := os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return int(asked)
    import psutil

    from tfrecords.machine_limits import memory_limit

    free = psutil.virtual_memory().available
    return num_workers(len(os.sched_getaffinity(0)), min(free, memory_limit() or free))


def num_workers(num_cores: int, free_bytes: int) -> int:
    """Returns how many processes test at the same time. For a quarter of its time, a process waits for others."""
    return max(1, min(num_cores + num_cores // 2, free_bytes // WORKER_BYTES))


def pytest_collection_finish() -> None:
    """What was imported stays: it is not looked through whenever memory is let go of."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs the tests of a module with `pytestmark = pytest.mark.own_process` in one process that ends with them.

    XLA keeps what it has compiled for as long as the process lives, 50 MB a shape of the augmentation.
    """
    if item.get_closest_marker("own_process") is None or OWN_PROCESS in os.environ:
        return None
    reports = item.session.stash.setdefault(REPORTS, {})
    if item.nodeid not in reports:
        reports.update(reports_of_another_process(item))
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports.pop(item.nodeid):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)  # what the test before left for this one
    return True


def reports_of_another_process(item: pytest.Item) -> dict[str, list[pytest.TestReport]]:
    """Runs all tests of an item's module that were chosen; returns the reports of each by its id."""
    config = item.config
    places = {other.nodeid: other.location for other in item.session.items if other.path == item.path}
    with tempfile.TemporaryDirectory() as folder:
        command = ["-q", "-p", "no:randomly", "-p", "no:xdist", *places]
        command += [f"--hypothesis-{name}={value}" for name in ("profile", "seed") if (value := option(config, name))]
        code = run_in_fork(command, Path(folder), config.rootpath)
        output, lines = (path.read_text() if (path := Path(folder, name)).exists() else "" for name in OUTPUTS)
    reports: dict[str, list[pytest.TestReport]] = {nodeid: [] for nodeid in places}
    for line in lines.splitlines():
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        if isinstance(report.longrepr, list):  # JSON has no tuples; a skipped test's is file, line, reason
            report.longrepr = tuple(report.longrepr)
        reports[report.nodeid].append(report)
    for nodeid, found in reports.items():
        if not any(report.when == "teardown" for report in found):
            why = f"{command}: exit code {code}\n{output}"
            found.append(pytest.TestReport(nodeid, places[nodeid], {}, "failed", why, "call"))
    return reports


def run_in_fork(command: list[str], folder: Path, cwd: Path) -> int:
    """Runs pytest in a process of its own; returns its exit code, and leaves `OUTPUTS` in a folder."""
    output, reports = (folder / name for name in OUTPUTS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with open(output, "w") as file:
        process = ForkedProcess(
            [sys.executable, "-m", "pytest", *command], cwd=cwd, env={**kept, OWN_PROCESS: str(reports)},
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    return process.wait()


def option(config: pytest.Config, name: str) -> str | None:
    return config.getoption(f"--hypothesis-{name}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if (path := os.environ.get(OWN_PROCESS)) and os.getpid() == MAIN_PROCESS:
        with open(path, "a") as file:
            file.write(json.dumps(CONFIG[0].hook.pytest_report_to_serializable(config=CONFIG[0], report=report)) + "\n")


@pytest.fixture(scope="module", autouse=True)
def _module_lets_go() -> Iterator[None]:
    """What Keras has named and what a module's tests hold goes with the module."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session(free_memory=False)
    let_go()


@pytest.fixture(autouse=True)
def _large_test_lets_go() -> Iterator[None]:
    """A test that has taken much gives it back before the next one."""
    before = resident_bytes()
    yield
    if resident_bytes() > before + LARGE_BYTES:
        let_go()


def let_go() -> None:
    """Frees what no test needs any more.

    TensorFlow keeps the gradient of each silu and relu6 that it has ever put into a graph, and with it the graph, the
    model and the optimizer: 80 MB a training of --preset=small. They are none of any graph that is still to come.
    """
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import ops

        registered = ops.gradient_registry._registry
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed in many arenas


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def num_open() -> Callable[[Path], int]:
    """Counts the files at or below a path that this process has open; those of other tests do not disturb it."""

    def count(path: Path) -> int:
        opened = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since, by another thread
                opened += Path(os.readlink(descriptor)).is_relative_to(path.resolve())
        return opened

    return count
