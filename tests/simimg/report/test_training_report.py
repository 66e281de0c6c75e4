"""The report of a run and the one of several: what they show, and that they take whatever they are given."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from simimg.report.contact_sheet import Tile
from simimg.report.training_report import RunGroup, TrainingContent, write_comparison, write_training_report

HOSTILE = '<script>alert("x")</script>\u202e&'
HISTORY = [
    {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "validation_loss": 1.1, "validation_accuracy": 0.4},
    {"epoch": 2, "loss": 0.5, "accuracy": 0.7, "validation_loss": 0.9, "validation_accuracy": 0.6},
]


def content(**changes: Any) -> TrainingContent:
    given: dict[str, Any] = {
        "name": "run",
        "dataset": "10 photos",
        "model_dir": "runs/run",
        "command": "simimg train",
        "split": "",
        "classification": None,
        "mistakes": [],
        "history": HISTORY,
        "epoch": 2,
        "facts": {"images/s": "12"},
        "augmented": [],
        "options": {"seed": "3"},
        "machine": {},
    }
    return TrainingContent(**{**given, **changes})


def written(path: Path, **changes: Any) -> str:
    write_training_report(content(**changes), path)
    return path.read_text()


def test_a_run_without_a_split_to_measure(tmp_path: Path) -> None:
    page = written(tmp_path / "new" / "report.html")
    assert "Evaluation" not in page
    assert "Kept: the weights after epoch 2 of 2." in page
    assert page.count("<polyline") == 4
    assert 'class="validation"' in page
    assert "<th>seed</th><td>3</td>" in page


def test_changed_options_come_before_all_of_them(tmp_path: Path) -> None:
    page = written(tmp_path / "report.html", options={"seed": "3", "epochs": "9"}, changed={"epochs": "9"})
    assert page.index("Changed by you") < page.index("<th>epochs</th><td>9</td>") < page.index("All 2 options")
    assert page.index("All 2 options") < page.index("<th>seed</th><td>3</td>")
    assert "All options have their defaults." in written(tmp_path / "report.html")


def test_texts_are_no_html(tmp_path: Path) -> None:
    tile = Tile(Image.new("RGB", (8, 8)), HOSTILE, HOSTILE)
    page = written(
        tmp_path / "report.html",
        name=HOSTILE,
        dataset=HOSTILE,
        command=HOSTILE,
        facts={HOSTILE: HOSTILE},
        augmented=[[tile, tile]],
        options={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
    )
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def group(name: str, accuracies: list[float], **changes: Any) -> RunGroup:
    given: dict[str, Any] = {
        "name": name,
        "differs": {"preset": "small"},
        "seeds": list(range(len(accuracies))),
        "histories": [[{"epoch": 1, "test_accuracy": value, "test_loss": 1.0}] for value in accuracies],
        "scores": accuracies,
        "seconds": [10.0] * len(accuracies),
    }
    return RunGroup(**{**given, **changes})


def test_mean_and_deviation() -> None:
    runs = group("a", [0.9, 0.8, 0.85])
    assert runs.mean == pytest.approx(0.85)
    assert runs.deviation == pytest.approx(0.05)
    assert group("a", [0.9]).deviation is None


def test_runs_compared(tmp_path: Path) -> None:
    groups = [
        group(HOSTILE, [0.9, 0.8], differs={HOSTILE: HOSTILE}, unlike={HOSTILE: HOSTILE}),
        *(group(f"kind{n}", [0.7]) for n in range(8)),
    ]
    write_comparison(groups, "test", tmp_path / "compared.html")
    page = (tmp_path / "compared.html").read_text()
    assert "10 runs in 9 groups" in page
    assert "<script>alert" not in page
    assert page.count("<polyline") == 2 * 7  # of the first six kinds
    assert page.count("<tr>") == 10
    assert "–" in page  # the deviation of a single run


def test_groups_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    groups = [group("run", [0.9], unlike={"epochs": "8"}), group("run", [0.8], unlike={"epochs": "12"})]
    write_comparison(groups, "test", tmp_path / "compared.html", common={"preset": "small"})
    page = (tmp_path / "compared.html").read_text()
    assert "<th>epochs</th>" in page
    assert page.index("<td>8</td>") < page.index("<td>12</td>")
    assert "<th>preset</th><td>small</td>" in page
    assert all(f'class="key of{number}">{letter}</b>' in page for number, letter in enumerate("AB"))
    assert all(f'class="label run of{number}"' in page for number in (0, 1))


def test_further_figures_and_failed_runs(tmp_path: Path) -> None:
    groups = [
        group("one", [0.9, 0.8], figures={"macro_f1": [0.7, 0.6]}),
        group("two", [0.5], figures={"macro_f1": [0.4]}),
    ]
    names = {"macro_f1": "macro F1"}
    write_comparison(groups, "test", tmp_path / "compared.html", figures=names, failed={"three": HOSTILE}, title="lr")
    page = (tmp_path / "compared.html").read_text().replace("\u00a0", " ")
    assert "<h1>lr</h1>" in page
    assert ">Macro F1</th>" in page
    assert 'class="key of0">A</b> one</td>' in page
    assert "65.0 % ± 7.1" in page
    assert ">40.0 %<" in page
    assert "Failed runs" in page
    assert "<script>alert" not in page
