"""The rules of the house, as shared/DESIGN.md has them, run over the syntax of every module and in a clean process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("tfrecords", "simimg", "benchmarks", "tools")  # the last two are not installed
SOURCES = {path: ast.parse(path.read_text()) for top in TOPS for path in (ROOT / top).rglob("*.py")}
MAX_LINES = 400
TENSORFLOW = {"tensorflow", "keras", "tensorflow_datasets", "tensorboard"}
# What a module may do at its top besides naming things, which is to say: nothing.
DEFINITIONS = (
    ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
)  # fmt: skip
# Names that a value at the top of a module may not be computed with; the clean process below sees what else goes wrong.
DOING = {"absl", "exec", "flags", "importlib", "keras", "open", "os", "print", "shutil", "subprocess", "sys", "tf"}


def name_of(path: Path) -> str:
    """Returns the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Yields every module that `path` imports, anywhere in it, `from a import b` as `a.b`."""
    for node in ast.walk(SOURCES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where things come from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, *packages: str) -> bool:
    """Tells whether `name` is one of `packages` or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(package: str, is_wrong) -> list[str]:
    """Returns `module imports name` for every wrong import in a package, and checks that there was one to look at."""
    modules = [path for path in SOURCES if below(name_of(path), package)]
    assert modules, f"there is no package {package} any more"
    return [f"{name_of(path)} imports {name}" for path in modules for name in imports(path) if is_wrong(name)]


def test_tfrecords_knows_neither_tensorflow_nor_simimg() -> None:
    assert not offences("tfrecords", lambda name: below(name, "simimg", "absl", *TENSORFLOW))


def test_tfrecords_imports_neither_in_a_clean_process(tmp_path: Path) -> None:
    modules = sorted(name_of(path) for path in SOURCES if below(name_of(path), "tfrecords"))
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = clean_process(code, tmp_path)
    there = set(done.split())
    assert "tfrecords" in there
    assert not there & {"simimg", "absl", *TENSORFLOW}


def test_absl_flags_are_only_known_at_the_edge() -> None:
    edge = ("simimg.cli", "simimg.commands", "simimg.flags")  # the last one defines flags in the programs of users
    inner = [path for path in SOURCES if not below(name_of(path), *edge)]
    assert not [path for path in inner if any(below(name, "absl") for name in imports(path))]
    assert any(below(name, "absl.flags") for name in imports(ROOT / "simimg/cli.py"))  # the rule can still be broken


def test_input_knows_of_tfrecords_only_the_format() -> None:
    wrong = offences("simimg.input", lambda name: below(name, "tfrecords") and not below(name, "tfrecords.format"))
    assert not wrong
    others = offences(
        "simimg.input", lambda name: below(name, "simimg") and not below(name, "simimg.input", "simimg.errors")
    )
    assert not others


@pytest.mark.parametrize("package", ["simimg.augment", "simimg.models"])
def test_augment_and_models_know_of_tensorflow_only(package: str) -> None:
    allowed = {*sys.stdlib_module_names, "tensorflow", "keras", "numpy"}
    # Models, and what was measured of a GPU, are written and read with the functions that write dataset folders, the
    # latter in the user's cache folder. The size of an image is one notion of both packages. These are modules of the
    # standard library alone.
    modules = ("format.atomic_files", "format.image_size", "machine_limits")
    ours = (package, "simimg.errors", *(f"tfrecords.{module}" for module in modules))

    def is_wrong(name: str) -> bool:
        return name.partition(".")[0] not in allowed and not below(name, *ours)

    assert not offences(package, is_wrong)


def test_the_search_page_asks_search_alone_and_nobody_else_knows_of_servers() -> None:
    allowed = ("simimg.web", "simimg.health", "simimg.similarity", "simimg.errors", "simimg.image_files")
    assert not offences("simimg.web", lambda name: below(name, "simimg") and not below(name, *allowed))
    assert not offences("simimg.web", lambda name: below(name, *TENSORFLOW))
    inner = [path for path in SOURCES if not below(name_of(path), "simimg.web", "simimg.commands.serve")]
    servers = ("starlette", "uvicorn", "simimg.web")
    assert not [path for path in inner if any(below(name, *servers) for name in imports(path))]


def test_nobody_imports_the_commands() -> None:
    inner = [path for path in SOURCES if not below(name_of(path), "simimg.cli", "simimg.commands")]
    assert not [path for path in inner if any(below(name, "simimg.commands") for name in imports(path))]


def test_engines_are_small_and_known_to_one_function_alone() -> None:
    """Another engine is another module like these, and a line of `open_runner`."""
    workers = ROOT / "tfrecords" / "convert" / "workers"
    engines = [workers / f"{name}.py" for name in ("pool", "ray_runner", "beam_runner")]
    assert all(len(path.read_text().splitlines()) < 150 for path in engines)
    others = [path for path in SOURCES if path not in engines and below(name_of(path), "tfrecords", "simimg")]
    names = tuple(map(name_of, engines))
    knowing = {path for path in others if any(below(name, *names) for name in imports(path))}
    assert knowing == {workers / "runner.py", workers / "ray_attempts.py"}  # the second one, as a part of Ray's


def test_the_product_imports_nothing_that_only_measures_or_draws() -> None:
    """`benchmarks` and `tools` are not installed; `simimg.bench` is for the command of that name."""
    product = [path for path in SOURCES if below(name_of(path), "tfrecords", "simimg")]
    assert not [path for path in product if any(below(name, "benchmarks", "tools") for name in imports(path))]
    measuring = [path for path in product if name_of(path).startswith(("simimg.bench", "simimg.commands.bench"))]
    assert {"simimg.commands.bench", "simimg.bench"} <= {name_of(path) for path in measuring}
    others = [path for path in product if path not in measuring]
    assert not [path for path in others if any(below(name, "simimg.bench") for name in imports(path))]


def test_no_module_is_named_after_nothing() -> None:
    names = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [path for path in SOURCES if path.stem in names or path.parent.name in names]


def test_only_commands_print() -> None:
    for path, tree in SOURCES.items():
        if below(name_of(path), "simimg.commands"):
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        assert "print" not in [call.func.id for call in calls], path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_only_defines_names_and_is_short(path: Path) -> None:
    num_lines = len(path.read_text().splitlines())
    assert num_lines <= MAX_LINES, f"{path} has {num_lines} lines; split it"
    for node in SOURCES[path].body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{path}:{node.lineno} is a statement"
        elif isinstance(node, ast.If):
            test = ast.unparse(node.test)
            assert test in ("TYPE_CHECKING", "__name__ == '__main__'"), f"{path}:{node.lineno}: if {test}"
        elif isinstance(node, ast.With):
            assert below(name_of(path), "simimg.commands"), f"{path}:{node.lineno}: `with` while it is imported"
            assert all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body), f"{path}:{node.lineno}"
        else:
            assert isinstance(node, DEFINITIONS), f"{path}:{node.lineno}: {type(node).__name__}"
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            called = {ast.unparse(call.func).partition(".")[0] for call in calls(node.value)}
            assert not called & DOING, f"{path}:{node.lineno} does something while it is imported"


def calls(value: ast.expr) -> Iterator[ast.Call]:
    """Yields the calls that are made when an expression is evaluated: none inside a lambda."""
    if isinstance(value, ast.Lambda):
        return
    if isinstance(value, ast.Call):
        yield value
    for child in ast.iter_child_nodes(value):
        yield from calls(child)  # type: ignore[arg-type]


def test_importing_everything_starts_nothing(tmp_path: Path) -> None:
    """No flag is defined, no device taken, no file written: whoever imports simimg may still set TensorFlow up."""
    modules = sorted(name_of(path) for path in SOURCES if path.name != "__main__.py")
    code = f"""
import importlib, os
from absl import flags
import tensorflow as tf
before = set(flags.FLAGS)
for name in {modules}:
    importlib.import_module(name)
print("flags", *sorted(set(flags.FLAGS) - before))
tf.config.set_logical_device_configuration(  # raises once TensorFlow has taken its devices
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
print("devices", len(tf.config.list_logical_devices("CPU")))
print("files", *os.listdir("."))
"""
    assert clean_process(code, tmp_path).splitlines() == ["flags", "devices 2", "files"]


def clean_process(code: str, folder: Path) -> str:
    """Returns what a fresh interpreter prints that runs `code` in `folder`."""
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# Modules below MIN_LINES whose docstring does not say why they stand alone. The set may only shrink: merge a module
# into its neighbor, or end its docstring with a sentence that begins "A module of its own because".
CRUMBS: set[str] = set()
MIN_LINES = 40
# One module for each command and each preset, whose name users give; the docstrings of both packages say so.
FOUND_BY_NAME = ("simimg.commands", "simimg.presets")


def test_no_two_modules_have_the_same_name() -> None:
    """So an editor's file search answers once; `__init__` aside."""
    paths: dict[str, list[str]] = {}
    for path in SOURCES:
        if path.name != "__init__.py":
            paths.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert not [found for found in paths.values() if len(found) > 1]


def test_a_module_is_no_crumb() -> None:
    small = set()
    for path, tree in SOURCES.items():
        is_entry = path.name in ("__init__.py", "__main__.py") or below(name_of(path), *FOUND_BY_NAME)
        reason = "A module of its own because" in " ".join((ast.get_docstring(tree) or "").split())
        if not is_entry and not reason and len(path.read_text().splitlines()) < MIN_LINES:
            small.add(str(path.relative_to(ROOT)))
    assert not small - CRUMBS, f"merge these into a neighbor, or say why not: {sorted(small - CRUMBS)}"
    assert not CRUMBS - small, f"these are no crumbs any more; remove them from CRUMBS: {sorted(CRUMBS - small)}"


# Packages that count as one: readers need the split and the order, and the pipeline needs the readers.
AS_ONE = {"simimg.input.readers": "simimg.input"}
PACKAGES = {name_of(path) for path in SOURCES if path.name == "__init__.py"}


def package_of(name: str) -> str:
    """Returns the package that an imported name belongs to; a module beside the packages is one by itself."""
    parts = name.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 1, -1))
    found = next((package for package in names if package in PACKAGES), ".".join(parts[:2]))
    return AS_ONE.get(found, found)


def test_no_circle_among_packages() -> None:
    """Imports for type checking included."""
    needs: dict[str, set[str]] = {}
    for path in SOURCES:
        package = package_of(name_of(path))
        needs.setdefault(package, set()).update(
            package_of(name) for name in imports(path) if below(name, "simimg") and name.count(".")
        )

    def reachable(package: str) -> set[str]:
        found, waiting = set(), [package]
        while waiting:
            new = needs.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    reach = {package: reachable(package) for package in needs}
    circles = {
        frozenset({package, other})
        for package in needs
        for other in reach[package] - {package}
        if package in reach.get(other, ())
    }
    assert not circles
