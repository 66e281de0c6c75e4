"""The command: keys, exit codes, what people read; and a dataset's health."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from simimg import doctor
from simimg.cli import main
from simimg.commands import doctor as command
from simimg.doctor import CheckResult, check_dataset
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

KEYS = {"simimg", "tensorflow", "gpus", "versions", "gpu", "machine", "disk", "limits", "notes", "problems"}


def check(folder: Path, **changes: Any) -> CheckResult:
    return check_dataset(folder, **{"num_cores": 2, "max_open_files": 20_000, **changes})


@pytest.fixture
def folder(datasets: dict[str, Path], tmp_path: Path) -> Path:
    """A dataset, to be spoiled."""
    return Path(shutil.copytree(datasets["jpeg"], tmp_path / "set"))


def test_command(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On this machine, whatever is wrong with it."""
    monkeypatch.chdir(tmp_path)
    code = main(["doctor", f"--dataset_dir={datasets['raw']}", "--json"])
    out = capsys.readouterr().out
    values = json.loads(out)
    assert out.count("\n") == 1
    assert set(values) == KEYS | {"dataset"}
    assert code == (2 if values["problems"] else 0)
    assert values["dataset"]["splits"] == {"train": 54, "test": 18}
    assert values["disk"]["write_mb_per_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--dataset_dir=/nowhere"]) == 2
    assert "--dataset_dir=/nowhere is not a folder" in capsys.readouterr().err


def test_text_and_exit_code() -> None:
    def found(problems: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> dict[str, CheckResult]:
        return {
            "versions": CheckResult(title="software", facts={"tensorflow": "2.21.0"}, rows=(("simimg", "1"),)),
            "gpu": CheckResult(
                title="GPUs", facts={"gpus": []}, rows=(("longer name", "2"),), problems=problems, notes=notes
            ),
        }

    well = command.result_of(found())
    assert well.exit_code == 0
    assert well.text == "software\n  simimg       1\n\nGPUs\n  longer name  2\n\nno problems"
    ill = command.result_of(found(("it is broken: mend it",), ("it is old.",)), ["no weights."])
    assert ill.exit_code == 1
    assert ill.text.endswith("notes\n  it is old.\n\n2 problems\n  it is broken: mend it\n  no weights.")
    assert ill.values["problems"] == ["it is broken: mend it", "no weights."]
    assert command.result_of(found(("one.",))).text.endswith("1 problem\n  one.")


def test_names_are_those_of_the_package() -> None:
    for name in doctor.__all__:
        assert hasattr(doctor, name)


# A dataset


def test_a_sound_data_set(datasets: dict[str, Path]) -> None:
    found = check(datasets["raw"])
    assert found.problems == ()
    assert found.facts["num_classes"] == 3
    rows = dict(found.rows)
    assert rows["images"] == "72 of 32 px, raw, 3 classes"
    assert rows["train"] == "54 in 1 shard"
    assert rows["rejected"] == "0 (0.0%)"
    assert found.notes == (f"shards were not read; simimg verify --dataset_dir={datasets['raw']} checks every byte.",)


def test_shards_that_are_missing_or_cut(folder: Path) -> None:
    train, test = sorted(folder.glob("*train.tfrecord-0*0?")), sorted(folder.glob("*test.tfrecord-0*0?"))
    train[0].write_bytes(train[0].read_bytes()[:-1])
    test[0].unlink()
    missing, cut = check(folder).problems
    assert missing.startswith(f"1 of 2 shards of {folder} are missing ({test[0].name})")
    assert f"{train[0].name} has " in cut
    assert "simimg convert" in cut


def test_a_folder_without_a_data_set(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert found.facts["opens"] is False
    (problem,) = found.problems
    assert str(tmp_path / "layout.json") in problem


def test_a_data_set_without_a_test_split(photos: Path, tmp_path: Path) -> None:
    made = convert(
        ConvertConfig(
            image_dir=str(photos), data_dir=tmp_path, name="one", image_size=8, splits="train=1", num_workers=1
        )
    )
    (problem,) = check(made.dataset_dir).problems
    assert problem.startswith(f"the split test of {made.dataset_dir} is missing")
    assert "--splits=train=0.75,test=0.25" in problem


def test_many_refused_files(photos: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(photos, pictures)
    for number in range(8):
        (pictures / "discs" / f"broken{number}.png").write_bytes(b"no picture")
    made = convert(ConvertConfig(image_dir=str(pictures), data_dir=tmp_path, image_size=8, num_workers=1))
    (problem,) = check(made.dataset_dir).problems
    assert problem.startswith("8 of 80 files were rejected (10%)")
    assert "--append" in problem


def test_more_shards_than_open_files(datasets: dict[str, Path]) -> None:
    (problem,) = check(datasets["png"], max_open_files=200).problems
    assert "2 shards, but only 200 files may be open" in problem
    assert "ulimit -n 516" in problem
    assert check(datasets["png"], max_open_files=-1).problems == ()


def test_a_data_set_on_a_network(datasets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("22 1 0:21 / / rw - nfs4 host:/ rw\n")
    notes = check(datasets["raw"], mounts=tmp_path / "mountinfo").notes
    assert "network file system (nfs4)" in notes[0]


def test_a_data_set_of_others(folder: Path) -> None:
    (folder / "layout.json").unlink()
    found = check(folder)
    assert found.problems == ()
    assert found.facts["splits"] == {"train": 54, "test": 18}
    assert "written by another program" in found.notes[0]
