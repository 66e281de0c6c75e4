"""The notebook runs from top to bottom, and shows what it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "simimg" / "docs" / "tour.ipynb"


def shown(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """What each cell of code answers, without pictures; what a training gives depends on the machine's sums."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "run." not in cell.source]
    answers = [[output for output in cell.outputs if output.output_type == "execute_result"] for cell in cells]
    return [[output.data["text/plain"] for output in outputs] for outputs in answers]


def test_the_tour_runs_and_shows_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    there = nbformat.read(TOUR, 4)
    again = nbformat.read(TOUR, 4)
    NotebookClient(again, timeout=500, kernel_name="python3").execute()
    assert sum(map(len, shown(there))) >= 6
    assert shown(again) == shown(there)
    assert not [output for cell in there.cells for output in cell.get("outputs", []) if output.output_type == "error"]
