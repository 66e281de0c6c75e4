"""A converted network is kept; a file that is missing, damaged, old or cannot be written is no error."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from simimg.errors import ModelError
from simimg.inference import conversion, network_cache
from simimg.inference.network_cache import ConvertedNetwork, NetworkFacts, converted_network
from simimg.models.model_folder import save_folder, save_model

from .conftest import info, tiny

CACHE_OF_ALL = os.environ["XDG_CACHE_HOME"]  # where other tests have lite0 already
Counted = Callable[[], int]


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Returns the number of conversions so far, which only take the weights for the network, because one takes 2 s."""
    calls = []

    def convert(model: str, output: str, **options: str) -> tuple[bytes, NetworkFacts]:
        calls.append((model, output))
        weights = hashlib.sha256((Path(model) / "model.keras").read_bytes())
        return weights.digest() * 100, NetworkFacts(weights.hexdigest(), 32, 192 if output == "embedding" else 5, 0.0)

    monkeypatch.setattr(conversion, "convert_network", convert)
    return lambda: len(calls)


def test_a_network_is_converted_once_per_output(model_dir: Path, conversions: Counted) -> None:
    first = converted_network(str(model_dir), "embedding")
    assert converted_network(str(model_dir), "embedding") == first
    assert conversions() == 1
    assert (first.facts.dim, first.facts.image_size, first.facts.refused) == (192, 32, "")
    assert converted_network(str(model_dir), "probabilities").facts.dim == 5
    assert conversions() == 2
    assert {path.name for path in model_dir.glob("*.tflite")} == {"embedding.tflite", "probabilities.tflite"}


def test_the_file_is_one_for_litert_and_for_zip(model_dir: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    facts = converted_network(str(model_dir), "embedding").facts
    assert (facts.dim, facts.image_size, facts.refused) == (8, 32, "")
    assert 0 < facts.largest_difference < 1e-5
    Interpreter(model_path=str(model_dir / "embedding.tflite")).allocate_tensors()
    assert zipfile.ZipFile(model_dir / "embedding.tflite").namelist() == ["simimg.json"]


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text", "flipped", "metadata", "library"])
def test_a_file_that_cannot_be_used_is_made_again(
    model_dir: Path, conversions: Counted, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = converted_network(str(model_dir), "embedding")
    path = model_dir / "embedding.tflite"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "library":
        monkeypatch.setattr(network_cache, "_FORMAT", 2)
        network_cache._made_by.cache_clear()
    else:
        data[1000] ^= 1
        contents = {"empty": b"", "half": data[: len(data) // 2], "text": b"<html>", "flipped": bytes(data)}
        contents["metadata"] = bytes(data).replace(b'"facts"', b'"fakes"')
        path.write_bytes(contents[damage])
    assert converted_network(str(model_dir), "embedding") == whole
    assert conversions() == 2
    assert converted_network(str(model_dir), "embedding") == whole
    assert conversions() == 2
    monkeypatch.undo()
    network_cache._made_by.cache_clear()


def test_other_weights_are_another_network(model_dir: Path, conversions: Counted) -> None:
    before = converted_network(str(model_dir), "embedding")
    copied = shutil.copytree(model_dir, model_dir.with_name("copied"))  # its times are the same
    os.utime(copied / "model.keras")
    assert converted_network(str(copied), "embedding") == before
    assert conversions() == 1
    keras.utils.set_random_seed(4)
    save_model(model_dir, tiny())
    after = converted_network(str(model_dir), "embedding")
    assert conversions() == 2
    assert after.facts.fingerprint != before.facts.fingerprint
    assert after.content != before.content


def full(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_model_folder_that_cannot_be_written(
    model_dir: Path, cache: Path, conversions: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes to the user's cache."""
    atomic_file = network_cache.atomic_file

    def read_only(path: Path, **options: bool):  # type: ignore[no-untyped-def]
        if path.parent == model_dir:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return atomic_file(path, **options)

    monkeypatch.setattr(network_cache, "atomic_file", read_only)
    first = converted_network(str(model_dir), "embedding")
    assert converted_network(str(model_dir), "embedding") == first
    assert conversions() == 1
    assert not list(model_dir.glob("*.tflite"))
    (kept,) = cache.iterdir()
    assert kept.name.endswith("-embedding.tflite")


def test_a_full_disk_is_no_error(
    model_dir: Path, conversions: Counted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network_cache, "atomic_file", full)
    assert converted_network(str(model_dir), "embedding").content
    message = caplog.records[-1].getMessage()
    assert "each command converts it again" in message
    assert "No space left on device. Set XDG_CACHE_HOME to" in message
    assert converted_network(str(model_dir), "embedding").content
    assert conversions() == 2
    assert not [path for path in model_dir.rglob("*") if ".tmp-" in path.name]


def test_without_a_home_a_model_folder_is_enough(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/dev/null")
    assert converted_network(str(model_dir), "embedding").content


def test_a_child_process_converts_without_tensorflow_here(model_dir: Path) -> None:
    """The network is that which a process with TensorFlow makes; several processes at once make one."""
    code = """
import sys
from simimg.inference.network_cache import converted_network
content = converted_network(sys.argv[1], "embedding").content
assert not {"tensorflow", "keras"} & set(sys.modules)
import hashlib
print(hashlib.sha256(content).hexdigest())
"""
    command = [sys.executable, "-c", code, str(model_dir)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(printed) == 1
    (file,) = model_dir.glob("*.tflite")
    content = file.read_bytes()
    (file.parent / file.name).unlink()
    assert converted_network(str(model_dir), "embedding").content
    assert file.read_bytes() == content


def died(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.CompletedProcess(command, -9, b"", b"")


def test_a_child_process_that_is_killed(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes on by TensorFlow, and the next command tries again."""
    monkeypatch.setattr(subprocess, "run", died)
    monkeypatch.delitem(sys.modules, "tensorflow")
    found = converted_network(str(model_dir), "embedding")
    assert found.facts.refused == "the process that converted it ended with signal 9"
    assert not list(model_dir.glob("*.tflite"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_the_child_is_one_of_the_command(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A terminal sends Ctrl-C to both; TensorFlow is not started instead."""
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, -number))
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(KeyboardInterrupt):
        converted_network(str(model_dir), "embedding")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_fault_of_the_machine_is_not_kept(model_dir: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def fail(self: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tf.lite.TFLiteConverter.from_concrete_functions.__self__, "convert", fail)
        assert converted_network(str(model_dir), "embedding").facts.refused
    assert not list(model_dir.glob("*.tflite"))
    assert not converted_network(str(model_dir), "embedding").facts.refused


def test_what_the_caller_computes_in_is_not_what_a_network_is_converted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        converted = converted_network("lite0", "embedding")
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(policy)
    assert converted.facts.refused == ""
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE_OF_ALL)
    assert converted_network("lite0", "embedding") == converted


def test_files_of_the_current_folder_are_no_modules(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('of the user')")
    code = "import sys; from simimg.inference.network_cache import converted_network as c; c(sys.argv[1], 'embedding')"
    command = [sys.executable, "-P", "-c", code, str(model_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (model_dir / "embedding.tflite").is_file()


def test_weights_of_the_same_size_and_mtime_are_other_weights(model_dir: Path, conversions: Counted) -> None:
    before, times = converted_network(str(model_dir), "embedding"), (model_dir / "model.keras").stat()
    keras.utils.set_random_seed(5)
    save_model(model_dir, tiny())
    os.utime(model_dir / "model.keras", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (model_dir / "model.keras").stat().st_size == times.st_size
    assert converted_network(str(model_dir), "embedding").facts.fingerprint != before.facts.fingerprint
    assert conversions() == 2


def test_a_cache_that_is_no_absolute_path_is_not_used(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As that of a user without a home; a folder named ~ would invite to remove the wrong one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    assert converted_network("lite0", "embedding").content  # which has no folder of its own
    assert not (tmp_path / "~").exists()
    assert "Set XDG_CACHE_HOME to a folder that can be written" in caplog.records[-1].getMessage()


def test_weights_that_cannot_be_loaded(model_dir: Path, tmp_path: Path) -> None:
    """One sentence, from this process and from the one that converts."""
    whole = (model_dir / "model.keras").read_bytes()
    (model_dir / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded: .*\. Train or import it again\.$"):
        converted_network(str(model_dir), "embedding")
    code = """
import sys
from simimg.cli import main
sys.exit(main(["index", f"--model={sys.argv[1]}", f"--image_dir={sys.argv[1]}", f"--index_dir={sys.argv[2]}"]))
"""
    command = [sys.executable, "-c", code, str(model_dir), str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert "converting the network" in lines[0]
    assert "model.keras cannot be loaded: " in lines[1]


def test_an_imported_model_keeps_its_fingerprint(tmp_path: Path) -> None:
    """The times in its file differ, its weights do not."""
    keras.utils.set_random_seed(3)
    model = tiny()
    facts = []
    for name in ("one", "two"):
        save_folder(tmp_path / name, model, info(class_names=()))
        facts.append(converted_network(str(tmp_path / name), "embedding").facts)
    assert facts[0] == facts[1]


def test_a_conversion_in_memory_compares_by_value() -> None:
    facts = network_cache.NetworkFacts("f", 32, 8, 0.0)
    assert ConvertedNetwork(facts, b"a") == ConvertedNetwork(facts, b"a")
